"""What each event hands to its handlers, for type checkers: overloads by event name.

At run time all of it is `EventEmitter`. A name that is no event, and a handler that does not fit
its event, are then errors before the program runs. Where a name is only known at run time, say
`EventEmitter.on(client, name, handler)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, overload

from .events import EventEmitter, Handler
from .messages import RtmMessage
from .protocol import ConnectionChangeReason, ConnectionState, ReceivedMessageProperties

MessageHandler: TypeAlias = Callable[[RtmMessage, str, ReceivedMessageProperties], object]
"""`MessageFromPeer(message, peer_id, message_props)`, `ChannelMessage(message, member_id, …)`."""

StateHandler: TypeAlias = Callable[[ConnectionState, ConnectionChangeReason], object]
"""`ConnectionStateChanged(new_state, reason)`."""

RecoveryHandler: TypeAlias = Callable[[bool], object]
"""`Reconnected(recovered)`."""

MemberHandler: TypeAlias = Callable[[str], object]
"""`MemberJoined(member_id)`, `MemberLeft(member_id)`."""

_Message = TypeVar("_Message", bound=MessageHandler)
_State = TypeVar("_State", bound=StateHandler)
_Recovery = TypeVar("_Recovery", bound=RecoveryHandler)
_Member = TypeVar("_Member", bound=MemberHandler)

_PeerMessage: TypeAlias = Literal["MessageFromPeer", "message_from_peer"]
_StateChanged: TypeAlias = Literal["ConnectionStateChanged", "connection_state_changed"]
_Reconnected: TypeAlias = Literal["Reconnected", "reconnected"]
_ChannelMessage: TypeAlias = Literal["ChannelMessage", "channel_message"]
_Members: TypeAlias = Literal["MemberJoined", "member_joined", "MemberLeft", "member_left"]


class ClientEvents(EventEmitter):
    """The events of a client."""

    @overload  # type: ignore[override]  # narrower on purpose: any other name is a mistake
    def on(self, event: _PeerMessage) -> Callable[[_Message], _Message]: ...
    @overload
    def on(self, event: _PeerMessage, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def on(self, event: _StateChanged) -> Callable[[_State], _State]: ...
    @overload
    def on(self, event: _StateChanged, handler: StateHandler) -> StateHandler: ...
    @overload
    def on(self, event: _Reconnected) -> Callable[[_Recovery], _Recovery]: ...
    @overload
    def on(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def on(self, event: str, handler: Handler | None = None) -> object:
        return super().on(event) if handler is None else super().on(event, handler)

    @overload  # type: ignore[override]
    def once(self, event: _PeerMessage, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def once(self, event: _StateChanged, handler: StateHandler) -> StateHandler: ...
    @overload
    def once(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def once(self, event: str, handler: Handler) -> object:
        return super().once(event, handler)

    @overload  # type: ignore[override]
    def wait_for(
        self,
        event: _PeerMessage,
        timeout: float | None = ...,
        predicate: Callable[[RtmMessage, str, ReceivedMessageProperties], bool] | None = ...,
    ) -> tuple[RtmMessage, str, ReceivedMessageProperties]: ...
    @overload
    def wait_for(
        self,
        event: _StateChanged,
        timeout: float | None = ...,
        predicate: Callable[[ConnectionState, ConnectionChangeReason], bool] | None = ...,
    ) -> tuple[ConnectionState, ConnectionChangeReason]: ...
    @overload
    def wait_for(
        self,
        event: _Reconnected,
        timeout: float | None = ...,
        predicate: Callable[[bool], bool] | None = ...,
    ) -> tuple[bool]: ...
    def wait_for(
        self,
        event: str,
        timeout: float | None = 30.0,
        predicate: Callable[..., bool] | None = None,
    ) -> tuple[Any, ...]:
        return super().wait_for(event, timeout, predicate)


class ChannelEvents(EventEmitter):
    """The events of a channel."""

    @overload  # type: ignore[override]  # narrower on purpose: any other name is a mistake
    def on(self, event: _ChannelMessage) -> Callable[[_Message], _Message]: ...
    @overload
    def on(self, event: _ChannelMessage, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def on(self, event: _Members) -> Callable[[_Member], _Member]: ...
    @overload
    def on(self, event: _Members, handler: MemberHandler) -> MemberHandler: ...
    @overload
    def on(self, event: _Reconnected) -> Callable[[_Recovery], _Recovery]: ...
    @overload
    def on(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def on(self, event: str, handler: Handler | None = None) -> object:
        return super().on(event) if handler is None else super().on(event, handler)

    @overload  # type: ignore[override]
    def once(self, event: _ChannelMessage, handler: MessageHandler) -> MessageHandler: ...
    @overload
    def once(self, event: _Members, handler: MemberHandler) -> MemberHandler: ...
    @overload
    def once(self, event: _Reconnected, handler: RecoveryHandler) -> RecoveryHandler: ...
    def once(self, event: str, handler: Handler) -> object:
        return super().once(event, handler)

    @overload  # type: ignore[override]
    def wait_for(
        self,
        event: _ChannelMessage,
        timeout: float | None = ...,
        predicate: Callable[[RtmMessage, str, ReceivedMessageProperties], bool] | None = ...,
    ) -> tuple[RtmMessage, str, ReceivedMessageProperties]: ...
    @overload
    def wait_for(
        self,
        event: _Members,
        timeout: float | None = ...,
        predicate: Callable[[str], bool] | None = ...,
    ) -> tuple[str]: ...
    @overload
    def wait_for(
        self,
        event: _Reconnected,
        timeout: float | None = ...,
        predicate: Callable[[bool], bool] | None = ...,
    ) -> tuple[bool]: ...
    def wait_for(
        self,
        event: str,
        timeout: float | None = 30.0,
        predicate: Callable[..., bool] | None = None,
    ) -> tuple[Any, ...]:
        return super().wait_for(event, timeout, predicate)
