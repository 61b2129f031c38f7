"""Deprecated: this module has moved to `rtm_sync.thumbnails.encoding`.

The next release will no longer have it.
"""

from __future__ import annotations

from .old_names import warn_moved
from .thumbnails.encoding import (
    BEST_QUALITY,
    GOOD_QUALITY,
    LAST_RESORT_QUALITIES,
    LONGEST_SIDE,
    SHORTEST_SIDE,
    SIDE_STEP,
    Attempt,
    bare_type,
    best_fit,
    encode_thumbnail,
    read_content,
    scaled,
    sides,
)

__all__ = [
    "BEST_QUALITY",
    "GOOD_QUALITY",
    "LAST_RESORT_QUALITIES",
    "LONGEST_SIDE",
    "SHORTEST_SIDE",
    "SIDE_STEP",
    "Attempt",
    "bare_type",
    "best_fit",
    "encode_thumbnail",
    "read_content",
    "scaled",
    "sides",
]

warn_moved(__name__, "rtm_sync.thumbnails.encoding")
