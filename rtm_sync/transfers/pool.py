"""The pool of a client's transfers. Owns the worker threads and the watcher.

Nothing here knows HTTP or the hub: the work is a callable.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from ..errors import RtmError
from ..rules.limits import MAX_TRANSFERS
from ..rules.timing import Backoff
from ..supervision import BackgroundThread, supervised_thread
from .control import STALL_TIMEOUT, ProgressCallback, TransferControl, TransferKind
from .transfer import Transfer

_WATCH_INTERVAL = 0.02  # cancel signals are plain events, so they are polled; the promise is 100 ms
_START_GRACE = 0.1  # how long a transfer that has a slot may wait for a thread
_LINGER = 1.0  # idle threads stay this long, so that one transfer after another does not churn them
_CLOSE_TIMEOUT = 2.0
_INTERRUPT_PATIENCE = 0.2
_WATCH_BACKOFF = Backoff(first=0.05, longest=1.0)  # cancelling waits for the watcher
T = TypeVar("T")


class _Job(Generic[T]):
    """A transfer and what it takes to run it."""

    __slots__ = ("begun", "control", "place", "transfer", "work")

    def __init__(
        self,
        transfer: Transfer[T],
        control: TransferControl,
        work: Callable[[TransferControl], T],
    ) -> None:
        self.transfer = transfer
        self.control = control
        self.work = work
        self.place: Future[None] | None = None  # where it waits for a thread, once it has a slot
        self.begun = False

    def finish(self, error: BaseException) -> None:
        """Fail the future, unless it is done already."""
        with contextlib.suppress(InvalidStateError):
            self.transfer.set_exception(error)


class TransferPool:
    """Runs transfers on at most nine threads; the rest wait in a bounded queue.

    Owns a `ThreadPoolExecutor` and one watcher thread. Both start with the first transfer and end
    a second after the last (or with `close()`). The watcher looks at
    cancel signals and stalls, and finishes a cancelled transfer whose own thread is stuck where
    nothing can wake it (name resolution). Threads that are held up so, or by a done-callback, do
    not cost the next transfers anything: those go to a fresh executor. Thread-safe; `close()` may
    be called from anywhere, and a done-callback may start a transfer and wait for it.

    Args:
        workers: transfers at once, 1 to 9.
        backlog: how many more may wait; with 0 the tenth is refused, as in the reference.
        stall_timeout: seconds without a byte that end a running transfer with TIMEOUT.
        on_error: receives what a progress callback raised.
    """

    def __init__(
        self,
        *,
        workers: int = MAX_TRANSFERS,
        backlog: int = 1000,
        stall_timeout: float = STALL_TIMEOUT,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._workers = workers
        self._backlog = backlog
        self._stall_timeout = stall_timeout
        self._on_error = on_error
        self._lock = threading.Lock()  # guards all below; never held while a future completes
        self._running: set[_Job[object]] = set()
        self._pending: deque[_Job[object]] = deque()
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False
        self._wake = threading.Event()
        self._has_ended = threading.Event()
        self._watcher = BackgroundThread(
            "rtm-sync-watcher",
            lambda: supervised_thread(
                "transfer watcher", self._watch, self._has_ended, backoff=_WATCH_BACKOFF
            ),
        )

    def submit(
        self,
        kind: TransferKind,
        work: Callable[[TransferControl], T],
        *,
        cancel_signal: threading.Event | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Transfer[T]:
        """Queue a transfer.

        Raises:
            UploadMediaError, DownloadMediaError: CONCURRENCY_LIMIT_EXCEEDED when nine run and the
                backlog is full; NOT_LOGGED_IN after `close()`; FAILURE when the system allows no
                more threads.
        """
        control = TransferControl(kind, on_progress, self._on_error, cancel_signal)
        transfer: Transfer[T] = Transfer(control)
        job = _Job(transfer, control, work)
        with self._lock:
            if self._closed:
                raise kind.error("NOT_LOGGED_IN", "The client is closed; make a new one.")
            if len(self._running) >= self._workers and len(self._pending) >= self._backlog:
                raise kind.error(
                    "CONCURRENCY_LIMIT_EXCEEDED",
                    f"{len(self._running)} transfers run and {len(self._pending):,} wait; the "
                    f"limits are {self._workers} and {self._backlog:,}. Wait for one to end.",
                )
            try:
                self._watcher.start()
            except RuntimeError as error:
                raise _no_thread(kind, error) from error
            self._pending.append(job)  # type: ignore[arg-type]  # the pool ignores the result's type
        self._start_pending()
        return transfer

    def interrupt(self, message: str) -> None:
        """End all transfers with INTERRUPTED (reference 1.3: what ABORTED and logout do)."""
        with self._lock:
            jobs = [*self._running, *self._pending]
        for job in jobs:
            job.control.end(job.control.kind.cancelled(message))
        self._wake.set()
        # Each has to tell the hub what it gives up before the session ends.
        wait([job.transfer for job in jobs], _INTERRUPT_PATIENCE)

    def close(self) -> None:
        """End all transfers and the threads. Idempotent; returns within a few seconds."""
        with self._lock:
            self._closed = True
        self.interrupt("The client was closed.")
        if not threading.current_thread().name.startswith("rtm-sync-transfer"):
            self._watcher.join(_CLOSE_TIMEOUT)  # one of its workers would wait for itself

    def _new_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._workers, "rtm-sync-transfer")

    def _start_pending(self) -> None:
        while True:
            with self._lock:
                if not self._pending or len(self._running) >= self._workers:
                    return
                job = self._pending.popleft()
                failure = self._give_thread(job)
                if failure is None:
                    self._running.add(job)
                    continue
            job.control.end(failure)
            job.finish(failure)

    def _give_thread(self, job: _Job[object]) -> RtmError | None:
        """Hand a job to the executor (the lock is held); the transfer's end when that fails."""
        if self._executor is None:
            self._executor = self._new_executor()
        job.control.touch()
        try:
            job.place = self._executor.submit(self._run, job)
        except RuntimeError as error:
            if "shutdown" in str(error):  # the interpreter is ending
                return job.control.kind.cancelled(str(error))
            return _no_thread(job.control.kind, error)
        return None

    def _replace_executor(self, late: list[_Job[object]]) -> None:
        """Leave held-up threads to themselves; what waits for one gets a fresh executor."""
        failed: list[tuple[_Job[object], RtmError]] = []
        with self._lock:
            held_up, self._executor = self._executor, self._new_executor()
            for job in late:
                if job in self._running and job.place is not None and job.place.cancel():
                    failure = self._give_thread(job)
                    if failure is not None:
                        failed.append((job, failure))
        for job, failure in failed:
            self._forget(job)
            job.control.end(failure)
            job.finish(failure)
        if held_up is not None:
            held_up.shutdown(wait=False)

    def _run(self, job: _Job[object]) -> None:
        try:
            with self._lock:  # against the watcher, which may be finishing a cancelled one
                job.begun = True
                if not job.transfer.done():
                    job.transfer.set_running_or_notify_cancel()
            job.control.check()
            result = job.work(job.control)
            job.control.check()  # work that swallowed its end is cancelled all the same
        except BaseException as error:
            self._forget(job)
            job.finish(self._typed(job, error))
        else:
            self._forget(job)
            with contextlib.suppress(InvalidStateError):
                job.transfer.set_result(result)
        finally:
            self._start_pending()

    def _typed(self, job: _Job[object], error: BaseException) -> BaseException:
        """What the future raises: the transfer's end if it was ended, our errors as they are."""
        if job.control.ended is not None:
            return job.control.ended
        if isinstance(error, RtmError) or not isinstance(error, Exception):
            return error
        kind = job.control.kind
        return kind.error("FAILURE", f"The {kind.value} failed: {error!r}.", error)

    def _forget(self, job: _Job[object]) -> None:
        """Free the slot first, so that whoever waits for the future finds it free."""
        with self._lock:
            self._running.discard(job)
            with contextlib.suppress(ValueError):
                self._pending.remove(job)

    def _watch(self) -> None:
        idle_since = time.monotonic()
        while True:
            self._wake.wait(_WATCH_INTERVAL)
            self._wake.clear()
            now = time.monotonic()
            with self._lock:
                running, pending = list(self._running), list(self._pending)
                if running or pending:
                    idle_since = now
                elif self._closed or now - idle_since > _LINGER:
                    executor, self._executor = self._executor, None
                    self._watcher.retire()
                    break
            self._look_at(running, pending, now)
        if executor is not None:
            executor.shutdown()

    def _look_at(
        self, running: list[_Job[object]], pending: list[_Job[object]], now: float
    ) -> None:
        for job in running + pending:
            job.control.look_at_signal()
        late = [
            job for job in running if not job.begun and job.control.idle_for(now) > _START_GRACE
        ]
        if late:
            self._replace_executor(late)
        for job in running:
            idle = job.control.idle_for(now)
            if idle > self._stall_timeout and job.control.ended is None:
                job.control.end(
                    job.control.kind.error(
                        "TIMEOUT",
                        f"No byte moved for {idle:.0f} seconds; the limit is "
                        f"{self._stall_timeout:g}.",
                    )
                )
        finished = [job for job in pending if job.control.ended is not None]
        finished += [job for job in running if job.control.overdue(now)]
        for job in finished:
            self._forget(job)
            assert job.control.ended is not None
            job.finish(job.control.ended)
        if finished:
            self._start_pending()


def _no_thread(kind: TransferKind, error: RuntimeError) -> RtmError:
    return kind.error(
        "FAILURE", f"The {kind.value} needs a thread: {error}. Try it again later.", error
    )
