"""The values of the protocol: what requests and events carry, and the results of requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from ..messages import RtmMessage


class ConnectionState(str, Enum):
    """State of a client's connection (reference 1.3)."""

    DISCONNECTED = "DISCONNECTED"
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    ABORTED = "ABORTED"

    def __str__(self) -> str:
        return self.value


class ConnectionChangeReason(IntEnum):
    """Why a connection's state changed (reference 1.3 and, for the last, 1.4.6)."""

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
    """Whether a user is there (reference 1.3)."""

    ONLINE = "ONLINE"
    UNREACHABLE = "UNREACHABLE"
    OFFLINE = "OFFLINE"

    def __str__(self) -> str:
        return self.value


class PeerSubscriptionOption(str, Enum):
    """What of a user can be subscribed to (reference 1.3)."""

    ONLINE_STATUS = "ONLINE_STATUS"

    def __str__(self) -> str:
        return self.value


class InvitationStep(str, Enum):
    """What one end of an invitation tells the other."""

    INVITE = "INVITE"
    CANCEL = "CANCEL"
    ACCEPT = "ACCEPT"
    REFUSE = "REFUSE"


class InvitationReceipt(str, Enum):
    """What became of a step on its way."""

    RECEIVED = "RECEIVED"
    OFFLINE = "OFFLINE"
    UNCONFIRMED = "UNCONFIRMED"


@dataclass(frozen=True, slots=True)
class ChannelAttribute:
    """One attribute of a channel.

    Attributes:
        value: the text.
        last_update_user_id: who wrote it last.
        last_update_ts: when, milliseconds since the epoch.
    """

    value: str
    last_update_user_id: str
    last_update_ts: int


@dataclass(frozen=True, slots=True)
class ReceivedMessageProperties:
    """What the hub knows of a received message.

    Attributes:
        server_received_ts: when the hub got it, milliseconds since the epoch.
        is_offline_message: it waited for this login.
        is_historical_message: it comes from the history.
    """

    server_received_ts: int
    is_offline_message: bool = False
    is_historical_message: bool = False


@dataclass(frozen=True, slots=True)
class PeerMessageSendResult:
    """What became of a peer message.

    Attributes:
        has_peer_received: the peer's SDK confirmed that it has the message.
        cached_by_server: it waits for the peer's next login (ours; the reference leaves it open).
    """

    has_peer_received: bool
    cached_by_server: bool = False


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """One stored medium.

    Attributes:
        media_id: names it; unguessable, valid for any logged-in user of the app.
        size: bytes.
        sha256: hexadecimal digest of the bytes.
        file_name, content_type: as the uploader said.
        expires_at: end of its seven days, seconds since the epoch.
    """

    media_id: str
    size: int
    sha256: str
    file_name: str
    content_type: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class HistoricalMessage:
    """A message of the history.

    Attributes:
        message: what was sent.
        source: who sent it.
        destination: the user or channel it was sent to.
        is_channel: whether `destination` is a channel.
        message_id: names it, as when it was sent.
        message_props: when the hub got it; `is_historical_message` is set.
    """

    message: RtmMessage
    source: str
    destination: str
    is_channel: bool
    message_id: str
    message_props: ReceivedMessageProperties


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Part of a history.

    Attributes:
        messages: in the order asked for.
        after: where the next page begins; None when this was the last.
    """

    messages: tuple[HistoricalMessage, ...]
    after: int | None


@dataclass(frozen=True, slots=True)
class OnlineStatuses:
    """Who of those asked for is logged in, in the order asked."""

    online: dict[str, bool]


@dataclass(frozen=True, slots=True)
class PeerStates:
    """The state of each user asked for."""

    states: dict[str, PeerOnlineState]


@dataclass(frozen=True, slots=True)
class UserIds:
    """Some users."""

    user_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberCounts:
    """How many members each channel has; one nobody joined has none."""

    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class UserAttributes:
    """Attributes of a user."""

    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class ChannelAttributes:
    """Attributes of a channel."""

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
    """A place in a channel's messages.

    Attributes:
        epoch: names one unbroken numbering; places of different epochs cannot be compared.
        sequence: how many messages the epoch had, this one included.
    """

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True)
class JoinResult:
    """The hub's answer to a join.

    Attributes:
        position: the channel's newest place.
        recovered: with `since`: everything after it follows. False: some of it is lost.
    """

    position: ChannelPosition
    recovered: bool


@dataclass(frozen=True, slots=True)
class LoginResult:
    """The hub's answer to a login.

    Attributes:
        session: names the session; also the bearer token for media. Secret.
        resumed: the session that was asked for goes on; False is a new one.
        received: how many numbered frames of ours the hub has, for replay after a resume.
        window: how many frames the hub sends before it wants an acknowledgement.
    """

    session: str = field(repr=False)
    resumed: bool
    received: int
    window: int


class LocalInvitationState(str, Enum):
    """State of an invitation at its caller (reference 1.3)."""

    IDLE = "IDLE"
    SENT_TO_REMOTE = "SENT_TO_REMOTE"
    RECEIVED_BY_REMOTE = "RECEIVED_BY_REMOTE"
    ACCEPTED_BY_REMOTE = "ACCEPTED_BY_REMOTE"
    REFUSED_BY_REMOTE = "REFUSED_BY_REMOTE"
    CANCELED = "CANCELED"
    FAILURE = "FAILURE"


class RemoteInvitationState(str, Enum):
    """State of an invitation at its callee (reference 1.3)."""

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
    """What a change does to the attributes that are there."""

    SET = "SET"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CLEAR = "CLEAR"
