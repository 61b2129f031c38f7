"""Deprecated: this module has moved to `rtm_sync.thumbnails.subprocess`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

from .thumbnails.subprocess import Pixels, decoded_apart

__all__ = [
    "Pixels",
    "decoded_apart",
]

warnings.warn(
    "rtm_sync.thumbnail_process has moved to rtm_sync.thumbnails.subprocess; "
    "the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
