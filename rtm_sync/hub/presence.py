"""Who is there: queries, subscriptions, and telling those who subscribed."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import (
    PeerSubscriptionStatusError,
    QueryPeersBySubscriptionOptionError,
    QueryPeersOnlineStatusError,
    RtmError,
)
from ..protocol import (
    Done,
    OnlineStatuses,
    PeerOnlineState,
    PeersOnlineStatusChanged,
    PeerStates,
    QueryPeersBySubscriptionOption,
    QueryPeersOnlineStatus,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
    UserIds,
    encode_notice,
    id_problem,
)
from .engine import Engine
from .limits import Limits
from .session import Session


class PresenceDesk:
    """Serves the presence requests of one hub, and knows its sessions' subscriptions.

    A subscriber is told of a user's state when it subscribes and at each change.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._subscribers: dict[tuple[str, str], dict[Session, None]] = {}

    async def query(self, session: Session, request: QueryPeersOnlineStatus) -> OnlineStatuses:
        limit = self._limits.queried_peers
        _check_peers(request.peer_ids, limit, QueryPeersOnlineStatusError)
        session.spend("presence_queries", QueryPeersOnlineStatusError)
        states = await self._engine.presence(session.app_id, request.peer_ids)
        # Reference 1.3: a query never says UNREACHABLE; such a user is still online.
        return OnlineStatuses(
            {uid: state is not PeerOnlineState.OFFLINE for uid, state in states.items()}
        )

    async def subscribe(self, session: Session, request: SubscribePeersOnlineStatus) -> PeerStates:
        limit = self._limits.subscribed_peers
        _check_peers(request.peer_ids, None, PeerSubscriptionStatusError)
        session.spend("presence_subscriptions", PeerSubscriptionStatusError)
        total = len(session.subscriptions | set(request.peer_ids))
        if total > limit:
            raise PeerSubscriptionStatusError.named(
                "OVERFLOW", f"These would make {total} subscriptions; the limit is {limit}."
            )
        for uid in request.peer_ids:
            session.subscriptions.add(uid)
            self._subscribers.setdefault((session.app_id, uid), {})[session] = None
        states = await self._engine.presence(session.app_id, request.peer_ids)
        session.push(encode_notice(PeersOnlineStatusChanged(states)))
        return PeerStates(states)

    async def unsubscribe(self, session: Session, request: UnsubscribePeersOnlineStatus) -> Done:
        _check_peers(request.peer_ids, None, PeerSubscriptionStatusError)
        session.spend("presence_unsubscriptions", PeerSubscriptionStatusError)
        for uid in request.peer_ids:
            self._forget(session, uid)
        return Done()

    async def subscribed(
        self, session: Session, request: QueryPeersBySubscriptionOption
    ) -> UserIds:
        session.spend("subscription_queries", QueryPeersBySubscriptionOptionError)
        return UserIds(tuple(sorted(session.subscriptions)))

    async def states(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        """The state of each of these users; for server processes."""
        return await self._engine.presence(app_id, uids)

    def changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        """Tell who has subscribed."""
        subscribers = self._subscribers.get((app_id, uid))
        if subscribers:
            frame = encode_notice(PeersOnlineStatusChanged({uid: state}))  # once for all
            for session in tuple(subscribers):
                session.push(frame)

    def forget(self, session: Session) -> None:
        """The session has ended."""
        for uid in tuple(session.subscriptions):
            self._forget(session, uid)

    def _forget(self, session: Session, uid: str) -> None:
        session.subscriptions.discard(uid)
        subscribers = self._subscribers.get((session.app_id, uid), {})
        subscribers.pop(session, None)
        if not subscribers:
            self._subscribers.pop((session.app_id, uid), None)


def _check_peers(peer_ids: tuple[str, ...], limit: int | None, family: type[RtmError]) -> None:
    problem = None
    if not peer_ids:
        problem = "peer_ids is empty; name at least one user."
    elif limit is not None and len(peer_ids) > limit:
        problem = f"{len(peer_ids)} peer_ids are too many for one call; the limit is {limit}."
    for uid in peer_ids:
        problem = problem or id_problem("peer_id", uid)
    if problem is not None:
        raise family.named("INVALID_ARGUMENT", problem)
