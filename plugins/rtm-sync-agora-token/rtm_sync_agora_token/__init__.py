"""The rtm-sync plugin: a hook that makes the token verifier of apps whose secret is `agora:…`."""

from __future__ import annotations

from rtm_sync import hookimpl
from rtm_sync.hub.auth.tokens import TokenVerifier

from .verifier import AgoraTokenVerifier

__all__ = ["AgoraTokenVerifier", "token_verifier"]

SCHEME = "agora:"


@hookimpl
def token_verifier(app_id: str, secret: str, clock_skew: float) -> TokenVerifier | None:
    """Implement the hook `token_verifier`: the secret is `agora:` and the app's certificate."""
    if not secret.startswith(SCHEME):
        return None
    return AgoraTokenVerifier(app_id, secret.removeprefix(SCHEME), clock_skew=clock_skew)
