"""Progress callbacks for progress bars."""

from __future__ import annotations

import threading
from typing import Protocol

from .control import MediaOperationProgress, ProgressCallback


class ProgressMeter(Protocol):
    """The part of a progress bar that `tqdm_progress` uses; every tqdm has it."""

    total: float | None

    def update(self, n: float, /) -> object:
        """Advance the bar by `n` bytes."""


_meters_lock = threading.Lock()  # transfers may share a bar, and tqdm takes no lock to count


def tqdm_progress(meter: ProgressMeter) -> ProgressCallback:
    """Make the progress callback of one transfer that moves a tqdm bar.

    A bar without a total gets the transfer's size as its total. Several transfers may share a bar,
    each with its own callback; give such a bar the sum of their sizes: `tqdm(total=…, unit="B")`.

    Args:
        meter: a tqdm, or an object with the same `total` and `update`.

    Returns:
        A callback for `on_operation_progress`. It is thread-safe, and does not close the bar.
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
