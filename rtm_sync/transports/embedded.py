"""The embedded transport: a hub in this process, for scripts and tests with no server.

`memory://` and `memory://name` name a hub: clients of one process with the same URL share it. A hub
starts with its first client. It stops, and loses its data, when the last one logs out.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar, cast

from ..blob import Blob
from ..errors import LoginError
from ..hub.session import Session
from ..protocol.events import Event, SessionEnded
from ..protocol.requests import Login, PeerCall, Request
from ..protocol.values import ConnectionChangeReason, MediaInfo
from ..rules.lifecycle import Lifecycle
from ..rules.timing import Deadline
from ..transfers.control import TransferControl
from ..transfers.sink import PartSink, Sink
from .base import Credentials, Listener, TransportOptions
from .embedded_hub import STOP_TIMEOUT, EmbeddedHub
from .embedded_media import HubAccess
from .session import ClientSession
from .session_transport import SessionTransport
from .states import StateReports
from .store_carrier import StoreCarrier

R = TypeVar("R")


class EmbeddedTransport(SessionTransport["_Connection"]):
    """Reaches a hub in this process. Thread-safe."""

    def __init__(self, url: str, options: TransportOptions) -> None:
        super().__init__()
        self._url = url
        self._options = options

    def open(self, credentials: Credentials, listener: Listener) -> None:
        connection = _Connection(listener, self._options)
        self._log_in(connection, lambda: connection.open(self._url, self._options, credentials))

    def call(self, request: Request[R], timeout: float) -> R:
        return self._logged_in(request.ERROR).session.call(request, timeout)

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        return self._connected(control).carrier(control).upload(blob, control, resume_key)

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        return self._connected(control).carrier(control).download(media_id, sink, control)

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        return self._connected(control).carrier(control).media_info(media_id, control)

    def download_part(self, media_id: str, part: PartSink, control: TransferControl) -> MediaInfo:
        return self._connected(control).carrier(control).download_part(media_id, part, control)


class _Connection:
    """One login: a `hub.registry.Connection` on the hub's side, a `ClientSession` on the client's.

    Frames from the hub are handled on the hub's thread, which only queues events and wakes callers.
    """

    def __init__(self, listener: Listener, options: TransportOptions) -> None:
        self._listener = listener
        self._states = StateReports(Lifecycle(options.reconnecting_after), listener)
        self._opened: Future[None] = Future()
        self.session = ClientSession(self)
        self.home: EmbeddedHub | None = None  # set by `EmbeddedHub.enter`
        # The hub's thread alone:
        self._hub_session: Session | None = None
        self._woken = False
        self._is_over = False
        self._login_task: asyncio.Task[None] | None = None  # the loop keeps no reference

    # -- the client's side --

    def open(self, url: str, options: TransportOptions, credentials: Credentials) -> None:
        """Log in.

        Raises:
            LoginError: the login was refused, timed out or was ended by `stop`.
        """
        deadline = Deadline(options.login_timeout)
        self._states.report(Lifecycle.login_started)
        login = Login(
            credentials.app_id,
            credentials.uid,
            token=credentials.current_token(),
            listens=self.session.listens_at_login(),
        )
        try:
            home = EmbeddedHub.enter(url, options, self)
        except RuntimeError as error:  # no thread can be started
            raise self._cannot_start(error) from error

        wait([home.started, self._opened], deadline.left, FIRST_COMPLETED)
        if home.started.done():
            failure = home.started.exception()
            if failure is not None:
                raise self._cannot_start(failure) from failure
            home.call_soon(self._begin_login, home, login)
        try:
            self._opened.result(deadline.left)
        except FutureTimeout:
            raise LoginError.named("TIMEOUT", "The embedded hub did not answer.") from None

    def give_up(self, error: BaseException) -> None:
        """End a login that was refused, timed out or was interrupted. Idempotent."""
        self._end("The login failed.")
        self._states.login_ended(error)

    def stop(self) -> None:
        """End the session, including a login in progress and the waiting calls.

        Idempotent: a second call completes an interrupted first one.
        """
        self._fail(LoginError.named("ABORTED_BY_LOGOUT", "logout() or close() ended the login."))
        self._end("The client logged out.")
        self._states.report(Lifecycle.logged_out)

    def _end(self, message: str) -> None:
        self.session.end(message)
        home = self.home
        if home is not None:
            done: Future[None] = Future()
            with contextlib.suppress(FutureTimeout, RuntimeError):  # the hub has ended, perhaps
                home.call_soon(self._log_out, home, done)
                done.result(STOP_TIMEOUT)
            home.leave(self)

    def _fail(self, error: BaseException) -> None:
        """Fail the login, unless it is done."""
        with contextlib.suppress(InvalidStateError):
            self._opened.set_exception(error)

    def _cannot_start(self, error: BaseException) -> LoginError:
        return cast(
            LoginError,
            LoginError.named("REJECTED", f"The embedded hub cannot start: {error}", error),
        )

    def carrier(self, control: TransferControl) -> StoreCarrier:
        """A carrier for the session's transfers."""
        session, home = self._hub_session, self.home
        if session is None or home is None:
            raise control.kind.error("NOT_LOGGED_IN", "The session has ended; log in again.")
        return StoreCarrier(HubAccess(home, session))

    # -- Listener of the client session, on the hub's thread --

    def on_event(self, event: Event | PeerCall) -> bool:
        if isinstance(event, SessionEnded):
            self._hub_session = None
            self.session.end(f"The session was ended by the hub: {event.reason.name}.")
            reason = event.reason
            self._states.report(lambda lifecycle: lifecycle.aborted(reason))
            return True
        return self._listener.on_event(event)

    def on_state(self, state: object, reason: object) -> None:
        raise NotImplementedError("a client session reports no states")

    def on_reconnected(self, channel_id: str | None, *, recovered: bool) -> None:
        raise NotImplementedError("an embedded hub is never lost")

    @property
    def backlog(self) -> int:
        return self._listener.backlog

    # -- hub.registry.Connection, on the hub's thread --

    silence = 0.0  # a client of the same process is always reachable

    def wake(self) -> None:
        if not self._woken:  # like a socket: after the hub's current step
            self._woken = True
            asyncio.get_running_loop().call_soon(self._from_hub)

    def send_now(self, frame: str) -> None:
        asyncio.get_running_loop().call_soon(self.session.receive, frame)

    def close(self, code: int, reason: str) -> None:
        loop = asyncio.get_running_loop()
        if code == 1000:  # the answer to the logout is on its way before this
            loop.call_soon(self.session.end, "The client logged out.")
        else:
            loop.call_soon(self._closed, reason)

    def _closed(self, reason: str) -> None:
        session, self._hub_session = self._hub_session, None
        if session is not None and self.home is not None:
            # A slow consumer or a stopped hub: there is no reconnect without a socket.
            self.home.hub.detach(session, self)
            self.session.end(f"The embedded hub closed the session: {reason}.")
            interrupted = ConnectionChangeReason.INTERRUPTED
            self._states.report(lambda lifecycle: lifecycle.aborted(interrupted))

    def _from_hub(self) -> None:
        self._woken = False
        session = self._hub_session
        while session is not None and session.connection is self:
            frame = session.outbox.take()
            if frame is None:
                return
            self.session.receive(frame)

    def _begin_login(self, home: EmbeddedHub, login: Login) -> None:
        self._login_task = asyncio.get_running_loop().create_task(self._log_in(home, login))

    async def _log_in(self, home: EmbeddedHub, login: Login) -> None:
        try:
            session, result = await home.hub.login(login, self)
            if self._is_over:  # the client has stopped waiting
                home.hub.end(session)
                return
            self._hub_session = session
            home.hub.attach(session, self)

            def to_hub(frame: str) -> None:
                if self._hub_session is not None:
                    home.hub.receive(self._hub_session, self, frame)

            self.session.attach(lambda frame: home.call_soon(to_hub, frame), result)
            self._states.report(Lifecycle.connected)
            with contextlib.suppress(InvalidStateError):
                self._opened.set_result(None)
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _log_out(self, home: EmbeddedHub, done: Future[None]) -> None:
        self._is_over = True
        session, self._hub_session = self._hub_session, None
        try:
            if session is not None:
                home.hub.end(session)
        finally:
            done.set_result(None)
