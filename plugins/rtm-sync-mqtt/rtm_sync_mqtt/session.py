"""The rules that a hub would have, kept by the clients themselves: presence, receipts, members.

Everything here follows from retained messages, which the broker forgets when told to, and from
fences: a message to oneself, after which all retained ones asked for before have come.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar, cast

from rtm_sync.errors import ChannelMessageError, JoinChannelError, PeerMessageError
from rtm_sync.hub.limits import KeyedWindows, Limits, SlidingWindow
from rtm_sync.protocol import (
    ChannelMessage,
    ChannelPosition,
    ConnectionChangeReason,
    Done,
    JoinChannel,
    JoinResult,
    LeaveChannel,
    Logout,
    MemberJoined,
    MemberLeft,
    MessageFromPeer,
    PeerMessageSendResult,
    ProtocolError,
    ReceivedMessageProperties,
    Request,
    SendChannelMessage,
    SendMessageToPeer,
    decode_json,
    encode_json,
)
from rtm_sync.transports.base import Credentials, Listener, TransportOptions

from .connection import (
    NO_MATCHING_SUBSCRIBERS,
    Arrived,
    Connection,
    ConnectionLost,
    Deadline,
    LoggedInElsewhere,
    Refused,
    SessionOver,
    fail,
    settle,
)
from .names import Address, Topics

_WATCHES = 1024  # users whose presence is followed; whoever was not asked for longest goes
_KEPT_IDS = 500  # of messages delivered lately, for the user's next session
_QUEUE_FULL = b"full"

R = TypeVar("R")
T = TypeVar("T")
logger = logging.getLogger(__name__)


class _Watch:
    """Whether a user is online.

    Attributes:
        sessions: the user's sessions and when each began; the last one to begin counts.
        known: done when the broker has told all there is.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, float] = {}
        self.known: Future[None] = Future()

    def newest(self) -> str | None:
        return max(self.sessions, key=self.sessions.__getitem__, default=None)


class _Channel:
    """A channel that we are in, or on our way into.

    Attributes:
        members: the sessions of each other member.
        is_open: we are a member; what happens is told from now on.
    """

    def __init__(self) -> None:
        self.members: dict[str, set[str]] = {}
        self.is_open = False


class _Memory:
    """Ids of messages delivered lately, so that one that comes again is not delivered again."""

    def __init__(self, limits: Limits) -> None:
        self._window = limits.duplicate_window
        self._most = limits.remembered_sends
        self._at: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def add(self, key: tuple[str, ...]) -> bool:
        """Note a message; False when it was delivered already."""
        now = time.time()
        while self._at and next(iter(self._at.values())) < now - self._window:
            self._at.popitem(last=False)
        if key in self._at:
            return False
        self._at[key] = now
        if len(self._at) > self._most:
            self._at.popitem(last=False)
        return True

    def remove(self, key: tuple[str, ...]) -> None:
        self._at.pop(key, None)

    def dump(self) -> bytes:
        """The latest peer messages' ids, for the next session."""
        peer = [(*key, at) for key, at in self._at.items() if len(key) == 2]
        return json.dumps(peer[-_KEPT_IDS:]).encode()

    def load(self, dumped: bytes) -> None:
        """Learn what an earlier session knew. Raises ValueError, TypeError."""
        for sender, message_id, at in json.loads(dumped)[:_KEPT_IDS]:
            self._at.setdefault((str(sender), str(message_id)), float(at))


class Session:
    """One login: answers a client's requests and turns what arrives into events. Thread-safe."""

    def __init__(
        self,
        address: Address,
        options: TransportOptions,
        credentials: Credentials,
        listener: Listener,
    ) -> None:
        name = secrets.token_hex(11)  # with its prefix as long as every broker takes
        self._topics = Topics(address.prefix, credentials.app_id, credentials.uid, name)
        self._uid = credentials.uid
        self._listener = listener
        self._limits = Limits()
        will = self._topics.online(self._uid, name)
        self.connection = Connection(address, options, credentials, listener, name, will)
        self._began = time.time()
        self._lock = threading.Lock()  # guards all below; never held while waiting or telling
        self._watches: OrderedDict[str, _Watch] = OrderedDict()
        self._channels: dict[str, _Channel] = {}
        self._receipts: dict[bytes, tuple[str, Future[bytes | None]]] = {}
        self._fences: dict[bytes, Future[None]] = {}
        self._sought: dict[str, list[Future[bytes]]] = {}  # media records, by topic
        self._sends = SlidingWindow(self._limits.sends)
        self._joins = SlidingWindow(self._limits.joins)
        self._same_joins = KeyedWindows(self._limits.same_channel_joins)
        # The reader's own:
        self._memory = _Memory(self._limits)
        self._own_others: set[str] = set()  # other sessions of this user
        self._held: list[Arrived] | None = None  # what arrives before the login is done

    # -- the client's calls, on any thread --

    def call(self, request: Request[R], timeout: float) -> R:
        """Do what a request asks for, across reconnects.

        Raises:
            RtmError: of the request's family.
        """
        handler = _HANDLERS.get(type(request))
        if handler is None:
            raise request.ERROR.named(
                "FAILURE",
                f"An MQTT broker cannot answer {request.METHOD}; that takes a gateway (ws://).",
            )
        deadline = Deadline(timeout)
        attempt = cast("Callable[[Session, Request[R], Deadline], R]", handler)
        while True:
            try:
                self.connection.wait_online(deadline)
            except SessionOver as error:
                raise request.ERROR.named("USER_NOT_LOGGED_IN", str(error), error) from error
            except TimeoutError:
                raise _timed_out(request, timeout) from None
            try:
                return attempt(self, request, deadline)
            except ConnectionLost:
                continue  # every attempt may be made twice: ids and topics stay the same
            except SessionOver as error:
                raise request.ERROR.named("FAILURE", str(error), error) from error
            except TimeoutError:
                raise _timed_out(request, timeout) from None
            except Refused as error:
                raise request.ERROR.named(
                    "FAILURE", f"The broker refused {request.METHOD}: {error}.", error
                ) from error

    def _send_to_peer(
        self, request: SendMessageToPeer, deadline: Deadline
    ) -> PeerMessageSendResult:
        if request.enable_historical_messaging:
            raise PeerMessageError.named("FAILURE", _NO_HISTORY)
        self._spend_send(PeerMessageError)
        message = MessageFromPeer(
            request.message, self._uid, request.message_id, ReceivedMessageProperties(_now_ms())
        )
        while True:
            watch = self._watch(request.peer_id)
            self.connection.wait(watch.known, deadline)
            session = watch.newest()
            answer = None if session is None else self._deliver(request, message, session, deadline)
            if answer == b"":
                return PeerMessageSendResult(has_peer_received=True)
            if answer is not None:
                raise PeerMessageError.named(
                    "FAILURE", f"The event queue of {request.peer_id!r} is full; send it again."
                )
            if watch.newest() in (None, session):  # not back in a new session meanwhile
                break
        if not request.enable_offline_messaging:
            return PeerMessageSendResult(has_peer_received=False)
        topic = self._topics.mail(request.peer_id, self._uid, request.message_id)
        kept = self._publish(topic, message, retain=True, expiry=self._limits.retention)
        self.connection.wait(kept, deadline)
        return PeerMessageSendResult(has_peer_received=False, cached_by_server=True)

    def _deliver(
        self,
        request: SendMessageToPeer,
        message: MessageFromPeer,
        session: str,
        deadline: Deadline,
    ) -> bytes | None:
        """What the session answered; None when it is not there any more."""
        mark = secrets.token_bytes(8)
        receipt: Future[bytes | None] = Future()
        with self._lock:
            self._receipts[mark] = (session, receipt)
        try:
            sent = self._publish(
                self._topics.inbox(request.peer_id, session, "message"),
                message,
                expiry=deadline.left(),  # what nobody waits for any more is not delivered
                answer_to=self._topics.own("receipt"),
                mark=mark,
            )
            if self.connection.wait(sent, deadline) == NO_MATCHING_SUBSCRIBERS:
                return None
            return self.connection.wait(receipt, deadline)
        finally:
            with self._lock:
                self._receipts.pop(mark, None)

    def _send_to_channel(self, request: SendChannelMessage, deadline: Deadline) -> Done:
        if request.enable_historical_messaging:
            raise ChannelMessageError.named("FAILURE", _NO_HISTORY)
        with self._lock:
            channel = self._channels.get(request.channel_id)
            is_member = channel is not None and channel.is_open
        if not is_member:
            raise ChannelMessageError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id!r} before sending to it."
            )
        self._spend_send(ChannelMessageError)
        message = ChannelMessage(
            request.channel_id,
            request.message,
            self._uid,
            request.message_id,
            ReceivedMessageProperties(_now_ms()),
        )
        topic = self._topics.channel(request.channel_id)
        self.connection.wait(self._publish(topic, message), deadline)
        return Done()

    def _join(self, request: JoinChannel, deadline: Deadline) -> JoinResult:
        name = request.channel_id
        now = time.monotonic()
        with self._lock:
            if name in self._channels:
                raise JoinChannelError.named("ALREADY_JOINED", f"{name!r} is joined already.")
            if len(self._channels) >= self._limits.joined_channels:
                raise JoinChannelError.named(
                    "EXCEED_LIMIT",
                    f"{self._limits.joined_channels} channels are joined, as many as may be; "
                    "leave one first.",
                )
            if not self._same_joins.allow(name, now):
                raise JoinChannelError.named(
                    "JOIN_SAME_CHANNEL_TOO_OFTEN",
                    f"{name!r} is joined more than {self._limits.same_channel_joins}.",
                )
            if not self._joins.allow(now):
                raise JoinChannelError.named(
                    "TOO_OFTEN", f"Channels are joined more than {self._limits.joins}."
                )
            self._channels[name] = _Channel()
        try:
            self._enter(name, deadline)
        except BaseException:
            with self._lock:
                self._channels.pop(name, None)
            raise
        return JoinResult(ChannelPosition("", 0), recovered=False)

    def _enter(self, name: str, deadline: Deadline) -> None:
        """Become a member; learn who else is one."""
        wait = self.connection.wait
        # No Local: the sender of a message does not receive it.
        messages = self.connection.subscribe([self._topics.channel(name)], own_too=False)
        members = self.connection.subscribe([self._topics.members(name)])
        wait(messages, deadline)
        wait(members, deadline)
        wait(self._fence(), deadline)
        with self._lock:
            channel = self._channels.get(name)
            claimed = [] if channel is None else list(channel.members)
        for watch in [self._watch(uid) for uid in claimed]:
            wait(watch.known, deadline)
        for uid in claimed:
            self._check_member(name, uid)
        own = self._topics.member(name, self._uid, self._topics.session)
        wait(self.connection.publish(own, b"1", retain=True), deadline)
        with self._lock:
            if channel is not None:
                channel.is_open = True

    def _leave(self, request: LeaveChannel, deadline: Deadline) -> Done:
        name = request.channel_id
        with self._lock:
            if name not in self._channels:
                raise request.ERROR.named("NOT_IN_CHANNEL", f"{name!r} is not joined.")
        filters = [self._topics.channel(name), self._topics.members(name)]
        own = self._topics.member(name, self._uid, self._topics.session)
        told = self.connection.publish(own, retain=True)
        self.connection.wait(self.connection.unsubscribe(filters), deadline)
        self.connection.wait(told, deadline)
        with self._lock:
            self._channels.pop(name, None)
        return Done()

    def _log_out(self, request: Logout, deadline: Deadline) -> Done:
        """Tell what the will and others' watching would only tell later."""
        with self._lock:
            channels = list(self._channels)
        session, publish = self._topics.session, self.connection.publish
        told = [
            publish(self._topics.member(name, self._uid, session), retain=True) for name in channels
        ]
        window = self._limits.duplicate_window
        told.append(
            publish(self._topics.own_seen(), self._memory.dump(), retain=True, expiry=window)
        )
        told.append(publish(self._topics.online(self._uid, session), retain=True))
        for future in told:
            self.connection.wait(future, deadline)
        return Done()

    # -- media records, on a transfer's thread --

    def keep_record(self, media_id: str, record: bytes, expiry: float) -> Future[int]:
        """Have the broker keep what a medium is called, for so many seconds."""
        topic = self._topics.medium(media_id)
        return self.connection.publish(topic, record, retain=True, expiry=expiry)

    def find_record(self, media_id: str) -> Future[bytes]:
        """What was kept of a medium; empty when nothing is."""
        topic = self._topics.medium(media_id)
        found: Future[bytes] = Future()
        with self._lock:
            self._sought.setdefault(topic, []).append(found)

        def end(fence: Future[None]) -> None:
            with self._lock:
                seekers = self._sought.get(topic, [])
                if found in seekers:
                    seekers.remove(found)
                if not seekers:
                    self._sought.pop(topic, None)
            error = fence.exception()
            if isinstance(error, Exception):
                fail(found, error)
            else:
                settle(found, b"")
            self.connection.unsubscribe([topic])

        subscribed = self.connection.subscribe([topic])
        subscribed.add_done_callback(lambda _: self._fence().add_done_callback(end))
        return found

    # -- shared --

    def _publish(
        self,
        topic: str,
        message: MessageFromPeer | ChannelMessage,
        *,
        retain: bool = False,
        expiry: float | None = None,
        answer_to: str | None = None,
        mark: bytes | None = None,
    ) -> Future[int]:
        payload = encode_json(message).encode()
        return self.connection.publish(
            topic, payload, retain=retain, expiry=expiry, answer_to=answer_to, mark=mark
        )

    def _spend_send(self, family: type[PeerMessageError | ChannelMessageError]) -> None:
        with self._lock:
            allowed = self._sends.allow(time.monotonic())
        if not allowed:
            raise family.named("TOO_OFTEN", f"More than {self._limits.sends} messages are sent.")

    def _fence(self) -> Future[None]:
        """Done when all retained messages that were asked for before have come."""
        mark = secrets.token_bytes(8)
        passed: Future[None] = Future()
        with self._lock:
            self._fences[mark] = passed

        def sent(future: Future[int]) -> None:
            error = future.exception()
            if isinstance(error, Exception):
                with self._lock:
                    self._fences.pop(mark, None)
                fail(passed, error)

        self.connection.publish(self._topics.own("fence"), mark).add_done_callback(sent)
        return passed

    def _watch(self, uid: str) -> _Watch:
        """Follow a user's presence from now on."""
        with self._lock:
            known = self._watches.get(uid)
            if known is not None:
                self._watches.move_to_end(uid)
                return known
            watch = self._watches[uid] = _Watch()
            dropped = self._unwatched()
        if dropped:
            self.connection.unsubscribe([self._topics.online(name) for name in dropped])

        def fenced(fence: Future[None]) -> None:
            error = fence.exception()
            if isinstance(error, Exception):
                with self._lock:
                    if self._watches.get(uid) is watch:
                        del self._watches[uid]
                fail(watch.known, error)
            else:
                settle(watch.known, None)

        self.connection.subscribe([self._topics.online(uid)])
        self._fence().add_done_callback(fenced)
        return watch

    def _unwatched(self) -> list[str]:
        """Take users off a full list who share no channel with us. With the lock held."""
        dropped: list[str] = []
        if len(self._watches) > _WATCHES:
            needed = {uid for channel in self._channels.values() for uid in channel.members}
            for uid in list(self._watches)[:-1]:
                if uid not in needed and uid != self._uid:
                    del self._watches[uid]
                    dropped.append(uid)
                    break
        return dropped

    def _check_member(self, name: str, uid: str) -> None:
        """Strike sessions of a member that are dead; their wills could not do it."""
        with self._lock:
            channel, watch = self._channels.get(name), self._watches.get(uid)
            if channel is None or watch is None:
                return
            dead = channel.members.get(uid, set()) - watch.sessions.keys()
        for session in dead:
            self.connection.publish(self._topics.member(name, uid, session), retain=True)
            self._member_gone(name, uid, session)

    # -- Guest: called by the connection on the reader thread --

    def greet(self, *, first: bool, deadline: Deadline) -> None:
        wait, topics = self.connection.wait, self._topics
        with self._lock:
            self._watches.clear()
            for channel in self._channels.values():
                channel.is_open = False
                channel.members.clear()
        self._own_others.clear()
        self._held = []
        own = [topics.own("+"), topics.online(self._uid), topics.own_seen(), topics.own_mail()]
        wait(self.connection.subscribe(own), deadline)
        wait(self._fence(), deadline)
        for other in sorted(self._own_others):
            if not first:  # it took over while we were away
                raise LoggedInElsewhere
            wait(self.connection.publish(topics.inbox(self._uid, other, "taken")), deadline)
            cleared = self.connection.publish(topics.online(self._uid, other), retain=True)
            wait(cleared, deadline)
        alive = self.connection.publish(
            topics.online(self._uid, topics.session), b"%.3f" % self._began, retain=True
        )
        wait(alive, deadline)
        with self._lock:
            joined = list(self._channels)
        for name in joined:
            self._enter(name, deadline)

    def greeted(self, *, first: bool, resumed: bool) -> None:
        if not first:
            self._listener.on_reconnected(None, recovered=resumed)
        if not first and not resumed:
            with self._lock:
                joined = list(self._channels)
            for name in joined:
                self._listener.on_reconnected(name, recovered=False)
        held, self._held = self._held or [], None
        mail = [arrived for arrived in held if self._topics.parts(arrived.topic)[2:3] == ["mail"]]
        mail.sort(key=_sent_at)
        for arrived in mail[: -self._limits.offline_messages]:  # the oldest beyond the limit
            self.connection.publish(arrived.topic, retain=True)
        for arrived in mail[-self._limits.offline_messages :]:
            self.take(arrived)
        for arrived in held:
            if arrived not in mail:
                self.take(arrived)

    def take(self, arrived: Arrived) -> None:
        parts = self._topics.parts(arrived.topic)
        is_message = parts[-1:] == ["message"] or parts[2:3] == ["mail"]
        if self._held is not None and is_message:
            if arrived.payload:
                self._held.append(arrived)
            return
        match parts:
            case ["u", uid, "online", session]:
                self._take_presence(uid, session, arrived.payload)
            case ["u", _, "s", _, kind]:
                self._take_own(kind, arrived)
            case ["u", _, "mail", _, _] if arrived.payload:
                self._take_mail(arrived)
            case ["u", _, "seen"] if arrived.is_retained:
                self._memory.load(arrived.payload)
            case ["c", name, "message"]:
                self._take_channel_message(name, arrived)
            case ["c", name, "member", uid, session]:
                self._take_member(name, uid, session, is_there=bool(arrived.payload))
            case ["m", _] if arrived.payload:
                with self._lock:
                    seekers = self._sought.pop(arrived.topic, [])
                for seeker in seekers:
                    settle(seeker, arrived.payload)

    def lost(self, error: Exception) -> None:
        with self._lock:
            waiting = [receipt for _, receipt in self._receipts.values()]
            fences, self._fences = list(self._fences.values()), {}
        for receipt in waiting:
            fail(receipt, error)
        for fence in fences:
            fail(fence, error)

    def _take_own(self, kind: str, arrived: Arrived) -> None:
        """What was sent to this session alone."""
        if kind == "message":
            self._take_message(arrived)
        elif kind == "receipt":
            with self._lock:
                _, receipt = self._receipts.get(arrived.correlation, ("", None))
            if receipt is not None:
                settle(receipt, arrived.payload)
        elif kind == "fence":
            with self._lock:
                fence = self._fences.pop(arrived.payload, None)
            if fence is not None:
                settle(fence, None)
        elif kind == "taken":
            self.connection.take_over(ConnectionChangeReason.REMOTE_LOGIN)

    def _take_presence(self, uid: str, session: str, since: bytes) -> None:
        if uid == self._uid and session != self._topics.session:
            if since:
                self._own_others.add(session)
            else:
                self._own_others.discard(session)
        with self._lock:
            watch = self._watches.get(uid)
            if watch is not None and since:
                watch.sessions[session] = float(since)
            elif watch is not None:
                watch.sessions.pop(session, None)
            waiting = [receipt for target, receipt in self._receipts.values() if target == session]
            shared = [name for name, one in self._channels.items() if uid in one.members]
        if since:
            return
        for receipt in waiting:
            settle(receipt, None)
        for name in shared:
            self._check_member(name, uid)

    def _take_message(self, arrived: Arrived) -> None:
        message = _decoded(MessageFromPeer, arrived)
        if message is None:
            return
        answer = b""
        key = (message.peer_id, message.message_id)
        if self._memory.add(key) and not self._listener.on_event(message):
            self._memory.remove(key)
            answer = _QUEUE_FULL
        # Only where receipts belong: a sender may write any topic there.
        match self._topics.parts(arrived.response_topic):
            case ["u", _, "s", _, "receipt"]:
                self.connection.publish(arrived.response_topic, answer, mark=arrived.correlation)

    def _take_mail(self, arrived: Arrived) -> None:
        message = _decoded(MessageFromPeer, arrived)
        if message is not None:
            offline = replace(message.message_props, is_offline_message=True)
            key = (message.peer_id, message.message_id)
            if self._memory.add(key) and not self._listener.on_event(
                replace(message, message_props=offline)
            ):
                self._memory.remove(key)
                return  # it stays for the next login
        self.connection.publish(arrived.topic, retain=True)

    def _take_channel_message(self, name: str, arrived: Arrived) -> None:
        message = _decoded(ChannelMessage, arrived)
        with self._lock:
            channel = self._channels.get(name)
            is_member = channel is not None and channel.is_open
        if message is None or message.channel_id != name or not is_member:
            return
        if self._memory.add(("c", name, message.member_id, message.message_id)):
            taken = self._listener.on_event(message)
            if not taken:
                logger.warning("a message in %r was lost: the event queue is full", name)

    def _take_member(self, name: str, uid: str, session: str, *, is_there: bool) -> None:
        if uid == self._uid:
            return
        if not is_there:
            self._member_gone(name, uid, session)
            return
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return
            is_new = uid not in channel.members
            channel.members.setdefault(uid, set()).add(session)
            is_open = channel.is_open
        if is_open:
            if is_new:
                self._listener.on_event(MemberJoined(name, uid))
            watch = self._watch(uid)  # its will is the only sign of a sudden end
            watch.known.add_done_callback(lambda _: self._check_member(name, uid))

    def _member_gone(self, name: str, uid: str, session: str) -> None:
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or session not in channel.members.get(uid, ()):
                return
            channel.members[uid].discard(session)
            has_left = not channel.members[uid]
            if has_left:
                del channel.members[uid]
            is_open = channel.is_open
        if has_left and is_open:
            self._listener.on_event(MemberLeft(name, uid))


_NO_HISTORY = (
    "An MQTT broker keeps no history; send it without enable_historical_messaging, or use a "
    "gateway (ws://)."
)

_HANDLERS: dict[type, object] = {
    SendMessageToPeer: Session._send_to_peer,
    SendChannelMessage: Session._send_to_channel,
    JoinChannel: Session._join,
    LeaveChannel: Session._leave,
    Logout: Session._log_out,
}


def _timed_out(request: Request[R], timeout: float) -> Exception:
    return request.ERROR.named(
        "TIMEOUT", f"{request.METHOD} was not answered within {timeout:g} seconds."
    )


def _decoded(kind: type[T], arrived: Arrived) -> T | None:
    try:
        return decode_json(kind, arrived.payload)
    except ProtocolError as error:
        logger.warning("what came on %r is no message: %s", arrived.topic, error)
        return None


def _sent_at(arrived: Arrived) -> int:
    message = _decoded(MessageFromPeer, arrived)
    return 0 if message is None else message.message_props.server_received_ts


def _now_ms() -> int:
    return int(time.time() * 1000)
