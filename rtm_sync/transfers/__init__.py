"""Transfers: uploads and downloads as futures, nine at a time, with progress and cancellation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from ..rules.limits import MAX_TRANSFERS
    from .control import (
        STALL_TIMEOUT,
        MediaOperationProgress,
        ProgressCallback,
        TransferControl,
        TransferKind,
    )
    from .pool import TransferPool
    from .progress import ProgressMeter, tqdm_progress
    from .transfer import Transfer
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "..rules.limits": ("MAX_TRANSFERS",),
            ".control": (
                "MediaOperationProgress",
                "ProgressCallback",
                "STALL_TIMEOUT",
                "TransferControl",
                "TransferKind",
            ),
            ".pool": ("TransferPool",),
            ".progress": (
                "ProgressMeter",
                "tqdm_progress",
            ),
            ".transfer": ("Transfer",),
        },
    )

__all__ = [
    "MAX_TRANSFERS",
    "STALL_TIMEOUT",
    "MediaOperationProgress",
    "ProgressCallback",
    "ProgressMeter",
    "Transfer",
    "TransferControl",
    "TransferKind",
    "TransferPool",
    "tqdm_progress",
]
