"""A running transfer as its work sees it: progress goes out, cancellation comes in."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from ..errors import (
    DownloadCancelled,
    DownloadMediaError,
    DownloadMediaErrorCode,
    RtmError,
    UploadCancelled,
    UploadMediaError,
    UploadMediaErrorCode,
)

STALL_TIMEOUT = 120.0
"""Seconds without a byte after which a transfer fails with TIMEOUT (reference 1.3: 120 s)."""

_PROGRESS_INTERVAL = 0.1
_CANCEL_GRACE = 0.06  # how long a cancelled transfer's own thread may take to end it
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MediaOperationProgress:
    """How far a transfer is, in bytes (reference 1.3: `MediaOperationProgress`)."""

    current_size: int
    total_size: int


ProgressCallback = Callable[[MediaOperationProgress], object]


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
