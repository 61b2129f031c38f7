"""The hub's side of an engine: what an engine calls when something reaches this node."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, TypeAlias

from ...protocol.events import AttributesUpdated, ChannelMessage, MemberJoined, MemberLeft
from ...protocol.requests import PeerCall
from ...protocol.values import ConnectionChangeReason, PeerOnlineState

ChannelEvent: TypeAlias = ChannelMessage | MemberJoined | MemberLeft | AttributesUpdated


class Delivery(Enum):
    """What became of a message on its way to a user."""

    RECEIVED = "the user's client confirmed it"
    OFFLINE = "the user is logged in nowhere, or the client refused the message"
    UNCONFIRMED = "it was handed on and not confirmed in time; it may still arrive"


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
