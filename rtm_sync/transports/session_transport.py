"""The base of the built-in transports: one login at a time, and its connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from ..errors import LoginError, RtmError
from ..transfers.control import TransferControl
from .base import Transport
from .session import ClientSession

_ACKNOWLEDGE_HANDLED = 32


class SessionConnection(Protocol):
    """The connection of one login."""

    @property
    def session(self) -> ClientSession: ...

    def give_up(self, error: BaseException) -> None:
        """End a login that failed. Idempotent."""

    def stop(self) -> None:
        """End the login. Idempotent: a second call completes an interrupted first one."""


C = TypeVar("C", bound=SessionConnection)


class SessionTransport(Transport, Generic[C]):
    """Holds the connection of the current login. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _connection and _listens
        self._connection: C | None = None
        self._listens = True

    def close(self) -> None:
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.stop()
            self._forget(connection)

    def set_listening(self, listens: bool) -> None:
        with self._lock:
            self._listens = listens
            connection = self._connection
        if connection is not None:
            connection.session.set_listening(listens)

    def messages_handled(self, keys: Sequence[int]) -> None:
        connection = self._connection
        if connection is not None:
            connection.session.messages_handled(keys)

    def event_handled(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.session.acknowledge(_ACKNOWLEDGE_HANDLED)

    def _log_in(self, connection: C, start: Callable[[], object]) -> None:
        """Hold a new connection, and start it. When that fails, it is ended and forgotten.

        Raises:
            LoginError: there is a login already, or `start` raised the error.
        """
        try:
            with self._lock:
                if self._connection is not None:
                    raise LoginError.named("ALREADY_LOGIN", "This client is logged in already.")
                self._connection = connection
                connection.session.set_listening(self._listens)
            start()
        except BaseException as error:
            connection.give_up(error)
            self._forget(connection)
            raise

    def _logged_in(self, family: type[RtmError]) -> C:
        """The connection.

        Raises:
            RtmError: USER_NOT_LOGGED_IN, of that family.
        """
        connection = self._connection
        if connection is None:
            raise family.named("USER_NOT_LOGGED_IN", "Log in first.")
        return connection

    def _connected(self, control: TransferControl) -> C:
        """The connection for a transfer.

        Raises:
            RtmError: NOT_LOGGED_IN, of the transfer's family.
        """
        connection = self._connection
        if connection is None:
            raise control.kind.error("NOT_LOGGED_IN", "Log in first.")
        return connection

    def _forget(self, connection: C) -> None:
        """Drop a connection that has ended; until then another `close` can go on ending it."""
        with self._lock:
            if self._connection is connection:
                self._connection = None
