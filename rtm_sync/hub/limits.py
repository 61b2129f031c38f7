"""Deprecated: this module has moved to `rtm_sync.rules.limits` and `rtm_sync.rules.rates`.

The next release will no longer have it.
"""

from __future__ import annotations

from ..old_names import warn_moved
from ..rules.limits import Limits
from ..rules.rates import KeyedWindows, Rate, SlidingWindow

__all__ = [
    "KeyedWindows",
    "Limits",
    "Rate",
    "SlidingWindow",
]

warn_moved(__name__, "rtm_sync.rules.limits", "rtm_sync.rules.rates")
