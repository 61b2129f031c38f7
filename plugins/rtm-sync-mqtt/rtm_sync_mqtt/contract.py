"""The contract between a connection and its session: exceptions, messages and callbacks."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rtm_sync.protocol import MessageFromPeer, ProtocolError, Request, decode_json
from rtm_sync.rules.timing import Deadline

T = TypeVar("T")
logger = logging.getLogger(__name__)


class ConnectionLost(Exception):
    """The connection was lost before the broker answered; a retry may succeed."""

    def __init__(self) -> None:
        super().__init__("the connection was lost")


class SessionOver(Exception):
    """The session has ended; the message gives the reason."""


class Refused(Exception):
    """The broker refused a subscription or a message; the message is the broker's reason."""


class LoggedInElsewhere(Exception):
    """The user has logged in again from elsewhere."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message from the broker.

    Attributes:
        is_retained: whether the broker had stored the message earlier.
        response_topic, correlation: the topic and the correlation data for an answer.
    """

    topic: str
    payload: bytes
    is_retained: bool
    response_topic: str
    correlation: bytes


class SessionCallbacks(Protocol):
    """The session that a connection serves. Called on the reader thread."""

    def on_new_session(self, *, first: bool, deadline: Deadline) -> None:
        """Subscribe in a new session on the broker. May block in `Connection.wait`.

        Raises:
            LoggedInElsewhere, Refused, ConnectionLost, TimeoutError: the session cannot continue.
        """

    def on_connected(self, *, first: bool, resumed: bool) -> None:
        """Handle the new connection, after the state CONNECTED was reported."""

    def take(self, arrived: Arrived) -> None:
        """Handle a message that arrived. Does not block."""

    def lost(self, error: Exception) -> None:
        """Fail every future that waits for an answer."""


def resolve(future: Future[T], value: T) -> None:
    """Set a future's result, unless the future is done or cancelled."""
    with suppress(InvalidStateError):
        future.set_result(value)


def fail(future: Future[T], error: Exception) -> None:
    """Set a future's exception, unless the future is done or cancelled."""
    with suppress(InvalidStateError):
        future.set_exception(error)


def decoded(kind: type[T], arrived: Arrived) -> T | None:
    """What arrived, or None for what is no such message."""
    try:
        return decode_json(kind, arrived.payload)
    except ProtocolError as error:
        logger.warning("the payload on topic %r is not a message: %s", arrived.topic, error)
        return None


def is_of(sender: str, named: str, arrived: Arrived) -> bool:
    """Whether what arrived names the user in its topic, who alone may write there."""
    if sender != named:
        logger.warning("what %r sent on %r is not its own", sender[:64], arrived.topic[:300])
    return sender == named


def sent_at(arrived: Arrived) -> int:
    """When a message to a peer was sent, milliseconds since the epoch."""
    message = decoded(MessageFromPeer, arrived)
    return 0 if message is None else message.message_props.server_received_ts


def timed_out(request: Request[Any], timeout: float) -> Exception:
    """The error of a call without an answer."""
    return request.ERROR.named(
        "TIMEOUT", f"{request.METHOD} was not answered within {timeout:g} seconds."
    )


def now_ms() -> int:
    """The wall clock, milliseconds since the epoch."""
    return int(time.time() * 1000)
