"""The connection of one login to a broker, across reconnects. It does not interpret messages.

Only the reader thread uses paho. Other threads put packets into a queue and wait on futures for the
broker's answers.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar, cast

from rtm_sync.errors import LoginError
from rtm_sync.protocol import ConnectionChangeReason
from rtm_sync.rules.lifecycle import Lifecycle
from rtm_sync.rules.timing import Backoff, Deadline
from rtm_sync.supervision import BackgroundThread, supervised_thread
from rtm_sync.transports.base import Credentials, Listener, TransportOptions
from rtm_sync.transports.gateway.proxy_settings import find_proxy_settings
from rtm_sync.transports.states import StateReports

from .broker_client import (
    FAILED,
    BrokerClient,
    Send,
    publishing,
    subscribing,
    unsubscribing,
)
from .contract import (
    ConnectionLost,
    LoggedInElsewhere,
    Refused,
    SessionCallbacks,
    SessionOver,
    fail,
)
from .names import Address, level_of

_BACKOFF = Backoff(first=0.2, longest=5.0)
_JOIN_TIMEOUT = 2.0
_DISCONNECT_TIMEOUT = 0.5
_TICK = 1.0  # seconds; paho checks its keep-alive only when it is called
_REFUSALS = {
    0x85: "INVALID_ARGUMENT",  # client identifier not valid
    0x86: "INVALID_TOKEN",  # bad user name or password
    0x87: "NOT_AUTHORIZED",
    0x8A: "REJECTED",  # banned
    0x8C: "INVALID_TOKEN",  # bad authentication method
}

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Connection:
    """Connects, logs in, reads, reconnects and reports states. Thread-safe.

    Owns one reader thread, from `start` to `stop` (or until the session is taken over).

    Args:
        name: the session id, which is also the MQTT client id.
        will: the topic of the will; the broker clears it when the session expires.
    """

    def __init__(
        self,
        address: Address,
        options: TransportOptions,
        credentials: Credentials,
        listener: Listener,
        name: str,
        will: str,
    ) -> None:
        self._address = address
        self._options = options
        self._credentials = credentials
        self._listener = listener
        self._name = name
        self._will = will
        self._states = StateReports(Lifecycle(options.reconnecting_after), listener)
        self._stopping = threading.Event()
        self._opened: Future[None] = Future()
        self._online = threading.Event()
        self._over: str | None = None
        self._renewed: str | None = None
        self._lock = threading.Lock()  # guards _work and _reading
        self._work: deque[tuple[Future[int], Send]] = deque()
        self._reading = False
        self._woken: socket.socket | None = None
        self._waker: socket.socket | None = None
        self._thread = BackgroundThread("rtm-sync-reader", self._run)
        self._session: SessionCallbacks | None = None
        # Used by the reader thread alone:
        self._client: BrokerClient | None = None
        self._is_whole = False  # whether the broker's session has all subscriptions
        self._taken_over: ConnectionChangeReason | None = None

    # -- for the transport --

    def start(self, session: SessionCallbacks) -> None:
        """Log in.

        Raises:
            LoginError: the login was refused, timed out or was ended by `stop`, or the broker is
                unreachable.
        """
        self._session = session
        self._states.report(Lifecycle.login_started)
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._reading = True
        try:
            self._thread.start()
        except RuntimeError as error:
            message = f"The login needs a thread: {error}."
            raise LoginError.named("UNKNOWN", message, error) from error
        try:
            self._opened.result(self._options.login_timeout + _TICK)
        except FutureTimeout:
            raise self._timed_out() from None

    def give_up(self, error: BaseException) -> None:
        """End a login that was refused, timed out or was interrupted. Idempotent."""
        self._halt("The login failed.")
        self._states.login_ended(error)

    def stop(self) -> None:
        """Disconnect from the broker and end the thread. Idempotent; never hangs."""
        with contextlib.suppress(InvalidStateError):  # a login may be under way
            self._opened.set_exception(
                LoginError.named("ABORTED_BY_LOGOUT", "The client logged out.")
            )
        self._halt("The client logged out.")
        self._states.report(Lifecycle.logged_out)

    def use_token(self, token: str) -> None:
        """Use this token for the next connection and all later ones."""
        self._renewed = token

    def take_over(self, reason: ConnectionChangeReason) -> None:
        """End the session because a later login replaced it. Called on the reader thread."""
        self._taken_over = reason

    # -- for the session --

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        retain: bool = False,
        expiry: float | None = None,
        answer_to: str | None = None,
        mark: bytes | None = None,
    ) -> Future[int]:
        """Publish at QoS 1. The future's result is the broker's reason code.

        Args:
            retain: whether the broker stores the message; an empty payload deletes the stored one.
            expiry: seconds after which the broker no longer delivers the message.
            answer_to: the response topic, on which a receipt is requested.
            mark: the correlation data of a message or of its receipt.
        """
        return self._submit(
            publishing(topic, payload, retain=retain, expiry=expiry, answer_to=answer_to, mark=mark)
        )

    def subscribe(self, filters: Sequence[str], *, own_too: bool = True) -> Future[int]:
        """Subscribe at QoS 1. The broker sends the retained messages again.

        Args:
            own_too: whether this session also receives its own messages.
        """
        return self._submit(subscribing(filters, own_too=own_too))

    def unsubscribe(self, filters: Sequence[str]) -> Future[int]:
        return self._submit(unsubscribing(filters))

    def wait(self, future: Future[T], deadline: Deadline) -> T:
        """Wait for a future's result. The reader thread reads the socket while it waits.

        Raises:
            TimeoutError: the deadline passed. Also the exception of the future.
        """
        if self._thread.is_current:
            while not future.done():
                if not deadline.left:
                    raise TimeoutError
                self._pump(min(_TICK, deadline.left))
        try:
            return future.result(deadline.left)
        except FutureTimeout:
            raise TimeoutError from None

    def wait_online(self, deadline: Deadline) -> None:
        """Wait until there is a connection.

        Raises:
            SessionOver: the session has ended.
            TimeoutError: the deadline passed.
        """
        online = self._online.wait(deadline.left)
        if self._over is not None:
            raise SessionOver(self._over)
        if not online or not deadline.left:
            raise TimeoutError

    def persist(self, attempt: Callable[[], T], deadline: Deadline) -> T:
        """Call `attempt` until the connection is not lost during it; return its result.

        An attempt may take effect twice, so it must use the same ids and topics each time.

        Raises:
            SessionOver: the session has ended.
            TimeoutError: the deadline passed.
            Exception: any exception of `attempt` except ConnectionLost.
        """
        while True:
            self.wait_online(deadline)
            try:
                return attempt()
            except ConnectionLost:
                continue

    # -- inside --

    def _submit(self, send: Send) -> Future[int]:
        future: Future[int] = Future()
        if self._thread.is_current:
            self._do(future, send)
            return future
        with self._lock:
            if self._reading:
                self._work.append((future, send))
                self._wake()
                return future
        fail(future, self._loss())
        return future

    def _wake(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(OSError):  # full: the reader is awake; closed: it has ended
                self._waker.send(b"\0")

    def _loss(self) -> Exception:
        return ConnectionLost() if self._over is None else SessionOver(self._over)

    def _halt(self, why: str) -> None:
        self._over = self._over or why
        self._stopping.set()
        self._online.set()  # wakes the threads that wait for a connection
        self._wake()
        self._thread.join(_JOIN_TIMEOUT)
        if not self._thread.is_alive:
            self._close_wakers()

    def _close_wakers(self) -> None:
        for end in (self._woken, self._waker):
            if end is not None:
                end.close()

    def _timed_out(self) -> LoginError:
        return cast(
            LoginError,
            LoginError.named(
                "TIMEOUT",
                f"{self._address} did not complete the login within "
                f"{self._options.login_timeout:g} seconds.",
            ),
        )

    # -- the reader thread --

    def _run(self) -> None:
        try:
            self._stay()
        finally:
            self._over = self._over or "The connection has ended."
            self._online.set()
            self._disconnect()
            with self._lock:
                self._reading = False
            self._drop()  # packets that were queued in the meantime
            if self._session is not None:
                self._session.lost(self._loss())
            self._close_wakers()

    def _stay(self) -> None:
        try:
            self._connect(Deadline(self._options.login_timeout), first=True)
        except BaseException as error:
            with contextlib.suppress(InvalidStateError):
                self._opened.set_exception(self._first_failure(error))
            return
        with contextlib.suppress(InvalidStateError):  # closed in the meantime
            self._opened.set_result(None)
        supervised_thread("MQTT reader", self._stay_connected, self._stopping)

    def _stay_connected(self) -> None:
        """Read until the session ends; reconnect when the connection is lost."""
        while not self._stopping.is_set():
            if self._client is None and not self._reconnect():
                return
            try:
                while not self._stopping.is_set() and self._taken_over is None:
                    self._pump(_TICK)
            except (ConnectionLost, OSError) as error:
                logger.info("the connection was lost: %s", error)
            except BaseException:  # an unexpected error ends the connection, not the session
                self._lose()
                raise
            if self._taken_over is not None:
                self._abort(self._taken_over)
                return
            if not self._stopping.is_set():
                self._lose()

    def _lose(self) -> None:
        self._online.clear()
        if self._stopping.is_set():
            self._online.set()  # wakes the threads that wait for a connection
        self._drop()
        self._states.lost(time.monotonic())

    def _abort(self, reason: ConnectionChangeReason) -> None:
        self._over = f"The session was ended: {reason.name}."
        self._online.set()
        self._states.report(lambda lifecycle: lifecycle.aborted(reason))

    def _first_failure(self, error: BaseException) -> BaseException:
        if isinstance(error, LoginError):
            return error
        if isinstance(error, TimeoutError):
            return self._timed_out()
        if isinstance(error, Refused):
            return LoginError.named(
                "NOT_AUTHORIZED", f"{self._address} refused a subscription: {error}.", error
            )
        return LoginError.named("UNKNOWN", f"{self._address} cannot be reached: {error}.", error)

    def _reconnect(self) -> bool:
        """Try to connect until it succeeds. Returns False when the session has ended."""
        failures = 0
        while not self._stopping.is_set():
            self._states.tick()
            quiet = self._states.quiet_time_left(time.monotonic())
            patience = min(self._options.connect_timeout, quiet or math.inf)
            try:
                self._connect(Deadline(patience), first=False)
                return True
            except LoggedInElsewhere:
                self._abort(ConnectionChangeReason.REMOTE_LOGIN)
                return False
            except LoginError as error:
                if error.reason in _REFUSALS.values():
                    logger.warning("reconnecting was refused: %s", error)
                    self._abort(ConnectionChangeReason.LOGIN_FAILURE)
                    return False
                logger.info("reconnecting: %s", error)
            except (OSError, TimeoutError, ConnectionLost, Refused) as error:
                logger.info("reconnecting: %r", error)
            finally:
                if not self._online.is_set():
                    self._drop()
            failures += 1
            self._states.pause(_BACKOFF.wait(failures), self._stopping.wait)
        return False

    def _connect(self, deadline: Deadline, *, first: bool) -> None:
        assert self._session is not None
        client = self._client = self._make_client()
        client.connect(
            self._address.host,
            self._address.port,
            keepalive=max(1, int(self._options.ping_timeout / 2)),
            timeout=max(0.1, min(deadline.left, self._options.connect_timeout)),
            clean_start=not self._is_whole,
        )
        while client.welcome is None:
            if deadline.has_passed:
                raise TimeoutError
            if self._stopping.is_set():
                raise ConnectionLost
            self._pump(min(_TICK, deadline.left))
        welcome = client.welcome
        if welcome.code >= FAILED:
            raise LoginError.named(
                _REFUSALS.get(welcome.code, "UNKNOWN"),
                f"{self._address} refused the login: {welcome.reason}.",
            )
        resumed = welcome.resumed
        if not resumed:
            self._is_whole = False
            self._session.lost(ConnectionLost())
            self._session.on_new_session(first=first, deadline=deadline)
            self._is_whole = True
        if self._stopping.is_set():
            raise ConnectionLost
        self._online.set()
        self._states.report(Lifecycle.connected)
        self._session.on_connected(first=first, resumed=resumed)

    def _make_client(self) -> BrokerClient:
        assert self._session is not None
        username, password = self._address.username, self._address.password
        token = self._renewed or self._credentials.current_token()
        if token is not None:
            username, password = username or level_of(self._credentials.uid), token
        ca_file = None
        if self._address.is_secure:
            url = f"https://{self._address.host}"
            ca_file = find_proxy_settings(url, "", self._options.ca_file).ca_file
        return BrokerClient(
            self._name,
            username,
            password,
            self._will,
            self._address.grace,
            self._session.take,
            is_secure=self._address.is_secure,
            ca_file=ca_file,
        )

    def _pump(self, timeout: float) -> None:
        """Send the queued packets, then read and write for at most `timeout` seconds.

        Raises:
            ConnectionLost: there is no connection.
        """
        while self._work:
            future, send = self._work.popleft()
            if self._online.is_set():
                self._do(future, send)
            else:  # queued on the lost connection; the new one is not ready yet
                fail(future, self._loss())
        if self._client is None:
            raise ConnectionLost
        assert self._woken is not None
        self._client.pump(self._woken, timeout)

    def _do(self, future: Future[int], send: Send) -> None:
        if self._client is None:
            fail(future, self._loss())
        else:
            self._client.submit(future, send, self._loss())

    def _drop(self) -> None:
        """Close the connection and fail the futures that wait for its answers."""
        client, self._client = self._client, None
        waiting = [] if client is None else client.close()
        with self._lock:
            waiting += [future for future, _ in self._work]
            self._work.clear()
        for future in waiting:
            fail(future, self._loss())

    def _disconnect(self) -> None:
        """Send DISCONNECT if connected: the broker ends the session and publishes its will."""
        client = self._client
        if client is not None and client.is_connected:
            with contextlib.suppress(OSError, ConnectionLost):
                client.disconnect()
                deadline = Deadline(_DISCONNECT_TIMEOUT)
                while deadline.left:  # closing with unread bytes could lose DISCONNECT
                    self._pump(deadline.left)
        self._drop()
