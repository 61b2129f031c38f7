"""The threads on which a hub calls its media store, whose methods block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class StorageThreads:
    """Owns a few threads for blocking calls. They start when needed and end in `close`.

    Args:
        count: the maximum number of threads.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, "rtm-sync-storage")

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(*args)` on one of the threads; return its result or raise its error."""
        try:
            work = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        except RuntimeError:
            # The interpreter is shutting down and its executors take no new work, but an embedded
            # hub still has fragments to delete. No other task needs the loop, so block it.
            return function(*args)
        return await work

    def close(self) -> None:
        """Wait for the running calls, and end the threads."""
        self._executor.shutdown()
