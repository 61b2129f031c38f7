"""The pool of a client's transfers. It owns the worker threads and the watcher.

It does not know HTTP or the hub: the work of a transfer is a callable.
"""

from __future__ import annotations

import contextlib
import logging
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
from ..unlogged import print_unless_logged
from .at_exit import finish_at_exit, is_ended_by_ctrl_c
from .control import STALL_TIMEOUT, ProgressCallback, TransferControl, TransferKind
from .transfer import Transfer

_WATCH_INTERVAL = 0.02  # cancel signals are plain events, so they are polled; the promise is 100 ms
_START_GRACE = 0.1  # seconds that a transfer with a slot may wait for a thread
_LINGER = 1.0  # seconds that idle threads stay, so that successive transfers share them
_CLOSE_TIMEOUT = 2.0
_INTERRUPT_TIMEOUT = 0.2
WAITING_ADVICE = "close(wait=True) waits for them."
_WATCH_BACKOFF = Backoff(first=0.05, longest=1.0)  # short, because cancelling waits for the watcher
T = TypeVar("T")

logger = logging.getLogger(__name__)


class _Job(Generic[T]):
    """A transfer with its control, its work and its place in the executor."""

    __slots__ = ("begun", "control", "is_waiting", "place", "thread", "transfer", "work")

    def __init__(
        self,
        transfer: Transfer[T],
        control: TransferControl,
        work: Callable[[TransferControl], T],
    ) -> None:
        self.transfer = transfer
        self.control = control
        self.work = work
        self.place: Future[None] | None = None  # its place in the executor, once it has a slot
        self.begun = False
        self.thread = 0  # the id of the thread that runs it
        self.is_waiting = False  # one of its callbacks waits for the other transfers

    def finish(self, error: BaseException) -> None:
        """Fail the transfer's future, unless the future is done."""
        with contextlib.suppress(InvalidStateError):
            self.transfer.set_exception(error)


class TransferPool:
    """Runs transfers on at most nine threads; further transfers wait in a bounded queue.

    Owns a `ThreadPoolExecutor` and one watcher thread. Both start with the first transfer and end
    a second after the last transfer (or with `close()`). The watcher polls cancel signals and finds
    stalled transfers. It also finishes a cancelled transfer whose own thread hangs in a call that
    cannot be woken (name resolution). When threads hang in such a call or in a done-callback, later
    transfers get a new executor and do not wait for them. Thread-safe; any thread may call
    `close()`, and a done-callback may start a transfer and wait for it.

    Args:
        workers: the number of transfers at once, 1 to 9.
        backlog: the number of transfers that may wait. With 0 the tenth is refused, as in the
            reference.
        stall_timeout: seconds without a byte after which a running transfer ends with TIMEOUT.
        on_error: receives the exceptions of progress callbacks.
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
        self._lock = threading.Lock()  # guards what follows; not held while a future completes
        self._running: set[_Job[object]] = set()
        self._pending: deque[_Job[object]] = deque()
        self._busy: set[_Job[object]] = set()  # those with a thread, until their callbacks are done
        self._waits = 0  # running calls of `wait`
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

        Args:
            kind: upload or download.
            work: moves the bytes; called on a worker thread with the transfer's control.
            cancel_signal: the transfer is cancelled when this event is set.
            on_progress: called with the progress, on the worker thread.

        Raises:
            UploadMediaError, DownloadMediaError: CONCURRENCY_LIMIT_EXCEEDED when nine transfers run
                and the backlog is full; NOT_LOGGED_IN after `close()`; FAILURE when the system
                allows no more threads.
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
                    f"limits are {self._workers} and {self._backlog:,}. Wait until one ends.",
                )
            try:
                self._watcher.start()
            except RuntimeError as error:
                raise _no_thread(kind, error) from error
            self._pending.append(job)  # type: ignore[arg-type]  # the pool ignores the result's type
        finish_at_exit(self)
        self._start_pending()
        return transfer

    def wait(self) -> None:
        """Wait until no transfer runs or waits, and their callbacks are done.

        Those that fail meanwhile are logged, because nobody may look at their futures any more.

        Called from a callback of a transfer, it does not wait for that transfer.
        """
        thread = threading.get_ident()
        with self._lock:
            own = [job for job in self._busy if job.thread == thread]
            self._waits += 1
        for job in own:
            job.is_waiting = True
        try:
            while self._has_work():
                time.sleep(_WATCH_INTERVAL)  # polled: Ctrl-C ends a sleep on every system
        finally:
            for job in own:
                job.is_waiting = False
            with self._lock:
                self._waits -= 1

    def _has_work(self) -> bool:
        with self._lock:
            return bool(self._pending) or any(not job.is_waiting for job in self._busy)

    def interrupt(self, message: str, advice: str = "") -> None:
        """End all transfers with INTERRUPTED, as logout and ABORTED do (reference 1.3).

        Args:
            message: what ends them, as a sentence; a warning says how many they are.
            advice: another sentence for the warning.
        """
        with self._lock:
            running, pending = list(self._running), list(self._pending)
        jobs = [*running, *pending]
        ended = [job.control.end(job.control.kind.cancelled(message)) for job in jobs]
        if any(ended):
            warning = (
                f"{message} {sum(ended[: len(running)])} running and "
                f"{sum(ended[len(running) :])} waiting transfers were interrupted. {advice}"
            ).rstrip()
            logger.warning("%s", warning)
            if not is_ended_by_ctrl_c():  # who presses it knows
                print_unless_logged(logger, logging.WARNING, warning)
        self._wake.set()
        # Each transfer must withdraw its upload at the hub before the session ends.
        wait([job.transfer for job in jobs], _INTERRUPT_TIMEOUT)

    def close(self) -> None:
        """End all transfers and the threads. Idempotent; returns within a few seconds."""
        with self._lock:
            self._closed = True
        self.interrupt("The client was closed.", WAITING_ADVICE)
        if not threading.current_thread().name.startswith("rtm-sync-transfer"):
            self._watcher.join(_CLOSE_TIMEOUT)  # the watcher waits for workers: not from a worker

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
                    self._busy.add(job)
                    continue
            job.control.end(failure)
            job.finish(failure)

    def _give_thread(self, job: _Job[object]) -> RtmError | None:
        """Submit a job to the executor, with the lock held. Returns the error if that fails."""
        if self._executor is None:
            self._executor = self._new_executor()
        job.control.touch()
        try:
            job.place = self._executor.submit(self._run, job)
        except RuntimeError as error:
            if "shutdown" in str(error):  # the interpreter shuts down
                return job.control.kind.cancelled(str(error))
            return _no_thread(job.control.kind, error)
        return None

    def _replace_executor(self, late: list[_Job[object]]) -> None:
        """Abandon an executor with hanging threads; the jobs that wait for it get a new one."""
        failed: list[tuple[_Job[object], RtmError]] = []
        with self._lock:
            hanging, self._executor = self._executor, self._new_executor()
            for job in late:
                if job in self._running and job.place is not None and job.place.cancel():
                    failure = self._give_thread(job)
                    if failure is not None:
                        failed.append((job, failure))
        for job, failure in failed:
            self._forget(job)
            job.control.end(failure)
            job.finish(failure)
            self._is_over(job)
        if hanging is not None:
            hanging.shutdown(wait=False)

    def _run(self, job: _Job[object]) -> None:
        try:
            with self._lock:  # the watcher may finish a cancelled transfer at the same time
                job.begun = True
                job.thread = threading.get_ident()
                if not job.transfer.done():
                    job.transfer.set_running_or_notify_cancel()
            job.control.check()
            result = job.work(job.control)
            job.control.check()  # the work may have swallowed the error of a cancelled transfer
        except BaseException as error:
            self._forget(job)
            failure = self._typed(job, error)
            if self._waits and job.control.ended is None:
                logger.warning("a transfer failed: %s", failure)
            job.finish(failure)
        else:
            self._forget(job)
            with contextlib.suppress(InvalidStateError):
                job.transfer.set_result(result)
        finally:
            self._is_over(job)
            self._start_pending()

    def _is_over(self, job: _Job[object]) -> None:
        """Forget a job whose future and callbacks are done, or whose thread is left behind."""
        with self._lock:
            self._busy.discard(job)

    def _typed(self, job: _Job[object], error: BaseException) -> BaseException:
        """The exception of the future: the transfer's own error, an RtmError, or FAILURE."""
        if job.control.ended is not None:
            return job.control.ended
        if isinstance(error, RtmError) or not isinstance(error, Exception):
            return error
        kind = job.control.kind
        return kind.error("FAILURE", f"The {kind.value} failed: {error!r}.", error)

    def _forget(self, job: _Job[object]) -> None:
        """Free the slot. This comes before the future completes, so that waiters find it free."""
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
            job.control.poll_cancel_signal()
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
            self._is_over(job)
        if finished:
            self._start_pending()


def _no_thread(kind: TransferKind, error: RuntimeError) -> RtmError:
    return kind.error(
        "FAILURE", f"The {kind.value} needs a thread: {error}. Try it again later.", error
    )
