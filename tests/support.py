"""Helpers that the tests share."""

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
    """Run the calls at the same time, each on a thread.

    For child processes and for calls that wait: one after the other they leave cores idle.

    Returns:
        The results, in the order of the calls. The first exception is raised.
    """
    with ThreadPoolExecutor(max(1, len(calls))) as pool:
        running = [pool.submit(call) for call in calls]
    return [call.result() for call in running]


class Stopwatch:
    """A stopwatch for promised times, which starts when it is made.

    Time for which a thread of this process or of its children was ready and waited for a core does
    not count: a busy machine is no reason to fail. The time of threads that have ended is not known
    and counts. On systems other than Linux all time counts.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited = dict(_waited_for_a_core())

    def seconds(self) -> float:
        """Seconds since the start."""
        took = time.monotonic() - self._began
        waited = sum(
            max(0.0, seconds - self._waited.get(thread, 0.0))
            for thread, seconds in _waited_for_a_core()
        )
        return max(0.0, took - waited)


BESIDE: set[str] = set()
"""Ids of child processes that run other tests: no stopwatch is to count their waits."""


def _waited_for_a_core() -> Iterator[tuple[str, float]]:
    """For each thread of this process and its descendants, the seconds it has waited so far."""
    processes = [str(os.getpid())]
    while processes:
        with contextlib.suppress(OSError):  # the thread has ended
            for thread in Path("/proc", processes.pop(), "task").iterdir():
                with contextlib.suppress(OSError):
                    children = (thread / "children").read_text().split()
                    processes += [child for child in children if child not in BESIDE]
                    _, waited, _ = (thread / "schedstat").read_text().split()
                    yield thread.name, int(waited) / 1e9
