"""Deprecated: this module has moved to `rtm_sync.rules.lifecycle`.

The next release will no longer have it.
"""

from __future__ import annotations

from ..old_names import warn_moved
from ..rules.lifecycle import Lifecycle, ProofOfLife, StateChange

__all__ = [
    "Lifecycle",
    "ProofOfLife",
    "StateChange",
]

warn_moved(__name__, "rtm_sync.rules.lifecycle")
