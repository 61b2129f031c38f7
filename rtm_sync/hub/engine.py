"""The Engine contract: what a hub asks of the world beyond its node.

One machine: `local.py`. Many machines: a plugin. A hub does not know which it has.
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
from .replay import Missed

ChannelEvent: TypeAlias = ChannelMessage | MemberJoined | MemberLeft | AttributesUpdated


class Delivery(Enum):
    """What became of a message on its way to a user."""

    RECEIVED = "the user's client confirmed it"
    OFFLINE = "the user is nowhere, or the client did not take it"
    UNCONFIRMED = "it was handed on and not confirmed in time; it may still arrive"


@dataclass(frozen=True, slots=True)
class OfflineMessage:
    """A stored peer message; `key` names it for `discard_offline`, keys grow with time."""

    key: int
    message: MessageFromPeer


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which messages of the history; None asks nothing of that kind.

    Attributes:
        source, destination: who sent it, and to which user or channel.
        is_channel: what the destination is.
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

    Called on the hub's event loop.
    """

    async def deliver_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        """Hand a message, or an invitation's step, to a user connected here.

        Waits, so long as may be, for the receipt.
        """

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        """Hand an event to a channel's members connected here, its originator excepted."""

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        """Another session has claimed this user (REMOTE_LOGIN), or it was BANNED_BY_SERVER."""

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        """A user came, went, or was or was not heard of for a while."""

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        """A channel has so many members now. Comes before the event of who joined or left."""


class Engine(ABC):
    """Claims, routing, membership, queues and records of a cluster. Used on one event loop.

    Every method may be called concurrently; none blocks the loop. `OSError` tells that the engine
    could not do it (the disk is full, the cluster is away).
    """

    @abstractmethod
    async def start(self, node: Node) -> None:
        """Begin; from now on the engine may call the node."""

    @abstractmethod
    async def stop(self) -> None:
        """End; what was acknowledged is safe when this returns."""

    @abstractmethod
    async def claim(self, app_id: str, uid: str, session_id: str) -> None:
        """Make this session the user's only one; whoever held the user is evicted first."""

    @abstractmethod
    async def release(self, app_id: str, uid: str, session_id: str) -> None:
        """Give a claim up, and the user's attributes; ignored when the session no longer holds it.

        Whoever claims is ONLINE, whoever releases is OFFLINE.
        """

    @abstractmethod
    async def kick(self, app_id: str, uid: str) -> bool:
        """End the user's session, wherever it is (BANNED_BY_SERVER); False when there is none."""

    @abstractmethod
    async def ban(self, app_id: str, uid: str, until: float) -> None:
        """Note durably until when a user may not log in, seconds since the epoch; 0 ends a ban."""

    @abstractmethod
    async def bans(self, app_id: str, now: float) -> dict[str, float]:
        """Who is banned now, and until when, seconds since the epoch; who is so longest last."""

    @abstractmethod
    async def revoke(self, app_id: str, uid: str, before: float) -> None:
        """Note durably that the user's tokens made before then, epoch seconds, are not valid."""

    @abstractmethod
    async def revoked_before(self, app_id: str, uid: str) -> float:
        """When the oldest of the user's tokens may have been made, epoch seconds; or 0."""

    @abstractmethod
    async def banned_until(self, app_id: str, uid: str) -> float:
        """Until when a user may not log in; 0 for who was never banned."""

    @abstractmethod
    async def set_reachable(
        self, app_id: str, uid: str, session_id: str, *, reachable: bool
    ) -> None:
        """A claimed user is UNREACHABLE, or ONLINE again; ignored as in `release`."""

    @abstractmethod
    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        """The state of each of these users, in that order."""

    @abstractmethod
    async def put_user_attributes(
        self, app_id: str, uid: str, session_id: str, attributes: dict[str, str]
    ) -> None:
        """Replace a claimed user's attributes; ignored as in `release`."""

    @abstractmethod
    async def user_attributes(self, app_id: str, uid: str) -> dict[str, str] | None:
        """A user's attributes; None when nobody has claimed the user."""

    @abstractmethod
    async def change_channel_attributes(
        self,
        app_id: str,
        channel_id: str,
        change: Callable[[dict[str, ChannelAttribute]], dict[str, ChannelAttribute]],
    ) -> dict[str, ChannelAttribute]:
        """Replace a channel's attributes by what `change` makes of them; nothing comes between.

        `change` may be called again when another node was faster; what it raises is passed on. A
        channel's attributes are forgotten a couple of minutes after its last member left.
        """

    @abstractmethod
    async def channel_attributes(self, app_id: str, channel_id: str) -> dict[str, ChannelAttribute]:
        """A channel's attributes."""

    @abstractmethod
    async def member_counts(self, app_id: str, channel_ids: Sequence[str]) -> dict[str, int]:
        """How many members each of these channels has, in that order."""

    @abstractmethod
    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        """Deliver to wherever the user is; OFFLINE at once when that is nowhere."""

    @abstractmethod
    async def join(self, app_id: str, channel_id: str, uid: str) -> None:
        """Make the user a member and tell the other members."""

    @abstractmethod
    async def leave(self, app_id: str, channel_id: str, uid: str) -> None:
        """End the membership and tell the other members."""

    @abstractmethod
    async def members(self, app_id: str, channel_id: str) -> list[str]:
        """Who is in the channel."""

    @abstractmethod
    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        """Bring an event to every node that has members of its channel.

        A message is given its place in the channel on the way, and kept for a while.
        """

    @abstractmethod
    async def missed(self, app_id: str, channel_id: str, since: ChannelPosition | None) -> Missed:
        """What a channel's member missed since its last known place, as far as it is kept."""

    @abstractmethod
    async def store_offline(
        self, app_id: str, uid: str, message: MessageFromPeer, keep: int, retention: float
    ) -> None:
        """Store durably for the user's next login: at most `keep`, the oldest are dropped.

        Storing the same sender's message id again changes nothing.
        """

    @abstractmethod
    async def offline(self, app_id: str, uid: str, now: float) -> list[OfflineMessage]:
        """What waits for the user and has not expired, the oldest first."""

    @abstractmethod
    async def discard_offline(self, app_id: str, uid: str, keys: list[int]) -> None:
        """The user has these."""

    @abstractmethod
    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        """Store a message durably; storing the same sender's message id again changes nothing."""

    @abstractmethod
    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        """Messages of the history that have not expired, each with its key; keys grow with time."""

    @abstractmethod
    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        """How many messages a query matches, whatever its offset and limit."""

    @abstractmethod
    async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
        """Record a stored medium durably."""

    @abstractmethod
    async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
        """The record of a medium of this app, expired or not."""

    @abstractmethod
    async def delete_media(self, media_id: str) -> None:
        """Forget a medium."""

    @abstractmethod
    async def media_usage(self, app_id: str, uid: str) -> MediaUsage:
        """How many bytes of media the user, and all of the app, have put and not lost yet."""

    @abstractmethod
    async def expired_media(self, now: float) -> list[str]:
        """Ids of some media past their end (a bounded batch; ask again until it is empty)."""
