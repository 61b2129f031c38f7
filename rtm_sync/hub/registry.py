"""The session registry of one node: the sessions, the state of each, and its deadline.

Pure: the registry does no I/O, takes time as an argument, and returns the actions that its caller
has to perform. It is the only place that ends a session.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeAlias, TypeVar

from ..protocol.values import ConnectionChangeReason


class Connection(Protocol):
    """The connection that carries a session's frames. Called on the hub's loop; never blocks."""

    @property
    def silence(self) -> float:
        """Seconds since the last frame or ping from the client."""

    def wake(self) -> None:
        """Start sending: the session's outbox has frames."""

    def send_now(self, frame: str) -> None:
        """Send an unnumbered frame, before the frames that wait in the outbox."""

    def close(self, code: int, reason: str) -> None:
        """Close after the frames sent so far. The session may go on without this connection."""


class SessionState(Enum):
    """The states of a session. Each but the last has a deadline or a connection."""

    ATTACHING = "a login is not answered yet; the session waits for its connection until a deadline"
    ATTACHED = "a connection carries its frames"
    DETACHED = "its client is disconnected; the session ends at a deadline"
    ENDED = "the session has ended, and nothing stays registered for it"


class SessionEnd(Enum):
    """Why a session ended. The value is used in logs and metrics."""

    LOGOUT = "logout"
    LOST = "lost"  # its client did not reconnect, or its login was never answered
    REFUSED = "refused"  # its login failed
    STOPPING = "stopping"  # the hub is stopping
    SLOW_CONSUMER = "slow_consumer"
    REMOTE_LOGIN = "remote_login"
    BANNED_BY_SERVER = "banned_by_server"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    KEY_REMOVED = "key_removed"  # the key that made its token, or its app, is no longer there
    REPLACED = "replaced"  # a service session, of which there were too many

    @property
    def reason(self) -> ConnectionChangeReason | None:
        """The reason sent to the client, so that it does not reconnect by itself; or None."""
        return _CLIENT_REASONS.get(self)

    @classmethod
    def of(cls, reason: ConnectionChangeReason) -> SessionEnd:
        """The end whose client is sent this reason."""
        return next(end for end, sent in _CLIENT_REASONS.items() if sent is reason)


_CLIENT_REASONS = {
    SessionEnd.REMOTE_LOGIN: ConnectionChangeReason.REMOTE_LOGIN,
    SessionEnd.BANNED_BY_SERVER: ConnectionChangeReason.BANNED_BY_SERVER,
    SessionEnd.TOKEN_EXPIRED: ConnectionChangeReason.TOKEN_EXPIRED,
    SessionEnd.KEY_REMOVED: ConnectionChangeReason.TOKEN_EXPIRED,
}


@dataclass(slots=True, eq=False)
class Life:
    """The state of one session. Only a registry changes it.

    Attributes:
        state: the session's state.
        connection: carries the session's frames, or will do so when the state is ATTACHING.
        deadline: when the session ends if no event comes; None while it is ATTACHED.
        established: the session has been ATTACHED, so that its client can resume it.
        revision: the revision of its claim; None before the engine has answered.
        queued: the time of the session's entry in the registry's queue; None without an entry.
        end: why the session has ended; None while it lives.
    """

    state: SessionState = SessionState.ATTACHING
    connection: Connection | None = None
    deadline: float | None = None
    established: bool = False
    revision: int | None = None
    queued: float | None = None
    end: SessionEnd | None = None


class _HasLife(Protocol):
    """The part of a session that a registry uses."""

    app_id: str
    uid: str
    id: str
    life: Life


S = TypeVar("S", bound=_HasLife)


@dataclass(frozen=True, slots=True)
class Supersede:
    """Close this connection: another connection has taken over its session."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Finish(Generic[S]):
    """The session has ended. Close its connection, if any, and remove its registered state."""

    session: S
    connection: Connection | None
    end: SessionEnd


Action: TypeAlias = "Supersede | Finish[S]"


class Registry(Generic[S]):
    """Owns the life of every session of one node.

    Args:
        attach_time: seconds from a login until its connection must be attached.
        grace: seconds that a session survives without a connection.
    """

    def __init__(self, attach_time: float, grace: float) -> None:
        self._attach_time = attach_time
        self._grace = grace
        self._by_id: dict[str, S] = {}
        self._by_user: dict[tuple[str, str], S] = {}  # claimed sessions, one a user
        self._of_app: Counter[str] = Counter()
        self._queue: list[tuple[float, int, S]] = []  # a heap of deadlines, possibly outdated
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._by_id)

    def count(self, app_id: str) -> int:
        """The number of an app's sessions."""
        return self._of_app[app_id]

    def __iter__(self) -> Iterator[S]:
        return iter(tuple(self._by_id.values()))

    def get(self, session_id: str) -> S | None:
        """The living session with this id, or None."""
        return self._by_id.get(session_id)

    def of_user(self, app_id: str, uid: str) -> S | None:
        """The living session that holds the user's claim on this node, or None."""
        return self._by_user.get((app_id, uid))

    @property
    def deadline(self) -> float | None:
        """The earliest deadline of a session, or None. Call `tick` then."""
        while self._queue:
            at, _, session = self._queue[0]
            life = session.life
            if life.queued == at and life.deadline == at:
                return at
            heapq.heappop(self._queue)
            if life.queued == at:
                life.queued = None
                self._queue_deadline(session)
        return None

    # -- events --

    def opened(self, session: S, connection: Connection | None, now: float) -> None:
        """A login was admitted. Its session waits for its claim and its connection."""
        self._by_id[session.id] = session
        self._of_app[session.app_id] += 1
        self._enter(session, SessionState.ATTACHING, connection, now + self._attach_time)

    def claimed(self, session: S, revision: int) -> list[Action[S]]:
        """The engine has claimed the user for the session. The newest claim of a user wins.

        A session that ended meanwhile stays ended; the caller checks its state.
        """
        if session.life.state is SessionState.ENDED:
            return []
        session.life.revision = revision
        user = (session.app_id, session.uid)
        other = self._by_user.get(user)
        if other is not None and other is not session and other.life.revision is not None:
            if other.life.revision > revision:
                return self.ended(session, SessionEnd.REMOTE_LOGIN)
            actions = self.ended(other, SessionEnd.REMOTE_LOGIN)
        else:
            actions = []
        self._by_user[user] = session
        return actions

    def resumed(self, session: S, connection: Connection, now: float) -> list[Action[S]]:
        """A login resumes this living session, which waits for the new connection."""
        previous = session.life.connection
        self._enter(session, SessionState.ATTACHING, connection, now + self._attach_time)
        return [] if previous is None or previous is connection else [Supersede(previous)]

    def attached(self, session: S, connection: Connection) -> bool:
        """The login is answered. Returns False when the session does not wait for this connection.

        The session has ended then, or another connection has taken over.
        """
        life = session.life
        if life.state is not SessionState.ATTACHING or life.connection is not connection:
            return False
        life.state, life.deadline, life.established = SessionState.ATTACHED, None, True
        return True

    def detached(self, session: S, connection: Connection, now: float) -> list[Action[S]]:
        """A connection is closed. Its session stays for the grace period if it can be resumed."""
        life = session.life
        if life.state is SessionState.ENDED or life.connection is not connection:
            return []
        if not life.established:
            life.connection = None
            return self.ended(session, SessionEnd.LOST)
        self._enter(session, SessionState.DETACHED, None, now + self._grace)
        return []

    def ended(self, session: S, end: SessionEnd) -> list[Action[S]]:
        """End the session, from any state. Idempotent."""
        life = session.life
        if life.state is SessionState.ENDED:
            return []
        connection, life.connection = life.connection, None
        life.state, life.deadline, life.end = SessionState.ENDED, None, end
        del self._by_id[session.id]
        self._of_app[session.app_id] -= 1
        if not self._of_app[session.app_id]:
            del self._of_app[session.app_id]
        if self._by_user.get((session.app_id, session.uid)) is session:
            del self._by_user[session.app_id, session.uid]
        return [Finish(session, connection, end)]

    def tick(self, now: float) -> list[Action[S]]:
        """End the sessions whose deadline has passed."""
        actions: list[Action[S]] = []
        while (deadline := self.deadline) is not None and deadline <= now:
            _, _, session = self._queue[0]
            actions += self.ended(session, SessionEnd.LOST)
        return actions

    def used(self, session: S, now: float) -> None:
        """A session without a connection is in use: its grace period starts again."""
        if session.life.state is not SessionState.ENDED:
            self._enter(session, SessionState.DETACHED, None, now + self._grace)

    # -- inside --

    def _enter(
        self, session: S, state: SessionState, connection: Connection | None, deadline: float
    ) -> None:
        life = session.life
        life.state, life.connection, life.deadline = state, connection, deadline
        self._queue_deadline(session)

    def _queue_deadline(self, session: S) -> None:
        """Queue the session's deadline, unless an earlier entry is queued already.

        The earlier entry queues the deadline again when it is reached.
        """
        life = session.life
        if life.deadline is not None and (life.queued is None or life.queued > life.deadline):
            life.queued = life.deadline
            heapq.heappush(self._queue, (life.deadline, next(self._order), session))
