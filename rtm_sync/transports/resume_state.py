"""The state of a session on the hub, and the calls that restore it in a new one. Pure."""

from __future__ import annotations

from typing import Any

from ..protocol.requests import (
    ChangeUserAttributes,
    JoinChannel,
    LeaveChannel,
    Request,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
)
from ..protocol.values import AttributeChange, ChannelPosition, JoinResult
from ..rules.attributes import changed

_NOWHERE = ChannelPosition("", 0)  # a position that no channel has


class ResumeState:
    """Joined channels, presence subscriptions and user attributes (reference 1.3: all of them
    outlive a reconnect). Not thread-safe; its owner guards it."""

    def __init__(self) -> None:
        self._places: dict[str, ChannelPosition] = {}  # the latest, by joined channel
        self._watched: dict[str, None] = {}
        self._attributes: dict[str, str] = {}

    def take(self) -> list[Request[Any]]:
        """Clear the state and return the calls that restore it in a new session."""
        calls: list[Request[Any]] = [JoinChannel(name, at) for name, at in self._places.items()]
        if self._watched:
            calls.append(SubscribePeersOnlineStatus(tuple(self._watched)))
        if self._attributes:
            calls.append(ChangeUserAttributes(AttributeChange.SET, dict(self._attributes)))
        self._places, self._watched, self._attributes = {}, {}, {}
        return calls

    def accepted(self, request: Request[Any], result: object) -> None:
        """Record a request that the hub accepted."""
        if isinstance(request, JoinChannel) and isinstance(result, JoinResult):
            # The missed messages follow; until they arrive, the position is the old one.
            place = (request.since if result.recovered else None) or result.position
            self._places[request.channel_id] = place
        elif isinstance(request, LeaveChannel):
            self._places.pop(request.channel_id, None)
        elif isinstance(request, SubscribePeersOnlineStatus):
            self._watched.update(dict.fromkeys(request.peer_ids))
        elif isinstance(request, UnsubscribePeersOnlineStatus):
            for uid in request.peer_ids:
                self._watched.pop(uid, None)
        elif isinstance(request, ChangeUserAttributes):
            self._attributes = changed(
                self._attributes, request.change, request.attributes or {}, request.keys or ()
            )

    def refused(self, request: Request[Any], reason: str) -> None:
        """Record a request that the hub refused; most refusals change nothing."""
        if isinstance(request, JoinChannel) and reason == "ALREADY_JOINED":
            self._places.setdefault(request.channel_id, request.since or _NOWHERE)
        elif isinstance(request, LeaveChannel) and reason == "NOT_IN_CHANNEL":
            self._places.pop(request.channel_id, None)

    def came_to(self, channel_id: str, place: ChannelPosition) -> None:
        """Record the position of a channel message that arrived."""
        if channel_id in self._places:
            self._places[channel_id] = place
