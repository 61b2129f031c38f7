"""The package has every name and number of the reference's API.

The left column has the reference's name (RTM 1.3 for the web, with additions of later 1.x), and the
right column has the name here. Error numbers are in `test_errors.py`.
"""

from __future__ import annotations

import inspect
import unittest
from enum import Enum

import rtm_sync
from rtm_sync import (
    LocalInvitation,
    LocalInvitationFailureReason,
    LocalInvitationState,
    RemoteInvitation,
    RemoteInvitationFailureReason,
    RemoteInvitationState,
    RtmChannel,
    RtmClient,
)
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import Rate

CLIENT = {
    "login": ("uid", "token"),
    "logout": (),
    "renewToken": ("token",),
    "sendMessageToPeer": (
        "message",
        "peer_id",
        "enable_offline_messaging",
        "enable_historical_messaging",
    ),
    "createChannel": ("channel_id",),
    "createLocalInvitation": ("callee_id",),
    "createMessage": ("text", "raw_message", "media_id", "message_type"),
    "createMediaMessageByUploading": (
        "payload",
        "message_type",
        "file_name",
        "description",
        "thumbnail",
        "width",
        "height",
        "thumbnail_width",
        "thumbnail_height",
        "cancel_signal",
        "on_operation_progress",
    ),
    "downloadMedia": ("media_id", "to", "cancel_signal", "on_operation_progress"),
    "setLocalUserAttributes": ("attributes",),
    "addOrUpdateLocalUserAttributes": ("attributes",),
    "deleteLocalUserAttributesByKeys": ("keys",),
    "clearLocalUserAttributes": (),
    "getUserAttributes": ("user_id",),
    "getUserAttributesByKeys": ("user_id", "keys"),
    "setChannelAttributes": (
        "channel_id",
        "attributes",
        "enable_notification_to_channel_members",
    ),
    "addOrUpdateChannelAttributes": (
        "channel_id",
        "attributes",
        "enable_notification_to_channel_members",
    ),
    "deleteChannelAttributesByKeys": (
        "channel_id",
        "keys",
        "enable_notification_to_channel_members",
    ),
    "clearChannelAttributes": ("channel_id", "enable_notification_to_channel_members"),
    "getChannelAttributes": ("channel_id",),
    "getChannelAttributesByKeys": ("channel_id", "keys"),
    "getChannelMemberCount": ("channel_ids",),
    "queryPeersOnlineStatus": ("peer_ids",),
    "subscribePeersOnlineStatus": ("peer_ids",),
    "unsubscribePeersOnlineStatus": ("peer_ids",),
    "queryPeersBySubscriptionOption": ("option",),
    "setParameters": ("log_filter",),
    "updateConfig": ("log_filter",),
    "on": ("event", "handler"),
    "once": ("event", "handler"),
    "off": ("event", "handler"),
    "removeAllListeners": ("event",),
    "listeners": ("event",),
    "listenerCount": ("event",),
}
CHANNEL = {
    "join": (),
    "leave": (),
    "sendMessage": ("message", "enable_historical_messaging"),
    "getMembers": (),
    "on": ("event", "handler"),
}
LOCAL_INVITATION = {"send": (), "cancel": ()}
REMOTE_INVITATION = {"accept": ("response",), "refuse": ("response",)}
PROPERTIES = {
    RtmChannel: {"channelId"},
    LocalInvitation: {"calleeId", "content", "channelId", "response", "state"},
    RemoteInvitation: {"callerId", "content", "channelId", "response", "state"},
}
EVENTS = {
    RtmClient: {
        "MessageFromPeer",
        "ConnectionStateChanged",
        "RemoteInvitationReceived",
        "TokenExpired",
        "TokenPrivilegeWillExpire",
        "PeersOnlineStatusChanged",
    },
    RtmChannel: {
        "ChannelMessage",
        "MemberJoined",
        "MemberLeft",
        "AttributesUpdated",
        "MemberCountUpdated",
    },
    LocalInvitation: {
        "LocalInvitationReceivedByPeer",
        "LocalInvitationAccepted",
        "LocalInvitationRefused",
        "LocalInvitationCanceled",
        "LocalInvitationFailure",
    },
    RemoteInvitation: {
        "RemoteInvitationAccepted",
        "RemoteInvitationRefused",
        "RemoteInvitationCanceled",
        "RemoteInvitationFailure",
    },
}
NUMBERED = {
    rtm_sync.ConnectionChangeReason: {
        "LOGIN": 1,
        "LOGIN_SUCCESS": 2,
        "LOGIN_FAILURE": 3,
        "LOGIN_TIMEOUT": 4,
        "INTERRUPTED": 5,
        "LOGOUT": 6,
        "BANNED_BY_SERVER": 7,
        "REMOTE_LOGIN": 8,
        "TOKEN_EXPIRED": 9,
    }
}
NAMED: dict[type[Enum], str] = {
    rtm_sync.ConnectionState: "DISCONNECTED CONNECTING CONNECTED RECONNECTING ABORTED",
    rtm_sync.MessageType: "TEXT RAW FILE IMAGE",
    rtm_sync.PeerOnlineState: "ONLINE UNREACHABLE OFFLINE",
    rtm_sync.PeerSubscriptionOption: "ONLINE_STATUS",
    LocalInvitationState: "IDLE SENT_TO_REMOTE RECEIVED_BY_REMOTE ACCEPTED_BY_REMOTE "
    "REFUSED_BY_REMOTE CANCELED FAILURE",
    RemoteInvitationState: "INVITATION_RECEIVED ACCEPT_SENT_TO_LOCAL REFUSED ACCEPTED CANCELED "
    "FAILURE",
    LocalInvitationFailureReason: "UNKNOWN PEER_NO_RESPONSE INVITATION_EXPIRE PEER_OFFLINE "
    "NOT_LOGGEDIN",
    RemoteInvitationFailureReason: "UNKNOWN PEER_OFFLINE ACCEPT_FAILURE INVITATION_EXPIRE",
}
LINUX = {
    "sends": Rate(1500, 3),
    "joins": Rate(50, 3),
    "same_channel_joins": Rate(2, 5),
    "logins": Rate(2, 1),
    "token_renewals": Rate(2, 1),
    "member_lists": Rate(5, 2),
    "member_counts": Rate(1, 1),
    "presence_queries": Rate(100, 5),
    "presence_subscriptions": Rate(10, 5),
    "presence_unsubscriptions": Rate(10, 5),
    "subscription_queries": Rate(10, 5),
    "user_attribute_writes": Rate(100, 5),
    "user_attribute_reads": Rate(400, 5),
    "channel_attribute_writes": Rate(100, 5),
    "channel_attribute_reads": Rate(400, 5),
    "media_size": 30 * 1024 * 1024,
    "transfers": 9,
    "retention": 7 * 86_400,
    "joined_channels": 20,
    "offline_messages": 200,
    "queried_peers": 256,
    "subscribed_peers": 512,
    "counted_channels": 32,
    "announced_members": 512,
    "invitation_content": 8 * 1024,
    "unreachable_after": 6,
    "session_grace": 30,
    "token_warning": 30,
}
WEB = {
    **LINUX,
    "sends": Rate(180, 3),
    "presence_queries": Rate(10, 5),
    "user_attribute_writes": Rate(10, 5),
    "user_attribute_reads": Rate(40, 5),
    "channel_attribute_writes": Rate(10, 5),
    "channel_attribute_reads": Rate(10, 5),
}


def snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


class ReferenceApiTest(unittest.TestCase):
    def test_every_method_is_here_with_its_arguments(self) -> None:
        for kind, methods in (
            (RtmClient, CLIENT),
            (RtmChannel, CHANNEL),
            (LocalInvitation, LOCAL_INVITATION),
            (RemoteInvitation, REMOTE_INVITATION),
        ):
            for name, arguments in methods.items():
                with self.subTest(f"{kind.__name__}.{name}"):
                    parameters = inspect.signature(getattr(kind, snake(name))).parameters
                    self.assertLessEqual(set(arguments), set(parameters))

    def test_every_property_is_here(self) -> None:
        channel = RtmClient("app").create_channel("room")
        for kind, names in PROPERTIES.items():
            for name in names:
                with self.subTest(f"{kind.__name__}.{name}"):
                    owner = channel if kind is RtmChannel else kind
                    self.assertTrue(hasattr(owner, snake(name)))

    def test_every_event_is_here(self) -> None:
        for kind, names in EVENTS.items():
            with self.subTest(kind.__name__):
                self.assertLessEqual(names, kind.EVENTS)  # type: ignore[attr-defined]
                self.assertLessEqual(kind.EVENTS - names, {"Reconnected"})  # type: ignore[attr-defined]

    def test_every_enum_has_its_members_and_numbers(self) -> None:
        for kind, numbers in NUMBERED.items():
            self.assertEqual({item.name: item.value for item in kind}, numbers)
        for named, members in NAMED.items():
            with self.subTest(named.__name__):
                self.assertEqual([item.name for item in named], members.split())
                self.assertEqual([item.value for item in named], members.split())

    def test_every_limit_is_the_references_in_both_tiers(self) -> None:
        for limits, expected in ((Limits(), LINUX), (Limits.web(), WEB)):
            for name, value in expected.items():
                with self.subTest(name):
                    self.assertEqual(getattr(limits, name), value)

    def test_an_instance_is_made_as_the_reference_does(self) -> None:
        with rtm_sync.create_instance("app") as client:
            self.assertIsInstance(client, RtmClient)
