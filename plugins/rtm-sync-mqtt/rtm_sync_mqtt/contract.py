"""The contract between a connection and its session: exceptions, messages and callbacks."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rtm_sync.rules.timing import Deadline

T = TypeVar("T")


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
