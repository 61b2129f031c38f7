"""Progress callbacks for progress bars."""

from __future__ import annotations

import threading
from typing import Protocol

from .control import MediaOperationProgress, ProgressCallback


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
