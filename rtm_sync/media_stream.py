"""Deprecated: this module has moved to `rtm_sync.transfers.stream`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

from .transfers.stream import MediaStream

__all__ = [
    "MediaStream",
]

warnings.warn(
    "rtm_sync.media_stream has moved to rtm_sync.transfers.stream; "
    "the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
