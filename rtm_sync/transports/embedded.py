"""The embedded transport: a hub in this process, for scripts and tests with no server.

`memory://` and `memory://name` are hubs by name: clients of one process that use the same URL meet
there. A hub starts with its first client and ends, with all it held, when the last one logs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, BinaryIO, ClassVar, TypeVar, cast

from ..blob import CHUNK, Blob
from ..errors import DownloadMediaError, LoginError, UploadMediaError
from ..hub.media.store import MediaStore
from ..hub.media.upload import UploadSpec
from ..hub.node import Hub
from ..hub.session import Session
from ..hub.tasks import cancel_other_tasks
from ..portable import after_fork_in_child
from ..protocol.events import Event, SessionEnded
from ..protocol.requests import Login, PeerCall, Request
from ..protocol.values import ConnectionChangeReason, MediaInfo
from ..rules.lifecycle import Lifecycle
from ..rules.timing import Deadline
from ..supervision import BackgroundThread
from ..transfers.control import TransferControl, TransferKind
from ..transfers.sink import Sink
from .base import Credentials, Listener, Transport, TransportOptions
from .session import ClientSession
from .states import StateReports

_STOP_TIMEOUT = 5.0
_ACKNOWLEDGE_HANDLED = 32

R = TypeVar("R")
T = TypeVar("T")


class EmbeddedTransport(Transport):
    """Reaches a hub in this process. Thread-safe."""

    def __init__(self, url: str, options: TransportOptions) -> None:
        self._url = url
        self._options = options
        self._lock = threading.Lock()  # guards _connection
        self._connection: _Connection | None = None

    def open(self, credentials: Credentials, listener: Listener) -> None:
        connection = _Connection(listener, self._options)
        try:
            with self._lock:
                if self._connection is not None:
                    raise LoginError.named("ALREADY_LOGIN", "This client is logged in already.")
                self._connection = connection
            connection.open(self._url, self._options, credentials)
        except BaseException as error:
            connection.give_up(error)
            self._forget(connection)
            raise

    def call(self, request: Request[R], timeout: float) -> R:
        connection = self._connection
        if connection is None:
            raise request.ERROR.named("USER_NOT_LOGGED_IN", "Log in first.")
        return connection.link.call(request, timeout)

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        return self._connected(control).upload(blob, control)  # its hub ends with the process

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        return self._connected(control).download(media_id, sink, control)

    def close(self) -> None:
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.stop()
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        """It has ended; until here another `close` would have gone on with what is left of it."""
        with self._lock:
            if self._connection is connection:
                self._connection = None

    def event_handled(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.link.acknowledge(_ACKNOWLEDGE_HANDLED)

    def _connected(self, control: TransferControl) -> _Connection:
        connection = self._connection
        if connection is None:
            raise control.kind.error("NOT_LOGGED_IN", "Log in first.")
        return connection


class _Connection:
    """One login: a `hub.registry.Connection` on the hub's side, a link on the client's.

    Frames from the hub are handled on the hub's thread, which only queues events and wakes callers.
    """

    def __init__(self, listener: Listener, options: TransportOptions) -> None:
        self._listener = listener
        self._states = StateReports(Lifecycle(options.reconnecting_after), listener)
        self._opened: Future[None] = Future()
        self.link = ClientSession(self)
        self.home: _EmbeddedHub | None = None  # set by `_EmbeddedHub.enter`
        # The hub's thread alone:
        self._session: Session | None = None
        self._woken = False
        self._is_over = False
        self._login_task: asyncio.Task[None] | None = None  # kept, as the loop does not

    # -- the client's side --

    def open(self, url: str, options: TransportOptions, credentials: Credentials) -> None:
        """Log in.

        Raises:
            LoginError: refused, not in time, or ended by `stop`.
        """
        deadline = Deadline(options.login_timeout)
        self._states.report(Lifecycle.login_started)
        login = Login(credentials.app_id, credentials.uid, token=credentials.current_token())
        try:
            home = _EmbeddedHub.enter(url, options, self)
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
        """End a login that was refused, came too late or was interrupted. Idempotent."""
        self._end("The login failed.")
        reason = error.reason if isinstance(error, LoginError) else ""
        if reason == "ABORTED_BY_LOGOUT":
            self._states.report(Lifecycle.logged_out)
        else:
            timed_out = reason == "TIMEOUT"
            self._states.report(lambda lifecycle: lifecycle.login_failed(timed_out=timed_out))

    def stop(self) -> None:
        """End the session: its login if that is under way, its waiting calls, perhaps the hub.

        Idempotent: a second call goes on where a first was interrupted.
        """
        self._fail(LoginError.named("ABORTED_BY_LOGOUT", "logout() or close() ended the login."))
        self._end("The client logged out.")
        self._states.report(Lifecycle.logged_out)

    def _end(self, message: str) -> None:
        self.link.end(message)
        home = self.home
        if home is not None:
            done: Future[None] = Future()
            with contextlib.suppress(FutureTimeout, RuntimeError):  # the hub has ended, perhaps
                home.call_soon(self._log_out, home, done)
                done.result(_STOP_TIMEOUT)
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

    def upload(self, blob: Blob, control: TransferControl) -> MediaInfo:
        session, home = self._live(control)
        media = home.hub.media
        spec = UploadSpec(blob.size, blob.name, blob.content_type)
        upload = home.interruptibly(media.begin_upload(session, spec), control)
        try:
            with self._slot(control), blob.open() as file:
                while data := file.read(CHUNK):
                    home.interruptibly(upload.append(_once(data), len(data)), control)
                    control.advance(upload.offset, spec.size)
            if not upload.complete:
                raise control.kind.error(
                    "FAILURE",
                    f"The source ended after {upload.offset:,} of {spec.size:,} bytes; "
                    "it was changed while it was uploaded.",
                )
            return home.interruptibly(media.complete_upload(upload), control)
        except BaseException:
            with contextlib.suppress(FutureTimeout, FutureCancelled, RuntimeError):
                home.run(media.drop_upload(upload), _STOP_TIMEOUT)
            raise

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        session, home = self._live(control)
        media = home.hub.media
        info = home.interruptibly(media.stored_media(session, media_id), control)
        if sink.size and sink.whole != info.sha256:
            sink.restart()
        sink.begin(info)
        went_on = sink.size > 0
        with self._slot(control) as store:
            self._read(store, info, sink, control)
            if went_on and sink.sha256() != info.sha256:  # what was there is to blame, perhaps
                sink.restart()
                self._read(store, info, sink, control)
        if sink.sha256() != info.sha256:
            sink.restart()
            raise control.kind.error("FAILURE", "The stored bytes are damaged.")
        return info

    def _read(
        self, store: MediaStore, info: MediaInfo, sink: Sink, control: TransferControl
    ) -> None:
        """Read from the store what the sink lacks."""
        _, home = self._live(control)
        storage = home.hub.media.storage
        # Both on a storage thread: a read that a cancelled transfer left behind may still run.
        turn = threading.Lock()  # guards opened
        opened: list[BinaryIO] = []

        def read() -> bytes:
            with turn:
                if not opened:
                    opened.append(store.open(info.media_id))
                    opened[0].seek(sink.size)
                return opened[0].read(CHUNK)

        def close() -> None:
            with turn:
                while opened:
                    opened.pop().close()

        try:
            while sink.size < info.size:
                try:
                    data = home.interruptibly(storage.run(read), control)
                except FileNotFoundError as error:
                    message = f"{info.media_id} has just ended."
                    raise control.kind.error("NOT_EXIST", message, error) from error
                except OSError as error:
                    message = f"The media store failed: {error}."
                    raise control.kind.error("FAILURE", message, error) from error
                if not data:
                    break
                sink.write(data)
                control.advance(sink.size, info.size)
        finally:
            home.start(storage.run(close))

    @contextlib.contextmanager
    def _slot(self, control: TransferControl) -> Iterator[MediaStore]:
        """One of the session's transfers, for the time of the block."""
        session, home = self._live(control)
        upload = control.kind is TransferKind.UPLOAD
        slot = home.hub.media.slot(session, UploadMediaError if upload else DownloadMediaError)
        store = home.interruptibly(slot.__aenter__(), control)
        try:
            yield store
        finally:
            with contextlib.suppress(FutureTimeout, FutureCancelled, RuntimeError):
                home.run(slot.__aexit__(None, None, None), _STOP_TIMEOUT)

    def _live(self, control: TransferControl) -> tuple[Session, _EmbeddedHub]:
        session, home = self._session, self.home
        if session is None or home is None:
            raise control.kind.error("NOT_LOGGED_IN", "The session has ended; log in again.")
        return session, home

    # -- Listener of the link, on the hub's thread --

    def on_event(self, event: Event | PeerCall) -> bool:
        if isinstance(event, SessionEnded):
            self._session = None
            self.link.end(f"The session was ended by the hub: {event.reason.name}.")
            reason = event.reason
            self._states.report(lambda lifecycle: lifecycle.aborted(reason))
            return True
        return self._listener.on_event(event)

    def on_state(self, state: object, reason: object) -> None:
        raise NotImplementedError("a link reports no states")

    def on_reconnected(self, channel_id: str | None, *, recovered: bool) -> None:
        raise NotImplementedError("an embedded hub is never lost")

    @property
    def backlog(self) -> int:
        return self._listener.backlog

    # -- hub.registry.Connection, on the hub's thread --

    silence = 0.0  # in the same process nobody is ever out of reach

    def wake(self) -> None:
        if not self._woken:  # as late as a socket would be: after the hub's present step
            self._woken = True
            asyncio.get_running_loop().call_soon(self._from_hub)

    def send_now(self, frame: str) -> None:
        asyncio.get_running_loop().call_soon(self.link.receive, frame)

    def close(self, code: int, reason: str) -> None:
        loop = asyncio.get_running_loop()
        if code == 1000:  # the answer to the logout is on its way before this
            loop.call_soon(self.link.end, "The client logged out.")
        else:
            loop.call_soon(self._closed, reason)

    def _closed(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is not None and self.home is not None:
            # Slow consumers and stopped hubs: there is no socket to come back over.
            self.home.hub.detach(session, self)
            self.link.end(f"The embedded hub closed the session: {reason}.")
            interrupted = ConnectionChangeReason.INTERRUPTED
            self._states.report(lambda lifecycle: lifecycle.aborted(interrupted))

    def _from_hub(self) -> None:
        self._woken = False
        session = self._session
        while session is not None and session.connection is self:
            frame = session.outbox.take()
            if frame is None:
                return
            self.link.receive(frame)

    def _begin_login(self, home: _EmbeddedHub, login: Login) -> None:
        self._login_task = asyncio.get_running_loop().create_task(self._log_in(home, login))

    async def _log_in(self, home: _EmbeddedHub, login: Login) -> None:
        try:
            session, result = await home.hub.login(login, self)
            if self._is_over:  # the client did not wait for it
                home.hub.end(session)
                return
            self._session = session
            home.hub.attach(session, self)

            def to_hub(frame: str) -> None:
                if self._session is not None:
                    home.hub.receive(self._session, self, frame)

            self.link.attach(lambda frame: home.call_soon(to_hub, frame), result)
            self._states.report(Lifecycle.connected)
            with contextlib.suppress(InvalidStateError):
                self._opened.set_result(None)
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _log_out(self, home: _EmbeddedHub, done: Future[None]) -> None:
        self._is_over = True
        session, self._session = self._session, None
        try:
            if session is not None:
                home.hub.end(session)
        finally:
            done.set_result(None)


class _EmbeddedHub:
    """A hub on a thread of its own, shared by the connections to its URL.

    Owns the thread and the event loop, from the first connection's `enter` to the last one's
    `leave`.

    Attributes:
        started: done when `hub` may be used; or its exception says why it cannot.
    """

    _all: ClassVar[dict[str, _EmbeddedHub]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()  # guards _all and all _connections

    def __init__(self, url: str, options: TransportOptions) -> None:
        self._url = url
        self._options = options
        self._connections: set[_Connection] = set()
        self._thread = BackgroundThread("rtm-sync-hub", self._run)
        self._loop_lock = threading.Lock()  # guards _loop: what it was given, it runs
        self._loop: asyncio.AbstractEventLoop | None = None  # while it takes work
        self._stopping = asyncio.Event()
        self._must_stop = False
        self.started: Future[None] = Future()
        self.hub: Hub

    @classmethod
    def enter(cls, url: str, options: TransportOptions, connection: _Connection) -> _EmbeddedHub:
        """The hub of that URL, started when this is its first connection.

        Raises:
            RuntimeError: its thread cannot be started; `leave` is due all the same.
        """
        with cls._all_lock:
            home = cls._all.get(url) or cls(url, options)
            connection.home = home  # first, so that `leave` follows whatever happens from here
            home._connections.add(connection)
            cls._all[url] = home
            if not home.started.done():
                home._thread.start()
        return home

    def leave(self, connection: _Connection) -> None:
        """One connection fewer; the last one stops the hub. Idempotent."""
        with self._all_lock:
            self._connections.discard(connection)
            is_last = not self._connections
            if is_last and self._all.get(self._url) is self:
                del self._all[self._url]
        if is_last:
            self._must_stop = True
            with contextlib.suppress(RuntimeError):  # it has ended already, or not begun
                self.call_soon(self._stopping.set)
            self._thread.join(_STOP_TIMEOUT)

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the hub's thread.

        Raises:
            RuntimeError: the hub does not run.
        """
        with self._loop_lock:
            if self._loop is None:
                raise RuntimeError("The embedded hub does not run.")
            self._loop.call_soon_threadsafe(function, *args)

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine on the hub's loop and wait for it."""
        future = self._submit(work)
        try:
            return future.result(timeout)
        except FutureTimeout:
            future.cancel()
            raise

    def interruptibly(self, work: Coroutine[Any, Any, T], control: TransferControl) -> T:
        """As `run`, for as long as the transfer is not cancelled."""
        future = self._submit(work)
        with control.interruptible(future.cancel):
            return future.result()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Have a coroutine run on the hub's loop; without one, nothing is left to do."""
        with contextlib.suppress(RuntimeError):
            self._submit(work)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._loop_lock:
            if self._loop is None:
                work.close()
                raise RuntimeError("The embedded hub does not run.")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            self._loop = loop
            loop.run_until_complete(self._serve())
        except BaseException as error:
            with self._all_lock:
                if self._all.get(self._url) is self:
                    del self._all[self._url]  # the next connection makes another
            if self.started.done():
                raise
            self.started.set_exception(error)
        finally:
            with self._loop_lock:
                self._loop = None
            loop.run_until_complete(asyncio.sleep(0))  # what was given to it last has begun
            loop.run_until_complete(cancel_other_tasks())  # callers that wait: their futures end
            loop.close()

    async def _serve(self) -> None:
        options = self._options
        self.hub = Hub(
            options.make_engine("local:"),
            options.make_media_store(options.media or "memory://"),
        )
        await self.hub.start()
        self.started.set_result(None)
        if not self._must_stop:  # the last connection may have left before there was a loop
            await self._stopping.wait()
        await self.hub.stop()


def _forget_hubs() -> None:
    """After a fork: the parent's hubs have no threads here, and the lock may have been held."""
    _EmbeddedHub._all = {}
    _EmbeddedHub._all_lock = threading.Lock()


after_fork_in_child(_forget_hubs)


def _once(data: bytes) -> Any:
    """A reader that gives these bytes, then the end."""
    parts = [data]

    async def read() -> bytes:
        return parts.pop() if parts else b""

    return read
