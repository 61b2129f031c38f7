"""One login's connection through all its sockets: the reader thread and its work."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar, cast

import websocket

from ...errors import LoginError, LoginErrorCode, RtmError
from ...protocol.codec import decode_result
from ...protocol.errors import ProtocolError
from ...protocol.events import Event, SessionEnded, TokenExpired
from ...protocol.frames import Failure, Reply, decode, encode_call
from ...protocol.requests import Login, Logout, PeerCall, Request
from ...protocol.values import ConnectionChangeReason, LoginResult
from ...rules.lifecycle import Lifecycle, ProofOfLife
from ...rules.timing import Backoff, Deadline
from ...supervision import BackgroundThread, supervised_thread
from ...transfers.control import STALL_TIMEOUT
from ..base import Credentials, Listener, TransportOptions
from ..retry import RetryPolicy
from ..session import ClientSession
from ..states import StateReports
from .frame_socket import FrameSocket
from .proxy_settings import ProxySettings

if TYPE_CHECKING:
    from .media_http import MediaHttp

_BACKOFF = Backoff(first=0.2, longest=5.0)
_LOGOUT_TIMEOUT = 1.0
_JOIN_TIMEOUT = 2.0
_HANG_UP_AGAIN = 0.05

_FATAL_AT_RECONNECT = frozenset(
    {
        LoginErrorCode.LOGIN_ERR_INVALID_APP_ID,
        LoginErrorCode.LOGIN_ERR_INVALID_TOKEN,
        LoginErrorCode.LOGIN_ERR_NOT_AUTHORIZED,
        LoginErrorCode.LOGIN_ERR_INVALID_ARGUMENT,
    }
)

R = TypeVar("R")
logger = logging.getLogger(__name__)


class Connection:
    """One login's connection through all its sockets: the reader thread and what it works on."""

    def __init__(
        self,
        url: str,
        media_url: str,
        proxy_settings: ProxySettings,
        options: TransportOptions,
        credentials: Credentials,
        listener: Listener,
    ) -> None:
        self._url = url
        self._media_url = media_url
        self._proxy_settings = proxy_settings
        self._options = options
        self._credentials = credentials
        self._listener = listener
        self._states = StateReports(Lifecycle(options.reconnecting_after), listener)
        self._stopping = threading.Event()
        self._wake = threading.Event()  # set to make a waiting reconnect try now, or end
        self._ended: ConnectionChangeReason | None = None
        self._renewed: str | None = None
        self._opened: Future[None] = Future()
        self._socket: FrameSocket | None = None
        self._asked: FrameSocket | None = None  # the socket on which a login was sent
        self._socket_lock = threading.Lock()  # guards _socket against closing from outside
        self._http: MediaHttp | None = None
        self._http_lock = threading.Lock()  # guards making _http
        self.session = ClientSession(self._Filter(self, listener))
        self._is_leaving = False  # logging out: the hub is expected to close the connection
        self._hub_was_told = False  # a logout was sent, or could not be
        self.token = ""  # the session's bearer token, for media
        self._reader = BackgroundThread("rtm-sync-reader", self._run)

    class _Filter:
        """The client session's listener: records the session's end, forwards other events."""

        def __init__(self, connection: Connection, listener: Listener) -> None:
            self._connection = connection
            self._listener = listener

        def on_event(self, event: Event | PeerCall) -> bool:
            if isinstance(event, SessionEnded):
                self._connection._ended = event.reason
                return True
            return self._listener.on_event(event)

        def on_state(self, state: object, reason: object) -> None:
            raise NotImplementedError("a client session reports no states")

        def on_reconnected(self, channel_id: str | None, *, recovered: bool) -> None:
            self._connection._listener.on_reconnected(channel_id, recovered=recovered)

        @property
        def backlog(self) -> int:
            return self._listener.backlog

    @property
    def http(self) -> MediaHttp:
        """The HTTP client for media. The first transfer creates it, which loads `requests`."""
        from .media_http import MediaHttp

        with self._http_lock:
            if self._http is None:
                self._http = MediaHttp(
                    self._media_url,
                    self._proxy_settings,
                    lambda: self.token,
                    self._options.connect_timeout,
                    STALL_TIMEOUT,
                    RetryPolicy(patience=self._options.retry_timeout),
                )
            return self._http

    def use_token(self, token: str) -> None:
        """Use this token for the next login; a waiting reconnect tries it at once."""
        self._credentials = replace(self._credentials, token=token)
        self._renewed = token
        self._wake.set()

    def start(self) -> None:
        """Start the reader and wait for its first login.

        Raises:
            LoginError: refused, unreachable, not in time, or ended by `stop`.
        """
        self._states.report(Lifecycle.login_started)
        try:
            self._reader.start()
        except RuntimeError as error:
            code = LoginErrorCode.LOGIN_ERR_UNKNOWN
            raise LoginError(code, f"The login needs a thread: {error}.", error) from error
        try:
            self._opened.result(self._options.login_timeout)
        except FutureTimeout:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_TIMEOUT,
                f"{self._url} did not complete the login within "
                f"{self._options.login_timeout:g} seconds.",
            ) from None

    def give_up(self, error: BaseException) -> None:
        """End a login that was refused, timed out or was interrupted. Idempotent."""
        self._end("The login failed.")
        self._states.login_ended(error)

    def stop(self) -> None:
        """End the session, including a login in progress, the waiting calls and the reader.

        Idempotent: a second call completes an interrupted first one.
        """
        with contextlib.suppress(InvalidStateError):  # the login is done, one way or the other
            self._opened.set_exception(self._aborted(None))
        self._end("The client logged out.")
        self._states.report(Lifecycle.logged_out)

    def call(self, request: Request[R], timeout: float) -> R:
        """See `Transport.call`."""
        if not isinstance(request, Logout):
            return self.session.call(request, timeout)
        self._is_leaving = True
        try:
            answer = self.session.call(cast("Request[R]", request), timeout)
        except RtmError:
            self._hub_was_told = (
                self.session.is_attached
            )  # then it was sent, and that is all we can
            raise
        self._hub_was_told = True
        return answer

    def _end(self, message: str) -> None:
        if not self._hub_was_told:
            self._tell_hub()
        self._stopping.set()
        self._wake.set()
        self._hang_up()
        deadline = Deadline(_JOIN_TIMEOUT)
        while self._reader.is_alive and not self._reader.is_current and not deadline.has_passed:
            self._reader.join(_HANG_UP_AGAIN)
            self._hang_up()  # the socket may not have existed at the first attempt
        self.session.end(message)
        with self._http_lock:
            http = self._http
        if http is not None:
            http.close()

    def _tell_hub(self) -> None:
        """Log out if the hub has a session, or may create one because a login was sent.

        Otherwise the hub would keep the session for 30 s, and the user would appear online.
        """
        self._is_leaving = True
        with self._socket_lock:
            asked = self._asked if self._asked is self._socket else None
        try:
            if self.session.is_attached:
                self.call(Logout(), _LOGOUT_TIMEOUT)
            elif asked is not None:  # the hub handles it after the login
                asked.send(encode_call(1, Logout()))
                asked.wait_until_sent(_LOGOUT_TIMEOUT)
        except (RtmError, OSError, websocket.WebSocketException) as error:
            logger.info("the logout did not reach the hub: %s", error)

    def _hang_up(self) -> None:
        """Shut the connection down from any thread; this wakes a thread blocked on it."""
        with self._socket_lock:
            sock = self._socket
        if sock is not None:
            sock.hang_up()

    def _give_up_connection(self) -> None:
        """Drop the connection after an interrupted frame; the reader reconnects and resends it."""
        if not self._is_leaving:  # `_tell_hub` still tries
            self._hang_up()

    # -- the reader thread --

    def _run(self) -> None:
        try:
            self._connect(self._options.login_timeout)
        except BaseException as error:
            with contextlib.suppress(InvalidStateError):
                self._opened.set_exception(self._first_failure(error))
            return
        if not self._stopping.is_set():
            self._states.report(Lifecycle.connected)
        with contextlib.suppress(InvalidStateError):  # closed in the meantime
            self._opened.set_result(None)
        try:
            supervised_thread("reader", self._stay_connected, self._stopping)
        finally:
            self._drop_connection()

    def _stay_connected(self) -> None:
        """Read until the session ends; reconnect when the connection is lost."""
        while not self._stopping.is_set():
            if self._socket is None and not self._reconnect():
                return
            try:
                self._read_until_lost()
            finally:  # an unexpected error ends the connection, not the session
                self._drop_connection()
                self._states.lost(time.monotonic())
            if self._ended is not None and not self._stopping.is_set() and not self._is_leaving:
                self._abort(self._ended)
                return
            if self._is_leaving:
                self.session.end("The client logged out.")  # no more answers will arrive
                return

    def _drop_connection(self) -> None:
        self.session.detach()
        self._close_socket()

    def _abort(self, reason: ConnectionChangeReason) -> None:
        self.session.end(f"The session was ended by the hub: {reason.name}.")
        self._states.report(lambda lifecycle: lifecycle.aborted(reason))

    def _reconnect(self) -> bool:
        """Try to connect until it succeeds. Returns False when the session has ended."""
        attempt = 0
        expired = False
        while not self._stopping.is_set():
            self._wake.clear()
            if self._stopping.is_set():
                break
            self._states.tick()
            quiet = self._states.quiet_time_left(time.monotonic())
            try:
                # An attempt must end in time for the report of RECONNECTING.
                resumed = self._connect(min(self._options.connect_timeout, quiet or float("inf")))
            except LoginError as error:
                if error.code in _FATAL_AT_RECONNECT:
                    logger.warning("reconnecting was refused: %s", error)
                    self._abort(ConnectionChangeReason.LOGIN_FAILURE)
                    return False
                logger.info("reconnecting: %s", error)
                if error.code is LoginErrorCode.LOGIN_ERR_TOKEN_EXPIRED and not expired:
                    expired = True  # report it once, until a login succeeds
                    self._listener.on_event(TokenExpired())
            except (OSError, websocket.WebSocketException, ProtocolError) as error:
                logger.info("reconnecting: %s", error)
            else:
                self._states.report(Lifecycle.connected)
                self._listener.on_reconnected(None, recovered=resumed)
                return True
            attempt += 1
            self._states.pause(_BACKOFF.wait(attempt), self._wake.wait)
        return False

    def _connect(self, timeout: float) -> bool:
        """Make one attempt: open a socket, log in and attach the session.

        Returns:
            Whether the hub still had the session.

        Raises:
            LoginError: the hub refused. OSError, WebSocketException, ProtocolError: no connection.
        """
        try:
            return self._log_in_on_new_socket(timeout)
        except BaseException:
            self._close_socket()
            raise

    def _log_in_on_new_socket(self, timeout: float) -> bool:
        deadline = Deadline(timeout)
        token = self._token_now()
        options = self._options
        sock = FrameSocket(
            options.ping_interval + options.ping_timeout,
            self.session.resume_sending,
            enable_multithread=True,
            skip_utf8_validation=True,  # the codec decodes strictly, and much faster
        )
        with self._socket_lock:
            self._socket = sock  # from before the handshake, so that closing can end it
        if self._stopping.is_set():
            raise OSError("the client was closed")
        sock.open(
            self._url,
            self._proxy_settings,
            min(timeout, options.connect_timeout),
            self._stopping.is_set,
        )
        login = Login(
            self._credentials.app_id,
            self._credentials.uid,
            token=token,
            session=self.token or None,
            received=self.session.received,
            listens=self.session.listens_at_login(),
        )
        sock.settimeout(max(0.1, deadline.left))
        sock.send(encode_call(0, login))
        self._asked = sock
        if self._is_leaving:  # `_tell_hub` may have come too early to see that it was sent
            sock.send(encode_call(1, Logout()))
        sock.wait_until_sent(max(0.1, deadline.left))
        result = _login_result(sock.recv())
        self.token = result.session
        sock.settimeout(options.ping_interval)
        self.session.attach(
            lambda frame: _send(sock, frame), result, self._give_up_connection, sock.call_thread
        )
        return result.resumed

    def _token_now(self) -> str | None:
        renewed, self._renewed = self._renewed, None
        if renewed is not None:  # newer than a token that the provider may have cached
            return renewed
        return self._credentials.current_token()

    def _read_until_lost(self) -> None:
        sock = self._socket
        if sock is None:
            return
        options = self._options
        life = ProofOfLife(
            options.ping_interval, options.ping_timeout, time.monotonic(), time.time()
        )
        try:
            while not self._stopping.is_set():
                try:
                    opcode, data = sock.recv_data(control_frame=True)
                except websocket.WebSocketTimeoutException:
                    opcode, data = None, b""
                now = time.monotonic()
                doubt = life.doubt(now, time.time(), heard=opcode is not None)
                if doubt is not None:
                    logger.info("the connection is given up: %s", doubt)
                    return
                if life.wants_ping(now):
                    sock.ping()
                    self.session.acknowledge()
                if opcode == websocket.ABNF.OPCODE_TEXT:
                    self.session.receive(data)
                elif opcode == websocket.ABNF.OPCODE_CLOSE:
                    logger.info("the gateway closed the connection: %r", data[:130])
                    return
        except (OSError, websocket.WebSocketException, ProtocolError) as error:
            if not self._stopping.is_set():
                logger.info("the connection was lost: %s", error)

    def _close_socket(self) -> None:
        with self._socket_lock:
            sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(Exception):  # it may be in any state; closing must not fail
                sock.shutdown()

    def _first_failure(self, error: BaseException) -> LoginError:
        if isinstance(error, LoginError):
            return error
        if isinstance(error, (TimeoutError, websocket.WebSocketTimeoutException)):
            code = LoginErrorCode.LOGIN_ERR_TIMEOUT
            return LoginError(code, f"{self._url} did not answer in time.", error)
        if self._stopping.is_set():
            return self._aborted(error)
        if (
            isinstance(error, websocket.WebSocketBadStatusException)
            and error.status_code == HTTPStatus.TOO_MANY_REQUESTS
        ):
            code = LoginErrorCode.LOGIN_ERR_TOO_OFTEN
            return LoginError(
                code, f"{self._url} has seen too many wrong tokens from here; wait a minute.", error
            )
        code = LoginErrorCode.LOGIN_ERR_UNKNOWN
        hint = ""
        if isinstance(error, ConnectionRefusedError):
            hint = " Is the gateway running? Start one with: rtm-sync serve"
        elif not self._url.startswith("wss:") and _may_be_tls(error):
            hint = " If the gateway or a proxy before it uses TLS, write wss:// in the url."
        elif isinstance(error, ssl.SSLError) and not isinstance(
            error, ssl.SSLCertVerificationError
        ):
            hint = " If the gateway does not use TLS, write ws:// in the url."
        return LoginError(code, f"Cannot reach {self._url}: {error}.{hint}", error)

    def _aborted(self, error: BaseException | None) -> LoginError:
        code = LoginErrorCode.LOGIN_ERR_ABORTED_BY_LOGOUT
        return LoginError(code, "logout() or close() ended the login.", error)


def _may_be_tls(error: BaseException) -> bool:
    """Whether a plain handshake failed as it does at a server that expects TLS."""
    if isinstance(error, websocket.WebSocketBadStatusException):
        return error.status_code == HTTPStatus.BAD_REQUEST  # nginx, Apache and Go answer so
    return isinstance(error, (websocket.WebSocketException, ConnectionError))


def _send(sock: FrameSocket, frame: str) -> bool:
    """Send a frame. Returns whether the socket is full."""
    sock.send(frame)
    return sock.is_full


def _login_result(text: str | bytes) -> LoginResult:
    frame = decode(text) if text else None
    if isinstance(frame, Reply):
        return decode_result(LoginResult, frame.result)
    if isinstance(frame, Failure):
        if isinstance(frame.error, LoginError):
            raise frame.error
        if isinstance(frame.error, RtmError):
            raise LoginError.named("REJECTED", frame.error.message)
        raise frame.error
    raise OSError("the gateway closed the connection instead of answering the login")
