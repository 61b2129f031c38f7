"""A transport in an hour: clients of one process share an in-process bus, `bus:name`."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import replace
from typing import ClassVar, TypeVar, cast

from rtm_sync import (
    Blob,
    ChannelMessageError,
    ConnectionChangeReason,
    JoinChannelError,
    LoginError,
    MediaInfo,
    PeerMessageError,
    PeerMessageSendResult,
    ReceivedMessageProperties,
    hookimpl,
)
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.protocol import (
    ChannelMessage,
    ChannelPosition,
    Done,
    Event,
    JoinChannel,
    JoinResult,
    LeaveChannel,
    Logout,
    MemberJoined,
    MemberLeft,
    MessageFromPeer,
    Request,
    SendChannelMessage,
    SendMessageToPeer,
)
from rtm_sync.rules.idempotency import RecentIds
from rtm_sync.rules.lifecycle import Lifecycle
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import KeyedWindows
from rtm_sync.rules.requests import join_refusal
from rtm_sync.transfers import TransferControl
from rtm_sync.transfers.sink import PartSink, Sink
from rtm_sync.transports.base import Credentials, Listener, Transport, TransportOptions
from rtm_sync.transports.states import StateReports
from rtm_sync.transports.store_carrier import DirectAccess, StoreCarrier

R = TypeVar("R")


# begin: hook
@hookimpl
def transport(url: str, options: TransportOptions) -> Transport | None:
    """Implement the hook: a transport for the scheme `bus`, and None for all others."""
    return BusTransport(url) if url.startswith("bus:") else None


# end: hook


# begin: records
class BusRecords:
    """What the bus's media are called. Single operations on a dictionary are atomic."""

    def __init__(self) -> None:
        self._records: dict[str, MediaInfo] = {}

    def keep(self, info: MediaInfo, control: TransferControl) -> None:
        self._records[info.media_id] = info

    def find(self, media_id: str, control: TransferControl) -> MediaInfo | None:
        return self._records.get(media_id)

    def forget(self, media_id: str) -> None:
        self._records.pop(media_id, None)


# end: records


# begin: bus
class ProcessBus:
    """The state that a hub would have: connected clients, waiting messages and media.

    `lock` guards it. Callers hold the lock while they read or change the state.

    There is one for each URL and app. It lives as long as a user is logged in.
    """

    _all: ClassVar = weakref.WeakValueDictionary[tuple[str, str], "ProcessBus"]()
    _all_lock: ClassVar = threading.Lock()

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.boxes: dict[str, BusTransport] = {}
        self.waiting: dict[str, dict[tuple[str, str], MessageFromPeer]] = {}
        self.delivered = RecentIds(10_000)
        self.media = StoreCarrier(DirectAccess(MemoryMediaStore(), BusRecords()))

    @classmethod
    def at(cls, url: str, app_id: str) -> ProcessBus:
        with cls._all_lock:
            return cls._all.setdefault((url, app_id), cls())

    def members(self, channel_id: str, *, but: BusTransport) -> list[BusTransport]:
        """The other members of a channel."""
        others = (box for box in self.boxes.values() if box is not but)
        return [box for box in others if channel_id in box.channels]


# end: bus


# begin: open
class BusTransport(Transport):
    """One client's connection to an in-process bus. Thread-safe; owns no thread."""

    def __init__(self, url: str) -> None:  # no I/O before the login
        self._url = url
        self._limits = Limits()
        self._bus: ProcessBus | None = None
        self._states: StateReports | None = None
        self.channels: set[str] = set()

    def open(self, credentials: Credentials, listener: Listener) -> None:
        if self._bus is not None:
            raise LoginError.named("ALREADY_LOGIN", "This client is logged in already.")
        self._uid, self._listener = credentials.uid, listener
        self._joins = KeyedWindows(self._limits.same_channel_joins)
        states = self._states = StateReports(Lifecycle(reconnecting_after=0), listener)
        states.report(Lifecycle.login_started)
        bus = self._bus = ProcessBus.at(self._url, credentials.app_id)
        with bus.lock:
            former = bus.boxes.get(self._uid)
        if former is not None:
            former.end(ConnectionChangeReason.REMOTE_LOGIN)
        with bus.lock:
            bus.boxes[self._uid] = self
            waiting = bus.waiting.pop(self._uid, {})
        states.report(Lifecycle.connected)
        for message in waiting.values():
            listener.on_event(message)

    def close(self) -> None:
        self.leave_bus()
        self._bus = None
        if self._states is not None:  # also after a login that was interrupted
            self._states.report(Lifecycle.logged_out)

    def end(self, reason: ConnectionChangeReason) -> None:
        """End the session without a request of the client."""
        self.leave_bus()
        if self._states is not None:
            self._states.report(lambda lifecycle: lifecycle.aborted(reason))

    def leave_bus(self) -> None:
        bus = self._bus
        if bus is None:
            return
        for channel_id in sorted(self.channels):
            self._leave(bus, LeaveChannel(channel_id))
        with bus.lock:
            if bus.boxes.get(self._uid) is self:
                del bus.boxes[self._uid]

    # end: open

    # begin: call
    def call(self, request: Request[R], timeout: float) -> R:
        bus = self._bus
        if bus is None or bus.boxes.get(self._uid) is not self:
            raise request.ERROR.named("USER_NOT_LOGGED_IN", "Log in first.")
        result: object
        match request:
            case SendMessageToPeer():
                result = self._send_to_peer(bus, request)
            case SendChannelMessage():
                result = self._send_to_channel(bus, request)
            case JoinChannel():
                result = self._join(bus, request)
            case LeaveChannel():
                result = self._leave(bus, request)
            case Logout():
                result = Done()
            case _:
                raise request.ERROR.named(
                    "FAILURE", f"An in-process bus does not know {request.METHOD}."
                )
        return cast(R, result)

    # end: call

    # begin: peer
    def _send_to_peer(self, bus: ProcessBus, request: SendMessageToPeer) -> object:
        if request.enable_historical_messaging:
            raise PeerMessageError.named("FAILURE", "An in-process bus keeps no history.")
        now = ReceivedMessageProperties(int(time.time() * 1000))
        message = MessageFromPeer(request.message, self._uid, request.message_id, now)
        key = (self._uid, request.peer_id, request.message_id)
        with bus.lock:
            peer = bus.boxes.get(request.peer_id)
            if peer is None:
                if request.enable_offline_messaging:
                    offline = replace(now, is_offline_message=True)
                    box = bus.waiting.setdefault(request.peer_id, {})
                    box[key[0], key[2]] = replace(message, message_props=offline)
                    while len(box) > self._limits.offline_messages:
                        del box[next(iter(box))]
                return PeerMessageSendResult(False, request.enable_offline_messaging)
            is_new = bus.delivered.add(key)
        if is_new and not peer._listener.on_event(message):  # with no lock held
            with bus.lock:
                bus.delivered.remove(key)
            raise PeerMessageError.named("FAILURE", "The receiver's event queue is full.")
        return PeerMessageSendResult(has_peer_received=True)

    # end: peer

    # begin: channel
    def _send_to_channel(self, bus: ProcessBus, request: SendChannelMessage) -> object:
        if request.channel_id not in self.channels:
            raise ChannelMessageError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id!r} before sending to it."
            )
        if request.enable_historical_messaging:
            raise ChannelMessageError.named("FAILURE", "An in-process bus keeps no history.")
        now = ReceivedMessageProperties(int(time.time() * 1000))
        message = ChannelMessage(
            request.channel_id, request.message, self._uid, request.message_id, now
        )
        with bus.lock:
            is_new = bus.delivered.add((self._uid, "#", request.channel_id, request.message_id))
        if is_new:
            self._tell_members(bus, request.channel_id, message)
        return Done()

    def _join(self, bus: ProcessBus, request: JoinChannel) -> object:
        name = request.channel_id
        with bus.lock:
            refusal = join_refusal(name, self.channels, self._joins, self._limits, time.monotonic())
            if refusal is not None:
                raise JoinChannelError.named(*refusal)
            self.channels.add(name)
        self._tell_members(bus, name, MemberJoined(name, self._uid))
        return JoinResult(ChannelPosition("", 0), recovered=False)

    def _leave(self, bus: ProcessBus, request: LeaveChannel) -> object:
        name = request.channel_id
        if name not in self.channels:
            raise request.ERROR.named("NOT_IN_CHANNEL", f"{name!r} is not joined.")
        with bus.lock:
            self.channels.discard(name)
        self._tell_members(bus, name, MemberLeft(name, self._uid))
        return Done()

    def _tell_members(self, bus: ProcessBus, channel_id: str, event: Event) -> None:
        with bus.lock:
            others = bus.members(channel_id, but=self)
        for box in others:
            box._listener.on_event(event)

    # end: channel

    # begin: media
    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        return self._media(control).upload(blob, control, resume_key)

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        return self._media(control).download(media_id, sink, control)

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        return self._media(control).media_info(media_id, control)

    def download_part(self, media_id: str, part: PartSink, control: TransferControl) -> MediaInfo:
        return self._media(control).download_part(media_id, part, control)

    def _media(self, control: TransferControl) -> StoreCarrier:
        bus = self._bus
        if bus is None:
            raise control.kind.error("NOT_LOGGED_IN", "Log in first.")
        return bus.media

    # end: media
