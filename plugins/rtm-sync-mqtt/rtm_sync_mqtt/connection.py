"""One login's connection to a broker through all its sockets. It does not know our messages.

paho is used by the reader thread alone. Other threads put packets into a queue and wait on futures
for the broker's answers.
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
    Guest,
    LoggedInElsewhere,
    Refused,
    SessionOver,
    fail,
)
from .names import Address

_BACKOFF = Backoff(first=0.2, longest=5.0)
_JOIN_TIMEOUT = 2.0
_GOODBYE = 0.5
_TICK = 1.0  # paho looks at its keep-alive clock when it is asked to, once a second at least
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
    """Connects, logs in, reads, reconnects, and reports states. Thread-safe.

    Owns one reader thread, from `start` to `stop` (or until the session is taken over).

    Args:
        name: the session's; also the MQTT client id.
        will: the topic that the broker clears when the session is dead.
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
        self._guest: Guest | None = None
        # The reader's own:
        self._client: BrokerClient | None = None
        self._is_whole = False  # the broker's session has all subscriptions
        self._taken_over: ConnectionChangeReason | None = None

    # -- for the transport --

    def start(self, guest: Guest) -> None:
        """Log in.

        Raises:
            LoginError: refused, unreachable, not in time, or ended by `stop`.
        """
        self._guest = guest
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
        """End a login that was refused, came too late or was interrupted. Idempotent."""
        self._halt("The login failed.")
        self._states.login_ended(error)

    def stop(self) -> None:
        """Leave the broker and end the thread. Idempotent, never hangs."""
        with contextlib.suppress(InvalidStateError):  # a login may be under way
            self._opened.set_exception(
                LoginError.named("ABORTED_BY_LOGOUT", "The client logged out.")
            )
        self._halt("The client logged out.")
        self._states.report(Lifecycle.logged_out)

    def use_token(self, token: str) -> None:
        """Present this token from the next connection on."""
        self._renewed = token

    def take_over(self, reason: ConnectionChangeReason) -> None:
        """End the session because a later login has its place. On the reader thread."""
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
        """Publish at QoS 1. The future is the broker's reason code, or raises why there is none.

        Args:
            retain: the broker keeps it; with an empty payload it forgets what it kept.
            expiry: seconds after which it is no more delivered.
            answer_to, mark: the topic and the mark under which a receipt is wanted, or given.
        """
        return self._submit(
            publishing(topic, payload, retain=retain, expiry=expiry, answer_to=answer_to, mark=mark)
        )

    def subscribe(self, filters: Sequence[str], *, own_too: bool = True) -> Future[int]:
        """Subscribe at QoS 1; retained messages come again.

        Args:
            own_too: also what this session publishes itself.
        """
        return self._submit(subscribing(filters, own_too=own_too))

    def unsubscribe(self, filters: Sequence[str]) -> Future[int]:
        return self._submit(unsubscribing(filters))

    def wait(self, future: Future[T], deadline: Deadline) -> T:
        """The future's result. On the reader thread it reads while it waits.

        Raises:
            TimeoutError, and what the future raises.
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
        """Return when there is a connection.

        Raises:
            SessionOver, TimeoutError
        """
        online = self._online.wait(deadline.left)
        if self._over is not None:
            raise SessionOver(self._over)
        if not online or not deadline.left:
            raise TimeoutError

    def persist(self, attempt: Callable[[], T], deadline: Deadline) -> T:
        """The result of `attempt`, which is called again when the connection is lost meanwhile.

        An attempt may thus happen twice: its ids and topics must stay the same.

        Raises:
            SessionOver, TimeoutError, and what the attempt raises but ConnectionLost.
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
            with contextlib.suppress(OSError):  # full: it is awake already; closed: it is gone
                self._waker.send(b"\0")

    def _loss(self) -> Exception:
        return ConnectionLost() if self._over is None else SessionOver(self._over)

    def _halt(self, why: str) -> None:
        self._over = self._over or why
        self._stopping.set()
        self._online.set()  # wakes the threads that wait for a connection: none comes
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
            self._drop()  # packets that were queued meanwhile
            if self._guest is not None:
                self._guest.lost(self._loss())
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
        """Read until the session is over; connect anew whenever the connection is gone."""
        while not self._stopping.is_set():
            if self._client is None and not self._reconnect():
                return
            try:
                while not self._stopping.is_set() and self._taken_over is None:
                    self._pump(_TICK)
            except (ConnectionLost, OSError) as error:
                logger.info("the connection is lost: %s", error)
            except BaseException:  # an unexpected error costs the connection alone
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
            self._online.set()  # wakes the threads that wait for a connection: none comes
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
        """Try until it works; False when it must not be tried any more."""
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
        assert self._guest is not None
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
            self._guest.lost(ConnectionLost())
            self._guest.greet(first=first, deadline=deadline)
            self._is_whole = True
        if self._stopping.is_set():
            raise ConnectionLost
        self._online.set()
        self._states.report(Lifecycle.connected)
        self._guest.greeted(first=first, resumed=resumed)

    def _make_client(self) -> BrokerClient:
        assert self._guest is not None
        username, password = self._address.username, self._address.password
        token = self._renewed or self._credentials.current_token()
        if token is not None:
            username, password = username or self._credentials.uid, token
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
            self._guest.take,
            is_secure=self._address.is_secure,
            ca_file=ca_file,
        )

    def _pump(self, timeout: float) -> None:
        """Send the queued packets, read and write, for at most so many seconds.

        Raises:
            ConnectionLost: there is no connection.
        """
        while self._work:
            future, send = self._work.popleft()
            if self._online.is_set():
                self._do(future, send)
            else:  # asked for when there was a connection, and now there is none yet
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
        """Close the connection, and fail the futures that wait for answers on it."""
        client, self._client = self._client, None
        waiting = [] if client is None else client.close()
        with self._lock:
            waiting += [future for future, _ in self._work]
            self._work.clear()
        for future in waiting:
            fail(future, self._loss())

    def _disconnect(self) -> None:
        """Say goodbye where there is a connection: the broker forgets the session, not its will."""
        client = self._client
        if client is not None and client.is_connected:
            with contextlib.suppress(OSError, ConnectionLost):
                client.say_goodbye()
                deadline = Deadline(_GOODBYE)
                while deadline.left:  # closing with unread bytes would overtake the goodbye
                    self._pump(deadline.left)
        self._drop()
