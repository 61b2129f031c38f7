"""Deprecated: this module has moved to `rtm_sync.client.events`.

The next release will no longer have it.
"""

from __future__ import annotations

from .client.events import EventEmitter, EventStream
from .old_names import warn_moved

__all__ = [
    "EventEmitter",
    "EventStream",
]

warn_moved(__name__, "rtm_sync.client.events")
