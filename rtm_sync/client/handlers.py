"""What each event hands to its handlers, for type checkers: overloads by event name.

At run time all of it is `EventEmitter`. A name that is no event, and a handler that does not fit
its event, are then errors before the program runs. Where a name is only known at run time, say
`EventEmitter.on(client, name, handler)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, overload

from ..messages import RtmMessage
from ..protocol.values import (
    ChannelAttribute,
    ConnectionChangeReason,
    ConnectionState,
    PeerOnlineState,
    ReceivedMessageProperties,
)
from .events import EventEmitter, Handler

if TYPE_CHECKING:
    from ..protocol.values import LocalInvitationFailureReason, RemoteInvitationFailureReason
    from .invitations import RemoteInvitation

MessageHandler: TypeAlias = Callable[[RtmMessage, str, ReceivedMessageProperties], object]
"""`MessageFromPeer(message, peer_id, message_props)`, `ChannelMessage(message, member_id, …)`."""

StateHandler: TypeAlias = Callable[[ConnectionState, ConnectionChangeReason], object]
"""`ConnectionStateChanged(new_state, reason)`."""

RecoveryHandler: TypeAlias = Callable[[bool], object]
"""`Reconnected(recovered)`."""

PresenceHandler: TypeAlias = Callable[[dict[str, PeerOnlineState]], object]
"""`PeersOnlineStatusChanged(states)`."""

InvitationHandler: TypeAlias = "Callable[[RemoteInvitation], object]"
"""`RemoteInvitationReceived(remote_invitation)`."""

MemberHandler: TypeAlias = Callable[[str], object]
"""`MemberJoined(member_id)`, `MemberLeft(member_id)`."""

CountHandler: TypeAlias = Callable[[int], object]
"""`MemberCountUpdated(count)`."""

AttributesHandler: TypeAlias = Callable[[dict[str, ChannelAttribute]], object]
"""`AttributesUpdated(attributes)`."""

TextHandler: TypeAlias = Callable[[str], object]
"""What an invitation's other end said: its response, or its content."""

LocalFailureHandler: TypeAlias = "Callable[[LocalInvitationFailureReason], object]"
"""`LocalInvitationFailure(reason)`."""

RemoteFailureHandler: TypeAlias = "Callable[[RemoteInvitationFailureReason], object]"
"""`RemoteInvitationFailure(reason)`."""

BareHandler: TypeAlias = Callable[[], object]
"""Events that hand over nothing, such as `TokenExpired()`."""

_Message = TypeVar("_Message", bound=MessageHandler)
_State = TypeVar("_State", bound=StateHandler)
_Recovery = TypeVar("_Recovery", bound=RecoveryHandler)
_Presence = TypeVar("_Presence", bound=PresenceHandler)
_Invitation = TypeVar("_Invitation", bound="Callable[[RemoteInvitation], object]")
_Member = TypeVar("_Member", bound=MemberHandler)
_Count = TypeVar("_Count", bound=CountHandler)
_Attributes = TypeVar("_Attributes", bound=AttributesHandler)
_Text = TypeVar("_Text", bound=TextHandler)
_LocalFailure = TypeVar("_LocalFailure", bound="Callable[[LocalInvitationFailureReason], object]")
_RemoteFailure = TypeVar(
    "_RemoteFailure", bound="Callable[[RemoteInvitationFailureReason], object]"
)
_Bare = TypeVar("_Bare", bound=BareHandler)

_MessageFromPeer: TypeAlias = Literal["MessageFromPeer", "message_from_peer"]
_ConnectionStateChanged: TypeAlias = Literal["ConnectionStateChanged", "connection_state_changed"]
_PeersOnlineStatusChanged: TypeAlias = Literal[
    "PeersOnlineStatusChanged", "peers_online_status_changed"
]
_RemoteInvitationReceived: TypeAlias = Literal[
    "RemoteInvitationReceived", "remote_invitation_received"
]
_TokenExpiredOrTokenPrivilegeWillExpire: TypeAlias = Literal[
    "TokenExpired", "token_expired", "TokenPrivilegeWillExpire", "token_privilege_will_expire"
]
_Reconnected: TypeAlias = Literal["Reconnected", "reconnected"]
_ChannelMessage: TypeAlias = Literal["ChannelMessage", "channel_message"]
_MemberJoinedOrMemberLeft: TypeAlias = Literal[
    "MemberJoined", "member_joined", "MemberLeft", "member_left"
]
_MemberCountUpdated: TypeAlias = Literal["MemberCountUpdated", "member_count_updated"]
_AttributesUpdated: TypeAlias = Literal["AttributesUpdated", "attributes_updated"]
_LocalInvitationReceivedByPeerOrCanceled: TypeAlias = Literal[
    "LocalInvitationReceivedByPeer",
    "local_invitation_received_by_peer",
    "LocalInvitationCanceled",
    "local_invitation_canceled",
]
_LocalInvitationAcceptedOrRefused: TypeAlias = Literal[
    "LocalInvitationAccepted",
    "local_invitation_accepted",
    "LocalInvitationRefused",
    "local_invitation_refused",
]
_LocalInvitationFailure: TypeAlias = Literal["LocalInvitationFailure", "local_invitation_failure"]
_RemoteInvitationAcceptedOrRefused: TypeAlias = Literal[
    "RemoteInvitationAccepted",
    "remote_invitation_accepted",
    "RemoteInvitationRefused",
    "remote_invitation_refused",
]
_RemoteInvitationCanceled: TypeAlias = Literal[
    "RemoteInvitationCanceled", "remote_invitation_canceled"
]
_RemoteInvitationFailure: TypeAlias = Literal[
    "RemoteInvitationFailure", "remote_invitation_failure"
]


class ClientEvents(EventEmitter):
    """The events of a client."""

    @overload  # type: ignore[override]  # narrower on purpose: other names are mistakes
    def on(self, event: _MessageFromPeer) -> Callable[[_Message], _Message]: ...
    @overload
    def on(self, event: _MessageFromPeer, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def on(self, event: _ConnectionStateChanged) -> Callable[[_State], _State]: ...
    @overload
    def on(self, event: _ConnectionStateChanged, handler: StateHandler) -> StateHandler: ...
    @overload
    def on(self, event: _PeersOnlineStatusChanged) -> Callable[[_Presence], _Presence]: ...
    @overload
    def on(self, event: _PeersOnlineStatusChanged, handler: PresenceHandler) -> PresenceHandler: ...
    @overload
    def on(self, event: _RemoteInvitationReceived) -> Callable[[_Invitation], _Invitation]: ...
    @overload
    def on(
        self, event: _RemoteInvitationReceived, handler: InvitationHandler
    ) -> InvitationHandler: ...
    @overload
    def on(self, event: _TokenExpiredOrTokenPrivilegeWillExpire) -> Callable[[_Bare], _Bare]: ...
    @overload
    def on(
        self, event: _TokenExpiredOrTokenPrivilegeWillExpire, handler: BareHandler
    ) -> BareHandler: ...
    @overload
    def on(self, event: _Reconnected) -> Callable[[_Recovery], _Recovery]: ...
    @overload
    def on(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def on(self, event: str, handler: Handler | None = None) -> object:
        return super().on(event) if handler is None else super().on(event, handler)

    @overload  # type: ignore[override]
    def once(self, event: _MessageFromPeer, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def once(self, event: _ConnectionStateChanged, handler: StateHandler) -> StateHandler: ...
    @overload
    def once(
        self, event: _PeersOnlineStatusChanged, handler: PresenceHandler
    ) -> PresenceHandler: ...
    @overload
    def once(
        self, event: _RemoteInvitationReceived, handler: InvitationHandler
    ) -> InvitationHandler: ...
    @overload
    def once(
        self, event: _TokenExpiredOrTokenPrivilegeWillExpire, handler: BareHandler
    ) -> BareHandler: ...
    @overload
    def once(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def once(self, event: str, handler: Handler) -> object:
        return super().once(event, handler)


class ChannelEvents(EventEmitter):
    """The events of a channel."""

    @overload  # type: ignore[override]  # narrower on purpose: other names are mistakes
    def on(self, event: _ChannelMessage) -> Callable[[_Message], _Message]: ...
    @overload
    def on(self, event: _ChannelMessage, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def on(self, event: _MemberJoinedOrMemberLeft) -> Callable[[_Member], _Member]: ...
    @overload
    def on(self, event: _MemberJoinedOrMemberLeft, handler: MemberHandler) -> MemberHandler: ...
    @overload
    def on(self, event: _MemberCountUpdated) -> Callable[[_Count], _Count]: ...
    @overload
    def on(self, event: _MemberCountUpdated, handler: CountHandler) -> CountHandler: ...
    @overload
    def on(self, event: _AttributesUpdated) -> Callable[[_Attributes], _Attributes]: ...
    @overload
    def on(self, event: _AttributesUpdated, handler: AttributesHandler) -> AttributesHandler: ...
    @overload
    def on(self, event: _Reconnected) -> Callable[[_Recovery], _Recovery]: ...
    @overload
    def on(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def on(self, event: str, handler: Handler | None = None) -> object:
        return super().on(event) if handler is None else super().on(event, handler)

    @overload  # type: ignore[override]
    def once(self, event: _ChannelMessage, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def once(self, event: _MemberJoinedOrMemberLeft, handler: MemberHandler) -> MemberHandler: ...
    @overload
    def once(self, event: _MemberCountUpdated, handler: CountHandler) -> CountHandler: ...
    @overload
    def once(self, event: _AttributesUpdated, handler: AttributesHandler) -> AttributesHandler: ...
    @overload
    def once(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def once(self, event: str, handler: Handler) -> object:
        return super().once(event, handler)


class LocalInvitationEvents(EventEmitter):
    """The events of an invitation that was sent."""

    @overload  # type: ignore[override]  # narrower on purpose: other names are mistakes
    def on(self, event: _LocalInvitationReceivedByPeerOrCanceled) -> Callable[[_Bare], _Bare]: ...
    @overload
    def on(
        self, event: _LocalInvitationReceivedByPeerOrCanceled, handler: BareHandler
    ) -> BareHandler: ...
    @overload
    def on(self, event: _LocalInvitationAcceptedOrRefused) -> Callable[[_Text], _Text]: ...
    @overload
    def on(self, event: _LocalInvitationAcceptedOrRefused, handler: TextHandler) -> TextHandler: ...
    @overload
    def on(self, event: _LocalInvitationFailure) -> Callable[[_LocalFailure], _LocalFailure]: ...
    @overload
    def on(
        self, event: _LocalInvitationFailure, handler: LocalFailureHandler
    ) -> LocalFailureHandler: ...
    def on(self, event: str, handler: Handler | None = None) -> object:
        return super().on(event) if handler is None else super().on(event, handler)

    @overload  # type: ignore[override]
    def once(
        self, event: _LocalInvitationReceivedByPeerOrCanceled, handler: BareHandler
    ) -> BareHandler: ...
    @overload
    def once(
        self, event: _LocalInvitationAcceptedOrRefused, handler: TextHandler
    ) -> TextHandler: ...
    @overload
    def once(
        self, event: _LocalInvitationFailure, handler: LocalFailureHandler
    ) -> LocalFailureHandler: ...
    def once(self, event: str, handler: Handler) -> object:
        return super().once(event, handler)


class RemoteInvitationEvents(EventEmitter):
    """The events of an invitation that was received."""

    @overload  # type: ignore[override]  # narrower on purpose: other names are mistakes
    def on(self, event: _RemoteInvitationAcceptedOrRefused) -> Callable[[_Bare], _Bare]: ...
    @overload
    def on(
        self, event: _RemoteInvitationAcceptedOrRefused, handler: BareHandler
    ) -> BareHandler: ...
    @overload
    def on(self, event: _RemoteInvitationCanceled) -> Callable[[_Text], _Text]: ...
    @overload
    def on(self, event: _RemoteInvitationCanceled, handler: TextHandler) -> TextHandler: ...
    @overload
    def on(self, event: _RemoteInvitationFailure) -> Callable[[_RemoteFailure], _RemoteFailure]: ...
    @overload
    def on(
        self, event: _RemoteInvitationFailure, handler: RemoteFailureHandler
    ) -> RemoteFailureHandler: ...
    def on(self, event: str, handler: Handler | None = None) -> object:
        return super().on(event) if handler is None else super().on(event, handler)

    @overload  # type: ignore[override]
    def once(
        self, event: _RemoteInvitationAcceptedOrRefused, handler: BareHandler
    ) -> BareHandler: ...
    @overload
    def once(self, event: _RemoteInvitationCanceled, handler: TextHandler) -> TextHandler: ...
    @overload
    def once(
        self, event: _RemoteInvitationFailure, handler: RemoteFailureHandler
    ) -> RemoteFailureHandler: ...
    def once(self, event: str, handler: Handler) -> object:
        return super().once(event, handler)
