"""What passes between a broker's connection and the session that it serves."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rtm_sync.rules.timing import Deadline

T = TypeVar("T")


class ConnectionLost(Exception):
    """The connection went away before the broker answered; on the next it may."""

    def __init__(self) -> None:
        super().__init__("the connection was lost")


class SessionOver(Exception):
    """The session has ended; the text says why."""


class Refused(Exception):
    """The broker refused a subscription or a message; the text is its reason."""


class LoggedInElsewhere(Exception):
    """A later login of the user is there."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message from the broker.

    Attributes:
        is_retained: the broker kept it; it was not published just now.
        response_topic, correlation: where and under which mark an answer is wanted.
    """

    topic: str
    payload: bytes
    is_retained: bool
    response_topic: str
    correlation: bytes


class Guest(Protocol):
    """The session that a connection serves. Called on the reader thread."""

    def greet(self, *, first: bool, deadline: Deadline) -> None:
        """Subscribe: the broker has a new session of ours. May wait by `Connection.wait`.

        Raises:
            LoggedInElsewhere, Refused, ConnectionLost, TimeoutError: it cannot go on.
        """

    def greeted(self, *, first: bool, resumed: bool) -> None:
        """The state is CONNECTED, and was reported."""

    def take(self, arrived: Arrived) -> None:
        """A message arrived. Does not wait."""

    def lost(self, error: Exception) -> None:
        """Fail everything that waits for an answer: none comes."""


def settle(future: Future[T], value: T) -> None:
    """Give a future its result, unless it was cancelled."""
    with suppress(InvalidStateError):
        future.set_result(value)


def fail(future: Future[T], error: Exception) -> None:
    """Give a future its exception, unless it was cancelled."""
    with suppress(InvalidStateError):
        future.set_exception(error)
