"""The threads on which a hub does what blocks: its media store's work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class StorageThreads:
    """A few threads for blocking work, owned by the hub from its making to `close`.

    Args:
        count: how many at most.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, "rtm-sync-storage")

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(*args)` on one of the threads and wait for what it returns or raises."""
        try:
            work = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        except RuntimeError:
            # The interpreter is ending and takes no new work for its threads, but an embedded
            # hub still has fragments to delete: nobody else waits for the loop any more.
            return function(*args)
        return await work

    def close(self) -> None:
        """Wait for what runs and end the threads."""
        self._executor.shutdown()
