"""The start of background threads, and the supervision of loops.

`start_thread` starts every thread of the package, mostly for a `BackgroundThread`. Every loop that
runs as long as its owner lives is supervised: on a thread by `supervised_thread`, on an event loop
by `hub.tasks.supervised`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from .rules.timing import Backoff, Clock, Deadline

BACKOFF = Backoff(first=0.5, longest=30.0)
"""The default waits between a failure of a supervised loop and its next run."""

_HEALTHY_AFTER = 60.0  # after a run of this many seconds, the back-off starts from the beginning

logger = logging.getLogger(__name__)

_failures: Counter[str] = Counter()
_failures_lock = threading.Lock()


def start_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread and return it.

    The owner stores the returned thread. Therefore it never stores a thread that failed to start.

    Args:
        name: the thread's name, `rtm-sync-…`.
        target: runs on the thread.

    Raises:
        RuntimeError: the system allows no more threads.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class BackgroundThread:
    """Its owner's only background thread, started when there is work. Thread-safe.

    After a failed start, the next `start` tries again. An interrupted start (Ctrl-C) may lose the
    reference to the new thread. Therefore the thread registers itself when it begins, or ends at
    once when another thread was started since, even if that one has ended.

    Args:
        name: the thread's name, `rtm-sync-…`.
        work: runs on the thread.
    """

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self._name = name
        self._work = work
        self._lock = threading.Lock()  # guards all below
        self._starts = 0
        self._thread: threading.Thread | None = None
        self._ending: threading.Thread | None = None  # it has no more work, and may still run

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return self._thread is threading.current_thread()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return any(thread.is_alive() for thread in self._threads())

    def start(self) -> None:
        """Start the thread, unless it runs already.

        Raises:
            RuntimeError: the system allows no more threads.
        """
        with self._lock:
            if self._thread is None:
                self._starts += 1
                self._thread = start_thread(self._name, partial(self._run, self._starts))

    def retire(self) -> None:
        """Declare that the thread is about to end: the next `start` starts another thread.

        The thread calls this itself, while it holds the lock under which it found no more work.
        """
        with self._lock:
            if self.is_current:
                self._ending, self._thread = self._thread, None

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, at most `timeout` seconds.

        Returns at once when the thread itself calls it.
        """
        deadline = Deadline(timeout)
        for thread in self._threads():
            if thread is not threading.current_thread():
                thread.join(deadline.timeout)

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return [thread for thread in (self._ending, self._thread) if thread is not None]

    def _run(self, start: int) -> None:
        with self._lock:
            if start != self._starts:
                return
            self._thread = threading.current_thread()
        try:
            self._work()
        finally:
            self.retire()


def loop_failures() -> dict[str, int]:
    """The number of failures of each supervised loop of this process, by name. Thread-safe."""
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

    After an exception: log it, count it, back off, and run the loop again.

    Args:
        name: the loop's name, for the log and for `loop_failures`.
        work: runs the loop; called again after each failure.
        stopping: ends the waits, and the loop after its current run.
        backoff: the waits between a failure and the next run.
        clock: a monotonic clock.
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
    """Counts the failures of one loop, and decides the wait after each."""

    def __init__(self, name: str, backoff: Backoff, clock: Clock) -> None:
        self._name = name
        self._backoff = backoff
        self._clock = clock
        self._started_at = clock()
        self._failures_in_a_row = 0

    def begin(self) -> None:
        """A run of the loop begins."""
        self._started_at = self._clock()

    def failed(self) -> float:
        """Log and count the exception that is being handled. Returns the seconds to wait."""
        with _failures_lock:
            _failures[self._name] += 1
        if self._clock() - self._started_at >= _HEALTHY_AFTER:
            self._failures_in_a_row = 0
        self._failures_in_a_row += 1
        wait = self._backoff.wait(self._failures_in_a_row)
        logger.exception("the %s loop failed; it runs again in %.1f s", self._name, wait)
        return wait
