"""Deprecated: this module has moved to `rtm_sync.thumbnails.subprocess`.

The next release will no longer have it.
"""

from __future__ import annotations

from .old_names import warn_moved
from .thumbnails.subprocess import Pixels, decoded_apart

__all__ = [
    "Pixels",
    "decoded_apart",
]

warn_moved(__name__, "rtm_sync.thumbnails.subprocess")
