"""Requests, results and events as typed values, and their JSON-RPC 2.0 text. No I/O.

Both ends use this module: a client's transport and a gateway encode what they send and decode what
they receive here, and nowhere else. Every value is a frozen dataclass; the codec is derived from
its annotations, so a new request needs no codec of its own. Decoding is strict: what does not fit
the annotations never becomes a value. `docs/protocol.md` describes the same in words.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cache
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from .attributes import AttributeChange
from .errors import (
    ERROR_FAMILIES,
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
from .messages import RtmFileMessage, RtmImageMessage, RtmMessage, RtmRawMessage, RtmTextMessage

PROTOCOL_VERSION = 1
FRAME_LIMIT = 256 * 1024
"""Bytes in one frame: the largest legal message (32 KB of control characters, six bytes each when
escaped) with room for its envelope."""

ID_LIMIT = 64
"""Bytes in a user or channel id (reference 1.3: 1 to 64)."""

RETENTION_SECONDS = 7 * 24 * 3600
"""How long media and offline messages are kept (reference 1.3: seven days)."""

_ID = re.compile(r"[a-zA-Z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,]+")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,64}")

R = TypeVar("R")
C = TypeVar("C")


def id_problem(kind: str, value: object) -> str | None:
    """Say what is wrong with a user or channel id, or None (reference 1.3: charset and length)."""
    if not isinstance(value, str):
        return f"{kind} must be a str, not {type(value).__name__}."
    if not value:
        return f"{kind} is empty; it needs 1 to {ID_LIMIT} characters."
    if len(value) > ID_LIMIT:
        return f"{kind} has {len(value):,} characters; the limit is {ID_LIMIT}."
    if value == "null":
        return f'{kind} must not be the string "null".'
    if not _ID.fullmatch(value):
        bad = next(char for char in value if not _ID.fullmatch(char))
        return (
            f"{kind} {value!r} contains {bad!r}; allowed are ASCII letters, digits, space and "
            "! # $ % & ( ) + - : ; < = . > ? @ [ ] ^ _ { } | ~ ,"
        )
    return None


def app_id_problem(value: object) -> str | None:
    """Say what is wrong with an app id, or None: any text of 1 to 64 characters."""
    if not isinstance(value, str):
        return f"app_id must be a str, not {type(value).__name__}."
    if not 1 <= len(value) <= ID_LIMIT:
        return f"app_id has {len(value):,} characters; it needs 1 to {ID_LIMIT}."
    return None


def message_id_problem(value: object) -> str | None:
    """Say what is wrong with a message id, or None: 1 to 64 of letters, digits, `_ . : -`."""
    if isinstance(value, str) and _MESSAGE_ID.fullmatch(value):
        return None
    return "message_id must be 1 to 64 ASCII letters, digits or _ . : -"


# ---- Values --------------------------------------------------------------------------------------


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


# ---- Requests and events -------------------------------------------------------------------------


class Request(Generic[R]):
    """A call one end makes on the other. `R` is the type of its result."""

    __slots__ = ()
    METHOD: ClassVar[str]
    RESULT: ClassVar[type]
    ERROR: ClassVar[type[RtmError]]
    INVALID: ClassVar[str] = "INVALID_ARGUMENT"
    """Suffix of the error code for parameters that do not fit."""


class Event:
    """Something one end tells the other and expects no answer to."""

    __slots__ = ()
    METHOD: ClassVar[str]


@dataclass(frozen=True, slots=True)
class Login(Request[LoginResult]):
    """First frame of a connection; opens a session, or resumes one that lost its connection."""

    METHOD = "login"
    RESULT = LoginResult
    ERROR = LoginError

    app_id: str
    uid: str
    version: int = PROTOCOL_VERSION
    token: str | None = field(default=None, repr=False)
    session: str | None = field(default=None, repr=False)
    received: int = 0


@dataclass(frozen=True, slots=True)
class Logout(Request[Done]):
    """Ends the session at once."""

    METHOD = "logout"
    RESULT = Done
    ERROR = LogoutError


@dataclass(frozen=True, slots=True)
class SendMessageToPeer(Request[PeerMessageSendResult]):
    """Sends a message to one user; answered when that user's client confirmed it, or is offline."""

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
    """Becomes a member. With `since`, a member's last known place, what came after it follows the
    answer: so a client whose session was lost fills the gap."""

    METHOD = "join_channel"
    RESULT = JoinResult
    ERROR = JoinChannelError

    channel_id: str
    since: ChannelPosition | None = None


@dataclass(frozen=True, slots=True)
class LeaveChannel(Request[Done]):
    METHOD = "leave_channel"
    RESULT = Done
    ERROR = LeaveChannelError

    channel_id: str


@dataclass(frozen=True, slots=True)
class GetHistory(Request[HistoryPage]):
    """Reads the history of one conversation: with a peer (both ways), or of a joined channel.

    Exactly one of `peer_id` and `channel_id` is given; `start` (inclusive) and `end` (exclusive)
    are milliseconds since the epoch; `after` is what the page before gave.
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
    METHOD = "query_peers_online_status"
    RESULT = OnlineStatuses
    ERROR = QueryPeersOnlineStatusError

    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubscribePeersOnlineStatus(Request[PeerStates]):
    """From now on `peers_online_status_changed` tells of these users."""

    METHOD = "subscribe_peers_online_status"
    RESULT = PeerStates
    ERROR = PeerSubscriptionStatusError

    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnsubscribePeersOnlineStatus(Request[Done]):
    METHOD = "unsubscribe_peers_online_status"
    RESULT = Done
    ERROR = PeerSubscriptionStatusError

    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryPeersBySubscriptionOption(Request[UserIds]):
    METHOD = "query_peers_by_subscription_option"
    RESULT = UserIds
    ERROR = QueryPeersBySubscriptionOptionError

    option: PeerSubscriptionOption


@dataclass(frozen=True, slots=True)
class GetMembers(Request[UserIds]):
    """Lists a joined channel's members; of more than 512 a random 512."""

    METHOD = "get_members"
    RESULT = UserIds
    ERROR = GetMembersError

    channel_id: str


@dataclass(frozen=True, slots=True)
class GetChannelMemberCount(Request[MemberCounts]):
    METHOD = "get_channel_member_count"
    RESULT = MemberCounts
    ERROR = GetChannelMemberCountError

    channel_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangeUserAttributes(Request[Done]):
    """Writes one's own attributes: `attributes` with SET and UPDATE, `keys` with DELETE."""

    METHOD = "change_user_attributes"
    RESULT = Done
    ERROR = AttributeOperationError

    change: AttributeChange
    attributes: dict[str, str] | None = None
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GetUserAttributes(Request[UserAttributes]):
    """Reads all attributes of a user who is logged in, or those of some keys."""

    METHOD = "get_user_attributes"
    RESULT = UserAttributes
    ERROR = AttributeOperationError

    user_id: str
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ChangeChannelAttributes(Request[Done]):
    """Writes a channel's attributes: `attributes` with SET and UPDATE, `keys` with DELETE."""

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
    """Reads all attributes of a channel, or those of some keys."""

    METHOD = "get_channel_attributes"
    RESULT = ChannelAttributes
    ERROR = AttributeOperationError

    channel_id: str
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SendInvitation(Request[InvitationSent]):
    """Brings a step of an invitation to the other end; the ends keep the state."""

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
    """The hub calls this on the other end; an error says that the step was not taken."""

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
    """The hub calls this on the receiving client; the client's answer is the delivery receipt."""

    METHOD = "message_from_peer"
    RESULT = Done
    ERROR = PeerMessageError

    message: RtmMessage
    peer_id: str
    message_id: str
    message_props: ReceivedMessageProperties


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


PeerCall: TypeAlias = MessageFromPeer | InvitationFromPeer
"""What a hub calls on a client; the answer is the receipt."""

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

# ---- Frames --------------------------------------------------------------------------------------


class RpcCode(IntEnum):
    """JSON-RPC 2.0's own error codes, for what is wrong before a request's family is known."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602


class ProtocolError(Exception):
    """A frame that is not one of ours.

    Attributes:
        code: what JSON-RPC calls the trouble.
        call_id: the id to answer under, where the frame had one.
        request: the kind of request, where it was known.
    """

    def __init__(
        self,
        code: RpcCode,
        message: str,
        call_id: int | None = None,
        request: type[Request[Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.call_id = call_id
        self.request = request


@dataclass(frozen=True, slots=True)
class Call:
    """A request under the caller's id; ids of one direction grow."""

    id: int
    request: Request[Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A result still in JSON form: only the caller knows its type (`decode_result`)."""

    id: int
    result: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """A call's error; `id` is None when the other end could not read the call's id."""

    id: int | None
    error: RtmError | ProtocolError


@dataclass(frozen=True, slots=True)
class Notice:
    event: Event


Frame: TypeAlias = Call | Reply | Failure | Notice

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_loads = json.JSONDecoder(parse_constant=_refuse_constant).decode


def encode_call(call_id: int, request: Request[Any]) -> str:
    return _dumps(
        {
            "jsonrpc": "2.0",
            "id": call_id,
            "method": request.METHOD,
            "params": _encoder(type(request))(request),
        }
    )


def encode_reply(call_id: int, result: object) -> str:
    return _dumps({"jsonrpc": "2.0", "id": call_id, "result": _encoder(type(result))(result)})


def encode_failure(call_id: int | None, error: RtmError | ProtocolError) -> str:
    """Encode an error: the reference's number as JSON-RPC's code, its family and name as data."""
    body: dict[str, Any] = {"code": int(error.code), "message": error.message}
    if isinstance(error, RtmError):
        body["data"] = {"family": _family_name(error), "name": error.code.name}
    return _dumps({"jsonrpc": "2.0", "id": call_id, "error": body})


def encode_notice(event: Event) -> str:
    return _dumps(
        {"jsonrpc": "2.0", "method": event.METHOD, "params": _encoder(type(event))(event)}
    )


def encode_json(value: object) -> str:
    """Encode one of this module's dataclasses as a JSON object (for HTTP bodies)."""
    return _dumps(_encoder(type(value))(value))


def decode_json(kind: type[R], text: str | bytes) -> R:
    """Decode a JSON object into one of this module's dataclasses.

    Raises:
        ProtocolError: not JSON, or not of that form.
    """
    return decode_result(kind, _parse(text))


def decode(text: str | bytes) -> Frame:
    """Decode one frame.

    Raises:
        ProtocolError: not JSON, not JSON-RPC 2.0, an unknown method, or parameters that do not fit.
    """
    frame = _parse(text)
    if not isinstance(frame, dict) or frame.get("jsonrpc") != "2.0":
        raise ProtocolError(RpcCode.INVALID_REQUEST, 'A frame is one object with "jsonrpc": "2.0".')
    call_id = frame.get("id")
    if call_id is not None and (type(call_id) is not int or not 0 <= call_id < 2**53):
        raise ProtocolError(RpcCode.INVALID_REQUEST, "id must be an integer from 0 to 2^53 - 1.")
    if "method" in frame:
        return _decode_method(frame, call_id)
    if "error" in frame:
        return Failure(call_id, _decode_error(frame["error"], call_id))
    if "result" in frame and call_id is not None:
        return Reply(call_id, frame["result"])
    raise ProtocolError(RpcCode.INVALID_REQUEST, "A frame needs method, result or error.", call_id)


def decode_result(kind: type[R], result: Any) -> R:
    """Turn a reply's JSON result into the type its request names.

    Raises:
        ProtocolError: it does not fit.
    """
    try:
        return typing.cast(R, _decoder(kind)(result))
    except (TypeError, ValueError) as error:
        raise ProtocolError(RpcCode.INVALID_REQUEST, str(error)) from error


def _parse(text: str | bytes) -> Any:
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return _loads(text)
    except RecursionError:
        raise ProtocolError(RpcCode.PARSE_ERROR, "JSON is nested too deeply.") from None
    except ValueError as error:
        raise ProtocolError(RpcCode.PARSE_ERROR, f"Not JSON in UTF-8: {error}.") from None


def _decode_method(frame: dict[str, Any], call_id: int | None) -> Call | Notice:
    method = frame["method"]
    if not isinstance(method, str):
        raise ProtocolError(RpcCode.INVALID_REQUEST, "method must be a string.", call_id)
    kind: type[Any] | None = (EVENTS if call_id is None else REQUESTS).get(method)
    if kind is None:
        what = "notification" if call_id is None else "method"
        raise ProtocolError(RpcCode.METHOD_NOT_FOUND, f"No {what} {method[:64]!r}.", call_id)
    try:
        value = _decoder(kind)(frame.get("params", {}))
    except (TypeError, ValueError) as error:
        request = None if call_id is None else kind
        raise ProtocolError(RpcCode.INVALID_PARAMS, str(error), call_id, request) from error
    return Notice(value) if call_id is None else Call(call_id, value)


def _decode_error(body: Any, call_id: int | None) -> RtmError | ProtocolError:
    if not isinstance(body, dict):
        raise ProtocolError(RpcCode.INVALID_REQUEST, "error must be an object.", call_id)
    message = body.get("message", "")
    if type(message) is not str:
        message = ""
    data = body.get("data")
    if isinstance(data, dict):
        family = ERROR_FAMILIES.get(str(data.get("family")))
        member = family.Code.__members__.get(str(data.get("name"))) if family else None
        if family is not None and member is not None:
            return family(member, message)
    number = body.get("code")
    code = next((code for code in RpcCode if code == number), RpcCode.INVALID_REQUEST)
    return ProtocolError(code, message, call_id)


def _family_name(error: RtmError) -> str:
    return next(
        (kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERROR_FAMILIES),
        type(error).__name__,
    )


# ---- The codec, derived from annotations ---------------------------------------------------------

_Encode: TypeAlias = Callable[[Any], Any]
_Decode: TypeAlias = Callable[[Any], Any]

_MESSAGE_KINDS: dict[str, type[Any]] = {
    "TEXT": RtmTextMessage,
    "RAW": RtmRawMessage,
    "FILE": RtmFileMessage,
    "IMAGE": RtmImageMessage,
}
_PLAIN = (str, int, float, bool)


def _same(value: Any) -> Any:
    return value


def _once_a_type(make: Callable[[Any], C]) -> Callable[[Any], C]:
    return cache(make)


@_once_a_type
def _encoder(kind: Any) -> _Encode:
    """A function from a value of that type to what `json` takes."""
    if kind is bytes:
        return lambda value: base64.b64encode(value).decode("ascii")
    if kind == RtmMessage:
        return lambda value: _encoder(type(value))(value)
    if dataclasses.is_dataclass(kind):
        return _dataclass_encoder(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda value: value.value
    return _generic_encoder(typing.get_origin(kind), typing.get_args(kind))


def _without_none(arguments: tuple[Any, ...]) -> Any:
    """The `X` of `X | None`, which may be a union itself."""
    return typing.Union[tuple(item for item in arguments if item is not type(None))]  # noqa: UP007


def _generic_encoder(origin: Any, arguments: tuple[Any, ...]) -> _Encode:
    """For `X | None`, `tuple[X, ...]` and `dict[str, X]`; anything else is written as it is."""
    if origin in (types.UnionType, typing.Union):
        inner = _encoder(_without_none(arguments))
        return inner if inner is _same else lambda v: None if v is None else inner(v)
    if origin is tuple:
        inner = _encoder(arguments[0])
        return _same if inner is _same else lambda values: [inner(item) for item in values]
    if origin is dict:
        inner = _encoder(arguments[1])
        if inner is not _same:
            return lambda values: {name: inner(item) for name, item in values.items()}
    return _same


def _dataclass_encoder(kind: Any) -> _Encode:
    hints = typing.get_type_hints(kind)
    plain = []
    converted = []
    for item in dataclasses.fields(kind):
        encode = _encoder(hints[item.name])
        if encode is _same:
            plain.append(item.name)
        else:
            converted.append((item.name, encode))
    tag = next((name for name, message in _MESSAGE_KINDS.items() if message is kind), None)

    def encode_fields(value: Any) -> dict[str, Any]:
        encoded: dict[str, Any] = {} if tag is None else {"type": tag}
        for name in plain:
            encoded[name] = getattr(value, name)
        for name, encode in converted:
            encoded[name] = encode(getattr(value, name))
        return encoded

    return encode_fields


@_once_a_type
def _decoder(kind: Any) -> _Decode:
    """A function from JSON to a value of that type; raises ValueError for what does not fit."""
    if kind == RtmMessage:
        return _decode_message
    if dataclasses.is_dataclass(kind):
        return _dataclass_decoder(kind)
    if kind is bytes:
        return _decode_bytes
    if kind in _PLAIN:
        return _plain_decoder(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum_decoder(kind)
    return _generic_decoder(kind, typing.get_origin(kind), typing.get_args(kind))


def _generic_decoder(kind: Any, origin: Any, arguments: tuple[Any, ...]) -> _Decode:
    if origin in (types.UnionType, typing.Union):
        inner = _decoder(_without_none(arguments))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return _array_decoder(_decoder(arguments[0]))
    if origin is dict:
        return _object_decoder(_decoder(arguments[1]))
    raise TypeError(f"The protocol has no form for {kind!r}.")


def _array_decoder(decode_item: _Decode) -> _Decode:
    def decode_array(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise ValueError("must be an array.")
        return tuple(map(decode_item, value))

    return decode_array


def _object_decoder(decode_item: _Decode) -> _Decode:
    decode_name = _plain_decoder(str)

    def decode_object(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError("must be an object.")
        return {decode_name(name): decode_item(item) for name, item in value.items()}

    return decode_object


def _plain_decoder(kind: type) -> _Decode:
    def decode_plain(value: Any) -> Any:
        if kind is float and type(value) in (int, float):
            return _finite(value)
        if type(value) is not kind:
            raise ValueError(f"must be {kind.__name__}, not {type(value).__name__}.")
        if isinstance(value, str) and not value.isascii():
            value.encode()  # half a surrogate pair could never be sent on
        return value

    return decode_plain


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("is too large a number.")
    return number


def _enum_decoder(kind: type[Enum]) -> _Decode:
    members = {(type(member.value), member.value): member for member in kind}

    def decode_enum(value: Any) -> Enum:
        # By type too, because true and 1.0 equal 1; and a list has no place in a dictionary.
        member = members.get((type(value), value)) if type(value) in (int, str) else None
        if member is None:
            raise ValueError(f"is not a {kind.__name__}.")
        return member

    return decode_enum


def _decode_bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise ValueError("must be base64 text.")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64.") from None


def _decode_message(value: Any) -> Any:
    if type(value) is not dict:
        raise ValueError("must be an object.")
    tag = value.get("type")
    kind = _MESSAGE_KINDS.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise ValueError("type must be TEXT, RAW, FILE or IMAGE.")
    return _decoder(kind)(value)


def _dataclass_decoder(kind: Any) -> _Decode:
    hints = typing.get_type_hints(kind)
    decoders = {item.name: _decoder(hints[item.name]) for item in dataclasses.fields(kind)}
    required = frozenset(
        item.name for item in dataclasses.fields(kind) if item.default is dataclasses.MISSING
    )

    def decode_fields(value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError("must be an object.")
        decoded = {}
        for name, item in value.items():
            decode_item = decoders.get(name)
            # Unknown names are passed over, so that an older end understands a newer one.
            if decode_item is not None:
                try:
                    decoded[name] = decode_item(item)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        if not required <= decoded.keys():
            missing = ", ".join(sorted(required - decoded.keys()))
            raise ValueError(f"{missing} missing.")
        return kind(**decoded)

    return decode_fields
