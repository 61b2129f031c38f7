"""Deprecated: this module has moved to `rtm_sync.hub.auth.tokens`.

The next release will no longer have it.
"""

from __future__ import annotations

from ..old_names import warn_moved
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

warn_moved(__name__, "rtm_sync.hub.auth.tokens")
