"""The engine's five contracts: what a hub asks of the world beyond its node.

`Directory` knows who is logged in, `Bus` carries messages and channels, `Mailbox` keeps what waits
for a user, `Archive` keeps the history, `MediaIndex` keeps the records of stored media. `local.py`
implements all five for one machine. A cluster may implement each with another back end.

Every method of the five keeps these rules; a docstring states only what goes beyond them.

- *One loop.* Methods are called on the hub's event loop, any number of them at once. None blocks
  the loop.
- *Time.* A method returns or raises within 10 seconds. Callers set no time-outs of their own,
  except where a docstring says so.
- *Errors.* `OSError` means that the back end could not do it (the disk is full, the cluster is
  away, it was not started or was stopped). The work may have been done nevertheless, so every
  method may be called again with the same arguments. "Nobody is there" is an answer and not an
  error: `Delivery.OFFLINE`, None, or an empty list.
- *Apps.* Users, channels and media of different apps have nothing to do with each other.
- *Durable* means: it survives a crash of this process that happens after the method returned.
- *Ownership.* Values that are passed in or returned are not changed afterwards by either side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from ..protocol import (
    AttributesUpdated,
    ChannelAttribute,
    ChannelMessage,
    ChannelPosition,
    ConnectionChangeReason,
    HistoricalMessage,
    MediaInfo,
    MemberJoined,
    MemberLeft,
    MessageFromPeer,
    PeerCall,
    PeerOnlineState,
)

ChannelEvent: TypeAlias = ChannelMessage | MemberJoined | MemberLeft | AttributesUpdated


class Delivery(Enum):
    """What became of a message on its way to a user."""

    RECEIVED = "the user's client confirmed it"
    OFFLINE = "the user is logged in nowhere, or the client refused the message"
    UNCONFIRMED = "it was handed on and not confirmed in time; it may still arrive"


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


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a channel's member missed.

    Attributes:
        position: the channel's newest position.
        messages: those that came after the member's position and are still kept, in order.
        complete: `messages` has no gap.
    """

    position: ChannelPosition
    messages: tuple[ChannelMessage, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class OfflineMessage:
    """A stored peer message; `key` names it for `discard_offline`, keys grow with time."""

    key: int
    message: MessageFromPeer


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which messages of the history; None sets no condition.

    Attributes:
        source, destination: the sender, and the receiving user or channel.
        is_channel: whether the destination is a channel.
        both_ways: source and destination may also be the other way round.
        start, end: milliseconds since the epoch; the end is not included.
        newest_first: the order.
        after: leave out everything up to this key, in that order.
        offset, limit: which part of the rest.
    """

    source: str | None = None
    destination: str | None = None
    is_channel: bool | None = None
    both_ways: bool = False
    start: int | None = None
    end: int | None = None
    newest_first: bool = False
    after: int | None = None
    offset: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class MediaUsage:
    """Bytes of stored media.

    Attributes:
        user: one user's.
        app: all of the app's.
    """

    user: int
    app: int


class Node(Protocol):
    """The hub's side: what an engine calls when something reaches this node.

    Called on the hub's event loop, only between the engine's `start` and `stop`.
    """

    async def deliver_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        """Hand a message, or an invitation's step, to a user connected here.

        Returns the receipt, at the latest when the hub's own time for receipts is over
        (UNCONFIRMED); OFFLINE at once when the user has no session here.
        """

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        """Hand an event to a channel's members connected here, its originator excepted."""

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        """End a session: another has claimed its user (REMOTE_LOGIN), or BANNED_BY_SERVER.

        Ignored when the session is not here or has ended, so it may be told twice.
        """

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        """The state of a user that this node follows. The same state may be told twice."""

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        """A channel has so many members now. The last call has the newest count.

        Nothing is promised about its order beside MemberJoined and MemberLeft.
        """


class EnginePart(ABC):
    """What each of the five contracts has: a beginning and an end.

    A part owns its background work (timers, subscriptions, connections) and ends it in `stop`.
    """

    @abstractmethod
    async def start(self, node: Node) -> None:
        """Begin; from now on the part may call the node. `OSError` when it cannot begin."""

    @abstractmethod
    async def stop(self) -> None:
        """End; what was acknowledged is safe and no work of the part goes on when this returns.

        Idempotent. Every other method raises `OSError` afterwards.
        """


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


class Bus(EnginePart):
    """What passes between users: peer messages, channels, their members and attributes.

    A bus whose users are claimed elsewhere is made with that directory: it finds a user by the
    claim, or asks the nodes.

    A channel's attributes are here and not in the directory because they belong to no session and
    end with the channel's membership, which only the bus knows.
    """

    @abstractmethod
    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        """Deliver to the node that has the user's session, and return its receipt.

        OFFLINE at once when the user is logged in nowhere. Takes as long as the receiving node
        waits for the client, and at most 10 seconds more; UNCONFIRMED then, or when the node was
        lost after it may have had the message. `OSError` means that the message was not handed on.
        The caller may give up earlier.

        Calls made one after another for the same receiver are delivered in that order. A message
        may be delivered twice; the receiving client drops a message id that it has had.
        """

    @abstractmethod
    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        """Make the session a member.

        A user is a member of a channel while at least one of its sessions is; the other members
        are told MemberJoined only at the first. What is published after this has returned reaches
        the node.
        """

    @abstractmethod
    async def leave(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        """End the session's membership; MemberLeft is told when it was the user's last.

        Ignored when the session is not a member, so a late leave of a former session does not
        remove its successor. A session that ends leaves all its channels, a successor or not.
        """

    @abstractmethod
    async def members(self, app_id: str, channel_id: str) -> list[str]:
        """The users in the channel, each once."""

    @abstractmethod
    async def member_counts(self, app_id: str, channel_ids: Sequence[str]) -> dict[str, int]:
        """How many members each of these channels has, in that order."""

    @abstractmethod
    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        """Bring an event to every node that has members of its channel.

        A message is given its position in the channel on the way, and kept for a while. Messages
        of one channel reach every node in the order of their positions. Returning means: the event
        is accepted; no node is waited for. A message may be told twice, at the same position.
        """

    @abstractmethod
    async def recover(
        self, app_id: str, channel_id: str, since: ChannelPosition | None
    ) -> Recovered:
        """What came after a position, as far as it is kept; nothing without a position.

        Every message after the returned position is told to the node of a member, if the session
        joined before. A position is opaque to everybody else: sequences grow within an epoch, with
        gaps. A position that the bus does not know makes the answer incomplete.
        """

    @abstractmethod
    async def change_channel_attributes(
        self,
        app_id: str,
        channel_id: str,
        change: Callable[[dict[str, ChannelAttribute]], dict[str, ChannelAttribute]],
    ) -> dict[str, ChannelAttribute]:
        """Replace a channel's attributes by the result of `change`, atomically; returns them.

        `change` may be called again when another node was faster; what it raises is passed on, and
        nothing changes. Members are told by `publish`. A channel's attributes are forgotten a
        couple of minutes after its last member left, or after a change without members.
        """

    @abstractmethod
    async def channel_attributes(self, app_id: str, channel_id: str) -> dict[str, ChannelAttribute]:
        """A channel's attributes."""


class Mailbox(EnginePart):
    """The peer messages that wait for a user's next login."""

    @abstractmethod
    async def store_offline(
        self, app_id: str, uid: str, message: MessageFromPeer, keep: int, retention: float
    ) -> None:
        """Store durably for `retention` seconds: at most `keep` messages, the oldest are dropped.

        Storing a message id of the same sender again while it waits changes nothing.
        """

    @abstractmethod
    async def offline(self, app_id: str, uid: str, now: float) -> list[OfflineMessage]:
        """The user's messages that have not expired, in the order in which they were stored.

        What was stored before this was called is there.
        """

    @abstractmethod
    async def discard_offline(self, app_id: str, uid: str, keys: list[int]) -> None:
        """Forget these messages of the user durably; unknown keys are ignored."""


class Archive(EnginePart):
    """The history: messages that users may read again."""

    @abstractmethod
    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        """Store durably for `retention` seconds.

        Storing a message id again for the same source and destination changes nothing.
        """

    @abstractmethod
    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        """The matching messages that have not expired, each with its key.

        Keys are unique within an app and grow in the order of storing.
        """

    @abstractmethod
    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        """How many messages a query matches, whatever its offset and limit."""


class MediaIndex(EnginePart):
    """The records of stored media. The media themselves are in a `MediaStore`."""

    @abstractmethod
    async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
        """Record durably a stored medium that this user has uploaded."""

    @abstractmethod
    async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
        """The record of a medium of this app, expired or not; None when there is none.

        A record whose `put_media` has returned is seen.
        """

    @abstractmethod
    async def delete_media(self, media_id: str) -> None:
        """Forget a medium durably; ignored when it is unknown."""

    @abstractmethod
    async def media_usage(self, app_id: str, uid: str) -> MediaUsage:
        """The bytes of all recorded media of the user, and of the app."""

    @abstractmethod
    async def expired_media(self, now: float) -> list[str]:
        """Ids of media that have expired: a bounded batch, and empty when there are none.

        The caller deletes them and asks again.
        """


class Engine(Directory, Bus, Mailbox, Archive, MediaIndex):
    """One object that implements all five contracts, with one `start` and one `stop`.

    This is what the plugin hook `engine` answers with and what a hub is given.
    """
