"""All errors of the package: a base class, and a subclass with a code enum for each family.

Names and numbers are those of the reference (RTM 1.3); the native SDKs have the same ones. This
module does no I/O.
"""

from __future__ import annotations

import concurrent.futures
from enum import IntEnum
from typing import ClassVar


class LoginErrorCode(IntEnum):
    LOGIN_ERR_UNKNOWN = 1
    LOGIN_ERR_REJECTED = 2
    LOGIN_ERR_INVALID_ARGUMENT = 3
    LOGIN_ERR_INVALID_APP_ID = 4
    LOGIN_ERR_INVALID_TOKEN = 5
    LOGIN_ERR_TOKEN_EXPIRED = 6
    LOGIN_ERR_NOT_AUTHORIZED = 7
    LOGIN_ERR_ALREADY_LOGIN = 8
    LOGIN_ERR_TIMEOUT = 9
    LOGIN_ERR_TOO_OFTEN = 10
    LOGIN_ERR_ABORTED_BY_LOGOUT = 201


class LogoutErrorCode(IntEnum):
    LOGOUT_ERR_USER_NOT_LOGGED_IN = 102


class RenewTokenErrorCode(IntEnum):
    RENEW_TOKEN_ERR_FAILURE = 1
    RENEW_TOKEN_ERR_INVALID_ARGUMENT = 2
    RENEW_TOKEN_ERR_REJECTED = 3
    RENEW_TOKEN_ERR_TOO_OFTEN = 4
    RENEW_TOKEN_ERR_TOKEN_EXPIRED = 5
    RENEW_TOKEN_ERR_INVALID_TOKEN = 6
    RENEW_TOKEN_ERR_USER_NOT_LOGGED_IN = 102
    RENEW_TOKEN_ERR_ABORTED_BY_LOGOUT = 201


class PeerMessageErrorCode(IntEnum):
    PEER_MESSAGE_ERR_FAILURE = 1
    PEER_MESSAGE_ERR_TIMEOUT = 2
    PEER_MESSAGE_ERR_TOO_OFTEN = 5
    PEER_MESSAGE_ERR_INVALID_USERID = 6
    PEER_MESSAGE_ERR_INVALID_MESSAGE = 7
    PEER_MESSAGE_ERR_INCOMPATIBLE_MESSAGE = 8
    PEER_MESSAGE_ERR_USER_NOT_LOGGED_IN = 102


class ChannelMessageErrorCode(IntEnum):
    CHANNEL_MESSAGE_ERR_FAILURE = 1
    CHANNEL_MESSAGE_ERR_TIMEOUT = 2
    CHANNEL_MESSAGE_ERR_TOO_OFTEN = 3
    CHANNEL_MESSAGE_ERR_INVALID_MESSAGE = 4
    CHANNEL_MESSAGE_ERR_NOT_IN_CHANNEL = 5
    CHANNEL_MESSAGE_ERR_USER_NOT_LOGGED_IN = 102


class CreateChannelErrorCode(IntEnum):
    CREATE_CHANNEL_ERR_INVALID_ARGUMENT = 1


class CreateInstanceErrorCode(IntEnum):
    CREATE_INSTANCE_ERR_INVALID_ARGUMENT = 1


class JoinChannelErrorCode(IntEnum):
    JOIN_CHANNEL_ERR_FAILURE = 1
    JOIN_CHANNEL_ERR_REJECTED = 2
    JOIN_CHANNEL_ERR_INVALID_ARGUMENT = 3
    JOIN_CHANNEL_TIMEOUT = 4
    JOIN_CHANNEL_ERR_EXCEED_LIMIT = 5
    JOIN_CHANNEL_ERR_ALREADY_JOINED = 6
    JOIN_CHANNEL_ERR_TOO_OFTEN = 7
    JOIN_CHANNEL_ERR_JOIN_SAME_CHANNEL_TOO_OFTEN = 8
    JOIN_CHANNEL_ERR_USER_NOT_LOGGED_IN = 102
    JOIN_CHANNEL_ERR_ABORTED_BY_LEAVE = 201
    JOIN_CHANNEL_ERR_ALREADY_JOINED_CHANNEL_OF_SAME_ID = 202


class LeaveChannelErrorCode(IntEnum):
    LEAVE_CHANNEL_ERR_FAILURE = 1
    LEAVE_CHANNEL_ERR_REJECTED = 2
    LEAVE_CHANNEL_ERR_NOT_IN_CHANNEL = 3
    LEAVE_CHANNEL_ERR_USER_NOT_LOGGED_IN = 102


class GetMembersErrorCode(IntEnum):
    GET_MEMBERS_ERR_FAILURE = 1
    GET_MEMBERS_ERR_REJECTED = 2
    GET_MEMBERS_ERR_TIMEOUT = 3
    GET_MEMBERS_ERR_TOO_OFTEN = 4
    GET_MEMBERS_ERR_NOT_IN_CHANNEL = 5
    GET_MEMBERS_ERR_USER_NOT_LOGGED_IN = 102


class GetChannelMemberCountErrorCode(IntEnum):
    GET_CHANNEL_MEMBER_COUNT_ERR_FAILURE = 1
    GET_CHANNEL_MEMBER_COUNT_ERR_INVALID_ARGUMENT = 2
    GET_CHANNEL_MEMBER_COUNT_ERR_TOO_OFTEN = 3
    GET_CHANNEL_MEMBER_COUNT_ERR_TIMEOUT = 4
    GET_CHANNEL_MEMBER_COUNT_ERR_EXCEED_LIMIT = 5
    GET_CHANNEL_MEMBER_COUNT_ERR_NOT_INITIALIZED = 101
    GET_CHANNEL_MEMBER_COUNT_ERR_USER_NOT_LOGGED_IN = 102


class AttributeOperationErrorCode(IntEnum):
    ATTRIBUTE_OPERATION_ERR_FAILURE = 2
    ATTRIBUTE_OPERATION_ERR_INVALID_ARGUMENT = 3
    ATTRIBUTE_OPERATION_ERR_SIZE_OVERFLOW = 4
    ATTRIBUTE_OPERATION_ERR_TOO_OFTEN = 5
    ATTRIBUTE_OPERATION_ERR_USER_NOT_FOUND = 6
    ATTRIBUTE_OPERATION_ERR_TIMEOUT = 7
    ATTRIBUTE_OPERATION_ERR_USER_NOT_LOGGED_IN = 102


class QueryPeersOnlineStatusErrorCode(IntEnum):
    QUERY_PEERS_ONLINE_STATUS_ERR_INVALID_ARGUMENT = 2
    QUERY_PEERS_ONLINE_STATUS_ERR_REJECTED = 3
    QUERY_PEERS_ONLINE_STATUS_ERR_TIMEOUT = 4
    QUERY_PEERS_ONLINE_STATUS_ERR_TOO_OFTEN = 5
    QUERY_PEERS_ONLINE_STATUS_ERR_USER_NOT_LOGGED_IN = 102


class PeerSubscriptionStatusErrorCode(IntEnum):
    PEER_SUBSCRIPTION_STATUS_ERR_FAILURE = 1
    PEER_SUBSCRIPTION_STATUS_ERR_INVALID_ARGUMENT = 2
    PEER_SUBSCRIPTION_STATUS_ERR_REJECTED = 3
    PEER_SUBSCRIPTION_STATUS_ERR_TIMEOUT = 4
    PEER_SUBSCRIPTION_STATUS_ERR_TOO_OFTEN = 5
    PEER_SUBSCRIPTION_STATUS_ERR_OVERFLOW = 6
    PEER_SUBSCRIPTION_STATUS_ERR_USER_NOT_LOGGED_IN = 102


class QueryPeersBySubscriptionOptionErrorCode(IntEnum):
    QUERY_PEERS_BY_SUBSCRIPTION_OPTION_ERR_FAILURE = 1
    QUERY_PEERS_BY_SUBSCRIPTION_OPTION_ERR_TIMEOUT = 2
    QUERY_PEERS_BY_SUBSCRIPTION_OPTION_ERR_TOO_OFTEN = 3
    QUERY_PEERS_BY_SUBSCRIPTION_OPTION_ERR_USER_NOT_LOGGED_IN = 102


class InvitationApiCallErrorCode(IntEnum):
    INVITATION_API_CALL_ERR_INVALID_ARGUMENT = 1
    INVITATION_API_CALL_ERR_NOT_STARTED = 2
    INVITATION_API_CALL_ERR_ALREADY_END = 3
    INVITATION_API_CALL_ERR_ALREADY_ACCEPT = 4
    INVITATION_API_CALL_ERR_ALREADY_SENT = 5


class HistoryErrorCode(IntEnum):
    """Ours: in the reference, the history can be read over REST only."""

    HISTORY_ERR_FAILURE = 1
    HISTORY_ERR_INVALID_ARGUMENT = 2
    HISTORY_ERR_TIMEOUT = 3
    HISTORY_ERR_TOO_OFTEN = 4
    HISTORY_ERR_NOT_IN_CHANNEL = 5
    HISTORY_ERR_USER_NOT_LOGGED_IN = 102


class SenderErrorCode(IntEnum):
    """Ours: the calls of `RtmSender` that are not messages or media."""

    SENDER_ERR_FAILURE = 1
    SENDER_ERR_INVALID_ARGUMENT = 2
    SENDER_ERR_TIMEOUT = 3
    SENDER_ERR_USER_NOT_LOGGED_IN = 102


class UploadMediaErrorCode(IntEnum):
    UPLOAD_MEDIA_ERR_FAILURE = 1
    UPLOAD_MEDIA_ERR_INVALID_ARGUMENT = 2
    UPLOAD_MEDIA_ERR_TIMEOUT = 3
    UPLOAD_MEDIA_ERR_SIZE_OVERFLOW = 4
    UPLOAD_MEDIA_ERR_CONCURRENCY_LIMIT_EXCEEDED = 5
    UPLOAD_MEDIA_ERR_INTERRUPTED = 6
    UPLOAD_MEDIA_ERR_NOT_LOGGED_IN = 102


class DownloadMediaErrorCode(IntEnum):
    DOWNLOAD_MEDIA_ERR_FAILURE = 1
    DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT = 2
    DOWNLOAD_MEDIA_ERR_TIMEOUT = 3
    DOWNLOAD_MEDIA_ERR_NOT_EXIST = 4
    DOWNLOAD_MEDIA_ERR_CONCURRENCY_LIMIT_EXCEEDED = 5
    DOWNLOAD_MEDIA_ERR_INTERRUPTED = 6
    DOWNLOAD_MEDIA_ERR_NOT_LOGGED_IN = 102


class RtmError(Exception):
    """The base class of the errors that this package raises.

    Attributes:
        code: the reference's number and name, a member of the family's code enum.
        message: one sentence with the subject, the limit, the value and the way out.
        cause: the original exception, or None; also chained as `__cause__`.
    """

    Code: ClassVar[type[IntEnum]]
    prefix: ClassVar[str]

    def __init__(self, code: IntEnum, message: str, cause: BaseException | None = None) -> None:
        super().__init__(f"{code.name} ({code.value}): {message}")
        self.code = code
        self.message = message
        self.cause = cause
        if cause is not None:
            self.__cause__ = cause

    def __reduce__(self) -> tuple[type[RtmError], tuple[IntEnum, str]]:
        return type(self), (self.code, self.message)

    @classmethod
    def named(cls, suffix: str, message: str, cause: BaseException | None = None) -> RtmError:
        """The family's error whose code name ends in `suffix` ("TIMEOUT", "TOO_OFTEN").

        The families have different numbers for the same kind of error; shared code uses the suffix.
        A family without such a code gives its FAILURE code, or else its first one, so that the
        error still has the family's type.
        """
        for name in (suffix, f"USER_{suffix}", suffix.removeprefix("USER_"), "FAILURE", "UNKNOWN"):
            code = cls.Code.__members__.get(cls.prefix + name)
            if code is not None:
                return cls(code, message, cause)
        return cls(next(iter(cls.Code)), message, cause)

    @property
    def reason(self) -> str:
        """The code's name without the family's prefix: "TIMEOUT", "TOO_OFTEN"."""
        return self.code.name.removeprefix(self.prefix)


class LoginError(RtmError):
    Code = LoginErrorCode
    prefix = "LOGIN_ERR_"


class LogoutError(RtmError):
    Code = LogoutErrorCode
    prefix = "LOGOUT_ERR_"


class RenewTokenError(RtmError):
    Code = RenewTokenErrorCode
    prefix = "RENEW_TOKEN_ERR_"


class PeerMessageError(RtmError):
    Code = PeerMessageErrorCode
    prefix = "PEER_MESSAGE_ERR_"


class ChannelMessageError(RtmError):
    Code = ChannelMessageErrorCode
    prefix = "CHANNEL_MESSAGE_ERR_"


class CreateChannelError(RtmError):
    Code = CreateChannelErrorCode
    prefix = "CREATE_CHANNEL_ERR_"


class CreateInstanceError(RtmError):
    Code = CreateInstanceErrorCode
    prefix = "CREATE_INSTANCE_ERR_"


class JoinChannelError(RtmError):
    Code = JoinChannelErrorCode
    prefix = "JOIN_CHANNEL_ERR_"

    @classmethod
    def named(cls, suffix: str, message: str, cause: BaseException | None = None) -> RtmError:
        """As the base class; also handles the reference's irregular name `JOIN_CHANNEL_TIMEOUT`."""
        if suffix == "TIMEOUT":
            return cls(JoinChannelErrorCode.JOIN_CHANNEL_TIMEOUT, message, cause)
        return super().named(suffix, message, cause)

    @property
    def reason(self) -> str:
        timed_out = self.code is JoinChannelErrorCode.JOIN_CHANNEL_TIMEOUT
        return "TIMEOUT" if timed_out else super().reason


class LeaveChannelError(RtmError):
    Code = LeaveChannelErrorCode
    prefix = "LEAVE_CHANNEL_ERR_"


class GetMembersError(RtmError):
    Code = GetMembersErrorCode
    prefix = "GET_MEMBERS_ERR_"


class GetChannelMemberCountError(RtmError):
    Code = GetChannelMemberCountErrorCode
    prefix = "GET_CHANNEL_MEMBER_COUNT_ERR_"


class AttributeOperationError(RtmError):
    Code = AttributeOperationErrorCode
    prefix = "ATTRIBUTE_OPERATION_ERR_"


class QueryPeersOnlineStatusError(RtmError):
    Code = QueryPeersOnlineStatusErrorCode
    prefix = "QUERY_PEERS_ONLINE_STATUS_ERR_"


class PeerSubscriptionStatusError(RtmError):
    Code = PeerSubscriptionStatusErrorCode
    prefix = "PEER_SUBSCRIPTION_STATUS_ERR_"


class QueryPeersBySubscriptionOptionError(RtmError):
    Code = QueryPeersBySubscriptionOptionErrorCode
    prefix = "QUERY_PEERS_BY_SUBSCRIPTION_OPTION_ERR_"


class InvitationApiCallError(RtmError):
    Code = InvitationApiCallErrorCode
    prefix = "INVITATION_API_CALL_ERR_"


class HistoryError(RtmError):
    Code = HistoryErrorCode
    prefix = "HISTORY_ERR_"


class SenderError(RtmError):
    Code = SenderErrorCode
    prefix = "SENDER_ERR_"


class UploadMediaError(RtmError):
    Code = UploadMediaErrorCode
    prefix = "UPLOAD_MEDIA_ERR_"


class DownloadMediaError(RtmError):
    Code = DownloadMediaErrorCode
    prefix = "DOWNLOAD_MEDIA_ERR_"


class TransferCancelled(concurrent.futures.CancelledError):
    """A transfer was cancelled. `Transfer.result()` raises one of the two subclasses below.

    An upload's is caught by `except TransferCancelled`, by `except UploadMediaError` (its code is
    INTERRUPTED) and by `except concurrent.futures.CancelledError`; a download's likewise.
    """

    code: IntEnum
    message: str


class UploadCancelled(UploadMediaError, TransferCancelled):
    """An upload was cancelled: `UPLOAD_MEDIA_ERR_INTERRUPTED`."""


class DownloadCancelled(DownloadMediaError, TransferCancelled):
    """A download was cancelled: `DOWNLOAD_MEDIA_ERR_INTERRUPTED`."""


class PluginError(Exception):
    """No plugin serves the request, or the plugin failed. The message says what to install."""


ERROR_FAMILIES: dict[str, type[RtmError]] = {
    family.__name__: family
    for family in (
        LoginError,
        LogoutError,
        RenewTokenError,
        PeerMessageError,
        ChannelMessageError,
        CreateChannelError,
        CreateInstanceError,
        JoinChannelError,
        LeaveChannelError,
        GetMembersError,
        GetChannelMemberCountError,
        AttributeOperationError,
        QueryPeersOnlineStatusError,
        PeerSubscriptionStatusError,
        QueryPeersBySubscriptionOptionError,
        InvitationApiCallError,
        HistoryError,
        SenderError,
        UploadMediaError,
        DownloadMediaError,
    )
}
"""The families by class name, as they are named in frames."""
