"""Deprecated: this module has moved to `rtm_sync.thumbnails.encoding`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

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

warnings.warn(
    "rtm_sync.thumbnail_tools has moved to rtm_sync.thumbnails.encoding; "
    "the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
