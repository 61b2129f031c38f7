"""Deprecated: this module has moved to `rtm_sync.flask.relay`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

from .flask.relay import EventRelay

__all__ = [
    "EventRelay",
]

warnings.warn(
    "rtm_sync.event_relay has moved to rtm_sync.flask.relay; the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
