"""Deprecated: this module has moved to `rtm_sync.client.events`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

from .client.events import EventEmitter, EventStream

__all__ = [
    "EventEmitter",
    "EventStream",
]

warnings.warn(
    "rtm_sync.events has moved to rtm_sync.client.events; the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
