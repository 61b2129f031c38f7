"""The values of the protocol: the parts of requests and events, and the results of requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from ..blob.file_names import plain_name
from ..messages import RtmMessage


class ConnectionState(str, Enum):
    """The state of a client's connection (reference 1.3)."""

    DISCONNECTED = "DISCONNECTED"
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    ABORTED = "ABORTED"

    def __str__(self) -> str:
        return self.value


class ConnectionChangeReason(IntEnum):
    """Why a connection's state changed (reference 1.3; TOKEN_EXPIRED: reference 1.4.6)."""

    LOGIN = 1
    LOGIN_SUCCESS = 2
    LOGIN_FAILURE = 3
    LOGIN_TIMEOUT = 4
    INTERRUPTED = 5
    LOGOUT = 6
    BANNED_BY_SERVER = 7
    REMOTE_LOGIN = 8
    TOKEN_EXPIRED = 9


class PeerOnlineState(str, Enum):
    """Whether a user is online (reference 1.3)."""

    ONLINE = "ONLINE"
    UNREACHABLE = "UNREACHABLE"
    OFFLINE = "OFFLINE"

    def __str__(self) -> str:
        return self.value


class PeerSubscriptionOption(str, Enum):
    """The kind of a subscription to a user (reference 1.3)."""

    ONLINE_STATUS = "ONLINE_STATUS"

    def __str__(self) -> str:
        return self.value


class InvitationStep(str, Enum):
    """A step of an invitation, sent from one client to the other."""

    INVITE = "INVITE"
    CANCEL = "CANCEL"
    ACCEPT = "ACCEPT"
    REFUSE = "REFUSE"


class InvitationReceipt(str, Enum):
    """The outcome of sending a step."""

    RECEIVED = "RECEIVED"
    OFFLINE = "OFFLINE"
    UNCONFIRMED = "UNCONFIRMED"


@dataclass(frozen=True, slots=True)
class ChannelAttribute:
    """One attribute of a channel.

    Attributes:
        value: the text.
        last_update_user_id: the user who changed it last.
        last_update_ts: the time of that change, milliseconds since the epoch.
    """

    value: str
    last_update_user_id: str
    last_update_ts: int


@dataclass(frozen=True, slots=True)
class ReceivedMessageProperties:
    """The hub's data about a received message.

    Attributes:
        server_received_ts: when the hub received it, milliseconds since the epoch.
        is_offline_message: the message was stored while its user was offline or did not listen.
        is_historical_message: the message comes from the history.
        message_id: the message's id, which the sender's client gave it. Ours.
        is_redelivered: the message may have come before: it was sent to this user's client earlier,
            and no report came that it was handled. Ours.
    """

    server_received_ts: int
    is_offline_message: bool = False
    is_historical_message: bool = False
    message_id: str = ""
    is_redelivered: bool = False


@dataclass(frozen=True, slots=True)
class PeerMessageSendResult:
    """The outcome of sending a peer message.

    Attributes:
        has_peer_received: the peer's SDK has confirmed the message.
        cached_by_server: the message is stored, and the peer's client does not have it yet. Ours:
            the reference does not define it.
    """

    has_peer_received: bool
    cached_by_server: bool = False


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """One stored medium.

    Attributes:
        media_id: its unguessable id; any logged-in user of the app may download it.
        size: its size in bytes.
        sha256: the hexadecimal digest of its bytes.
        file_name, content_type: as given by the uploader; of a path, only the last part is kept.
        expires_at: when it expires, seconds since the epoch; seven days after the upload.
    """

    media_id: str
    size: int
    sha256: str
    file_name: str
    content_type: str
    expires_at: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "file_name", plain_name(self.file_name))


@dataclass(frozen=True, slots=True)
class HistoricalMessage:
    """A message of the history.

    Attributes:
        message: the message.
        source: the sender.
        destination: the receiving user or channel.
        is_channel: whether `destination` is a channel.
        message_id: the id with which it was sent.
        message_props: when the hub received it; `is_historical_message` is set.
    """

    message: RtmMessage
    source: str
    destination: str
    is_channel: bool
    message_id: str
    message_props: ReceivedMessageProperties


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of a history.

    Attributes:
        messages: the messages, in the requested order.
        after: the `after` of the request for the next page; None when this is the last page.
    """

    messages: tuple[HistoricalMessage, ...]
    after: int | None


@dataclass(frozen=True, slots=True)
class OnlineStatuses:
    """Whether each of the requested users is logged in, in the requested order."""

    online: dict[str, bool]


@dataclass(frozen=True, slots=True)
class PeerStates:
    """The state of each requested user."""

    states: dict[str, PeerOnlineState]


@dataclass(frozen=True, slots=True)
class UserIds:
    """A list of users."""

    user_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberCounts:
    """The number of members of each requested channel; 0 for an unknown channel."""

    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class UserAttributes:
    """The requested attributes of a user."""

    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class ChannelAttributes:
    """The requested attributes of a channel."""

    attributes: dict[str, ChannelAttribute]


@dataclass(frozen=True, slots=True)
class InvitationSent:
    """The hub's answer to an invitation's step."""

    receipt: InvitationReceipt


@dataclass(frozen=True, slots=True)
class Done:
    """The empty result."""


@dataclass(frozen=True, slots=True)
class ChannelPosition:
    """A position in a channel's messages.

    Attributes:
        epoch: names one continuous numbering; positions of different epochs cannot be compared.
        sequence: grows with each message of the channel, with gaps.
    """

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True)
class JoinResult:
    """The hub's answer to a join.

    Attributes:
        position: the channel's newest position.
        recovered: for a join with `since`: whether all messages after it follow. False means that
            some are lost.
    """

    position: ChannelPosition
    recovered: bool


@dataclass(frozen=True, slots=True)
class LoginResult:
    """The hub's answer to a login.

    Attributes:
        session: the secret id of the session; also the bearer token for media.
        resumed: the requested session was resumed; False for a new session.
        received: the number of the client's numbered frames that the hub has received. The client
            sends the other frames again.
        window: the most unacknowledged frames that the hub keeps before it ends the session.
    """

    session: str = field(repr=False)
    resumed: bool
    received: int
    window: int


class LocalInvitationState(str, Enum):
    """The state of an invitation at its caller (reference 1.3)."""

    IDLE = "IDLE"
    SENT_TO_REMOTE = "SENT_TO_REMOTE"
    RECEIVED_BY_REMOTE = "RECEIVED_BY_REMOTE"
    ACCEPTED_BY_REMOTE = "ACCEPTED_BY_REMOTE"
    REFUSED_BY_REMOTE = "REFUSED_BY_REMOTE"
    CANCELED = "CANCELED"
    FAILURE = "FAILURE"


class RemoteInvitationState(str, Enum):
    """The state of an invitation at its callee (reference 1.3)."""

    INVITATION_RECEIVED = "INVITATION_RECEIVED"
    ACCEPT_SENT_TO_LOCAL = "ACCEPT_SENT_TO_LOCAL"
    REFUSED = "REFUSED"
    ACCEPTED = "ACCEPTED"
    CANCELED = "CANCELED"
    FAILURE = "FAILURE"


class LocalInvitationFailureReason(str, Enum):
    """Why an invitation failed at its caller (reference 1.3)."""

    UNKNOWN = "UNKNOWN"
    PEER_NO_RESPONSE = "PEER_NO_RESPONSE"
    INVITATION_EXPIRE = "INVITATION_EXPIRE"
    PEER_OFFLINE = "PEER_OFFLINE"
    NOT_LOGGEDIN = "NOT_LOGGEDIN"


class RemoteInvitationFailureReason(str, Enum):
    """Why an invitation failed at its callee (reference 1.3)."""

    UNKNOWN = "UNKNOWN"
    PEER_OFFLINE = "PEER_OFFLINE"
    ACCEPT_FAILURE = "ACCEPT_FAILURE"
    INVITATION_EXPIRE = "INVITATION_EXPIRE"


class AttributeChange(str, Enum):
    """The kind of a change of attributes."""

    SET = "SET"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CLEAR = "CLEAR"
