"""The handlers of invitation events, for type checkers: overloads by event name, as `handlers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar, overload

from ..protocol.values import LocalInvitationFailureReason, RemoteInvitationFailureReason
from .events import BareHandler, EventEmitter
from .listeners import Handler

TextHandler: TypeAlias = Callable[[str], object]
"""The response of the callee, or the content of the caller."""

LocalFailureHandler: TypeAlias = Callable[[LocalInvitationFailureReason], object]
"""`LocalInvitationFailure(reason)`."""

RemoteFailureHandler: TypeAlias = Callable[[RemoteInvitationFailureReason], object]
"""`RemoteInvitationFailure(reason)`."""

_Text = TypeVar("_Text", bound=TextHandler)
_LocalFailure = TypeVar("_LocalFailure", bound=LocalFailureHandler)
_RemoteFailure = TypeVar("_RemoteFailure", bound=RemoteFailureHandler)
_Bare = TypeVar("_Bare", bound=BareHandler)

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
