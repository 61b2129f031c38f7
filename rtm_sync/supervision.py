"""Background threads and loops: how they start, and what happens when they fail.

Every thread of the package is started by `start_thread`, mostly for a `BackgroundThread`. Every
loop that runs for as long as its owner lives is supervised: on a thread by `supervised_thread`, on
an event loop by `hub.tasks.supervised`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from .rules.timing import Backoff, Clock, Deadline

BACKOFF = Backoff(first=0.5, longest=30.0)
"""The waits between a failure of a supervised loop and its next run, unless it says others."""

_HEALTHY_AFTER = 60.0  # a loop that ran for so long before it failed begins its back-off anew

logger = logging.getLogger(__name__)

_failures: Counter[str] = Counter()
_failures_lock = threading.Lock()


def start_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread and return it.

    An owner keeps the thread that this returns. Therefore it never remembers a thread that could
    not be started.

    Args:
        name: the thread's name, `rtm-sync-…`.
        target: what the thread runs.

    Raises:
        RuntimeError: the system allows no more threads.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class BackgroundThread:
    """The one background thread of its owner, started when there is work. Thread-safe.

    A thread that could not be started is not kept: the next `start` tries again. A start that is
    interrupted (Ctrl-C) may leave a thread that nobody has a reference to. It registers itself as
    it begins, or ends at once when another was started meanwhile.

    Args:
        name: the thread's name, `rtm-sync-…`.
        work: what the thread runs.
    """

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self._name = name
        self._work = work
        self._lock = threading.Lock()  # guards _thread and _retired
        self._thread: threading.Thread | None = None
        self._retired: threading.Thread | None = None  # it may still be about to end

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on it."""
        return self._thread is threading.current_thread()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return any(thread.is_alive() for thread in self._threads())

    def start(self) -> None:
        """Start the thread, unless it runs.

        Raises:
            RuntimeError: the system allows no more threads.
        """
        with self._lock:
            if self._thread is None:
                self._thread = start_thread(self._name, self._run)

    def retire(self) -> None:
        """The thread is about to end, and the next `start` starts another.

        Called by the thread itself, with the lock under which it found that there is no more work.
        """
        with self._lock:
            if self.is_current:
                self._retired, self._thread = self._thread, None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended. From the thread itself it returns at once."""
        deadline = Deadline(timeout)
        for thread in self._threads():
            if thread is not threading.current_thread():
                thread.join(deadline.timeout)

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return [thread for thread in (self._retired, self._thread) if thread is not None]

    def _run(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.current_thread()
            elif not self.is_current:
                return
        try:
            self._work()
        finally:
            self.retire()


def loop_failures() -> dict[str, int]:
    """How often each supervised loop of this process has failed, by name. Thread-safe."""
    with _failures_lock:
        return dict(_failures)


def supervised_thread(
    name: str,
    work: Callable[[], object],
    stopping: threading.Event,
    *,
    backoff: Backoff = BACKOFF,
    clock: Clock = time.monotonic,
) -> None:
    """Run a loop until it returns or `stopping` is set.

    When it raises, log that, count it, wait, and run it again.

    Args:
        name: of the loop, for the log and for `loop_failures`.
        work: runs the loop; called again after each failure.
        stopping: ends the waits.
        backoff: the waits between a failure and the next run.
        clock: the time.
    """
    supervisor = Supervisor(name, backoff, clock)
    while not stopping.is_set():
        supervisor.begin()
        try:
            work()
        except Exception:
            stopping.wait(supervisor.failed())
        else:
            return


class Supervisor:
    """Counts the failures of one loop and says how long to wait after each."""

    def __init__(self, name: str, backoff: Backoff, clock: Clock) -> None:
        self._name = name
        self._backoff = backoff
        self._clock = clock
        self._began = clock()
        self._in_a_row = 0

    def begin(self) -> None:
        self._began = self._clock()

    def failed(self) -> float:
        """Log and count the exception that is being handled; returns the seconds to wait."""
        with _failures_lock:
            _failures[self._name] += 1
        if self._clock() - self._began >= _HEALTHY_AFTER:
            self._in_a_row = 0
        self._in_a_row += 1
        wait = self._backoff.wait(self._in_a_row)
        logger.exception("the %s loop failed; it runs again in %.1f s", self._name, wait)
        return wait
