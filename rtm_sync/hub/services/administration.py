"""Administration: server processes act for users, end their sessions, and ban them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable

from ...protocol.requests import Login
from ...rules.limits import Limits
from ...rules.requests import UserRates
from ..auth.policy import ALL_USERS, LoginPolicy
from ..auth.tokens import Grant
from ..engine.directory import Directory
from ..service_sessions import ServiceSessions
from ..session import Session

_BANS_PAGE = 1000

logger = logging.getLogger(__name__)


class AdministrationService:
    """Serves the requests of an app's server processes. The caller has authenticated the app.

    Args:
        directory: keeps bans and revocations, and ends sessions on every node.
        login_policy: verifies users' tokens.
        limits: sizes and times.
        rates: the rates of all users.
        now: the wall clock, seconds since the epoch.
        drop_uploads: drops the unfinished uploads of a session's user.
        end_app: ends the clients' sessions of an app, and returns their number.
    """

    def __init__(
        self,
        directory: Directory,
        login_policy: LoginPolicy,
        limits: Limits,
        rates: UserRates,
        now: Callable[[], float],
        drop_uploads: Callable[[Session], object],
        end_app: Callable[[str], int],
    ) -> None:
        self._directory = directory
        self._login_policy = login_policy
        self._now = now
        self._drop_uploads = drop_uploads
        self._end_app = end_app
        self._sessions = ServiceSessions(limits, rates, login_policy.holds)

    def service_session(self, app_id: str, uid: str, key: str = "") -> Session:
        """A connectionless session for server-side requests; expires after 15 idle minutes.

        Args:
            key: names the app's secret with which the process has authenticated.
        """
        return self._of(app_id, uid, Grant(math.inf, key=key))

    async def service_session_by_token(self, app_id: str, uid: str, token: str) -> Session:
        """As `service_session`, with the privileges of the user's token, until the token expires.

        Raises:
            LoginError: the token allows no login.
            OSError: the engine failed.
        """
        grant = await self._login_policy.admit(Login(app_id, uid, token=token))
        return self._of(app_id, uid, grant or Grant(math.inf))

    def by_bearer(self, session_id: str) -> Session | None:
        """The service session with this secret id, or None. The look-up renews its idle time."""
        return self._sessions.by_id(session_id, asyncio.get_running_loop().time())

    async def kick(
        self, app_id: str, uid: str, ban_seconds: float, *, revoke_tokens: bool = False
    ) -> bool:
        """End a user's sessions (BANNED_BY_SERVER) and refuse logins for a while.

        Args:
            ban_seconds: the length of the ban, seconds; 0 ends a ban.
            revoke_tokens: also revoke, permanently, all tokens issued until now.

        Returns:
            Whether the user was logged in.
        """
        now = self._now()
        if revoke_tokens:
            await self._directory.revoke(app_id, uid, now)
        await self._directory.ban(app_id, uid, now + ban_seconds if ban_seconds > 0 else 0.0)
        for session in self._sessions.end_user(app_id, uid):
            self._drop_uploads(session)
        was_online = await self._directory.kick(app_id, uid)
        logger.info(
            "%s@%s was kicked, banned for %g s",
            uid,
            app_id,
            ban_seconds,
            extra={"event": "kick", "app_id": app_id, "uid": uid, "ban_seconds": ban_seconds},
        )
        return was_online

    async def end_all(self, app_id: str, *, revoke_tokens: bool = False) -> int:
        """End all sessions of an app (BANNED_BY_SERVER), and what they transfer.

        Clients' sessions on other nodes stay.

        Args:
            revoke_tokens: also revoke, permanently, all tokens of the app issued until now.

        Returns:
            The number of clients' sessions that ended.
        """
        if revoke_tokens:
            await self._directory.revoke(app_id, ALL_USERS, self._now())
        for session in self._sessions.end_app(app_id):
            self._drop_uploads(session)
        ended = self._end_app(app_id)
        logger.info(
            "%d sessions of %s were ended",
            ended,
            app_id,
            extra={"event": "sessions_ended", "app_id": app_id, "sessions": ended},
        )
        return ended

    async def bans(self, app_id: str, after: str = "") -> tuple[dict[str, float], str | None]:
        """A page of at most 1,000 banned users, each with the ban's end, seconds since the epoch.

        Args:
            app_id: the app.
            after: the page begins behind this user; "" for the first page.

        Returns:
            The page, in the order of the ids, and the `after` of the next one; None at the end.
        """
        found = await self._directory.bans(app_id, self._now(), after, _BANS_PAGE + 1)
        page = dict(itertools.islice(found.items(), _BANS_PAGE))
        return page, next(reversed(page)) if len(found) > len(page) else None

    def sweep(self) -> None:
        """End the service sessions that are idle, or whose token or secret ended.

        The uploads of a user who has none any longer are dropped.
        """
        for session in self._sessions.sweep(asyncio.get_running_loop().time()):
            if not self._sessions.has(*session.user):
                self._drop_uploads(session)

    def _of(self, app_id: str, uid: str, grant: Grant) -> Session:
        return self._sessions.of(app_id, uid, asyncio.get_running_loop().time(), grant)
