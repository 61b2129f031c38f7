"""The requests: calls from one end to the other, each with its result type and error family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from ..errors import (
    AttributeOperationError,
    ChannelMessageError,
    GetChannelMemberCountError,
    GetMembersError,
    HistoryError,
    InvitationApiCallError,
    JoinChannelError,
    LeaveChannelError,
    LoginError,
    LogoutError,
    PeerMessageError,
    PeerSubscriptionStatusError,
    QueryPeersBySubscriptionOptionError,
    QueryPeersOnlineStatusError,
    RenewTokenError,
    RtmError,
)
from ..messages import RtmMessage
from .ids import PROTOCOL_VERSION
from .values import (
    AttributeChange,
    ChannelAttributes,
    ChannelPosition,
    Done,
    HistoryPage,
    InvitationSent,
    InvitationStep,
    JoinResult,
    LoginResult,
    MemberCounts,
    OnlineStatuses,
    PeerMessageSendResult,
    PeerStates,
    PeerSubscriptionOption,
    ReceivedMessageProperties,
    UserAttributes,
    UserIds,
)

R = TypeVar("R")


class Request(Generic[R]):
    """A call from one end to the other. `R` is the type of its result.

    `METHOD` is its JSON-RPC method, `RESULT` its result type, `ERROR` its error family.
    """

    __slots__ = ()
    METHOD: ClassVar[str]
    RESULT: ClassVar[type]
    ERROR: ClassVar[type[RtmError]]
    INVALID: ClassVar[str] = "INVALID_ARGUMENT"
    """The suffix of the error code for invalid parameters."""


@dataclass(frozen=True, slots=True)
class Login(Request[LoginResult]):
    """The first frame of a connection. Opens a session, or resumes one that lost its connection.

    Attributes:
        listens: the client takes stored messages now; `ListeningChanged` reports changes.
    """

    METHOD = "login"
    RESULT = LoginResult
    ERROR = LoginError

    app_id: str
    uid: str
    version: int = PROTOCOL_VERSION
    token: str | None = field(default=None, repr=False)
    session: str | None = field(default=None, repr=False)
    received: int = 0
    listens: bool = True


@dataclass(frozen=True, slots=True)
class Logout(Request[Done]):
    """Ends the session at once."""

    METHOD = "logout"
    RESULT = Done
    ERROR = LogoutError


@dataclass(frozen=True, slots=True)
class SendMessageToPeer(Request[PeerMessageSendResult]):
    """Sends a message to one user.

    The answer comes when the user's client has confirmed the message, or when the user is offline.
    """

    METHOD = "send_message_to_peer"
    RESULT = PeerMessageSendResult
    ERROR = PeerMessageError
    INVALID = "INVALID_MESSAGE"

    peer_id: str
    message: RtmMessage
    message_id: str
    enable_offline_messaging: bool = False
    enable_historical_messaging: bool = False


@dataclass(frozen=True, slots=True)
class SendChannelMessage(Request[Done]):
    """Sends a message to all other members of a joined channel."""

    METHOD = "send_channel_message"
    RESULT = Done
    ERROR = ChannelMessageError
    INVALID = "INVALID_MESSAGE"

    channel_id: str
    message: RtmMessage
    message_id: str
    enable_historical_messaging: bool = False


@dataclass(frozen=True, slots=True)
class JoinChannel(Request[JoinResult]):
    """Joins a channel.

    `since` is the last position that the client has. The messages after it follow the answer: a
    client whose session was lost fills its gap in this way.
    """

    METHOD = "join_channel"
    RESULT = JoinResult
    ERROR = JoinChannelError

    channel_id: str
    since: ChannelPosition | None = None


@dataclass(frozen=True, slots=True)
class LeaveChannel(Request[Done]):
    """Leaves a joined channel."""

    METHOD = "leave_channel"
    RESULT = Done
    ERROR = LeaveChannelError

    channel_id: str


@dataclass(frozen=True, slots=True)
class GetHistory(Request[HistoryPage]):
    """Reads the history of one conversation: with a peer (both ways), or of a joined channel.

    Exactly one of `peer_id` and `channel_id` is given. `start` (inclusive) and `end` (exclusive)
    are milliseconds since the epoch. `after` is the `after` of the previous page.
    """

    METHOD = "get_history"
    RESULT = HistoryPage
    ERROR = HistoryError

    peer_id: str | None = None
    channel_id: str | None = None
    start: int | None = None
    end: int | None = None
    newest_first: bool = False
    limit: int = 100
    after: int | None = None


@dataclass(frozen=True, slots=True)
class RenewToken(Request[Done]):
    """Replaces the session's token."""

    METHOD = "renew_token"
    RESULT = Done
    ERROR = RenewTokenError

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class QueryPeersOnlineStatus(Request[OnlineStatuses]):
    """Asks which users are online."""

    METHOD = "query_peers_online_status"
    RESULT = OnlineStatuses
    ERROR = QueryPeersOnlineStatusError

    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubscribePeersOnlineStatus(Request[PeerStates]):
    """Subscribes to the states of users: `peers_online_status_changed` reports their changes."""

    METHOD = "subscribe_peers_online_status"
    RESULT = PeerStates
    ERROR = PeerSubscriptionStatusError

    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnsubscribePeersOnlineStatus(Request[Done]):
    """Ends subscriptions to the states of users."""

    METHOD = "unsubscribe_peers_online_status"
    RESULT = Done
    ERROR = PeerSubscriptionStatusError

    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryPeersBySubscriptionOption(Request[UserIds]):
    """Lists the users that the session has subscribed to."""

    METHOD = "query_peers_by_subscription_option"
    RESULT = UserIds
    ERROR = QueryPeersBySubscriptionOptionError

    option: PeerSubscriptionOption


@dataclass(frozen=True, slots=True)
class GetMembers(Request[UserIds]):
    """Lists a joined channel's members; a random selection of 512 when there are more."""

    METHOD = "get_members"
    RESULT = UserIds
    ERROR = GetMembersError

    channel_id: str


@dataclass(frozen=True, slots=True)
class GetChannelMemberCount(Request[MemberCounts]):
    """Counts the members of channels."""

    METHOD = "get_channel_member_count"
    RESULT = MemberCounts
    ERROR = GetChannelMemberCountError

    channel_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangeUserAttributes(Request[Done]):
    """Changes the user's own attributes: `attributes` with SET and UPDATE, `keys` with DELETE."""

    METHOD = "change_user_attributes"
    RESULT = Done
    ERROR = AttributeOperationError

    change: AttributeChange
    attributes: dict[str, str] | None = None
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GetUserAttributes(Request[UserAttributes]):
    """Reads the attributes of a logged-in user: all, or those with the given keys."""

    METHOD = "get_user_attributes"
    RESULT = UserAttributes
    ERROR = AttributeOperationError

    user_id: str
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ChangeChannelAttributes(Request[Done]):
    """Changes a channel's attributes: `attributes` with SET and UPDATE, `keys` with DELETE."""

    METHOD = "change_channel_attributes"
    RESULT = Done
    ERROR = AttributeOperationError

    channel_id: str
    change: AttributeChange
    attributes: dict[str, str] | None = None
    keys: tuple[str, ...] | None = None
    enable_notification_to_channel_members: bool = False


@dataclass(frozen=True, slots=True)
class GetChannelAttributes(Request[ChannelAttributes]):
    """Reads the attributes of a channel: all, or those with the given keys."""

    METHOD = "get_channel_attributes"
    RESULT = ChannelAttributes
    ERROR = AttributeOperationError

    channel_id: str
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SendInvitation(Request[InvitationSent]):
    """Sends a step of an invitation to the other client. The two clients keep the state."""

    METHOD = "send_invitation"
    RESULT = InvitationSent
    ERROR = InvitationApiCallError

    peer_id: str
    invitation_id: str
    step: InvitationStep
    content: str = ""
    channel_id: str = ""


@dataclass(frozen=True, slots=True)
class InvitationFromPeer(Request[Done]):
    """The hub calls this on the other client. An error means that the client refused the step."""

    METHOD = "invitation_from_peer"
    RESULT = Done
    ERROR = InvitationApiCallError

    peer_id: str
    invitation_id: str
    step: InvitationStep
    content: str
    channel_id: str


@dataclass(frozen=True, slots=True)
class MessageFromPeer(Request[Done]):
    """The hub calls this on the receiving client; the client's answer is the delivery receipt.

    Attributes:
        key: names a message that stays stored until the client reports it (`MessagesHandled`); None
            for a message that is not stored.
    """

    METHOD = "message_from_peer"
    RESULT = Done
    ERROR = PeerMessageError

    message: RtmMessage
    peer_id: str
    message_id: str
    message_props: ReceivedMessageProperties
    key: int | None = None


PeerCall: TypeAlias = MessageFromPeer | InvitationFromPeer
"""The calls from a hub to a client; the client's answer is the receipt."""

REQUESTS: dict[str, type[Request[Any]]] = {
    request.METHOD: request
    for request in (
        Login,
        Logout,
        SendMessageToPeer,
        SendChannelMessage,
        JoinChannel,
        LeaveChannel,
        GetHistory,
        RenewToken,
        QueryPeersOnlineStatus,
        SubscribePeersOnlineStatus,
        UnsubscribePeersOnlineStatus,
        QueryPeersBySubscriptionOption,
        GetMembers,
        GetChannelMemberCount,
        ChangeUserAttributes,
        GetUserAttributes,
        ChangeChannelAttributes,
        GetChannelAttributes,
        SendInvitation,
        InvitationFromPeer,
        MessageFromPeer,
    )
}
