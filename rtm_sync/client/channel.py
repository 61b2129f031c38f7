"""RtmChannel: one channel as one client sees it."""

from __future__ import annotations

from ..errors import ChannelMessageError
from ..messages import RtmMessage, as_message
from ..protocol.requests import (
    GetHistory,
    GetMembers,
    JoinChannel,
    LeaveChannel,
    SendChannelMessage,
)
from ..protocol.values import HistoricalMessage
from .arguments import chosen_message_id
from .calls import CALL_TIMEOUT, SEND_TIMEOUT, Caller
from .handlers import ChannelEvents
from .history import Moment, read_history


class RtmChannel(ChannelEvents):
    """A channel; made by `RtmClient.create_channel`, any number of times for the same id.

    Events: `ChannelMessage(message, member_id, message_props)`, `MemberJoined(member_id)`,
    `MemberLeft(member_id)`, `MemberCountUpdated(count)`, `AttributesUpdated(attributes)`, and
    (ours) `Reconnected(recovered)`: the session was lost and the channel joined again. `recovered`
    says that all messages missed meanwhile follow; without, some are lost (or joining failed, and
    `send_message` says NOT_IN_CHANNEL). The sender of a message does not receive it; above 512
    members only the count is told (reference 1.3). Thread-safe.

    Attributes:
        channel_id: the channel's name.
    """

    EVENTS = frozenset(
        {
            "ChannelMessage",
            "MemberJoined",
            "MemberLeft",
            "MemberCountUpdated",
            "AttributesUpdated",
            "Reconnected",
        }
    )

    def __init__(self, channel_id: str, call: Caller) -> None:
        super().__init__()
        self.channel_id = channel_id
        self._call = call

    def __repr__(self) -> str:
        return f"<RtmChannel {self.channel_id!r}>"

    def join(self, *, timeout: float = CALL_TIMEOUT) -> None:
        """Join the channel; blocks until the hub has made us a member.

        Raises:
            JoinChannelError: not logged in, joined already, 20 channels joined, or too often.
        """
        self._call(JoinChannel(self.channel_id), timeout)

    def leave(self, *, timeout: float = CALL_TIMEOUT) -> None:
        """Leave the channel.

        Raises:
            LeaveChannelError: not logged in, or not joined.
        """
        self._call(LeaveChannel(self.channel_id), timeout)

    def send_message(
        self,
        message: RtmMessage | str | bytes,
        *,
        enable_historical_messaging: bool = False,
        message_id: str | None = None,
        timeout: float = SEND_TIMEOUT,
    ) -> None:
        """Send to all other members; returns when the hub has passed it on.

        Args:
            message: a message; a `str` is a text message, bytes a raw one. At most 32 KB.
            enable_historical_messaging: keep it in the history for seven days.
            message_id: names the message, so that sending it again cannot duplicate it.
            timeout: seconds.

        Raises:
            ChannelMessageError: not logged in or joined, too large, too often, or timed out.
        """
        try:
            checked = as_message(message)
        except (TypeError, ValueError) as error:
            raise ChannelMessageError.named("INVALID_MESSAGE", str(error), error) from error
        chosen = chosen_message_id(
            message_id, lambda problem: ChannelMessageError.named("INVALID_MESSAGE", problem)
        )
        self._call(
            SendChannelMessage(self.channel_id, checked, chosen, enable_historical_messaging),
            timeout,
        )

    def get_members(self, *, timeout: float = CALL_TIMEOUT) -> list[str]:
        """The uids of the channel's members; of more than 512 a random 512 (reference 1.3).

        Raises:
            GetMembersError: not logged in or joined, too often, or timed out.
        """
        return list(self._call(GetMembers(self.channel_id), timeout).user_ids)

    def get_history(
        self,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int = 100,
        newest_first: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> list[HistoricalMessage]:
        """Messages of this channel that were sent with `enable_historical_messaging`. Ours.

        Args:
            start, end: from when to when (the end not included); None is as far as it goes, seven
                days at most. A `datetime`, or seconds since the epoch.
            limit: messages, 1 to 100,000.
            newest_first: the order, and which end a `limit` cuts off.
            timeout: seconds.

        Raises:
            HistoryError: not logged in or joined, a bad argument, too often, or timed out.
        """
        return read_history(
            self._call,
            GetHistory(channel_id=self.channel_id),
            start=start,
            end=end,
            limit=limit,
            newest_first=newest_first,
            timeout=timeout,
        )
