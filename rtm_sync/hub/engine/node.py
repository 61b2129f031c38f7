"""The hub's side of an engine: the methods that an engine calls on this node."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, TypeAlias

from ...protocol.events import AttributesUpdated, ChannelMessage, MemberJoined, MemberLeft
from ...protocol.requests import PeerCall
from ...protocol.values import ConnectionChangeReason, PeerOnlineState

ChannelEvent: TypeAlias = ChannelMessage | MemberJoined | MemberLeft | AttributesUpdated


class Delivery(Enum):
    """The outcome of sending a message to a user."""

    RECEIVED = "the user's client confirmed the message"
    OFFLINE = "the user is not logged in, or the client refused the message"
    UNCONFIRMED = "the message was sent and not confirmed in time; it may still arrive"


class Node(Protocol):
    """The hub's side of an engine.

    The engine calls these methods on the hub's event loop, only between its `start` and `stop`.
    """

    async def deliver_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        """Deliver a message, or an invitation's step, to a user with a session on this node.

        Returns the receipt, or UNCONFIRMED after the hub's `receipt_timeout`. Returns OFFLINE at
        once when the user has no session on this node.

        A stored message (`MessageFromPeer.key`) that cannot be offered now is offered later, in
        order; the answer is OFFLINE as well.
        """

    def listens(self, app_id: str, uid: str) -> bool:
        """Whether the user has a session on this node whose client takes stored messages now."""

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        """Deliver an event to the channel's members on this node, except its originator."""

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        """End a session: another session has claimed its user (REMOTE_LOGIN), or BANNED_BY_SERVER.

        Ignored when the session is not on this node or has ended, so it may be called twice.
        """

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        """Report the state of a user that this node follows. A state may be reported twice."""

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        """Report the member count of a channel. The last call has the newest count.

        The order relative to MemberJoined and MemberLeft is not defined.
        """
