"""Transfers: uploads and downloads as futures, nine at a time, with progress and cancellation.

`TransferPool` owns the worker threads and the watcher; `TransferControl` is what the work itself
sees of its transfer. Nothing here knows HTTP or the hub: the work is a callable.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from .errors import (
    DownloadCancelled,
    DownloadMediaError,
    DownloadMediaErrorCode,
    RtmError,
    TransferCancelled,
    UploadCancelled,
    UploadMediaError,
    UploadMediaErrorCode,
)
from .rules.timing import Backoff
from .supervision import BackgroundThread, supervised_thread

MAX_TRANSFERS = 9
"""Transfers at once per client, uploads and downloads together (reference 1.3: at most nine)."""

STALL_TIMEOUT = 120.0
"""Seconds without a byte after which a transfer fails with TIMEOUT (reference 1.3: 120 s)."""

_PROGRESS_INTERVAL = 0.1
_WATCH_INTERVAL = 0.02  # cancel signals are plain events, so they are polled; the promise is 100 ms
_CANCEL_GRACE = 0.06  # how long a cancelled transfer's own thread may take to end it
_START_GRACE = 0.1  # how long a transfer that has a slot may wait for a thread
_LINGER = 1.0  # idle threads stay this long, so that one transfer after another does not churn them
_CLOSE_TIMEOUT = 2.0
_INTERRUPT_PATIENCE = 0.2
_WATCH_BACKOFF = Backoff(first=0.05, longest=1.0)  # cancelling waits for the watcher

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MediaOperationProgress:
    """How far a transfer is, in bytes (reference 1.3: `MediaOperationProgress`)."""

    current_size: int
    total_size: int


ProgressCallback = Callable[[MediaOperationProgress], object]


class ProgressMeter(Protocol):
    """What `tqdm_progress` needs of a progress bar; every tqdm has it."""

    total: float | None

    def update(self, n: float, /) -> object:
        """Go on by `n` bytes."""


_meters_lock = threading.Lock()  # tqdm adds without one; transfers may share a bar


def tqdm_progress(meter: ProgressMeter) -> ProgressCallback:
    """Make the progress callback of one transfer that moves a tqdm bar.

    A bar without a total gets the transfer's. Several transfers may share a bar, each with a
    callback of its own; give such a bar the sum of their sizes: `tqdm(total=…, unit="B")`.

    Args:
        meter: a tqdm, or anything with its `total` and `update`.

    Returns:
        What `on_operation_progress` takes. Thread-safe; it leaves the bar open.
    """
    shown = 0

    def show(progress: MediaOperationProgress) -> None:
        nonlocal shown
        with _meters_lock:
            if meter.total is None:
                meter.total = progress.total_size
            meter.update(progress.current_size - shown)
            shown = progress.current_size

    return show


class TransferKind(Enum):
    """Upload or download; each has its own family of errors."""

    UPLOAD = "upload"
    DOWNLOAD = "download"

    def error(self, reason: str, message: str, cause: BaseException | None = None) -> RtmError:
        """The family's error: `reason` is the code's name without prefix ("TIMEOUT", …)."""
        if reason == "INTERRUPTED":
            return self.cancelled(message)
        family = UploadMediaError if self is TransferKind.UPLOAD else DownloadMediaError
        return family.named(reason, message, cause)

    def cancelled(self, message: str) -> UploadCancelled | DownloadCancelled:
        """The error of a cancelled transfer."""
        if self is TransferKind.UPLOAD:
            return UploadCancelled(UploadMediaErrorCode.UPLOAD_MEDIA_ERR_INTERRUPTED, message)
        return DownloadCancelled(DownloadMediaErrorCode.DOWNLOAD_MEDIA_ERR_INTERRUPTED, message)


class TransferControl:
    """A running transfer as its work sees it: progress goes out, cancellation comes in.

    The work calls `check` between steps, `advance` as bytes move, `pause` instead of sleeping, and
    wraps whatever blocks in `interruptible`. Thread-safe; the work itself is one thread.
    """

    def __init__(
        self,
        kind: TransferKind,
        on_progress: ProgressCallback | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        cancel_signal: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind = kind
        self._cancel_signal = cancel_signal
        self._on_progress = on_progress
        self._on_error = on_error
        self._clock = clock
        self._lock = threading.Lock()  # guards _ended, _ended_at, _finished, _aborts
        self._ended: RtmError | None = None
        self._given_up = False
        self._finished = False
        self._ended_at = 0.0
        self._aborts: list[Callable[[], object]] = []
        self._stop = threading.Event()
        # Written by the work's thread alone, read by the watcher:
        self._active_at = clock()
        self._progress = MediaOperationProgress(0, 0)
        self._reported_at = float("-inf")

    # -- for the work --

    @property
    def progress(self) -> MediaOperationProgress:
        """The furthest point so far."""
        return self._progress

    def advance(self, current_size: int, total_size: int) -> None:
        """Tell that `current_size` of `total_size` bytes have moved; raises like `check`.

        The callback is throttled, never goes back (a retry that starts earlier is silent until it
        is further), and does not say 100 % before `complete` did.
        """
        now = self._clock()
        self._active_at = now
        self.check()
        if current_size <= self._progress.current_size and self._progress.total_size:
            return
        self._progress = MediaOperationProgress(current_size, total_size)
        if current_size < total_size and now - self._reported_at >= _PROGRESS_INTERVAL:
            self._report(now)

    def complete(self, total_size: int) -> None:
        """Tell that everything arrived and is confirmed: the one call at 100 %.

        Raises like `check`; from now on it is too late to cancel.
        """
        self.check()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._finished = True
        self._progress = MediaOperationProgress(total_size, total_size)
        self._report(self._clock())

    def check(self) -> None:
        """Raise the transfer's end when it was cancelled or stalled."""
        self.look_at_signal()
        if self._ended is not None and not self._finished:
            raise self._ended

    def pause(self, seconds: float) -> None:
        """Sleep, but raise like `check` as soon as the transfer is cancelled."""
        self._stop.wait(seconds)
        self._active_at = self._clock()
        self.check()

    @contextlib.contextmanager
    def interruptible(self, abort: Callable[[], object]) -> Iterator[None]:
        """While the block runs, cancelling calls `abort` (from another thread) to wake it.

        Whatever the block raises because of that, the transfer's end is raised instead.
        """
        with self._lock:
            self._aborts.append(abort)
        try:
            self.check()
            yield
        except Exception as error:
            if self._ended is not None and error is not self._ended:
                raise self._ended from error
            raise
        finally:
            with self._lock:
                self._aborts.remove(abort)

    # -- for the pool --

    def look_at_signal(self) -> None:
        """Cancel the transfer when the application's event is set."""
        if self._cancel_signal is not None and self._cancel_signal.is_set():
            self.cancel()

    def cancel(self) -> bool:
        """End the transfer as cancelled."""
        return self.end(self.kind.cancelled(f"The {self.kind.value} was cancelled."), given_up=True)

    @property
    def given_up(self) -> bool:
        """Whether the application itself cancelled it: it does not want it later either."""
        return self._given_up

    def end(self, error: RtmError, *, given_up: bool = False) -> bool:
        """End the transfer early; wakes whatever blocks. False when it is complete or had ended."""
        with self._lock:
            if self._ended is not None or self._finished:
                return False
            self._ended = error
            self._given_up = given_up
            self._ended_at = self._clock()
            aborts = tuple(self._aborts)
        self._stop.set()
        for abort in aborts:
            try:
                abort()
            except Exception:
                logger.debug("aborting a transfer's I/O failed", exc_info=True)
        return True

    @property
    def ended(self) -> RtmError | None:
        return self._ended

    def touch(self) -> None:
        """Start the stall clock: the transfer has just left the queue."""
        self._active_at = self._clock()

    def idle_for(self, now: float) -> float:
        """Seconds without a byte."""
        return now - self._active_at

    def overdue(self, now: float) -> bool:
        """Whether it was ended and its own thread had its time to say so."""
        return self._ended is not None and now - self._ended_at > _CANCEL_GRACE

    def _report(self, now: float) -> None:
        self._reported_at = now
        if self._on_progress is None:
            return
        self._active_at = math.inf  # a slow callback is not a stalled network
        try:
            self._on_progress(self._progress)
        except Exception as error:
            if self._on_error is not None:
                self._on_error(error)
        self._active_at = self._clock()


class Transfer(Future[T], Generic[T]):
    """One upload or download: a `concurrent.futures.Future` that can be cancelled at any time.

    `result(timeout)`, `exception`, `add_done_callback`, `as_completed` and `wait` work as for any
    future. `cancel()` also ends a running transfer; a cancelled one raises `TransferCancelled`
    (which is a `CancelledError` and the family's INTERRUPTED error) from `result()`. As a context
    manager it cancels itself when the block ends before it did: an error or Ctrl-C in the block
    leaves nothing running. In a coroutine, await `asyncio.wrap_future(transfer)`.
    """

    def __init__(self, control: TransferControl) -> None:
        super().__init__()
        self._control = control

    @property
    def kind(self) -> TransferKind:
        return self._control.kind

    @property
    def progress(self) -> MediaOperationProgress:
        """How far it is now; (0, 0) before it starts."""
        return self._control.progress

    def cancel(self) -> bool:
        """End the transfer, in whatever state it is, within 100 ms.

        False when it is done, or its last byte is confirmed and only the result is missing.
        """
        if self.done():
            return False
        return self._control.cancel() or self._control.ended is not None

    def cancelled(self) -> bool:
        """Whether it ended by cancellation."""
        return self.done() and isinstance(super().exception(), TransferCancelled)

    def __enter__(self) -> Transfer[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


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
