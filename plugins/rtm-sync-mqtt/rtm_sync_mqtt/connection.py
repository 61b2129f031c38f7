"""One login's connection to a broker through all its sockets. Knows MQTT, and no message of ours.

paho is used by the reader thread alone: what other threads want published or subscribed to goes
through a queue, and they wait on futures for the broker's answers.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from rtm_sync.errors import LoginError
from rtm_sync.protocol import FRAME_LIMIT, ConnectionChangeReason
from rtm_sync.rules.lifecycle import Lifecycle
from rtm_sync.rules.timing import Backoff, Deadline
from rtm_sync.supervision import BackgroundThread, supervised_thread
from rtm_sync.transports.base import Credentials, Listener, TransportOptions
from rtm_sync.transports.gateway.proxy_settings import find_proxy_settings
from rtm_sync.transports.states import StateReports

from .names import Address

NO_MATCHING_SUBSCRIBERS = 0x10

_FAILED = 0x80  # reason codes from here on are errors
_PACKET_LIMIT = FRAME_LIMIT + 4096  # a message of ours and its topics
# Made anew for each wait, so one that needs no descriptor; Windows has no poll.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
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


class ConnectionLost(Exception):
    """The connection went away before the broker answered; on the next it may."""

    def __init__(self) -> None:
        super().__init__("the connection was lost")


class SessionOver(Exception):
    """The session has ended, and why."""


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
    """Whom a connection serves. Called on the reader thread."""

    def greet(self, *, first: bool, deadline: Deadline) -> None:
        """The broker has a new session of ours: subscribe. May wait by `Connection.wait`.

        Raises:
            LoggedInElsewhere, Refused, ConnectionLost, TimeoutError: it cannot go on.
        """

    def greeted(self, *, first: bool, resumed: bool) -> None:
        """The state is CONNECTED and was told."""

    def take(self, arrived: Arrived) -> None:
        """A message arrived. Does not wait."""

    def lost(self, error: Exception) -> None:
        """What was asked of the session before this will not be answered."""


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
        self._work: deque[tuple[Future[int], Callable[[mqtt.Client], int | None]]] = deque()
        self._reading = False
        self._woken: socket.socket | None = None
        self._waker: socket.socket | None = None
        self._thread = BackgroundThread("rtm-sync-reader", self._run)
        self._guest: Guest | None = None
        # The reader's own:
        self._client: mqtt.Client | None = None
        self._answer: tuple[int, str, bool] | None = None  # CONNACK: code, its name, same session
        self._is_whole = False  # the broker's session has all subscriptions
        self._waiting: dict[int, Future[int]] = {}  # by packet id
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
        reason = error.reason if isinstance(error, LoginError) else ""
        if reason == "ABORTED_BY_LOGOUT":
            self._states.report(Lifecycle.logged_out)
        else:
            timed_out = reason == "TIMEOUT"
            self._states.report(lambda lifecycle: lifecycle.login_failed(timed_out=timed_out))

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
        """The session is another's now: end it, and do not come back. On the reader."""
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
        properties = _properties(PacketTypes.PUBLISH)
        if expiry is not None:
            properties.MessageExpiryInterval = max(1, math.ceil(expiry))
        if answer_to is not None:
            properties.ResponseTopic = answer_to
        if mark is not None:
            properties.CorrelationData = mark

        def send(client: mqtt.Client) -> int:
            return client.publish(topic, payload, 1, retain, properties).mid

        return self._submit(send)

    def subscribe(self, filters: Sequence[str], *, own_too: bool = True) -> Future[int]:
        """Subscribe at QoS 1; retained messages come again.

        Args:
            own_too: also what this session publishes itself.
        """
        options = SubscribeOptions(qos=1, noLocal=not own_too)

        def send(client: mqtt.Client) -> int | None:
            return client.subscribe([(name, options) for name in filters])[1]

        return self._submit(send)

    def unsubscribe(self, filters: Sequence[str]) -> Future[int]:
        return self._submit(lambda client: client.unsubscribe(list(filters))[1])

    def wait(self, future: Future[T], deadline: Deadline) -> T:
        """The future's result, whichever thread asks.

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
        """What `attempt` returns, made again when the connection is lost in the middle of it.

        So every attempt may be made twice: ids and topics must stay the same.

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

    def _submit(self, send: Callable[[mqtt.Client], int | None]) -> Future[int]:
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
        self._online.set()  # whoever waits for a connection is told that none comes
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
            self._fail_waiting()
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
            except BaseException:  # an error that nobody expected costs the connection alone
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
            self._online.set()  # whoever waits for a connection is told that none comes
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
            self._states.report(lambda lifecycle: lifecycle.tick(time.monotonic()))
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
            wait = _BACKOFF.wait(failures)
            quiet = self._states.quiet_time_left(time.monotonic())
            if quiet < wait:  # RECONNECTING is said in time
                self._stopping.wait(quiet)
                self._states.report(lambda lifecycle: lifecycle.tick(time.monotonic()))
                wait -= quiet
            self._stopping.wait(wait)
        return False

    def _connect(self, deadline: Deadline, *, first: bool) -> None:
        assert self._guest is not None
        self._answer = None
        client = self._client = self._make_client()
        properties = _properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._address.grace
        properties.MaximumPacketSize = _PACKET_LIMIT
        keepalive = max(1, int(self._options.ping_timeout / 2))  # paho gives up after two
        client.connect_timeout = max(0.1, min(deadline.left, self._options.connect_timeout))
        client.connect(
            self._address.host,
            self._address.port,
            keepalive,
            clean_start=not self._is_whole,
            properties=properties,
        )
        carrier = _socket_of(client)
        if carrier is not None:
            carrier.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _acknowledge_at_once(carrier)
        while self._answer is None:
            if not deadline.left:
                raise TimeoutError
            if self._stopping.is_set():
                raise ConnectionLost
            self._pump(min(_TICK, deadline.left))
        code, reason, resumed = self._answer
        if code >= _FAILED:
            raise LoginError.named(
                _REFUSALS.get(code, "UNKNOWN"), f"{self._address} refused the login: {reason}."
            )
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

    def _make_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            self._name,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        username, password = self._address.username, self._address.password
        token = self._renewed or self._credentials.current_token()
        if token is not None:
            username, password = username or self._credentials.uid, token
        if username is not None:
            client.username_pw_set(username, password)
        if self._address.is_secure:
            proxy_settings = find_proxy_settings(
                f"https://{self._address.host}", "", self._options.ca_file
            )
            client.tls_set_context(_tls_context(proxy_settings.ca_file))
        properties = _properties(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = self._address.grace
        client.will_set(self._will, b"", 1, retain=True, properties=properties)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_codes
        client.on_unsubscribe = self._on_codes
        return client

    def _pump(self, timeout: float) -> None:
        """Do what is asked for, read and write, for at most so long. Raises ConnectionLost."""
        while self._work:
            future, send = self._work.popleft()
            if self._online.is_set():
                self._do(future, send)
            else:  # asked for when there was a connection, and now there is none yet
                fail(future, self._loss())
        client = self._client
        carrier = None if client is None else _socket_of(client)
        if client is None or carrier is None:
            raise ConnectionLost
        pending = getattr(carrier, "pending", None)
        if pending is not None and pending():  # TLS has read more than it gave
            timeout = 0.0
        assert self._woken is not None
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        with _Selector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(carrier, wanted)
            ready = {key.fileobj: events for key, events in selector.select(timeout)}
        if self._woken in ready:
            with contextlib.suppress(OSError):
                self._woken.recv(4096)
        events = ready.get(carrier, 0)
        if events & selectors.EVENT_READ or not timeout:
            client.loop_read()
            _acknowledge_at_once(carrier)
        if events & selectors.EVENT_WRITE:
            client.loop_write()
        client.loop_misc()
        if _socket_of(client) is None and self._answer is None:
            raise ConnectionLost

    def _do(self, future: Future[int], send: Callable[[mqtt.Client], int | None]) -> None:
        client = self._client
        try:
            packet = None if client is None or _socket_of(client) is None else send(client)
        except (ValueError, OSError) as error:  # paho finds it wrong, or the socket breaks
            fail(future, Refused(str(error)))
            return
        if packet is None or client is None or _socket_of(client) is None:
            fail(future, self._loss())
        else:
            self._waiting[packet] = future

    def _drop(self) -> None:
        """Forget the socket, and tell those who wait for answers on it."""
        client, self._client = self._client, None
        if client is not None:
            carrier = _socket_of(client)
            if carrier is not None:
                carrier.close()
            for name in ("connect", "message", "publish", "subscribe", "unsubscribe"):
                setattr(client, f"on_{name}", None)
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        with self._lock:
            work = [future for future, _ in self._work]
            self._work.clear()
        waiting, self._waiting = list(self._waiting.values()), {}
        for future in (*waiting, *work):
            fail(future, self._loss())

    def _disconnect(self) -> None:
        """Say goodbye where there is a connection: the broker forgets the session, not its will."""
        client = self._client
        if client is not None and _socket_of(client) is not None:
            properties = _properties(PacketTypes.DISCONNECT)
            properties.SessionExpiryInterval = 0
            with contextlib.suppress(OSError, ConnectionLost):
                client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=0x04), properties)
                deadline = Deadline(_GOODBYE)
                while deadline.left:  # hanging up on what is unread would overtake the goodbye
                    self._pump(deadline.left)
        self._drop()

    # -- paho's callbacks, on the reader thread --

    def _on_connect(
        self,
        client: mqtt.Client,
        data: object,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._answer = (reason.value, str(reason), flags.session_present)

    def _on_message(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        assert self._guest is not None
        properties = message.properties
        arrived = Arrived(
            message.topic,
            bytes(message.payload),
            message.retain,
            getattr(properties, "ResponseTopic", ""),
            getattr(properties, "CorrelationData", b""),
        )
        try:
            self._guest.take(arrived)
        except Exception:  # anybody may publish anything; one message is lost, not the connection
            logger.exception("a message on %r could not be taken", message.topic)

    def _on_publish(
        self,
        client: mqtt.Client,
        data: object,
        packet: int,
        reason: ReasonCode,
        properties: Properties,
    ) -> None:
        self._settle(packet, [reason])

    def _on_codes(
        self,
        client: mqtt.Client,
        data: object,
        packet: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        self._settle(packet, reasons)

    def _settle(self, packet: int, reasons: list[ReasonCode]) -> None:
        future = self._waiting.pop(packet, None)
        if future is None:
            return
        bad = next((reason for reason in reasons if reason.value >= _FAILED), None)
        if bad is not None:
            fail(future, Refused(str(bad)))
        else:
            settle(future, reasons[0].value if reasons else 0)


def _socket_of(client: mqtt.Client) -> socket.socket | None:
    return cast("socket.socket | None", client.socket())


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho leaves that to the collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Checks the broker's certificate against these authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _TlsSocket
    context.load_verify_locations(ca_file)
    return context


def _acknowledge_at_once(carrier: socket.socket) -> None:
    """Do not let a broker that gathers small packets wait for us.

    Mosquitto does unless it is told `set_tcp_nodelay true`, and a kernel that is in no hurry to
    acknowledge makes each receipt 44 ms late (measured; 1.1 ms with this). Linux forgets it again
    and again; elsewhere there is no such thing.
    """
    quick = getattr(socket, "TCP_QUICKACK", None)
    if quick is not None:
        with contextlib.suppress(OSError):  # it has just been closed
            carrier.setsockopt(socket.IPPROTO_TCP, quick, 1)


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


def settle(future: Future[T], value: T) -> None:
    """Give a future its result, unless nobody waits for it any more."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(value)


def fail(future: Future[T], error: Exception) -> None:
    """Give a future its exception, unless nobody waits for it any more."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
