"""Presence: one retained message for each session, and subscriptions to these messages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from rtm_sync.errors import (
    PeerSubscriptionStatusError,
    QueryPeersBySubscriptionOptionError,
    QueryPeersOnlineStatusError,
    RtmError,
)
from rtm_sync.protocol import (
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
)
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.requests import peers_problem
from rtm_sync.rules.timing import Deadline
from rtm_sync.transports.base import Listener

from .connection import Connection
from .contract import fail, resolve
from .memory import Budget
from .names import Topics

_WATCHES = 1024  # the most users that are followed; the least recently used is dropped


class Watch:
    """The known sessions of one user.

    Attributes:
        sessions: the start time of each session, by session id. The newest session counts.
        known: done when the broker has sent all retained messages about the user.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, float] = {}
        self.known: Future[None] = Future()

    def newest(self) -> str | None:
        """The session that receives messages; None when the user is offline."""
        return max(
            self.sessions.copy(), key=lambda name: self.sessions.get(name, 0.0), default=None
        )

    @property
    def state(self) -> PeerOnlineState:
        return PeerOnlineState.ONLINE if self.sessions else PeerOnlineState.OFFLINE


class Presence:
    """Follows each user after the first request about that user. Thread-safe.

    Args:
        fence: returns a future that is done when every retained message requested earlier has
            arrived.
        needed: returns the users that must stay followed.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        listener: Listener,
        limits: Limits,
        budget: Budget,
        fence: Callable[[], Future[None]],
        needed: Callable[[], set[str]],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._listener = listener
        self._limits = limits
        self._budget = budget
        self._fence = fence
        self._needed = needed
        self._lock = threading.Lock()  # guards all below; not held while waiting or in callbacks
        self._watches: OrderedDict[str, Watch] = OrderedDict()
        self._subscribed: dict[str, PeerOnlineState] = {}  # the last reported state

    def watch(self, uid: str) -> Watch:
        """Follow a user, unless the user is followed already."""
        with self._lock:
            known = self._watches.get(uid)
            if known is not None:
                self._watches.move_to_end(uid)
                return known
            watch = self._watches[uid] = Watch()
            is_full = len(self._watches) > _WATCHES
        if is_full:
            self._drop_one()

        def fenced(fence: Future[None]) -> None:
            error = fence.exception()
            if isinstance(error, Exception):
                with self._lock:
                    if self._watches.get(uid) is watch:
                        del self._watches[uid]
                fail(watch.known, error)
            else:
                resolve(watch.known, None)

        self._connection.subscribe([self._topics.online(uid)])
        self._fence().add_done_callback(fenced)
        return watch

    def watched(self, uid: str) -> Watch | None:
        """The `Watch` of a followed user; None for any other user."""
        with self._lock:
            return self._watches.get(uid)

    def known(self, uids: Sequence[str], deadline: Deadline) -> list[Watch]:
        """Follow users, and wait until their presence is known."""
        watches = [self.watch(uid) for uid in uids]
        for watch in watches:
            self._connection.wait(watch.known, deadline)
        return watches

    def take(self, uid: str, session: str, since: bytes) -> None:
        """Handle a presence message: the start time of a session, or b"" for its end."""
        with self._lock:
            watch = self._watches.get(uid)
            if watch is None:
                return
            if since:
                watch.sessions[session] = float(since)
            else:
                watch.sessions.pop(session, None)
            changed = watch.known.done() and self._subscribed.get(uid, watch.state) != watch.state
            if changed:
                self._subscribed[uid] = watch.state
        if changed:
            self._listener.on_event(PeersOnlineStatusChanged({uid: watch.state}))

    def forget(self) -> None:
        """Note that the broker has lost the subscriptions; `resume` makes them again."""
        with self._lock:
            self._watches.clear()

    def resume(self, deadline: Deadline) -> None:
        """Follow the subscribed users again, and report the states that have changed."""
        with self._lock:
            uids = list(self._subscribed)
        watches = dict(zip(uids, self.known(uids, deadline), strict=True))
        with self._lock:
            changes = {
                uid: watch.state
                for uid, watch in watches.items()
                if self._subscribed.get(uid, watch.state) != watch.state
            }
            self._subscribed.update(changes)
        if changes:
            self._listener.on_event(PeersOnlineStatusChanged(changes))

    # -- the client's calls --

    def query(self, request: QueryPeersOnlineStatus, deadline: Deadline) -> OnlineStatuses:
        family = QueryPeersOnlineStatusError
        _check_peers(request.peer_ids, self._limits.queried_peers, family)
        self._budget.check_rate("presence_queries", family)
        watches = self._known_now(request.peer_ids, deadline)
        pairs = zip(request.peer_ids, watches, strict=True)
        return OnlineStatuses({uid: bool(watch.sessions) for uid, watch in pairs})

    def subscribe(self, request: SubscribePeersOnlineStatus, deadline: Deadline) -> PeerStates:
        family, limit = PeerSubscriptionStatusError, self._limits.subscribed_peers
        _check_peers(request.peer_ids, None, family)
        self._budget.check_rate("presence_subscriptions", family)
        with self._lock:
            total = len(self._subscribed.keys() | set(request.peer_ids))
        if total > limit:
            raise family.named(
                "OVERFLOW", f"These would make {total} subscriptions; the limit is {limit}."
            )
        watches = self._known_now(request.peer_ids, deadline)
        with self._lock:
            pairs = zip(request.peer_ids, watches, strict=True)
            states = {uid: watch.state for uid, watch in pairs}
            self._subscribed.update(states)
        self._listener.on_event(PeersOnlineStatusChanged(states))
        return PeerStates(states)

    def unsubscribe(self, request: UnsubscribePeersOnlineStatus, deadline: Deadline) -> Done:
        _check_peers(request.peer_ids, None, PeerSubscriptionStatusError)
        self._budget.check_rate("presence_unsubscriptions", PeerSubscriptionStatusError)
        with self._lock:
            for uid in request.peer_ids:
                self._subscribed.pop(uid, None)
        return Done()

    def subscribed(self, request: QueryPeersBySubscriptionOption, deadline: Deadline) -> UserIds:
        self._budget.check_rate("subscription_queries", QueryPeersBySubscriptionOptionError)
        with self._lock:
            return UserIds(tuple(sorted(self._subscribed)))

    # -- inside --

    def _known_now(self, uids: Sequence[str], deadline: Deadline) -> list[Watch]:
        """Like `known`, but across reconnects, and up to date for users followed earlier."""

        def attempt() -> list[Watch]:
            watches = self.known(uids, deadline)
            self._connection.wait(self._fence(), deadline)
            return watches

        return self._connection.persist(attempt, deadline)

    def _drop_one(self) -> None:
        """Stop following the least recently used user that is not needed."""
        needed = self._needed()  # acquires another lock, so call it before taking this one
        with self._lock:
            needed |= self._subscribed.keys()
            dropped = next((uid for uid in self._watches if uid not in needed), None)
            if dropped is not None:
                del self._watches[dropped]
        if dropped is not None:
            self._connection.unsubscribe([self._topics.online(dropped)])


def _check_peers(peer_ids: Sequence[str], limit: int | None, family: type[RtmError]) -> None:
    problem = peers_problem(peer_ids, limit)
    if problem is not None:
        raise family.named("INVALID_ARGUMENT", problem)
