"""Deprecated: this module has moved to `rtm_sync.rules.limits` and `rtm_sync.rules.rates`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

from ..rules.limits import Limits
from ..rules.rates import KeyedWindows, Rate, SlidingWindow

__all__ = [
    "KeyedWindows",
    "Limits",
    "Rate",
    "SlidingWindow",
]

warnings.warn(
    "rtm_sync.hub.limits has moved to rtm_sync.rules.limits and rtm_sync.rules.rates; "
    "the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
