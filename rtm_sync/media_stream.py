"""Deprecated: this module has moved to `rtm_sync.transfers.stream`.

The next release will no longer have it.
"""

from __future__ import annotations

from .old_names import warn_moved
from .transfers.stream import MediaStream

__all__ = [
    "MediaStream",
]

warn_moved(__name__, "rtm_sync.transfers.stream")
