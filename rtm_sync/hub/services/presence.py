"""Presence of users: queries, subscriptions, and notices to subscribers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from ...errors import (
    PeerSubscriptionStatusError,
    QueryPeersBySubscriptionOptionError,
    QueryPeersOnlineStatusError,
    RtmError,
)
from ...protocol.events import PeersOnlineStatusChanged
from ...protocol.frames import encode_notice
from ...protocol.requests import (
    QueryPeersBySubscriptionOption,
    QueryPeersOnlineStatus,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
)
from ...protocol.values import Done, OnlineStatuses, PeerOnlineState, PeerStates, UserIds
from ...rules.limits import Limits
from ...rules.requests import peers_problem
from ..engine.directory import Directory
from ..session import Session
from ..tasks import BackgroundTasks

_User: TypeAlias = tuple[str, str]  # app id, uid

logger = logging.getLogger(__name__)


class _Followed:
    """A user that sessions of this hub have subscribed to.

    Attributes:
        subscribers: each session, with its newest request that named the user.
        state: the user's newest state; None until the directory has answered `follow`.
        may_be_followed: `follow` has been called; it may have taken effect even if it failed.
        lock: held during calls of the directory's `follow` and `unfollow`.
    """

    __slots__ = ("lock", "may_be_followed", "state", "subscribers")

    def __init__(self) -> None:
        self.subscribers: dict[Session, SubscribePeersOnlineStatus] = {}
        self.state: PeerOnlineState | None = None
        self.may_be_followed = False
        self.lock = asyncio.Lock()


class PresenceService:
    """Serves the presence requests of one hub, and knows its sessions' subscriptions.

    A subscriber gets a user's state when it subscribes, and each change of it. The node follows a
    user in the directory as long as at least one session here has subscribed to that user: the
    first subscription follows the user, the end of the last one unfollows.

    Args:
        directory: knows the states of users.
        limits: rates, sizes and times.
        tasks: runs the calls of `unfollow`.
    """

    def __init__(self, directory: Directory, limits: Limits, tasks: BackgroundTasks) -> None:
        self._directory = directory
        self._limits = limits
        self._followed: dict[_User, _Followed] = {}
        self._tasks = tasks

    async def query(self, session: Session, request: QueryPeersOnlineStatus) -> OnlineStatuses:
        limit = self._limits.queried_peers
        _check_peers(request.peer_ids, limit, QueryPeersOnlineStatusError)
        session.check_rate("presence_queries", QueryPeersOnlineStatusError)
        states = await self._directory.presence(session.app_id, request.peer_ids)
        # Reference 1.3: a query never says UNREACHABLE; such a user is still online.
        return OnlineStatuses(
            {uid: state is not PeerOnlineState.OFFLINE for uid, state in states.items()}
        )

    async def subscribe(self, session: Session, request: SubscribePeersOnlineStatus) -> PeerStates:
        limit = self._limits.subscribed_peers
        _check_peers(request.peer_ids, None, PeerSubscriptionStatusError)
        session.check_rate("presence_subscriptions", PeerSubscriptionStatusError)
        new = set(request.peer_ids) - session.subscriptions
        total = len(session.subscriptions) + len(new)
        if total > limit:
            raise PeerSubscriptionStatusError.named(
                "OVERFLOW", f"These would make {total} subscriptions; the limit is {limit}."
            )
        users = {uid: (session.app_id, uid) for uid in request.peer_ids}
        for uid, user in users.items():
            session.subscriptions.add(uid)
            self._followed.setdefault(user, _Followed()).subscribers[session] = request
        try:
            await self._follow(list(users.values()))
        except BaseException:
            self._roll_back(session, request, new)
            raise
        states = {uid: self._state_of(user) for uid, user in users.items()}
        session.push(encode_notice(PeersOnlineStatusChanged(states)))
        return PeerStates(states)

    async def unsubscribe(self, session: Session, request: UnsubscribePeersOnlineStatus) -> Done:
        _check_peers(request.peer_ids, None, PeerSubscriptionStatusError)
        session.check_rate("presence_unsubscriptions", PeerSubscriptionStatusError)
        self._forget(session, request.peer_ids)
        return Done()

    async def subscribed(
        self, session: Session, request: QueryPeersBySubscriptionOption
    ) -> UserIds:
        session.check_rate("subscription_queries", QueryPeersBySubscriptionOptionError)
        return UserIds(tuple(sorted(session.subscriptions)))

    async def states(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        """The state of each of these users. For server processes."""
        return await self._directory.presence(app_id, uids)

    def changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        """Push a user's new state to its subscribers."""
        followed = self._followed.get((app_id, uid))
        if followed is None or followed.state is None:
            return  # the coming answer of `follow` is at least as new
        followed.state = state
        frame = encode_notice(PeersOnlineStatusChanged({uid: state}))  # encoded once for all
        for session in tuple(followed.subscribers):
            session.push(frame)

    def forget(self, session: Session) -> None:
        """End the subscriptions of a session that has ended."""
        self._forget(session, tuple(session.subscriptions))

    async def _follow(self, users: Sequence[_User]) -> None:
        """Follow these users in the directory. Raises the first error."""
        missing = [user for user in users if self._followed[user].state is None]
        # Wait for every call, so that none is unfinished when the caller rolls back.
        outcomes = await asyncio.gather(*map(self._follow_one, missing), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _follow_one(self, user: _User) -> None:
        followed = self._followed.get(user)
        if followed is None:  # the sessions of all its subscribers have ended meanwhile
            return
        async with followed.lock:
            if followed.state is None and followed.subscribers:
                followed.may_be_followed = True
                followed.state = await self._directory.follow(*user)

    def _state_of(self, user: _User) -> PeerOnlineState:
        followed = self._followed.get(user)
        if followed is None or followed.state is None:  # the session ended meanwhile
            return PeerOnlineState.OFFLINE
        return followed.state

    def _roll_back(
        self, session: Session, request: SubscribePeersOnlineStatus, new: Collection[str]
    ) -> None:
        """Remove the new subscriptions of a failed request, and those to users without a state.

        A subscription that a newer request of the session names too is left to that request.
        """
        failed = []
        for uid in request.peer_ids:
            followed = self._followed.get((session.app_id, uid))
            if followed is None or followed.subscribers.get(session) is not request:
                continue
            if uid in new or followed.state is None:
                failed.append(uid)
        self._forget(session, failed)

    def _forget(self, session: Session, uids: Iterable[str]) -> None:
        unsubscribed = []
        for uid in uids:
            session.subscriptions.discard(uid)
            followed = self._followed.get((session.app_id, uid))
            if followed is None or followed.subscribers.pop(session, None) is None:
                continue
            if not followed.subscribers:
                unsubscribed.append((session.app_id, uid))
        if unsubscribed:
            self._tasks.spawn(self._unfollow(unsubscribed))

    async def _unfollow(self, users: Iterable[_User]) -> None:
        """Unfollow these users in the directory, except users with a new subscriber."""
        for user in users:
            followed = self._followed.get(user)
            if followed is None:
                continue
            async with followed.lock:
                if followed.subscribers or self._followed.get(user) is not followed:
                    continue
                followed.state = None
                if followed.may_be_followed:
                    followed.may_be_followed = False
                    try:
                        await self._directory.unfollow(*user)
                    except OSError as error:  # harmless: changes without subscribers are ignored
                        logger.warning("%s@%s is still followed: %s", user[1], user[0], error)
                if not followed.subscribers:
                    del self._followed[user]


def _check_peers(peer_ids: tuple[str, ...], limit: int | None, family: type[RtmError]) -> None:
    problem = peers_problem(peer_ids, limit)
    if problem is not None:
        raise family.named("INVALID_ARGUMENT", problem)
