"""Deprecated: this module has moved to `rtm_sync.rules.lifecycle`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

from ..rules.lifecycle import Lifecycle, ProofOfLife, StateChange

__all__ = [
    "Lifecycle",
    "ProofOfLife",
    "StateChange",
]

warnings.warn(
    "rtm_sync.transports.lifecycle has moved to rtm_sync.rules.lifecycle; "
    "the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
