"""What the tests share."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rtm_sync.testing import RtmTestCase, local_gateway, wait_until
from rtm_sync.testing.case import PATIENCE

__all__ = [
    "PATIENCE",
    "RtmTestCase",
    "Stopwatch",
    "at_once",
    "local_gateway",
    "wait_until",
]

T = TypeVar("T")


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Make the calls side by side, each on a thread; their results, or the first exception.

    For child processes and for what waits: one after the other they leave cores idle.
    """
    with ThreadPoolExecutor(max(1, len(calls))) as pool:
        running = [pool.submit(call) for call in calls]
    return [call.result() for call in running]


class Stopwatch:
    """Measures what is promised to take a certain time; runs from when it is made.

    Time for which a thread of this process or of its children was ready and waited for a core does
    not count: a busy machine is no reason to fail. The time of threads that have ended is not known
    and counts. On systems other than Linux all time counts.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited = dict(_waited_for_a_core())

    def seconds(self) -> float:
        """Seconds since it was made."""
        took = time.monotonic() - self._began
        waited = sum(
            max(0.0, seconds - self._waited.get(thread, 0.0))
            for thread, seconds in _waited_for_a_core()
        )
        return max(0.0, took - waited)


def _waited_for_a_core() -> Iterator[tuple[str, float]]:
    """For each thread of this process and its descendants, the seconds it has waited so far."""
    processes = [str(os.getpid())]
    while processes:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for thread in Path("/proc", processes.pop(), "task").iterdir():
                with contextlib.suppress(OSError):
                    processes += (thread / "children").read_text().split()
                    _, waited, _ = (thread / "schedstat").read_text().split()
                    yield thread.name, int(waited) / 1e9
