"""The events: what one end tells the other and expects no answer to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..messages import RtmMessage
from .values import (
    ChannelAttribute,
    ChannelPosition,
    ConnectionChangeReason,
    PeerOnlineState,
    ReceivedMessageProperties,
)


class Event:
    """Something one end tells the other and expects no answer to."""

    __slots__ = ()
    METHOD: ClassVar[str]


@dataclass(frozen=True, slots=True)
class ChannelMessage(Event):
    METHOD = "channel_message"

    channel_id: str
    message: RtmMessage
    member_id: str
    message_id: str
    message_props: ReceivedMessageProperties
    position: ChannelPosition | None = None


@dataclass(frozen=True, slots=True)
class MemberJoined(Event):
    METHOD = "member_joined"

    channel_id: str
    member_id: str


@dataclass(frozen=True, slots=True)
class MemberLeft(Event):
    METHOD = "member_left"

    channel_id: str
    member_id: str


@dataclass(frozen=True, slots=True)
class MemberCountUpdated(Event):
    METHOD = "member_count_updated"

    channel_id: str
    member_count: int


@dataclass(frozen=True, slots=True)
class AttributesUpdated(Event):
    """All attributes of a channel, after a change that asked for this."""

    METHOD = "attributes_updated"

    channel_id: str
    attributes: dict[str, ChannelAttribute]


@dataclass(frozen=True, slots=True)
class PeersOnlineStatusChanged(Event):
    METHOD = "peers_online_status_changed"

    states: dict[str, PeerOnlineState]


@dataclass(frozen=True, slots=True)
class TokenPrivilegeWillExpire(Event):
    """The session's token ends in 30 seconds; renew it."""

    METHOD = "token_privilege_will_expire"


@dataclass(frozen=True, slots=True)
class TokenExpired(Event):
    """The session's token has ended."""

    METHOD = "token_expired"


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """The hub ended the session; the client must not resume it or log in by itself."""

    METHOD = "session_ended"

    reason: ConnectionChangeReason


@dataclass(frozen=True, slots=True)
class CancelUpload(Event):
    """The client gave an upload up; the hub forgets it and deletes its fragment."""

    METHOD = "cancel_upload"

    key: str


@dataclass(frozen=True, slots=True)
class Acknowledge(Event):
    """How many numbered frames the sender of this has dealt with. Not numbered itself."""

    METHOD = "acknowledge"

    received: int


EVENTS: dict[str, type[Event]] = {
    event.METHOD: event
    for event in (
        ChannelMessage,
        MemberJoined,
        MemberLeft,
        MemberCountUpdated,
        AttributesUpdated,
        PeersOnlineStatusChanged,
        TokenPrivilegeWillExpire,
        TokenExpired,
        SessionEnded,
        CancelUpload,
        Acknowledge,
    )
}
