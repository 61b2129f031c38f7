"""The handlers of client and channel events, for type checkers: overloads by event name.

At run time, `EventEmitter` does the work. A type checker reports a name that is no event, and a
handler that does not fit its event. For a name that is known only at run time, write
`EventEmitter.on(client, name, handler)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar, overload

from ..messages import RtmMessage
from ..protocol.values import (
    ChannelAttribute,
    ConnectionChangeReason,
    ConnectionState,
    PeerOnlineState,
    ReceivedMessageProperties,
)
from .events import BareHandler, EventEmitter
from .invitations import RemoteInvitation
from .listeners import Handler

MessageHandler: TypeAlias = Callable[[RtmMessage, str, ReceivedMessageProperties], object]
"""`MessageFromPeer(message, peer_id, message_props)`, `ChannelMessage(message, member_id, …)`."""

StateHandler: TypeAlias = Callable[[ConnectionState, ConnectionChangeReason], object]
"""`ConnectionStateChanged(new_state, reason)`."""

RecoveryHandler: TypeAlias = Callable[[bool], object]
"""`Reconnected(recovered)`."""

PresenceHandler: TypeAlias = Callable[[dict[str, PeerOnlineState]], object]
"""`PeersOnlineStatusChanged(states)`."""

InvitationHandler: TypeAlias = Callable[[RemoteInvitation], object]
"""`RemoteInvitationReceived(remote_invitation)`."""

MemberHandler: TypeAlias = Callable[[str], object]
"""`MemberJoined(member_id)`, `MemberLeft(member_id)`."""

CountHandler: TypeAlias = Callable[[int], object]
"""`MemberCountUpdated(count)`."""

AttributesHandler: TypeAlias = Callable[[dict[str, ChannelAttribute]], object]
"""`AttributesUpdated(attributes)`."""

_Message = TypeVar("_Message", bound=MessageHandler)
_State = TypeVar("_State", bound=StateHandler)
_Recovery = TypeVar("_Recovery", bound=RecoveryHandler)
_Presence = TypeVar("_Presence", bound=PresenceHandler)
_Invitation = TypeVar("_Invitation", bound=InvitationHandler)
_Member = TypeVar("_Member", bound=MemberHandler)
_Count = TypeVar("_Count", bound=CountHandler)
_Attributes = TypeVar("_Attributes", bound=AttributesHandler)
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
