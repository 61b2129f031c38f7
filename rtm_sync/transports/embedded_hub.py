"""A hub on a thread of this process, shared by the embedded transports of one URL."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, ClassVar, Protocol, TypeVar

from ..hub.node import Hub
from ..hub.tasks import cancel_other_tasks
from ..portable import after_fork_in_child
from ..supervision import BackgroundThread
from ..transfers.control import TransferControl
from .base import TransportOptions

STOP_TIMEOUT = 5.0
"""Seconds for which a client waits for the hub to stop."""

T = TypeVar("T")


class HubStopped(RuntimeError):
    """The embedded hub is not running."""

    def __init__(self) -> None:
        super().__init__("The embedded hub does not run.")


class Member(Protocol):
    """A connection to an embedded hub.

    Attributes:
        home: the hub; set by `EmbeddedHub.enter`.
    """

    home: EmbeddedHub | None


class EmbeddedHub:
    """A hub on a thread of its own, shared by the connections to its URL.

    Owns the thread and the event loop, from the first connection's `enter` to the last one's
    `leave`.

    Attributes:
        started: done when `hub` can be used; its exception is the reason of a failed start.
    """

    _all: ClassVar[dict[str, EmbeddedHub]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()  # guards _all and all _connections

    def __init__(self, url: str, options: TransportOptions) -> None:
        self._url = url
        self._options = options
        self._connections: set[Member] = set()
        self._thread = BackgroundThread("rtm-sync-hub", self._run)
        self._loop_lock = threading.Lock()  # guards _loop: all accepted work is run
        self._loop: asyncio.AbstractEventLoop | None = None  # None when it accepts no work
        self._stopping = asyncio.Event()
        self._must_stop = False
        self.started: Future[None] = Future()
        self.hub: Hub

    @classmethod
    def enter(cls, url: str, options: TransportOptions, connection: Member) -> EmbeddedHub:
        """Add a connection to the hub of a URL. The first connection starts the hub.

        Raises:
            RuntimeError: the thread cannot be started; the caller must still call `leave`.
        """
        with cls._all_lock:
            home = cls._all.get(url) or cls(url, options)
            connection.home = home  # first, so that the caller can always call `leave`
            home._connections.add(connection)
            cls._all[url] = home
            if not home.started.done():
                home._thread.start()
        return home

    def leave(self, connection: Member) -> None:
        """Remove a connection. The last one stops the hub. Idempotent."""
        with self._all_lock:
            self._connections.discard(connection)
            is_last = not self._connections
            if is_last and self._all.get(self._url) is self:
                del self._all[self._url]
        if is_last:
            self._must_stop = True
            with contextlib.suppress(RuntimeError):  # it has ended already, or not begun
                self.call_soon(self._stopping.set)
            self._thread.join(STOP_TIMEOUT)

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the hub's thread.

        Raises:
            RuntimeError: the hub does not run.
        """
        with self._loop_lock:
            if self._loop is None:
                raise HubStopped
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
        """Like `run`, but a cancelled transfer cancels the coroutine."""
        future = self._submit(work)
        with control.interruptible(future.cancel):
            return future.result()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Start a coroutine on the hub's loop; do nothing if the hub has stopped."""
        with contextlib.suppress(RuntimeError):
            self._submit(work)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._loop_lock:
            if self._loop is None:
                work.close()
                raise HubStopped
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
            loop.run_until_complete(asyncio.sleep(0))  # start the work that was accepted last
            loop.run_until_complete(cancel_other_tasks())  # ends the futures of waiting callers
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
    EmbeddedHub._all = {}
    EmbeddedHub._all_lock = threading.Lock()


after_fork_in_child(_forget_hubs)
