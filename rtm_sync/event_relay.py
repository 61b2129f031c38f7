"""Deprecated: this module has moved to `rtm_sync.flask.relay`.

The next release will no longer have it.
"""

from __future__ import annotations

from .flask.relay import EventRelay
from .old_names import warn_moved

__all__ = [
    "EventRelay",
]

warn_moved(__name__, "rtm_sync.flask.relay")
