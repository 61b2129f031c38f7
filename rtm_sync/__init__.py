"""Real-time messaging with image and file messages: a blocking, thread-pooled SDK."""

import logging as _logging

from .blob import Blob
from .client.channel import RtmChannel
from .client.client import LogFilter, RtmClient
from .client.invitations import LocalInvitation, RemoteInvitation
from .client.sender import RtmSender
from .errors import (
    AttributeOperationError,
    ChannelMessageError,
    CreateChannelError,
    CreateInstanceError,
    DownloadCancelled,
    DownloadMediaError,
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
    PluginError,
    QueryPeersBySubscriptionOptionError,
    QueryPeersOnlineStatusError,
    RenewTokenError,
    RtmError,
    SenderError,
    TransferCancelled,
    UploadCancelled,
    UploadMediaError,
)
from .messages import (
    MessageType,
    RtmFileMessage,
    RtmImageMessage,
    RtmMessage,
    RtmRawMessage,
    RtmTextMessage,
)
from .plugins.hookspecs import hookimpl
from .protocol.values import (
    ChannelAttribute,
    ConnectionChangeReason,
    ConnectionState,
    HistoricalMessage,
    LocalInvitationFailureReason,
    LocalInvitationState,
    MediaInfo,
    PeerMessageSendResult,
    PeerOnlineState,
    PeerSubscriptionOption,
    ReceivedMessageProperties,
    RemoteInvitationFailureReason,
    RemoteInvitationState,
)
from .thumbnails.contract import CannotThumbnail, Thumbnail, ThumbnailGenerator
from .transfers.control import MediaOperationProgress
from .transfers.progress import tqdm_progress
from .transfers.transfer import Transfer
from .version import __version__

create_instance = RtmClient
"""The reference's name for making a client."""

_logging.getLogger(__name__).addHandler(_logging.NullHandler())

__all__ = [
    "AttributeOperationError",
    "Blob",
    "CannotThumbnail",
    "ChannelAttribute",
    "ChannelMessageError",
    "ConnectionChangeReason",
    "ConnectionState",
    "CreateChannelError",
    "CreateInstanceError",
    "DownloadCancelled",
    "DownloadMediaError",
    "GetChannelMemberCountError",
    "GetMembersError",
    "HistoricalMessage",
    "HistoryError",
    "InvitationApiCallError",
    "JoinChannelError",
    "LeaveChannelError",
    "LocalInvitation",
    "LocalInvitationFailureReason",
    "LocalInvitationState",
    "LogFilter",
    "LoginError",
    "LogoutError",
    "MediaInfo",
    "MediaOperationProgress",
    "MessageType",
    "PeerMessageError",
    "PeerMessageSendResult",
    "PeerOnlineState",
    "PeerSubscriptionOption",
    "PeerSubscriptionStatusError",
    "PluginError",
    "QueryPeersBySubscriptionOptionError",
    "QueryPeersOnlineStatusError",
    "ReceivedMessageProperties",
    "RemoteInvitation",
    "RemoteInvitationFailureReason",
    "RemoteInvitationState",
    "RenewTokenError",
    "RtmChannel",
    "RtmClient",
    "RtmError",
    "RtmFileMessage",
    "RtmImageMessage",
    "RtmMessage",
    "RtmRawMessage",
    "RtmSender",
    "RtmTextMessage",
    "SenderError",
    "Thumbnail",
    "ThumbnailGenerator",
    "Transfer",
    "TransferCancelled",
    "UploadCancelled",
    "UploadMediaError",
    "__version__",
    "create_instance",
    "hookimpl",
    "tqdm_progress",
]
