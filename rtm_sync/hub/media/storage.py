"""The threads on which a hub calls its media store, whose methods block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ..tasks import shielded

T = TypeVar("T")


class StorageThreads:
    """Owns a few threads for blocking calls. They start when needed and end in `close`.

    Args:
        count: the maximum number of threads.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, "rtm-sync-storage")

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(*args)` once, on a thread; return its result or raise its error."""
        outcome: Future[T] = Future()
        is_open = threading.Lock()  # whoever acquires it makes the call

        def call() -> None:
            if is_open.acquire(blocking=False) and outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(function(*args))
                except BaseException as error:
                    outcome.set_exception(error)

        try:
            self._executor.submit(call)
        except RuntimeError:
            # The system allows no more threads: the executor has queued the call nevertheless. Or
            # the interpreter is shutting down, and an embedded hub still has fragments to delete.
            # Both are rare, so block the loop.
            call()
        return await asyncio.wrap_future(outcome)

    async def finish(self, function: Callable[..., object], *args: Any) -> None:
        """Like `run`, for cleaning up: the call happens even if the caller is cancelled."""
        await shielded(self.run(function, *args))

    def close(self) -> None:
        """Wait for the running calls, and end the threads."""
        self._executor.shutdown()
