"""The events: one-way notices from one end to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..messages import RtmMessage
from .ids import upload_key_problem
from .values import (
    ChannelAttribute,
    ChannelPosition,
    ConnectionChangeReason,
    PeerOnlineState,
    ReceivedMessageProperties,
)


class Event:
    """A notice without an answer. `METHOD` is its JSON-RPC method."""

    __slots__ = ()
    METHOD: ClassVar[str]


@dataclass(frozen=True, slots=True)
class ChannelMessage(Event):
    """A message of a joined channel, with its position in the channel."""

    METHOD = "channel_message"

    channel_id: str
    message: RtmMessage
    member_id: str
    message_id: str
    message_props: ReceivedMessageProperties
    position: ChannelPosition | None = None


@dataclass(frozen=True, slots=True)
class MemberJoined(Event):
    """A user has joined a channel."""

    METHOD = "member_joined"

    channel_id: str
    member_id: str


@dataclass(frozen=True, slots=True)
class MemberLeft(Event):
    """A user has left a channel."""

    METHOD = "member_left"

    channel_id: str
    member_id: str


@dataclass(frozen=True, slots=True)
class MemberCountUpdated(Event):
    """The member count of a joined channel has changed."""

    METHOD = "member_count_updated"

    channel_id: str
    member_count: int


@dataclass(frozen=True, slots=True)
class AttributesUpdated(Event):
    """All attributes of a channel, after a change with a notification to its members."""

    METHOD = "attributes_updated"

    channel_id: str
    attributes: dict[str, ChannelAttribute]


@dataclass(frozen=True, slots=True)
class PeersOnlineStatusChanged(Event):
    """The states of subscribed users have changed."""

    METHOD = "peers_online_status_changed"

    states: dict[str, PeerOnlineState]


@dataclass(frozen=True, slots=True)
class TokenPrivilegeWillExpire(Event):
    """The session's token expires within 30 seconds; the client should renew it."""

    METHOD = "token_privilege_will_expire"


@dataclass(frozen=True, slots=True)
class TokenExpired(Event):
    """The session's token has expired."""

    METHOD = "token_expired"


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """The hub ended the session; the client must not resume it or log in by itself."""

    METHOD = "session_ended"

    reason: ConnectionChangeReason


@dataclass(frozen=True, slots=True)
class CancelUpload(Event):
    """The client has cancelled an upload; the hub deletes it and its fragment."""

    METHOD = "cancel_upload"

    key: str

    def __post_init__(self) -> None:
        problem = upload_key_problem("key", self.key)
        if problem is not None:
            raise ValueError(problem)


@dataclass(frozen=True, slots=True)
class ListeningChanged(Event):
    """The client has begun or stopped to take stored messages.

    A client that does not listen is not sent stored messages; they wait.
    """

    METHOD = "listening_changed"

    listens: bool


@dataclass(frozen=True, slots=True)
class MessagesHandled(Event):
    """The client's application has handled these stored messages; the hub deletes them.

    Attributes:
        keys: the keys of the messages (`MessageFromPeer.key`), 1 to 1,000.
    """

    METHOD = "messages_handled"

    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Acknowledge(Event):
    """The number of numbered frames that the sender of this notice has received.

    The notice itself is not numbered.
    """

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
        ListeningChanged,
        MessagesHandled,
        Acknowledge,
    )
}
