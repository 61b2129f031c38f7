"""Service sessions: connectionless sessions through which server processes act for users."""

from __future__ import annotations

from collections import OrderedDict

from ..rules.limits import Limits
from ..rules.requests import UserRates
from .auth.tokens import Grant, Privileges
from .registry import Finish, Registry, SessionEnd
from .session import Session

_IDLE_TIME = 900.0
"""Seconds without use after which a service session, and its media bearer token, expires."""

_MAX_SESSIONS = 10_000

_Key = tuple[str, str, "Privileges | None"]
"""App id, uid, and the privileges of the user's token; None for the app's own processes."""


class ServiceSessions:
    """Owns the service sessions: one for each user and set of privileges.

    A service session has transfer slots and a bearer token for media. It receives no
    messages, and its user does not appear online because of it. Used on the hub's loop; time is an
    argument, in the loop's seconds.
    """

    def __init__(self, limits: Limits, rates: UserRates) -> None:
        self._limits = limits
        self._rates = rates
        self._registry: Registry[Session] = Registry(_IDLE_TIME, _IDLE_TIME)
        self._by_key: OrderedDict[_Key, Session] = OrderedDict()  # the least recently used first

    def of(self, app_id: str, uid: str, now: float, grant: Grant | None = None) -> Session:
        """The user's service session, made when there is none.

        Args:
            now: the loop's time, seconds.
            grant: the grant of the user's token, which limits the session; None sets no limit.
        """
        key = (app_id, uid, None if grant is None else grant.privileges)
        session = self._by_key.get(key)
        if session is None:
            if len(self._by_key) >= _MAX_SESSIONS:
                self._end(next(iter(self._by_key)), SessionEnd.LOST)
            session = self._by_key[key] = Session(app_id, uid, self._limits, self._rates)
            self._registry.opened(session, None, now)
        if grant is not None and (
            session.grant is None or session.grant.expires_at < grant.expires_at
        ):
            session.set_grant(grant)
        self._registry.used(session, now)
        self._by_key.move_to_end(key)
        return session

    def by_id(self, session_id: str, now: float) -> Session | None:
        """The session with this bearer token, or None. The look-up renews its idle time."""
        session = self._registry.get(session_id)
        return None if session is None else self.of(*session.user, now, session.grant)

    def sweep(self, now: float) -> list[Session]:
        """End the idle sessions, and return them."""
        ended = [
            action.session for action in self._registry.tick(now) if isinstance(action, Finish)
        ]
        for session in ended:
            privileges = None if session.grant is None else session.grant.privileges
            del self._by_key[session.app_id, session.uid, privileges]
        return ended

    def end_user(self, app_id: str, uid: str) -> list[Session]:
        """End the sessions that were made with the user's tokens, and return them."""
        keys = [key for key in self._by_key if key[:2] == (app_id, uid) and key[2] is not None]
        return [self._end(key, SessionEnd.BANNED_BY_SERVER) for key in keys]

    def _end(self, key: _Key, end: SessionEnd) -> Session:
        session = self._by_key.pop(key)
        self._registry.ended(session, end)
        return session
