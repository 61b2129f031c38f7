"""The Directory contract: which session has claimed a user, presence, bans, revocations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ...protocol.values import PeerOnlineState
from .part import EnginePart


@dataclass(frozen=True, slots=True)
class Claim:
    """A session's hold on its user.

    Attributes:
        session_id: the session that holds the user.
        revision: larger than the revision of every earlier claim of this user, as long as the
            directory remembers claims at all. Of two claims the larger revision is the valid one.
    """

    session_id: str
    revision: int


class Directory(EnginePart):
    """Who is logged in, and what is known of users: claims, presence, attributes, bans.

    A user is held by at most one session, by a claim. The session is named by its id in each later
    call, and a call of a session that no longer holds its user is ignored: late calls of a former
    session, or of a node that was thought dead, change nothing.

    A user's attributes are here and not on the bus because they live exactly as long as the claim
    and are guarded by it.
    """

    @abstractmethod
    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        """Make this session the user's only one; the user is ONLINE.

        A former holder is evicted, and its node has been asked to before this returns; a node that
        does not answer is not waited for longer than a second. Of several claims at once the last
        one holds and the others are evicted. Claiming again what the session holds changes nothing.
        """

    @abstractmethod
    async def release(self, app_id: str, uid: str, session_id: str) -> None:
        """End the claim and the user's attributes; the user is OFFLINE.

        Ignored when the session no longer holds the user.
        """

    @abstractmethod
    async def kick(self, app_id: str, uid: str) -> bool:
        """Evict the holder, wherever it is (BANNED_BY_SERVER). Returns whether there was one.

        The claim stays until the session's node releases it.
        """

    @abstractmethod
    async def set_reachable(
        self, app_id: str, uid: str, session_id: str, *, reachable: bool
    ) -> None:
        """Make the user UNREACHABLE, or ONLINE again; ignored as in `release`."""

    @abstractmethod
    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        """The state of each of these users, in that order; OFFLINE for an unknown user.

        A claim or release of this node that has returned is seen.
        """

    @abstractmethod
    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        """Tell this node of the user's presence from now on; returns the present state.

        The node hears of no other users. Nothing is missed between the answer and the first
        change: the answer is at least as new as every state that was told before this returned,
        and every later change is told after it, in order. A state may be skipped when a newer one
        follows at once. Following again only asks for the state.
        """

    @abstractmethod
    async def unfollow(self, app_id: str, uid: str) -> None:
        """End what `follow` began; nothing is told of the user once this has returned.

        Ignored when the user is not followed. The caller waits for `follow` to return before it
        calls `unfollow` for the same user, and the other way round.
        """

    @abstractmethod
    async def put_user_attributes(
        self, app_id: str, uid: str, session_id: str, attributes: dict[str, str]
    ) -> None:
        """Replace the attributes of the session's user; ignored as in `release`."""

    @abstractmethod
    async def user_attributes(self, app_id: str, uid: str) -> dict[str, str] | None:
        """A user's attributes; None when nobody has claimed the user."""

    @abstractmethod
    async def ban(self, app_id: str, uid: str, until: float) -> None:
        """Store durably until when a user may not log in, epoch seconds; 0 ends a ban."""

    @abstractmethod
    async def banned_until(self, app_id: str, uid: str) -> float:
        """Until when a user may not log in, epoch seconds; 0 for a user without a ban.

        A ban that has ended is forgotten some time later.
        """

    @abstractmethod
    async def bans(self, app_id: str, now: float) -> dict[str, float]:
        """The users banned now, and until when, epoch seconds; the longest ban comes last."""

    @abstractmethod
    async def revoke(self, app_id: str, uid: str, before: float) -> None:
        """Store durably that the user's tokens made before then, epoch seconds, are not valid."""

    @abstractmethod
    async def revoked_before(self, app_id: str, uid: str) -> float:
        """The `before` of the user's last revocation, epoch seconds; 0 without one."""
