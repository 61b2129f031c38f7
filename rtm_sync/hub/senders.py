"""Users for whom somebody else acts: server processes that send without logging in."""

from __future__ import annotations

from collections import OrderedDict

from .limits import Limits
from .session import Session
from .tokens import Grant, Privileges

_IDLE = 900.0
"""Seconds without use after which a sender, and its bearer of media, ends."""

_MAX_SENDERS = 10_000

_Key = tuple[str, str, "Privileges | None"]
"""App, user, and what its token allows; None for the app's own processes."""


class Senders:
    """Sessions without a connection, one for a user and what it may.

    They have budgets, transfers and a bearer for media.

    Nothing is delivered to them, and nobody sees them online. Used on the hub's loop; time comes
    as an argument.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_user: OrderedDict[_Key, tuple[Session, float]] = OrderedDict()
        self._by_id: dict[str, Session] = {}

    def of(self, app_id: str, uid: str, now: float, grant: Grant | None = None) -> Session:
        """The user's sender, made when there is none; with a token's grant it may what that may."""
        key = (app_id, uid, None if grant is None else grant.privileges)
        sender, _ = self._by_user.get(key, (None, 0.0))
        if sender is None:
            if len(self._by_user) >= _MAX_SENDERS:
                self._end(next(iter(self._by_user)))
            sender = Session(app_id, uid, self._limits)
            self._by_id[sender.id] = sender
        if grant is not None and (
            sender.grant is None or sender.grant.expires_at < grant.expires_at
        ):
            sender.take_grant(grant)
        self._by_user[key] = (sender, now)
        self._by_user.move_to_end(key)
        return sender

    def by_id(self, session_id: str, now: float) -> Session | None:
        """The sender with this bearer; asking keeps it alive."""
        sender = self._by_id.get(session_id)
        return None if sender is None else self.of(*sender.user, now, sender.grant)

    def sweep(self, now: float) -> list[Session]:
        """End those that nobody uses; returns them."""
        ended = []
        while self._by_user:
            key, (_, used_at) = next(iter(self._by_user.items()))
            if used_at > now - _IDLE:
                break
            ended.append(self._end(key))
        return ended

    def end_user(self, app_id: str, uid: str) -> list[Session]:
        """End what was made with the user's tokens; returns them."""
        keys = [key for key in self._by_user if key[:2] == (app_id, uid) and key[2] is not None]
        return [self._end(key) for key in keys]

    def _end(self, key: _Key) -> Session:
        sender, _ = self._by_user.pop(key)
        del self._by_id[sender.id]
        return sender
