"""The embedded transport: a hub in this process, for scripts and tests with no server.

`memory://` and `memory://name` are hubs by name: clients of one process that use the same URL meet
there. A hub starts with its first client and ends, with all it held, when the last one logs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, BinaryIO, ClassVar, TypeVar

from ..blob import CHUNK, Blob
from ..errors import DownloadMediaError, LoginError, UploadMediaError
from ..hub.hub import Hub
from ..hub.loops import cancel_rest
from ..hub.media import MediaStore
from ..hub.session import Session
from ..hub.uploads import UploadSpec
from ..portable import after_fork_in_child
from ..protocol import (
    ConnectionChangeReason,
    Event,
    Login,
    LoginResult,
    MediaInfo,
    PeerCall,
    Request,
    SessionEnded,
)
from ..transfers import TransferControl, TransferKind
from .base import Credentials, Listener, Sink, Transport, TransportOptions
from .lifecycle import Lifecycle, StateChange
from .link import Link

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
        with self._lock:
            if self._connection is not None:
                raise LoginError.named("ALREADY_LOGIN", "This client is logged in already.")
            connection = self._connection = _Connection(listener, self._options)
        try:
            connection.open(self._url, self._options, credentials)
        except BaseException:
            with self._lock:
                self._connection = None
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
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.stop()

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
        self._lifecycle = Lifecycle(options.reconnecting_after)
        self.link = Link(self)
        self._home: _EmbeddedHub | None = None
        self._session: Session | None = None
        self._woken = False  # the hub's thread alone
        self._result: LoginResult | None = None

    # -- the client's side --

    def open(self, url: str, options: TransportOptions, credentials: Credentials) -> None:
        self._tell(self._lifecycle.login_started())
        login = Login(credentials.app_id, credentials.uid, token=credentials.current_token())
        try:
            self._home = _EmbeddedHub.enter(url, options)
        except Exception as error:  # a media store's plugin may raise anything
            self._tell(self._lifecycle.login_failed(timed_out=False))
            raise LoginError.named(
                "REJECTED", f"The embedded hub cannot start: {error}", error
            ) from error
        try:
            self._home.run(self._log_in(login), options.login_timeout)
        except BaseException as error:
            timed_out = isinstance(error, FutureTimeout)
            self._tell(self._lifecycle.login_failed(timed_out=timed_out))
            self._home.leave()
            if timed_out:
                raise LoginError.named("TIMEOUT", "The embedded hub did not answer.") from None
            raise
        home = self._home
        session = self._session
        assert session is not None
        assert self._result is not None

        def send(frame: str) -> None:
            home.loop.call_soon_threadsafe(self._to_hub, frame)

        self.link.attach(send, self._result)
        self._tell(self._lifecycle.connected())

    def stop(self) -> None:
        self.link.end("The client logged out.")
        assert self._home is not None
        with contextlib.suppress(FutureTimeout, FutureCancelled):
            self._home.run(self._log_out(), _STOP_TIMEOUT)
        self._home.leave()
        self._tell(self._lifecycle.logged_out())

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
        if self._session is None or self._home is None:
            raise control.kind.error("NOT_LOGGED_IN", "The session has ended; log in again.")
        return self._session, self._home

    # -- Listener of the link, on the hub's thread --

    def on_event(self, event: Event | PeerCall) -> bool:
        if isinstance(event, SessionEnded):
            self._session = None
            self.link.end(f"The session was ended by the hub: {event.reason.name}.")
            self._tell(self._lifecycle.aborted(event.reason))
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
        if code != 1000:  # after a logout nothing is left to close
            asyncio.get_running_loop().call_soon(self._closed, reason)

    def _closed(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is not None and self._home is not None:
            # Slow consumers and stopped hubs: there is no socket to come back over.
            self._home.hub.detach(session, self)
            self.link.end(f"The embedded hub closed the session: {reason}.")
            self._tell(self._lifecycle.aborted(ConnectionChangeReason.INTERRUPTED))

    def _from_hub(self) -> None:
        self._woken = False
        session = self._session
        while session is not None and session.connection is self:
            frame = session.outbox.take()
            if frame is None:
                return
            self.link.receive(frame)

    def _to_hub(self, frame: str) -> None:
        if self._session is not None and self._home is not None:
            self._home.hub.receive(self._session, self, frame)

    async def _log_in(self, login: Login) -> None:
        assert self._home is not None
        self._session, self._result = await self._home.hub.login(login, self)
        self._home.hub.attach(self._session, self)

    async def _log_out(self) -> None:
        assert self._home is not None
        session, self._session = self._session, None
        if session is not None:
            self._home.hub.end(session)

    def _tell(self, change: StateChange | None) -> None:
        if change is not None:
            self._listener.on_state(change.state, change.reason)


class _EmbeddedHub:
    """A hub on a thread of its own, shared by the clients that use its URL.

    Owns the thread and the event loop, from the first client's `enter` to the last one's `leave`.
    """

    _all: ClassVar[dict[str, _EmbeddedHub]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()  # guards _all and every _users

    def __init__(self, url: str, options: TransportOptions) -> None:
        self.loop = asyncio.new_event_loop()
        self._url = url
        self._users = 0
        self._options = options
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtm-sync-hub", daemon=True)
        self._started = threading.Event()
        self._error: BaseException | None = None
        self.hub: Hub

    @classmethod
    def enter(cls, url: str, options: TransportOptions) -> _EmbeddedHub:
        """The hub of that URL, started when this is its first client."""
        with cls._all_lock:
            home = cls._all.get(url)
            fresh = home is None
            if home is None:
                home = cls._all[url] = cls(url, options)
            home._users += 1
        if fresh:
            home._thread.start()
        home._started.wait()
        if home._error is not None:
            home.leave()
            raise home._error
        return home

    def leave(self) -> None:
        """One client fewer; the last one stops the hub."""
        with self._all_lock:
            self._users -= 1
            last = self._users == 0
            if last and self._all.get(self._url) is self:
                del self._all[self._url]
        if last:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                self.loop.call_soon_threadsafe(self.loop.stop)
            if threading.current_thread() is not self._thread:
                self._thread.join(_STOP_TIMEOUT)

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
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop has ended
            work.close()
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            options = self._options
            self.hub = Hub(
                options.make_engine("local:"),
                options.make_media_store(options.media or "memory://"),
            )
            self.loop.run_until_complete(self.hub.start())
        except BaseException as error:
            self._error = error
            self._started.set()
            self.loop.close()
            return
        self._started.set()
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.hub.stop())
            self.loop.run_until_complete(cancel_rest())  # callers that wait: their futures end
        finally:
            self.loop.close()


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
