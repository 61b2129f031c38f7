"""The login policy: apps, tokens, bans and revocations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ...errors import LoginError, LoginErrorCode
from ...protocol.ids import PROTOCOL_VERSION, app_id_problem, id_problem
from ...protocol.requests import Login
from ..engine.directory import Directory
from .tokens import Grant, TokenVerifier

ALL_USERS = "*"
"""Names all users of an app in a revocation. No user id contains it."""

_KEYS_CHECKED_FOR = 1.0  # seconds


class LoginPolicy:
    """Decides about logins, and about server-side requests with a user's token.

    Used on the hub's loop.

    Args:
        directory: keeps bans and revocations.
        verifiers: maps an app id to the verifier of its tokens; other apps are refused. None is
            for trials: every app id and uid is accepted, and tokens are not verified.
        now: the wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        directory: Directory,
        verifiers: Mapping[str, TokenVerifier] | None,
        now: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._verifiers = verifiers
        self._now = now
        self._has_key: dict[tuple[str, str], bool] = {}  # for a second: keys may be in files
        self._has_key_until = 0.0

    def replace(self, verifiers: Mapping[str, TokenVerifier]) -> None:
        """Replace the apps and their keys. Grants of keys that are gone hold no longer."""
        self._verifiers = verifiers
        self._has_key.clear()

    def holds(self, app_id: str, grant: Grant | None) -> bool:
        """Whether what a session was made from is still valid: its token's time and key."""
        if grant is None or self._verifiers is None:
            return grant is None or grant.expires_at > self._now()
        verifier = self._verifiers.get(app_id)
        if verifier is None or grant.expires_at <= self._now():
            return False
        if not grant.key:  # its verifier names no keys
            return True
        now = time.monotonic()
        if now >= self._has_key_until:
            self._has_key.clear()
            self._has_key_until = now + _KEYS_CHECKED_FOR
        name = app_id, grant.key
        known = self._has_key.get(name)
        if known is None:
            known = self._has_key[name] = verifier.has_key(grant.key)
        return known

    async def admit(self, login: Login) -> Grant | None:
        """The grant of a login that is allowed; None where no token is required.

        Raises:
            LoginError: the login is refused.
            OSError: the directory failed.
        """
        problem = app_id_problem(login.app_id)
        if problem is not None:
            raise LoginError(LoginErrorCode.LOGIN_ERR_INVALID_APP_ID, problem)
        problem = id_problem("uid", login.uid)
        if problem is not None:
            raise LoginError(LoginErrorCode.LOGIN_ERR_INVALID_ARGUMENT, problem)
        if login.version != PROTOCOL_VERSION:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_REJECTED,
                f"The client uses protocol version {login.version}, the hub {PROTOCOL_VERSION}; "
                "update the older one.",
            )
        grant = await self.grant(login.app_id, login.uid, login.token)
        left = await self._directory.banned_until(login.app_id, login.uid) - self._now()
        if left > 0:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_REJECTED,
                f"{login.uid!r} is banned for another {left:,.0f} seconds.",
            )
        return grant

    async def grant(self, app_id: str, uid: str, token: str | None) -> Grant | None:
        """The grant of a user's token; None where no token is required.

        Raises:
            LoginError: the token is invalid, expired or revoked, or the app is unknown.
            OSError: the directory failed.
        """
        if self._verifiers is None:
            return None
        verifier = self._verifiers.get(app_id)
        if verifier is None:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_INVALID_APP_ID, f"There is no app {app_id!r} here."
            )
        if token is None:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_INVALID_TOKEN,
                "This app needs a token; pass token= to login, or a token_provider.",
            )
        grant = verifier.verify(token, uid)
        revoked = max(
            await self._directory.revoked_before(app_id, uid),
            await self._directory.revoked_before(app_id, ALL_USERS),
        )
        if revoked and (grant.issued_at is None or grant.issued_at < revoked):
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, "The token was revoked; get a fresh one."
            )
        return grant
