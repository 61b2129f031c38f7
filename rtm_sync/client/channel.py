"""RtmChannel: one channel as one client sees it. And the channels of one client."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

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
    (ours) `Reconnected(recovered)`: the session was lost and the channel joined again. When
    `recovered` is true, all messages that were missed follow. When it is false, some are lost, or
    the channel could not be joined (then `send_message` fails with NOT_IN_CHANNEL). The sender of a
    message does not receive it. Above 512 members, `MemberCountUpdated` replaces `MemberJoined` and
    `MemberLeft` (reference 1.3). Thread-safe.

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

    def __init__(
        self, channel_id: str, call: Caller, handlers_changed: Callable[[RtmChannel], object]
    ) -> None:
        super().__init__()
        self.channel_id = channel_id
        self._call = call
        self._handlers_changed = handlers_changed

    def __repr__(self) -> str:
        return f"<RtmChannel {self.channel_id!r}>"

    def join(self, *, timeout: float = CALL_TIMEOUT) -> None:
        """Join the channel; blocks until the user is a member.

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
        """Send to all other members; returns when the hub has forwarded the message.

        Args:
            message: a message; a `str` is a text message, bytes a raw one. At most 32 KB.
            enable_historical_messaging: keep the message in the history for seven days.
            message_id: the message's id; the same message sent again with it is not a duplicate.
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
            start, end: the period, without its end: each a `datetime`, or seconds since the epoch.
                None is the oldest and the newest message; the history has seven days.
            limit: messages, 1 to 100,000.
            newest_first: newest messages first; `limit` then cuts off the oldest.
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

    def _listeners_changed(self) -> None:
        self._handlers_changed(self)

    def _has_handlers(self) -> bool:
        return self._listeners.have_handlers()


class Channels:
    """The channels of one client, one object for each id. Thread-safe.

    A channel lives while it has handlers, which keep it, or while the application or an event
    stream holds it. Whether it is joined does not matter: without handlers, nobody would notice its
    events.

    Args:
        call: sends the channels' requests.
    """

    def __init__(self, call: Caller) -> None:
        self._call = call
        self._lock = threading.Lock()  # guards all below
        self._have_ended = False
        self._all: weakref.WeakValueDictionary[str, RtmChannel] = weakref.WeakValueDictionary()
        self._with_handlers: dict[str, RtmChannel] = {}

    def of_id(self, channel_id: str) -> RtmChannel:
        """The channel with this id, made if there is none."""
        with self._lock:
            channel = self._all.get(channel_id)
            if channel is None:
                channel = RtmChannel(channel_id, self._call, self.handlers_changed)
                self._all[channel_id] = channel
                if self._have_ended:
                    channel.end_streams()
            return channel

    def find(self, channel_id: str) -> RtmChannel | None:
        """The channel with this id, if there is one."""
        with self._lock:
            return self._all.get(channel_id)

    def end_streams(self) -> None:
        """End all waits and iterations of all channels, also of those to come."""
        with self._lock:
            self._have_ended = True
            channels = list(self._all.values())
        for channel in channels:
            channel.end_streams()

    def handlers_changed(self, channel: RtmChannel) -> None:
        """Keep a channel that has handlers, and no other one."""
        with self._lock:
            if channel._has_handlers():
                self._with_handlers[channel.channel_id] = channel
            else:
                self._with_handlers.pop(channel.channel_id, None)
