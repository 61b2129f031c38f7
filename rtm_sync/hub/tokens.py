"""Deprecated: this module has moved to `rtm_sync.hub.auth.tokens`.

The next release will no longer have it.
"""

from __future__ import annotations

import warnings

from .auth.tokens import (
    CLOCK_SKEW,
    PRIVILEGES_CLAIM,
    AnyOf,
    Grant,
    JwtVerifier,
    NotPrivileged,
    Privileges,
    TokenVerifier,
    make_token,
    matches,
)

__all__ = [
    "CLOCK_SKEW",
    "PRIVILEGES_CLAIM",
    "AnyOf",
    "Grant",
    "JwtVerifier",
    "NotPrivileged",
    "Privileges",
    "TokenVerifier",
    "make_token",
    "matches",
]

warnings.warn(
    "rtm_sync.hub.tokens has moved to rtm_sync.hub.auth.tokens; "
    "the old name goes in the next release",
    DeprecationWarning,
    stacklevel=2,
)
