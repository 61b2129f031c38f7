"""Events for browsers: Server-Sent Events that resume after a lost connection.

A relay keeps the newest events and numbers them. A browser that reconnects sends the id of its last
event (`Last-Event-ID`). It gets the events that it missed, or the relay reports that they cannot be
recovered.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from itertools import islice
from typing import Any

from ..client.channel import RtmChannel
from ..client.events import EventEmitter
from ..client.invitations import RemoteInvitation
from ..client.listeners import Handler
from ..protocol.codec import encode_json
from ..rules.timing import Deadline

READY = "ready"
"""The first event of each stream: `{"recovered": false}` when events were lost."""

_LOOK_INTERVAL = 1.0
_RETRY = 1000  # milliseconds after which a browser reconnects
_ARGUMENTS = {
    "MessageFromPeer": ("message", "peer_id", "message_props"),
    "ConnectionStateChanged": ("new_state", "reason"),
    "PeersOnlineStatusChanged": ("states",),
    "RemoteInvitationReceived": ("remote_invitation",),
    "TokenPrivilegeWillExpire": (),
    "TokenExpired": (),
    "Reconnected": ("recovered",),
    "ChannelMessage": ("message", "member_id", "message_props"),
    "MemberJoined": ("member_id",),
    "MemberLeft": ("member_id",),
    "MemberCountUpdated": ("count",),
    "AttributesUpdated": ("attributes",),
}


class EventRelay:
    """Keeps the newest events and streams them to any number of browsers. Thread-safe.

    Args:
        capacity: the largest number of events that are kept.
        max_bytes: the largest size of these events in bytes; a message may have 32 KB.
    """

    def __init__(self, *, capacity: int = 1000, max_bytes: int = 4 * 1024 * 1024) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._epoch = secrets.token_urlsafe(6)  # tells this relay's numbers from another relay's
        self._changed = threading.Condition()  # guards what follows
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._end = 0  # the number of the next event
        self._closed = False
        self._watched: list[tuple[EventEmitter, str, Handler]] = []

    @property
    def last_event_id(self) -> str:
        """The id of the newest event. A page that is rendered now can resume from it."""
        with self._changed:
            return self._id(self._end)

    def watch(self, emitter: EventEmitter) -> None:
        """Relay all events of a client or a channel.

        The data of an event is an object with the handler's arguments by name. Messages have the
        form of the protocol. Events of a channel also have its `channel_id`.
        """
        for name in sorted(emitter.EVENTS):
            handler = self._relay_handler(emitter, name)
            EventEmitter.on(emitter, name, handler)
            with self._changed:
                self._watched.append((emitter, name, handler))

    def unwatch(self, emitter: EventEmitter) -> None:
        """Stop relaying the events of a client or channel. An unknown one is ignored."""
        with self._changed:
            removed = [item for item in self._watched if item[0] is emitter]
            self._watched = [item for item in self._watched if item[0] is not emitter]
        for watched, name, handler in removed:
            watched.off(name, handler)

    def publish(self, name: str, data: Mapping[str, object]) -> None:
        """Relay an event of the application.

        Args:
            name: the event's name for `addEventListener`, on one line.
            data: values that JSON can represent.

        Raises:
            ValueError: the name is empty or has a line break.
            TypeError: JSON cannot represent the data.
        """
        if not name or any(char in name for char in "\r\n"):
            raise ValueError(f"{name!r} is not an event's name: pass one line that is not empty.")
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        with self._changed:
            if self._closed:
                return
            self._end += 1
            event = _encoded(self._id(self._end), name, text)
            self._events.append(event)
            self._bytes += len(event)
            while len(self._events) > self._capacity or self._bytes > self._max_bytes:
                self._bytes -= len(self._events.popleft())
            self._changed.notify_all()

    def stream(
        self,
        last_event_id: str | None = None,
        *,
        seconds: float = 600.0,
        heartbeat: float = 15.0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Iterator[bytes]:
        """The body of a `text/event-stream`: missed events first, then new events as they come.

        Args:
            last_event_id: the id of the browser's last event; None starts with the next event.
            seconds: the length of the stream; browsers reconnect by themselves.
            heartbeat: seconds without an event after which a comment is sent. Sending it detects a
                closed connection.
            is_over: called every second; the stream ends when it returns True.
        """
        deadline, beat = Deadline(seconds), Deadline(heartbeat)
        position, recovered = self._resume_position(last_event_id)
        yield b"retry: %d\n\n" % _RETRY + self._ready(position, recovered=recovered)
        while not deadline.has_passed and not is_over():
            fresh = self._after(position, min(beat.left, deadline.left, _LOOK_INTERVAL))
            if fresh is None:
                return
            began, events = fresh
            if began > position:  # the browser reads so slowly that it lost events
                yield self._ready(began, recovered=False)
            position = began + len(events)
            if events or beat.has_passed:
                yield b"".join(events) or b": still here\n\n"
                beat = Deadline(heartbeat)

    def close(self) -> None:
        """Stop relaying, and end all streams. Idempotent."""
        with self._changed:
            self._closed = True
            watched, self._watched = self._watched, []
            self._changed.notify_all()
        for emitter, name, handler in watched:
            emitter.off(name, handler)

    # -- inside --

    def _relay_handler(self, emitter: EventEmitter, name: str) -> Callable[..., None]:
        context = {"channel_id": emitter.channel_id} if isinstance(emitter, RtmChannel) else {}

        def relay(*args: object) -> None:
            named = zip(_ARGUMENTS[name], args, strict=True)
            self.publish(name, context | {key: _as_json(value) for key, value in named})

        return relay

    def _after(self, position: int, timeout: float) -> tuple[int, list[bytes]] | None:
        """Wait for events after `position`: the position of the first, and the events.

        Returns:
            None when the relay is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._end > position or self._closed, timeout)
            if self._closed:
                return None
            first = self._end - len(self._events)
            began = max(position, first)
            return began, list(islice(self._events, began - first, None))

    def _resume_position(self, last_event_id: str | None) -> tuple[int, bool]:
        """The position after an event id, and whether no event is missing."""
        with self._changed:
            if last_event_id is None:
                return self._end, True
            epoch, _, number = last_event_id.rpartition(".")
            if epoch == self._epoch and number.isascii() and number.isdigit() and len(number) < 19:
                position = int(number)
                if self._end - len(self._events) <= position <= self._end:
                    return position, True
            return self._end, False

    def _ready(self, position: int, *, recovered: bool) -> bytes:
        return _encoded(self._id(position), READY, json.dumps({"recovered": recovered}))

    def _id(self, number: int) -> str:
        return f"{self._epoch}.{number}"


def _encoded(event_id: str, name: str, data: str) -> bytes:
    # json.dumps escapes line breaks, so the data is one line.
    return f"id: {event_id}\nevent: {name}\ndata: {data}\n\n".encode()


def _as_json(value: object) -> Any:
    """A handler's argument as a value that JSON can represent."""
    if isinstance(value, Enum):
        return value.name  # a page understands names better than numbers
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, RemoteInvitation):
        names = ("caller_id", "content", "channel_id")
        return {name: getattr(value, name) for name in names}
    if is_dataclass(value) and not isinstance(value, type):
        return json.loads(encode_json(value))
    return value
