"""The Bus contract: delivery to users and channels, membership, and what a member missed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...protocol.events import ChannelMessage
from ...protocol.requests import PeerCall
from ...protocol.values import ChannelAttribute, ChannelPosition
from ..old_names import accept_old_method
from .node import ChannelEvent, Delivery
from .part import EnginePart


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


class Bus(EnginePart):
    """What passes between users: peer messages, channels, their members and attributes.

    A bus whose users are claimed elsewhere is made with that directory: it finds a user by the
    claim, or asks the nodes.

    A channel's attributes are here and not in the directory because they belong to no session and
    end with the channel's membership, which only the bus knows.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        accept_old_method(cls, Bus, "missed", "recover")

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
