"""One session on a broker: the client applies the rules that a hub would otherwise apply.

Presence, membership and offline messages are retained messages. Any client can remove them. A fence
is a message that a session sends to itself. When it arrives, every retained message that the
session requested earlier has arrived, too.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, cast

from rtm_sync.errors import ChannelMessageError, PeerMessageError
from rtm_sync.protocol import (
    ChannelMessage,
    ConnectionChangeReason,
    Done,
    GetMembers,
    InvitationFromPeer,
    InvitationReceipt,
    InvitationSent,
    JoinChannel,
    LeaveChannel,
    Logout,
    MessageFromPeer,
    PeerCall,
    PeerMessageSendResult,
    QueryPeersBySubscriptionOption,
    QueryPeersOnlineStatus,
    ReceivedMessageProperties,
    Request,
    SendChannelMessage,
    SendInvitation,
    SendMessageToPeer,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
    encode_json,
)
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.requests import invitation_problem, peer_message_refusal
from rtm_sync.rules.timing import Deadline
from rtm_sync.transports.base import Credentials, Listener, TransportOptions

from .broker_client import NO_MATCHING_SUBSCRIBERS
from .channels import Channels
from .connection import Connection
from .contract import (
    Arrived,
    ConnectionLost,
    LoggedInElsewhere,
    Refused,
    SessionOver,
    decoded,
    fail,
    is_of,
    now_ms,
    resolve,
    sent_at,
    timed_out,
)
from .mail import Mail
from .memory import Budget, Delivered
from .names import Address, Topics
from .presence import Presence
from .records import BrokerRecords

_QUEUE_FULL = b"full"

R = TypeVar("R")
T = TypeVar("T")
logger = logging.getLogger(__name__)


class Session:
    """Answers a client's requests and turns messages into events, for one login. Thread-safe."""

    def __init__(
        self,
        address: Address,
        options: TransportOptions,
        credentials: Credentials,
        listener: Listener,
    ) -> None:
        name = secrets.token_hex(11)  # 22 characters; every broker accepts 23
        self._topics = Topics(address.prefix, credentials.app_id, credentials.uid, name)
        self._uid = credentials.uid
        self._listener = listener
        self._limits = Limits()
        will = self._topics.online(self._uid, name)
        self.connection = Connection(address, options, credentials, listener, name, will)
        self._began = time.time()
        self._budget = Budget(self._limits)
        self._delivered = Delivered(self._limits)
        self.mail = Mail(self.connection, listener, self._delivered)
        shared = (self.connection, self._topics, listener, self._limits, self._budget, self._fence)
        self.records = BrokerRecords(self.connection, self._topics, self._fence)
        self._channels = Channels(*shared)
        self._presence = Presence(*shared, self._channels.users)
        self._channels.set_presence(self._presence)
        self._lock = threading.Lock()  # guards all below; not held while waiting or in callbacks
        # By mark: the peer and the session that are asked.
        self._receipts: dict[bytes, tuple[str, str, Future[bytes | None]]] = {}
        self._fences: dict[bytes, Future[None]] = {}
        self._handlers: dict[type, object] = {
            SendMessageToPeer: self._send_to_peer,
            SendChannelMessage: self._send_to_channel,
            SendInvitation: self._send_invitation,
            JoinChannel: self._channels.join,
            LeaveChannel: self._channels.leave,
            GetMembers: self._channels.list_members,
            QueryPeersOnlineStatus: self._presence.query,
            SubscribePeersOnlineStatus: self._presence.subscribe,
            UnsubscribePeersOnlineStatus: self._presence.unsubscribe,
            QueryPeersBySubscriptionOption: self._presence.subscribed,
            Logout: self._log_out,
        }
        # Used by the reader thread alone:
        self._other_sessions: set[str] = set()  # the user's other sessions
        self._left_behind: set[str] = set()  # memberships of the user's former sessions
        self._held: list[Arrived] | None = None  # messages that arrive during the login

    # -- the client's calls, on any thread --

    def call(self, request: Request[R], timeout: float) -> R:
        """Handle a request, across reconnects.

        Raises:
            RtmError: an error of the request's family.
        """
        handler = self._handlers.get(type(request))
        if handler is None:
            raise request.ERROR.named(
                "FAILURE",
                f"An MQTT broker cannot answer {request.METHOD}; use a gateway (ws://) for it.",
            )
        deadline = Deadline(timeout)
        answer = cast("Callable[[Request[R], Deadline], R]", handler)
        try:
            self.connection.wait_online(deadline)
        except SessionOver as error:
            raise request.ERROR.named("USER_NOT_LOGGED_IN", str(error), error) from error
        except TimeoutError:
            raise timed_out(request, timeout) from None
        try:
            return answer(request, deadline)
        except (SessionOver, ConnectionLost) as error:
            raise request.ERROR.named("FAILURE", f"{request.METHOD}: {error}", error) from error
        except TimeoutError:
            raise timed_out(request, timeout) from None
        except Refused as error:
            raise request.ERROR.named(
                "FAILURE", f"The broker refused {request.METHOD}: {error}.", error
            ) from error

    def _send_to_peer(
        self, request: SendMessageToPeer, deadline: Deadline
    ) -> PeerMessageSendResult:
        if request.enable_historical_messaging:
            raise PeerMessageError.named("FAILURE", _NO_HISTORY)
        refusal = peer_message_refusal(request)
        if refusal is not None:
            raise PeerMessageError.named(*refusal)
        self._budget.check_rate("sends", PeerMessageError)
        message = MessageFromPeer(
            request.message, self._uid, request.message_id, ReceivedMessageProperties(now_ms())
        )
        answer = self._deliver(request.peer_id, "message", message, deadline)
        if answer == b"":
            return PeerMessageSendResult(has_peer_received=True)
        if answer is not None:
            raise PeerMessageError.named(
                "FAILURE", f"The event queue of {request.peer_id!r} is full; send it again."
            )
        if not request.enable_offline_messaging:
            return PeerMessageSendResult(has_peer_received=False)
        topic = self._topics.mail(request.peer_id, self._uid, request.message_id)
        self._send(topic, message, deadline, retain=True, expiry=self._limits.retention)
        return PeerMessageSendResult(has_peer_received=False, cached_by_server=True)

    def _send_invitation(self, request: SendInvitation, deadline: Deadline) -> InvitationSent:
        problem = invitation_problem(request, self._limits)
        if problem is not None:
            raise request.ERROR.named("INVALID_ARGUMENT", problem)
        self._budget.check_rate("sends", request.ERROR)
        step = InvitationFromPeer(
            self._uid, request.invitation_id, request.step, request.content, request.channel_id
        )
        answer = self._deliver(request.peer_id, "invitation", step, deadline)
        if answer is None:
            return InvitationSent(InvitationReceipt.OFFLINE)
        received = answer == b""
        return InvitationSent(
            InvitationReceipt.RECEIVED if received else InvitationReceipt.UNCONFIRMED
        )

    def _deliver(
        self, peer_id: str, kind: str, message: PeerCall, deadline: Deadline
    ) -> bytes | None:
        """The peer's answer, b"" when it accepted the message; None when the peer is offline."""

        def attempt() -> bytes | None:
            while True:
                (watch,) = self._presence.known([peer_id], deadline)
                session = watch.newest()
                if session is not None:
                    topic = self._topics.inbox(peer_id, session, kind)
                    answer = self._deliver_to(topic, peer_id, session, message, deadline)
                    if answer is not None:
                        return answer
                # The presence message of a new login may not have arrived yet.
                self.connection.wait(self._fence(), deadline)
                if watch.newest() in (None, session):
                    return None

        return self.connection.persist(attempt, deadline)

    def _deliver_to(
        self, topic: str, peer_id: str, session: str, message: PeerCall, deadline: Deadline
    ) -> bytes | None:
        """The answer of a peer's session; None when that session has ended."""
        mark = secrets.token_bytes(8)
        receipt: Future[bytes | None] = Future()
        with self._lock:
            self._receipts[mark] = (peer_id, session, receipt)
        try:
            sent = self._publish(
                topic,
                message,
                expiry=deadline.left,  # the broker drops the message after the sender's time-out
                answer_to=self._topics.receipts(),
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
        if not self._channels.is_member(request.channel_id):
            raise ChannelMessageError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id!r} before sending to it."
            )
        self._budget.check_rate("sends", ChannelMessageError)
        message = ChannelMessage(
            request.channel_id,
            request.message,
            self._uid,
            request.message_id,
            ReceivedMessageProperties(now_ms()),
        )
        self._send(self._topics.channel(request.channel_id), message, deadline)
        return Done()

    def _log_out(self, request: Logout, deadline: Deadline) -> Done:
        """Leave all channels and go offline at once, without waiting for the will."""
        publish = self.connection.publish
        sent = self._channels.retract()
        window = self._limits.duplicate_window
        sent.append(
            publish(self._topics.own_seen(), self._delivered.dump(), retain=True, expiry=window)
        )
        sent.append(publish(self._topics.online(self._uid, self._topics.session), retain=True))
        for future in sent:
            self.connection.wait(future, deadline)
        return Done()

    # -- shared --

    def _publish(
        self,
        topic: str,
        message: PeerCall | ChannelMessage,
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

    def _send(
        self,
        topic: str,
        message: PeerCall | ChannelMessage,
        deadline: Deadline,
        *,
        retain: bool = False,
        expiry: float | None = None,
    ) -> None:
        """Publish and wait until the broker accepts the message, across reconnects."""

        def attempt() -> None:
            sent = self._publish(topic, message, retain=retain, expiry=expiry)
            self.connection.wait(sent, deadline)

        self.connection.persist(attempt, deadline)

    def _fence(self) -> Future[None]:
        """A future that is done when every retained message requested earlier has arrived."""
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

    # -- SessionCallbacks: called by the connection on the reader thread --

    def on_new_session(self, *, first: bool, deadline: Deadline) -> None:
        wait, topics = self.connection.wait, self._topics
        self._channels.forget()
        self._presence.forget()
        self._other_sessions.clear()
        self._held = []
        own = [topics.own_inbox(), topics.own_seen(), topics.own_mail(), topics.own_members()]
        self._left_behind.clear()
        wait(self.connection.subscribe([topics.online(self._uid), *own]), deadline)
        wait(self._fence(), deadline)
        # Where a former session was lost. Nobody else may remove its memberships.
        for topic in self._left_behind:
            self.connection.publish(topic, retain=True)
        self.connection.unsubscribe([topics.own_members()])
        others = sorted(self._other_sessions)
        if others and not first:  # another session replaced this one during the reconnect
            raise LoggedInElsewhere
        sent = [self.connection.publish(topics.inbox(self._uid, name, "taken")) for name in others]
        alive = b"%.3f" % self._began
        own_state = topics.online(self._uid, topics.session)
        sent.append(self.connection.publish(own_state, alive, retain=True))
        # Clear these last: otherwise the user would appear offline for a moment.
        sent += [
            self.connection.publish(topics.online(self._uid, name), retain=True) for name in others
        ]
        for future in sent:
            wait(future, deadline)
        for name in self._channels.names():
            self._channels.enter(name, deadline)
        self._presence.resume(deadline)

    def on_connected(self, *, first: bool, resumed: bool) -> None:
        if not first:
            self._listener.on_reconnected(None, recovered=resumed)
        if not first and not resumed:
            for name in self._channels.names():
                self._listener.on_reconnected(name, recovered=False)
        held, self._held = self._held or [], None
        mail = [arrived for arrived in held if self._topics.parts(arrived.topic)[2:3] == ["mail"]]
        mail.sort(key=sent_at)
        for arrived in mail[: -self._limits.offline_messages]:  # the oldest beyond the limit
            self.connection.publish(arrived.topic, retain=True)
        for arrived in mail[-self._limits.offline_messages :]:
            self.take(arrived)
        for arrived in held:
            if arrived not in mail:
                self.take(arrived)

    def take(self, arrived: Arrived) -> None:
        parts = self._topics.parts(arrived.topic)
        is_message = parts[-2:-1] == ["message"] or parts[2:3] == ["mail"]
        if self._held is not None and is_message:
            if arrived.payload:
                self._held.append(arrived)
            return
        match parts:
            case ["u", uid, "online", session]:
                self._take_presence(uid, session, arrived.payload)
            case ["u", _, "s", _, kind, sender]:
                self._take_own(kind, sender, arrived)
            case ["u", _, "mail", sender, _] if arrived.payload:
                self._take_mail(sender, arrived)
            case ["u", _, "seen"] if arrived.is_retained:
                self._delivered.load(arrived.payload)
            case ["c", name, "message", sender]:
                self._take_channel_message(name, sender, arrived)
            case ["c", name, "member", uid, session]:
                if uid == self._uid and session != self._topics.session and arrived.payload:
                    self._left_behind.add(arrived.topic)
                self._channels.take(name, uid, session, is_member_now=bool(arrived.payload))
            case ["m", owner, media_id] if arrived.payload:
                self.records.take(owner, media_id, arrived.payload)

    def lost(self, error: Exception) -> None:
        with self._lock:
            waiting = [receipt for _, _, receipt in self._receipts.values()]
            fences, self._fences = list(self._fences.values()), {}
        for receipt in waiting:
            fail(receipt, error)
        for fence in fences:
            fail(fence, error)

    def _take_own(self, kind: str, sender: str, arrived: Arrived) -> None:
        """Handle a message that was addressed to this session alone."""
        if kind == "message":
            self._take_message(sender, arrived)
        elif kind == "invitation":
            step = decoded(InvitationFromPeer, arrived)
            if step is not None and is_of(sender, step.peer_id, arrived):
                answer = b"" if self._listener.on_event(step) else _QUEUE_FULL
                self._answer(sender, arrived, answer)
        elif kind == "receipt":
            with self._lock:
                peer_id, _, receipt = self._receipts.get(arrived.correlation, ("", "", None))
            if receipt is not None and is_of(sender, peer_id, arrived):
                resolve(receipt, arrived.payload)
        elif sender != self._uid:
            is_of(sender, self._uid, arrived)  # only the user's own clients send these
        elif kind == "fence":
            with self._lock:
                fence = self._fences.pop(arrived.payload, None)
            if fence is not None:
                resolve(fence, None)
        elif kind == "taken":
            self.connection.take_over(ConnectionChangeReason.REMOTE_LOGIN)

    def _take_presence(self, uid: str, session: str, since: bytes) -> None:
        if uid == self._uid and session != self._topics.session:
            if since:
                self._other_sessions.add(session)
            else:
                self._other_sessions.discard(session)
        self._presence.take(uid, session, since)
        if since:
            return
        with self._lock:
            waiting = [
                receipt
                for peer_id, target, receipt in self._receipts.values()
                if (peer_id, target) == (uid, session)
            ]
        for receipt in waiting:
            resolve(receipt, None)
        self._channels.user_changed(uid)

    def _take_message(self, sender: str, arrived: Arrived) -> None:
        message = decoded(MessageFromPeer, arrived)
        if message is None or not is_of(sender, message.peer_id, arrived):
            return
        answer = b""
        key = (message.peer_id, message.message_id)
        if (
            not self.mail.is_waiting(key)
            and self._delivered.add(key)
            and not self._listener.on_event(message)
        ):
            self._delivered.remove(key)
            answer = _QUEUE_FULL
        self._answer(sender, arrived, answer)

    def _answer(self, sender: str, arrived: Arrived, answer: bytes) -> None:
        """Send a receipt, if the response topic is one of the sender's: it can name any topic."""
        match self._topics.parts(arrived.response_topic):
            case ["u", uid, "s", _, "receipt"] if uid == sender:
                topic = self._topics.receipt(arrived.response_topic)
                self.connection.publish(topic, answer, mark=arrived.correlation)

    def _take_mail(self, sender: str, arrived: Arrived) -> None:
        message = decoded(MessageFromPeer, arrived)
        if message is None or not is_of(sender, message.peer_id, arrived):
            self.mail.delete(arrived.topic)
        else:
            self.mail.take(arrived.topic, message)

    def _take_channel_message(self, name: str, sender: str, arrived: Arrived) -> None:
        message = decoded(ChannelMessage, arrived)
        if message is None or message.channel_id != name or not self._channels.is_member(name):
            return
        if not is_of(sender, message.member_id, arrived):
            return
        if self._delivered.add(("c", name, message.member_id, message.message_id)):
            taken = self._listener.on_event(message)
            if not taken:
                logger.warning("a message in %r was lost: the event queue is full", name)


_NO_HISTORY = (
    "An MQTT broker keeps no history; send it without enable_historical_messaging, or use a "
    "gateway (ws://)."
)
