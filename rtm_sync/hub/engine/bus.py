"""The Bus contract: delivery to users and channels, membership, and recovery of missed messages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...old_names import accept_old_method
from ...protocol.events import ChannelMessage
from ...protocol.requests import PeerCall
from ...protocol.values import ChannelAttribute, ChannelPosition
from .node import ChannelEvent, Delivery
from .part import EnginePart


@dataclass(frozen=True, slots=True)
class Recovered:
    """The messages that a channel's member missed.

    Attributes:
        position: the channel's newest position.
        messages: the messages after the member's position that are still kept, in order.
        complete: `messages` has no gap.
    """

    position: ChannelPosition
    messages: tuple[ChannelMessage, ...]
    complete: bool


class Bus(EnginePart):
    """Carries peer messages, and channels with their members and attributes.

    A bus that is used with a separate directory is created with that directory: it finds a user's
    node by the claim, or asks the nodes.

    The bus and not the directory keeps a channel's attributes: they belong to no session, and they
    end with the channel's membership, which only the bus knows.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        accept_old_method(cls, Bus, "missed", "recover")

    @abstractmethod
    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        """Deliver a message to the node that has the user's session, and return the receipt.

        Returns OFFLINE at once when the user is not logged in. Otherwise the call takes as long as
        the receiving node waits for the client, and at most 10 seconds more; it returns UNCONFIRMED
        then. It also returns UNCONFIRMED when the node was lost after it may have received the
        message. `OSError` means that the message was not sent. The caller may stop waiting earlier.

        Consecutive calls for the same receiver are delivered in order. A message may be delivered
        twice; the receiving client drops duplicate message ids.
        """

    @abstractmethod
    async def listens(self, app_id: str, uid: str) -> bool:
        """Whether the user has a session whose client takes stored messages now.

        It decides how a message is stored before it is sent, so a late answer does no harm: a
        message that counts as offered is not dropped, and one that does not is marked before it is
        offered.
        """

    @abstractmethod
    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        """Make the session a member.

        A user is a member of a channel while at least one of its sessions is. Only the first
        session's join sends MemberJoined to the other members. Events published after this has
        returned reach the node.
        """

    @abstractmethod
    async def leave(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        """End the session's membership. The leave of the user's last session sends MemberLeft.

        Ignored when the session is not a member: a late leave of a former session does not remove
        its successor. A session that ends leaves all its channels, with or without a successor.
        """

    @abstractmethod
    async def members(self, app_id: str, channel_id: str) -> list[str]:
        """The users in the channel, each once."""

    @abstractmethod
    async def member_counts(self, app_id: str, channel_ids: Sequence[str]) -> dict[str, int]:
        """The number of members of each of these channels, in that order."""

    @abstractmethod
    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        """Deliver an event to every node that has members of its channel.

        The bus gives a message its position in the channel, and keeps the message for a while.
        Messages of one channel reach every node in the order of their positions. When this returns,
        the event is accepted; the nodes may receive it later. A message may be delivered to a node
        twice, with the same position.

        A bus that outlives its process has stored the message when this returns: the message can be
        recovered after a restart, positions go on, and the message is not published again when it
        is sent again under its id within 120 seconds.
        """

    @abstractmethod
    async def recover(
        self, app_id: str, channel_id: str, since: ChannelPosition | None
    ) -> Recovered:
        """The kept messages after a position; no messages without a position.

        If the session has joined before, every message after the returned position is delivered to
        its node. A position is opaque outside the bus: sequences grow within an epoch, with gaps.
        The answer to an unknown position is incomplete.
        """

    @abstractmethod
    async def change_channel_attributes(
        self,
        app_id: str,
        channel_id: str,
        change: Callable[[dict[str, ChannelAttribute]], dict[str, ChannelAttribute]],
    ) -> dict[str, ChannelAttribute]:
        """Replace a channel's attributes by the result of `change`, atomically, and return them.

        `change` may be called again when another node was faster. When it raises, the exception is
        passed on and nothing changes. The caller notifies members by `publish`. A channel's
        attributes are forgotten a couple of minutes after its last member left, or after a change
        without members (reference 1.3).
        """

    @abstractmethod
    async def channel_attributes(self, app_id: str, channel_id: str) -> dict[str, ChannelAttribute]:
        """A channel's attributes."""
