"""The control of a running transfer: it reports progress and delivers cancellation."""

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
_CANCEL_GRACE = 0.06  # seconds that the transfer's own thread has to end a cancelled transfer
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MediaOperationProgress:
    """The progress of a transfer, in bytes (reference 1.3: `MediaOperationProgress`)."""

    current_size: int
    total_size: int


ProgressCallback = Callable[[MediaOperationProgress], object]


class TransferKind(Enum):
    """Upload or download. Each kind has its own family of errors."""

    UPLOAD = "upload"
    DOWNLOAD = "download"

    def error(self, reason: str, message: str, cause: BaseException | None = None) -> RtmError:
        """An error of the family. `reason` is the code's name without its prefix ("TIMEOUT", …)."""
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
    """The control of a running transfer: it reports progress and delivers cancellation.

    The work of a transfer (the callable that moves the bytes) calls `check` between its steps,
    `advance` when bytes have moved and `pause` instead of sleeping. It wraps each blocking call in
    `interruptible`. Thread-safe; the work runs on one thread.

    Args:
        kind: upload or download.
        on_progress: called with the progress, at most every 0.1 seconds, on the work's thread.
        on_error: receives the exceptions of `on_progress`.
        cancel_signal: the application's event; the transfer is cancelled when it is set.
        clock: the monotonic time in seconds.
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
        # Written by the work's thread only, and read by the watcher:
        self._active_at = clock()
        self._progress = MediaOperationProgress(0, 0)
        self._reported_at = float("-inf")

    # -- for the work --

    @property
    def progress(self) -> MediaOperationProgress:
        """The largest progress so far."""
        return self._progress

    def advance(self, current_size: int, total_size: int) -> None:
        """Report that `current_size` of `total_size` bytes have moved. Raises like `check`.

        The progress callback is throttled. Its numbers never decrease: a retry that starts at an
        earlier byte reports nothing until it is further. Only `complete` reports 100 %.
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
        """Report that all bytes have arrived and are confirmed: the only report of 100 %.

        Raises like `check`. The transfer cannot be cancelled after this call.
        """
        self.check()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._finished = True
        self._progress = MediaOperationProgress(total_size, total_size)
        self._report(self._clock())

    def check(self) -> None:
        """Raise the transfer's error when the transfer was cancelled or stalled."""
        self.poll_cancel_signal()
        if self._ended is not None and not self._finished:
            raise self._ended

    def pause(self, seconds: float) -> None:
        """Sleep; raise like `check` as soon as the transfer is cancelled."""
        self._stop.wait(seconds)
        self._active_at = self._clock()
        self.check()

    @contextlib.contextmanager
    def interruptible(self, abort: Callable[[], object]) -> Iterator[None]:
        """A context manager: the end of the transfer calls `abort` to wake the block.

        `abort` runs on another thread. When the transfer has ended, its error replaces the
        exception that the block raises.
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

    def poll_cancel_signal(self) -> None:
        """Cancel the transfer when the application's event is set."""
        if self._cancel_signal is not None and self._cancel_signal.is_set():
            self.cancel()

    def cancel(self) -> bool:
        """End the transfer as cancelled. Returns False when it is complete or had ended."""
        return self.end(self.kind.cancelled(f"The {self.kind.value} was cancelled."), given_up=True)

    @property
    def given_up(self) -> bool:
        """Whether the application cancelled the transfer, so that it will not be resumed."""
        return self._given_up

    def end(self, error: RtmError, *, given_up: bool = False) -> bool:
        """End the transfer early, and wake its blocking calls.

        Args:
            error: raised to the work, and from the future.
            given_up: whether the application cancelled the transfer.

        Returns:
            False when the transfer is complete or had ended.
        """
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
        """The error with which the transfer was ended early; None while it was not."""
        return self._ended

    def touch(self) -> None:
        """Start the stall clock. Called when the transfer has left the queue."""
        self._active_at = self._clock()

    def idle_for(self, now: float) -> float:
        """Seconds since the last byte."""
        return now - self._active_at

    def overdue(self, now: float) -> bool:
        """Whether the transfer was ended, and its own thread has not finished it in time."""
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
