"""Users for whom somebody else acts: server processes that send without logging in."""

from __future__ import annotations

from collections import OrderedDict

from ..rules.limits import Limits
from .auth.tokens import Grant, Privileges
from .registry import Finish, Registry, SessionEnd
from .session import Session

_IDLE = 900.0
"""Seconds without use after which a sender, and its bearer of media, ends."""

_MAX_SENDERS = 10_000

_Key = tuple[str, str, "Privileges | None"]
"""App, user, and what its token allows; None for the app's own processes."""


class ServiceSessions:
    """Sessions without a connection, one for a user and what it may.

    They have budgets, transfers and a bearer for media.

    Nothing is delivered to them, and nobody sees them online. Used on the hub's loop; time comes
    as an argument.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._registry: Registry[Session] = Registry(_IDLE, _IDLE)
        self._by_key: OrderedDict[_Key, Session] = OrderedDict()  # the least recently used first

    def of(self, app_id: str, uid: str, now: float, grant: Grant | None = None) -> Session:
        """The user's sender, made when there is none; with a token's grant it may what that may."""
        key = (app_id, uid, None if grant is None else grant.privileges)
        sender = self._by_key.get(key)
        if sender is None:
            if len(self._by_key) >= _MAX_SENDERS:
                self._end(next(iter(self._by_key)), SessionEnd.LOST)
            sender = self._by_key[key] = Session(app_id, uid, self._limits)
            self._registry.opened(sender, None, now)
        if grant is not None and (
            sender.grant is None or sender.grant.expires_at < grant.expires_at
        ):
            sender.take_grant(grant)
        self._registry.used(sender, now)
        self._by_key.move_to_end(key)
        return sender

    def by_id(self, session_id: str, now: float) -> Session | None:
        """The sender with this bearer; asking keeps it alive."""
        sender = self._registry.get(session_id)
        return None if sender is None else self.of(*sender.user, now, sender.grant)

    def sweep(self, now: float) -> list[Session]:
        """End those that nobody uses; returns them."""
        ended = [
            action.session for action in self._registry.tick(now) if isinstance(action, Finish)
        ]
        for sender in ended:
            privileges = None if sender.grant is None else sender.grant.privileges
            del self._by_key[sender.app_id, sender.uid, privileges]
        return ended

    def end_user(self, app_id: str, uid: str) -> list[Session]:
        """End what was made with the user's tokens; returns them."""
        keys = [key for key in self._by_key if key[:2] == (app_id, uid) and key[2] is not None]
        return [self._end(key, SessionEnd.BANNED_BY_SERVER) for key in keys]

    def _end(self, key: _Key, end: SessionEnd) -> Session:
        sender = self._by_key.pop(key)
        self._registry.ended(sender, end)
        return sender
