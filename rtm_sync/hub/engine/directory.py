"""The Directory contract: claims of users, presence, user attributes, bans, revocations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ...protocol.values import PeerOnlineState
from .part import EnginePart


@dataclass(frozen=True, slots=True)
class Claim:
    """A session's claim of its user.

    Attributes:
        session_id: the session that holds the user.
        revision: larger than the revision of every earlier claim of this user that the directory
            remembers. Of two claims, the one with the larger revision is valid.
    """

    session_id: str
    revision: int


class Directory(EnginePart):
    """Keeps the data of users: claims, presence, attributes, bans, revocations.

    At most one session holds a user, by a claim. Later calls name the session by its id, and a call
    for a session that no longer holds its user is ignored: late calls of a former session, or of a
    node that was considered dead, change nothing.

    The directory and not the bus keeps a user's attributes: they exist as long as the claim, and
    only the claim's session may change them.
    """

    @abstractmethod
    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        """Claim the user for this session; the user is ONLINE.

        A former holder is evicted: its node has been asked to evict it before this returns. The
        wait for a node that does not answer is at most one second. Of several concurrent claims
        the last one is valid and the other sessions are evicted. A repeated claim by the holder
        changes nothing.
        """

    @abstractmethod
    async def release(self, app_id: str, uid: str, session_id: str) -> None:
        """End the claim and the user's attributes; the user is OFFLINE.

        Ignored when the session no longer holds the user.
        """

    @abstractmethod
    async def kick(self, app_id: str, uid: str) -> bool:
        """Evict the holder on any node (BANNED_BY_SERVER). Returns whether there was a holder.

        The claim stays until the session's node releases it.
        """

    @abstractmethod
    async def set_reachable(
        self, app_id: str, uid: str, session_id: str, *, reachable: bool
    ) -> None:
        """Set the user's state to UNREACHABLE, or to ONLINE again; ignored as in `release`."""

    @abstractmethod
    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        """The state of each of these users, in that order; OFFLINE for an unknown user.

        The answer reflects every claim and release of this node that has returned.
        """

    @abstractmethod
    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        """Report the user's presence to this node from now on, and return the current state.

        The node gets no reports of other users. No change is lost between the answer and the first
        report: the answer is at least as new as every state reported before this returns, and every
        later change is reported after it, in order. A state may be skipped when a newer one follows
        at once. Following a user again only returns the state.
        """

    @abstractmethod
    async def unfollow(self, app_id: str, uid: str) -> None:
        """End the reports that `follow` began. No report comes after this has returned.

        Ignored when the user is not followed. The caller never runs `follow` and `unfollow` of the
        same user at the same time.
        """

    @abstractmethod
    async def put_user_attributes(
        self, app_id: str, uid: str, session_id: str, attributes: dict[str, str]
    ) -> None:
        """Replace the attributes of the session's user; ignored as in `release`."""

    @abstractmethod
    async def user_attributes(self, app_id: str, uid: str) -> dict[str, str] | None:
        """A user's attributes; None when no session holds the user."""

    @abstractmethod
    async def ban(self, app_id: str, uid: str, until: float) -> None:
        """Store a ban durably. `until` is its end, epoch seconds; 0 ends a ban."""

    @abstractmethod
    async def banned_until(self, app_id: str, uid: str) -> float:
        """The end of a user's ban, epoch seconds; 0 for a user without a ban.

        The ban may have ended already; it is forgotten some time later.
        """

    @abstractmethod
    async def bans(self, app_id: str, now: float, after: str, limit: int) -> dict[str, float]:
        """A page of the currently banned users, each with the ban's end, epoch seconds.

        Args:
            app_id: the app.
            now: epoch seconds.
            after: the page begins with the first user behind this id, in the order of the ids as
                bytes; "" for the first page.
            limit: the most users of the page.
        """

    @abstractmethod
    async def revoke(self, app_id: str, uid: str, before: float) -> None:
        """Durably revoke the user's tokens that were issued before this time, epoch seconds."""

    @abstractmethod
    async def revoked_before(self, app_id: str, uid: str) -> float:
        """The `before` of the user's last revocation, epoch seconds; 0 without one."""
