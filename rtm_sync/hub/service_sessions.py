"""Service sessions: connectionless sessions through which server processes act for users."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..rules.limits import Limits
from ..rules.requests import UserRates
from .auth.tokens import Grant
from .registry import Finish, Registry, SessionEnd
from .session import Session

_IDLE_TIME = 900.0
"""Seconds without use after which a service session, and its media bearer token, expires."""

_MOST_OF_A_USER = 20
_MAX_SESSIONS = 10_000

_Key = tuple[str, Grant]
"""The uid, and what the session was made from: a user's token, or a secret of the app."""


class ServiceSessions:
    """Owns the service sessions: one for each user and token, or user and secret.

    A service session has a bearer token for media, and shares its user's transfer slots. It
    receives no messages, and its user does not appear online because of it. It ends with what it
    was made from. When there are too many, the least recently used one ends: of the user, or of the
    app that has most. Used on the hub's loop; time is an argument, in the loop's seconds.

    Args:
        limits: sizes and times.
        rates: the rates of all users.
        holds: whether what a session of an app was made from is still valid.
        most: the most sessions.
    """

    def __init__(
        self,
        limits: Limits,
        rates: UserRates,
        holds: Callable[[str, Grant | None], bool],
        most: int = _MAX_SESSIONS,
    ) -> None:
        self._limits = limits
        self._rates = rates
        self._holds = holds
        self._most = most
        self._registry: Registry[Session] = Registry(_IDLE_TIME, _IDLE_TIME)
        # The sessions of each app and of each user, the least recently used first.
        self._of_app: dict[str, OrderedDict[_Key, Session]] = {}
        self._of_user: dict[tuple[str, str], OrderedDict[Grant, Session]] = {}

    def of(self, app_id: str, uid: str, now: float, grant: Grant) -> Session:
        """The user's service session of a grant, made when there is none.

        Args:
            now: the loop's time, seconds.
            grant: the grant of the user's token or of the app's secret.
        """
        of_user = self._of_user.get((app_id, uid), OrderedDict())
        session = of_user.get(grant)
        if session is None:
            session = self._make(app_id, uid, grant, now)
        self._registry.used(session, now)
        self._of_user[session.user].move_to_end(grant)
        self._of_app[app_id].move_to_end((uid, grant))
        return session

    def by_id(self, session_id: str, now: float) -> Session | None:
        """The session with this bearer token, or None. The look-up renews its idle time."""
        session = self._registry.get(session_id)
        if session is None or session.grant is None:
            return None
        if not self._holds(session.app_id, session.grant):
            return None
        return self.of(*session.user, now, session.grant)

    def has(self, app_id: str, uid: str) -> bool:
        """Whether the user has a service session."""
        return (app_id, uid) in self._of_user

    def sweep(self, now: float) -> list[Session]:
        """End the sessions that are idle, or whose grant holds no longer, and return them."""
        ended = [
            action.session for action in self._registry.tick(now) if isinstance(action, Finish)
        ]
        for session in ended:
            self._forget(session)
        for session in self._registry:
            if not self._holds(session.app_id, session.grant):
                ended.append(self._end(session, SessionEnd.KEY_REMOVED))
        return ended

    def end_user(self, app_id: str, uid: str) -> list[Session]:
        """End all sessions of a user, and return them."""
        sessions = tuple(self._of_user.get((app_id, uid), OrderedDict()).values())
        return [self._end(session, SessionEnd.BANNED_BY_SERVER) for session in sessions]

    def end_app(self, app_id: str) -> list[Session]:
        """End all sessions of an app, and return them."""
        sessions = tuple(self._of_app.get(app_id, OrderedDict()).values())
        return [self._end(session, SessionEnd.BANNED_BY_SERVER) for session in sessions]

    def _make(self, app_id: str, uid: str, grant: Grant, now: float) -> Session:
        of_user = self._of_user.get((app_id, uid), OrderedDict())
        if len(of_user) >= _MOST_OF_A_USER:
            self._end(next(iter(of_user.values())), SessionEnd.REPLACED)
        elif len(self._registry) >= self._most:
            largest = max(self._of_app.values(), key=len)
            self._end(next(iter(largest.values())), SessionEnd.REPLACED)
        session = Session(app_id, uid, self._limits, self._rates)
        session.set_grant(grant)
        for other in of_user.values():
            session.transfers = other.transfers
        self._of_user.setdefault(session.user, OrderedDict())[grant] = session
        self._of_app.setdefault(app_id, OrderedDict())[uid, grant] = session
        self._registry.opened(session, None, now)
        return session

    def _end(self, session: Session, end: SessionEnd) -> Session:
        self._forget(session)
        self._registry.ended(session, end)
        return session

    def _forget(self, session: Session) -> None:
        grant = session.grant
        assert grant is not None, session
        of_app, of_user = self._of_app[session.app_id], self._of_user[session.user]
        del of_app[session.uid, grant], of_user[grant]
        if not of_app:
            del self._of_app[session.app_id]
        if not of_user:
            del self._of_user[session.user]
