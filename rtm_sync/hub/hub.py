"""The hub: the domain rules on one node, the same for the gateway and for an embedded one.

Everything here runs on one asyncio loop, so nothing needs a lock; what blocks (media, SQLite) runs
on threads that the media store and the engine are given. A hub knows no sockets: a connection is an
object that takes frames (`session.Connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import (
    ChannelMessageError,
    GetChannelMemberCountError,
    GetMembersError,
    HistoryError,
    InvitationApiCallError,
    JoinChannelError,
    LeaveChannelError,
    LoginError,
    LoginErrorCode,
    PeerMessageError,
    RenewTokenError,
    RtmError,
)
from ..protocol import (
    FRAME_LIMIT,
    Acknowledge,
    AttributesUpdated,
    Call,
    CancelUpload,
    ChangeChannelAttributes,
    ChangeUserAttributes,
    ChannelMessage,
    ConnectionChangeReason,
    Done,
    Failure,
    GetChannelAttributes,
    GetChannelMemberCount,
    GetHistory,
    GetMembers,
    GetUserAttributes,
    HistoricalMessage,
    HistoryPage,
    InvitationFromPeer,
    InvitationReceipt,
    InvitationSent,
    JoinChannel,
    JoinResult,
    LeaveChannel,
    Login,
    LoginResult,
    Logout,
    MemberCounts,
    MemberCountUpdated,
    MemberJoined,
    MemberLeft,
    MessageFromPeer,
    Notice,
    PeerCall,
    PeerMessageSendResult,
    PeerOnlineState,
    ProtocolError,
    QueryPeersBySubscriptionOption,
    QueryPeersOnlineStatus,
    ReceivedMessageProperties,
    RenewToken,
    Request,
    RpcCode,
    SendChannelMessage,
    SendInvitation,
    SendMessageToPeer,
    SessionEnded,
    SubscribePeersOnlineStatus,
    TokenExpired,
    TokenPrivilegeWillExpire,
    UnsubscribePeersOnlineStatus,
    UserIds,
    app_id_problem,
    decode,
    encode_failure,
    encode_json,
    encode_notice,
    encode_reply,
    id_problem,
    message_id_problem,
)
from .access import Access
from .attributes import AttributeDesk
from .counts import CountNews
from .engine import ChannelEvent, Delivery, Engine, HistoryQuery, OfflineMessage
from .library import MediaLibrary
from .limits import KeyedWindows, Limits
from .media import MediaStore
from .once import OnceOnly
from .presence import PresenceDesk
from .senders import Senders
from .session import Connection, Session
from .telemetry import Telemetry
from .tokens import NotPrivileged, TokenVerifier

R = TypeVar("R")

_ACKNOWLEDGE_EVERY = 32
_SWEEP_INTERVAL = 60.0
_MEDIA_SWEEP_ROUNDS = 60
_HISTORY_PAGE = 100
_LOOK_INTERVAL = 1.0
_INVITATION_PATIENCE = 2.0  # the caller sends it again after as long
_STOP_PATIENCE = 5.0

logger = logging.getLogger(__name__)


class Hub:
    """One node. Make it, `start` it on a running loop, `stop` it there.

    Args:
        engine: what lies beyond the node; the hub starts and stops it.
        media_store: where blobs live; the hub closes it.
        limits: what is allowed.
        verifiers: app id → who checks its tokens; only these apps exist. None is for trial: every
            app id and uid is welcome, and tokens are not looked at.
        now: the wall clock, seconds since the epoch.
        observe: told of what users do: the app's id, "user" or "channel", and the event.
        telemetry: told of the hub's work.
    """

    def __init__(
        self,
        engine: Engine,
        media_store: MediaStore,
        *,
        limits: Limits | None = None,
        verifiers: Mapping[str, TokenVerifier] | None = None,
        now: Callable[[], float] = time.time,
        observe: Callable[[str, str, dict[str, Any]], object] = lambda *_: None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.telemetry = telemetry or Telemetry()
        self.limits = limits or Limits()
        self.media = MediaLibrary(engine, media_store, self.limits, now, self.telemetry)
        self._engine = engine
        self._access = Access(engine, verifiers, now)
        self._now = now
        self._observe = observe
        self._sessions: dict[str, Session] = {}
        self._users: dict[tuple[str, str], Session] = {}
        self._channels: dict[tuple[str, str], dict[Session, None]] = {}
        self._sends = OnceOnly(self.limits.duplicate_window, self.limits.remembered_sends)
        self._login_rate = KeyedWindows(self.limits.logins)
        self._senders = Senders(self.limits)
        self._presence = PresenceDesk(engine, self.limits)
        self._counts: dict[tuple[str, str], CountNews] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._own_tasks: list[asyncio.Task[None]] = []
        self._handlers: dict[type[Request[Any]], Callable[[Session, Any], Coroutine[Any, Any, Any]]]
        attributes = AttributeDesk(engine, engine, self._now_ms)
        self._handlers = {
            SendMessageToPeer: self._send_message_to_peer,
            SendChannelMessage: self._send_channel_message,
            JoinChannel: self._join_channel,
            LeaveChannel: self._leave_channel,
            GetHistory: self._get_history,
            SendInvitation: self._send_invitation,
            RenewToken: self._renew_token,
            GetMembers: self._get_members,
            GetChannelMemberCount: self._get_channel_member_count,
            QueryPeersOnlineStatus: self._presence.query,
            SubscribePeersOnlineStatus: self._presence.subscribe,
            UnsubscribePeersOnlineStatus: self._presence.unsubscribe,
            QueryPeersBySubscriptionOption: self._presence.subscribed,
            ChangeUserAttributes: attributes.change_user,
            GetUserAttributes: attributes.get_user,
            ChangeChannelAttributes: attributes.change_channel,
            GetChannelAttributes: attributes.get_channel,
            Logout: self._logout,
        }

    # -- life --

    async def start(self) -> None:
        """Start the engine and the sweeping of what has expired."""
        await self._engine.start(self)
        await self.media.start()
        loop = asyncio.get_running_loop()
        for work in (self._sweep_for_ever(), self._look_after_sessions()):
            self._own_tasks.append(loop.create_task(work))

    def disconnect_all(self) -> None:
        """Close every connection (1001); the sessions, and their transfers, go on for a while."""
        for session in self._sessions.values():
            if session.connection is not None:
                session.connection.close(1001, "the hub is stopping")

    async def stop(self) -> None:
        """End every session and upload, then the engine."""
        self.disconnect_all()
        for session in list(self._sessions.values()):
            self._end(session, why="stopping")
        for task in self._own_tasks:
            task.cancel()
        await asyncio.wait([asyncio.ensure_future(self._finish_tasks())], timeout=_STOP_PATIENCE)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._own_tasks, return_exceptions=True)
        await self.media.stop()
        await self._presence.stop()
        await self._engine.stop()

    async def _finish_tasks(self) -> None:
        """What sessions and uploads leave to be done, such as deleting fragments."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def session_count(self) -> int:
        """Sessions on this node, those whose connection is away included."""
        return len(self._sessions)

    @property
    def connection_count(self) -> int:
        """Sessions with a connection."""
        return sum(session.connection is not None for session in self._sessions.values())

    @property
    def channel_count(self) -> int:
        """Channels with members on this node."""
        return len(self._channels)

    @property
    def queued_frames(self) -> int:
        """Frames that clients have not acknowledged yet."""
        return sum(len(session.outbox) for session in self._sessions.values())

    # -- sessions --

    async def login(self, login: Login, connection: Connection) -> tuple[Session, LoginResult]:
        """Open a session, or resume the one it names.

        The caller sends the result on the connection and only then calls `attach`.

        Raises:
            LoginError: who may not, and why.
        """
        try:
            session, result = await self._log_in(login)
        except LoginError as error:
            self._note_login(login, error.reason.lower())
            raise
        self._note_login(login, "resumed" if result.resumed else "new")
        return session, result

    async def _log_in(self, login: Login) -> tuple[Session, LoginResult]:
        grant = await self._access.admit(login)
        session = self._sessions.get(login.session or "")
        if (
            session is not None
            and (session.app_id, session.uid) == (login.app_id, login.uid)
            and not session.overflowed
        ):
            try:
                session.rewind(login.received)
            except ValueError as error:
                logger.info("%r cannot resume: %s", session, error)
            else:
                session.take_grant(grant)
                return session, self._login_result(session, resumed=True)
        now = asyncio.get_running_loop().time()
        if not self._login_rate.allow((login.app_id, login.uid), now):
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_TOO_OFTEN,
                f"{login.uid!r} logs in more than {self.limits.logins}.",
            )
        if len(self._sessions) >= self.limits.sessions:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_REJECTED,
                f"The gateway has {len(self._sessions):,} sessions, as many as it may.",
            )
        session = Session(login.app_id, login.uid, self.limits)
        session.take_grant(grant)
        await self._engine.claim(login.app_id, login.uid, session.id)
        self._sessions[session.id] = session
        self._users[login.app_id, login.uid] = session
        self._note_user(session, "Login")
        self._spawn(self._release_with_offline(session))
        return session, self._login_result(session, resumed=False)

    def attach(self, session: Session, connection: Connection) -> bool:
        """Give the session its connection; a previous one is closed. False if the session ended."""
        if self._sessions.get(session.id) is not session:
            return False
        if session.expiry is not None:
            session.expiry.cancel()
            session.expiry = None
        previous, session.connection = session.connection, connection
        if previous is not None:
            previous.close(4000, "the session goes on over another connection")
        connection.wake()
        return True

    def detach(self, session: Session, connection: Connection) -> None:
        """A connection is gone; the session stays for a while."""
        if session.connection is not connection or session.id not in self._sessions:
            return
        session.connection = None
        if session.overflowed:
            self._end(session, why="slow_consumer")
            return
        loop = asyncio.get_running_loop()
        session.expiry = loop.call_later(self.limits.session_grace, self._end, session)

    def end(self, session: Session) -> None:
        """Log the session out."""
        self._drop_uploads(session)
        self._end(session, why="logout")

    def session(self, session_id: str) -> Session | None:
        """The session, or sender, with this secret id, or None."""
        session = self._sessions.get(session_id)
        if session is None:
            session = self._senders.by_id(session_id, asyncio.get_running_loop().time())
            if session is not None and session.token_time_left(self._now()) <= 0:
                return None
        return session

    def replace_verifiers(self, verifiers: Mapping[str, TokenVerifier]) -> None:
        """Take other apps, or other keys of theirs; sessions go on until their tokens end."""
        self._access.replace(verifiers)

    # -- server processes --

    def sender(self, app_id: str, uid: str) -> Session:
        """Somebody to `perform` requests as, who need not be logged in. Ends by itself.

        The caller knows that the request is the app's own.
        """
        return self._senders.of(app_id, uid, asyncio.get_running_loop().time())

    async def sender_by_token(self, app_id: str, uid: str, token: str) -> Session:
        """As `sender`, with what the user's token allows, until it ends.

        Raises:
            LoginError: who may not, and why. OSError: the engine could not tell.
        """
        grant = await self._access.admit(Login(app_id, uid, token=token))
        return self._senders.of(app_id, uid, asyncio.get_running_loop().time(), grant)

    async def perform(self, session: Session, request: Request[R]) -> R:
        """Do what a request asks, without a connection.

        Raises:
            RtmError: of the request's family. OSError: the engine or store could not.
        """
        result: R = await self._handlers[type(request)](session, request)
        return result

    async def send_to_channel(self, session: Session, request: SendChannelMessage) -> None:
        """Send to a channel without being a member (the reference's REST API may).

        Raises:
            RtmError: ChannelMessageError. OSError: the engine could not.
        """
        problem = id_problem("channel_id", request.channel_id)
        if problem is not None:
            raise ChannelMessageError.named("INVALID_MESSAGE", problem)
        await self._publish(session, request)

    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        """The state of each of these users."""
        return await self._engine.presence(app_id, uids)

    async def history(self, app_id: str, query: HistoryQuery) -> list[HistoricalMessage]:
        """Messages of the history, anybody's."""
        return [item for _, item in await self._engine.history(app_id, query, self._now())]

    async def history_count(self, app_id: str, query: HistoryQuery) -> int:
        """How many messages a query matches."""
        return await self._engine.history_count(app_id, query, self._now())

    async def kick(
        self, app_id: str, uid: str, ban_seconds: float, *, revoke_tokens: bool = False
    ) -> bool:
        """End a user's session (BANNED_BY_SERVER) and refuse logins for a while.

        Args:
            ban_seconds: for how long; 0 ends a ban.
            revoke_tokens: also refuse, for good, the tokens that were made until now.

        Returns:
            Whether the user was logged in.
        """
        now = self._now()
        if revoke_tokens:
            await self._engine.revoke(app_id, uid, now)
        await self._engine.ban(app_id, uid, now + ban_seconds if ban_seconds > 0 else 0.0)
        for sender in self._senders.end_user(app_id, uid):
            self._drop_uploads(sender)
        was_there = await self._engine.kick(app_id, uid)
        logger.info(
            "%s@%s was kicked, banned for %g s",
            uid,
            app_id,
            ban_seconds,
            extra={"event": "kick", "app_id": app_id, "uid": uid, "ban_seconds": ban_seconds},
        )
        return was_there

    async def bans(self, app_id: str) -> dict[str, float]:
        """Who is banned now, and until when, seconds since the epoch."""
        return await self._engine.bans(app_id, self._now())

    def receive(self, session: Session, connection: Connection, text: str | bytes) -> None:
        """Take one frame from the session's client. Never blocks; answers go to the outbox.

        Raises:
            ProtocolError: not a frame at all; the connection should be closed.
        """
        if session.connection is not connection:
            return  # a replaced connection's late words
        try:
            frame = decode(text)
        except ProtocolError as error:
            if error.call_id is None:
                raise
            session.received += 1
            session.push(encode_failure(error.call_id, _as_family_error(error)))
            return
        if isinstance(frame, Notice) and isinstance(frame.event, Acknowledge):
            try:
                session.acknowledge(frame.event.received)
            except ValueError as error:
                raise ProtocolError(RpcCode.INVALID_PARAMS, str(error)) from error
            return
        session.received += 1
        if isinstance(frame, Call):
            self._spawn(self._answer(session, frame))
        elif isinstance(frame, Notice):
            if isinstance(frame.event, CancelUpload):
                self._spawn(self.media.cancel_upload(session, frame.event.key))
        elif frame.id is not None:
            session.answer(frame.id, accepted=not isinstance(frame, Failure))
        if session.received - session.acknowledged >= _ACKNOWLEDGE_EVERY:
            session.acknowledged = session.received
            connection.send_now(encode_notice(Acknowledge(session.received)))

    def _login_result(self, session: Session, *, resumed: bool) -> LoginResult:
        session.acknowledged = session.received
        return LoginResult(session.id, resumed, session.received, self.limits.outbox_frames)

    async def _release_with_offline(self, session: Session) -> None:
        """Offline messages go out before anything that arrived since the login."""
        waiting: list[OfflineMessage] = []
        try:
            waiting = await self._engine.offline(session.app_id, session.uid, self._now())
        except (OSError, ProtocolError):
            logger.exception("offline messages of %r could not be read; they stay", session)
        receipts = [await session.call_first(item.message) for item in waiting]
        session.release()
        for item, receipt in zip(waiting, receipts, strict=True):
            if await receipt is Delivery.RECEIVED:
                with contextlib.suppress(OSError):  # it is delivered again; the client drops copies
                    await self._engine.discard_offline(session.app_id, session.uid, [item.key])

    def _end(
        self,
        session: Session,
        reason: ConnectionChangeReason | None = None,
        *,
        why: str = "lost",
    ) -> None:
        """The session is over; with a reason, its client is told not to come back by itself."""
        if self._sessions.pop(session.id, None) is None:
            return
        why = why if reason is None else reason.name.lower()
        self.telemetry.session_ended(why)
        logger.info(
            "session of %s@%s ended: %s",
            session.uid,
            session.app_id,
            why,
            extra={
                "event": "session_ended",
                "app_id": session.app_id,
                "uid": session.uid,
                "reason": why,
            },
        )
        connection, session.connection = session.connection, None
        if connection is not None and reason is not None:
            connection.send_now(encode_notice(SessionEnded(reason)))
            connection.close(4001, reason.name)
            self._drop_uploads(session)  # its client ends them; one that was killed may resume
        session.end()
        self._note_user(session, "Logout")
        self._presence.forget(session)
        if self._users.get((session.app_id, session.uid)) is session:
            del self._users[session.app_id, session.uid]
        for channel_id in session.channels:
            self._note_member(session, channel_id, "Leave")
            self._forget_member(session, channel_id)
        self._spawn(self._leave_engine(session))

    def _drop_uploads(self, session: Session) -> None:
        for upload in self.media.passing_uploads(session):
            self._spawn(self.media.drop_upload(upload))

    async def _leave_engine(self, session: Session) -> None:
        try:
            await self._engine.release(session.app_id, session.uid, session.id)
            for channel_id in session.channels:
                await self._engine.leave(session.app_id, channel_id, session.uid, session.id)
        except OSError:
            logger.exception("the engine could not release %r", session)

    # -- Node: what the engine calls --

    async def deliver_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        session = self._users.get((app_id, uid))
        if session is None or session.overflowed:
            return Delivery.OFFLINE
        return await session.call(message)

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        members = self._channels.get((app_id, event.channel_id))
        if not members:
            return
        key = (app_id, event.channel_id)
        origin = None if isinstance(event, AttributesUpdated) else event.member_id
        if isinstance(event, (MemberJoined, MemberLeft)) and self._is_large(key):
            return
        frame = encode_notice(event)  # once for all
        for session in tuple(members):
            if session.uid != origin:
                session.push_to_member(event.channel_id, frame)

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            self._end(session, reason)

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        self._presence.changed(app_id, uid, state)

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        key = (app_id, channel_id)
        if key in self._channels:
            news = self._counts.setdefault(key, CountNews())
            news.count = count
            self._tell_count(key, news)

    def _is_large(self, key: tuple[str, str]) -> bool:
        news = self._counts.get(key)
        return news is not None and news.count > self.limits.announced_members

    def _tell_count(self, key: tuple[str, str], news: CountNews) -> None:
        """Tell a channel's members how many they are, now or when it may be told."""
        if self._counts.get(key) is not news:
            return  # nobody here is a member any more
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = news.wait(now)
        if wait == 0.0:
            news.told(now)
            frame = encode_notice(MemberCountUpdated(key[1], news.count))
            for session in tuple(self._channels.get(key, ())):
                session.push_to_member(key[1], frame)
        elif wait is not None and news.timer is None:
            news.timer = loop.call_later(wait, self._count_is_due, key, news)

    def _count_is_due(self, key: tuple[str, str], news: CountNews) -> None:
        news.timer = None
        self._tell_count(key, news)

    # -- requests --

    async def _answer(self, session: Session, call: Call) -> None:
        request = call.request
        handler = self._handlers.get(type(request))
        try:
            if handler is None:
                raise ProtocolError(RpcCode.METHOD_NOT_FOUND, f"A hub has no {request.METHOD}.")
            reply = encode_reply(call.id, await handler(session, request))
        except (RtmError, ProtocolError) as error:
            reply = encode_failure(call.id, error)
        except OSError as error:
            logger.warning("%s of %r failed: %s", request.METHOD, session, error)
            reply = encode_failure(call.id, request.ERROR.named("FAILURE", str(error)))
        except Exception:
            logger.exception("%s of %r failed", request.METHOD, session)
            reply = encode_failure(call.id, request.ERROR.named("FAILURE", "Internal error."))
        connection = session.connection
        if isinstance(request, Logout) and connection is not None:
            self.end(session)
            connection.send_now(reply)  # its outbox has ended with the session
            connection.close(1000, "logged out")
        else:
            session.push(reply)

    async def _logout(self, session: Session, request: Logout) -> Done:
        return Done()

    async def _send_message_to_peer(
        self, session: Session, request: SendMessageToPeer
    ) -> PeerMessageSendResult:
        problem = id_problem("peer_id", request.peer_id)
        if problem is not None:
            raise PeerMessageError.named("INVALID_USERID", problem)
        problem = message_id_problem(request.message_id)
        if problem is not None:
            raise PeerMessageError.named("INVALID_MESSAGE", problem)
        session.spend("sends", PeerMessageError)
        with self._timed("peer") as timed:
            result = await self._sends.do(
                (session.app_id, session.uid, "peer", request.peer_id, request.message_id),
                lambda: self._deliver_to_peer(session, request),
                # A peer that was away may be there when the message is sent again.
                lambda result: result.has_peer_received or result.cached_by_server,
            )
            if not result.has_peer_received:
                timed.outcome = "cached" if result.cached_by_server else "offline"
            return result

    async def _deliver_to_peer(
        self, session: Session, request: SendMessageToPeer
    ) -> PeerMessageSendResult:
        message = MessageFromPeer(
            request.message,
            session.uid,
            request.message_id,
            ReceivedMessageProperties(self._now_ms()),
        )
        if request.enable_historical_messaging:
            await self._keep_history(session, request.peer_id, message)
        delivery = await self._engine.send_to_peer(session.app_id, request.peer_id, message)
        if delivery is Delivery.UNCONFIRMED:
            raise PeerMessageError.named(
                "TIMEOUT",
                f"{request.peer_id!r} did not confirm within {self.limits.receipt_timeout:g} "
                "seconds; it may still arrive.",
            )
        if delivery is Delivery.RECEIVED or not request.enable_offline_messaging:
            return PeerMessageSendResult(delivery is Delivery.RECEIVED)
        stored = replace(
            message, message_props=replace(message.message_props, is_offline_message=True)
        )
        await self._engine.store_offline(
            session.app_id,
            request.peer_id,
            stored,
            self.limits.offline_messages,
            self.limits.retention,
        )
        return PeerMessageSendResult(has_peer_received=False, cached_by_server=True)

    async def _send_channel_message(self, session: Session, request: SendChannelMessage) -> Done:
        if request.channel_id not in session.channels:
            raise ChannelMessageError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id[:64]!r} before sending to it."
            )
        return await self._publish(session, request)

    async def _publish(self, session: Session, request: SendChannelMessage) -> Done:
        problem = message_id_problem(request.message_id)
        if problem is not None:
            raise ChannelMessageError.named("INVALID_MESSAGE", problem)
        if not session.privileges.may_publish(request.channel_id):
            raise ChannelMessageError.named(
                "FAILURE",
                f"The token does not allow to send to {request.channel_id!r}.",
                NotPrivileged(),
            )
        session.spend("sends", ChannelMessageError)
        with self._timed("channel") as timed:
            timed.outcome = "sent"
            return await self._sends.do(
                (session.app_id, session.uid, "channel", request.channel_id, request.message_id),
                lambda: self._deliver_to_channel(session, request),
            )

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[_Timed]:
        """Tell of a message: how it went, and how long it took."""
        timed = _Timed()
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            yield timed
        except RtmError as error:
            timed.outcome = error.reason.lower()
            raise
        except BaseException:
            timed.outcome = "failed"
            raise
        finally:
            self.telemetry.message(kind, timed.outcome, clock() - began)

    async def _deliver_to_channel(self, session: Session, request: SendChannelMessage) -> Done:
        message = ChannelMessage(
            request.channel_id,
            request.message,
            session.uid,
            request.message_id,
            ReceivedMessageProperties(self._now_ms()),
        )
        if request.enable_historical_messaging:
            await self._keep_history(session, request.channel_id, message)
        await self._engine.publish(session.app_id, message)
        return Done()

    async def _join_channel(self, session: Session, request: JoinChannel) -> JoinResult:
        channel_id = request.channel_id
        problem = id_problem("channel_id", channel_id)
        if problem is not None:
            raise JoinChannelError.named("INVALID_ARGUMENT", problem)
        if not session.privileges.may_join(channel_id):
            raise JoinChannelError.named(
                "REJECTED", f"The token does not allow to join {channel_id!r}.", NotPrivileged()
            )
        if channel_id in session.channels:
            raise JoinChannelError.named("ALREADY_JOINED", f"{channel_id!r} is joined already.")
        if len(session.channels) >= self.limits.joined_channels:
            raise JoinChannelError.named(
                "EXCEED_LIMIT",
                f"{len(session.channels)} channels are joined, as many as a client may; "
                "leave one first.",
            )
        now = asyncio.get_running_loop().time()
        if not session.same_channel_joins.allow(channel_id, now):
            raise JoinChannelError.named(
                "JOIN_SAME_CHANNEL_TOO_OFTEN",
                f"{channel_id!r} is joined more than {self.limits.same_channel_joins}.",
            )
        session.spend("joins", JoinChannelError)
        session.channels[channel_id] = None
        self._channels.setdefault((session.app_id, channel_id), {})[session] = None
        if request.since is not None:
            session.hold_channel(channel_id)
        try:
            await self._engine.join(session.app_id, channel_id, session.uid, session.id)
            missed = await self._engine.recover(session.app_id, channel_id, request.since)
        except OSError:
            session.channels.pop(channel_id, None)
            self._forget_member(session, channel_id)
            raise
        self._note_member(session, channel_id, "Join")
        if request.since is not None:  # in a task, for it comes after the answer
            others = [item for item in missed.messages if item.member_id != session.uid]
            self._spawn(session.catch_up(channel_id, map(encode_notice, others)))
        return JoinResult(missed.position, missed.complete)

    async def _leave_channel(self, session: Session, request: LeaveChannel) -> Done:
        if request.channel_id not in session.channels:
            raise LeaveChannelError.named(
                "NOT_IN_CHANNEL", f"{request.channel_id[:64]!r} is not joined."
            )
        del session.channels[request.channel_id]
        self._note_member(session, request.channel_id, "Leave")
        self._forget_member(session, request.channel_id)
        await self._engine.leave(session.app_id, request.channel_id, session.uid, session.id)
        return Done()

    def _note_login(self, login: Login, outcome: str) -> None:
        self.telemetry.login(outcome)
        # What has not even the form of an id is a stranger's text, and not repeated.
        app_id = login.app_id if app_id_problem(login.app_id) is None else "?"
        uid = login.uid if id_problem("uid", login.uid) is None else "?"
        logger.info(
            "login of %s@%s: %s",
            uid,
            app_id,
            outcome,
            extra={"event": "login", "app_id": app_id, "uid": uid, "outcome": outcome},
        )

    def _note_user(self, session: Session, kind: str) -> None:
        event = {"user_id": session.uid, "type": kind, "ms": self._now_ms()}
        self._observe(session.app_id, "user", event)

    def _note_member(self, session: Session, channel_id: str, kind: str) -> None:
        event = {
            "group_id": channel_id,
            "user_id": session.uid,
            "type": kind,
            "ms": self._now_ms(),
        }
        self._observe(session.app_id, "channel", event)

    def _forget_member(self, session: Session, channel_id: str) -> None:
        session.release_channel(channel_id)
        members = self._channels.get((session.app_id, channel_id), {})
        members.pop(session, None)
        if not members:
            self._channels.pop((session.app_id, channel_id), None)
            news = self._counts.pop((session.app_id, channel_id), None)
            if news is not None and news.timer is not None:
                news.timer.cancel()

    async def _get_members(self, session: Session, request: GetMembers) -> UserIds:
        if request.channel_id not in session.channels:
            raise GetMembersError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id[:64]!r} before listing its members."
            )
        session.spend("member_lists", GetMembersError)
        members = await self._engine.members(session.app_id, request.channel_id)
        limit = self.limits.announced_members
        if len(members) > limit:
            members = random.sample(members, limit)
        return UserIds(tuple(members))

    async def _get_channel_member_count(
        self, session: Session, request: GetChannelMemberCount
    ) -> MemberCounts:
        ids, limit = request.channel_ids, self.limits.counted_channels
        if not ids:
            raise GetChannelMemberCountError.named("INVALID_ARGUMENT", "channel_ids is empty.")
        if len(ids) > limit:
            raise GetChannelMemberCountError.named(
                "EXCEED_LIMIT", f"{len(ids)} channel_ids are too many; the limit is {limit}."
            )
        for channel_id in ids:
            problem = id_problem("channel_id", channel_id)
            if problem is not None:
                raise GetChannelMemberCountError.named("INVALID_ARGUMENT", problem)
            if not session.privileges.may_join(channel_id):
                raise GetChannelMemberCountError.named(
                    "FAILURE",
                    f"The token does not allow to look at {channel_id!r}.",
                    NotPrivileged(),
                )
        session.spend("member_counts", GetChannelMemberCountError)
        return MemberCounts(await self._engine.member_counts(session.app_id, ids))

    async def _send_invitation(self, session: Session, request: SendInvitation) -> InvitationSent:
        problem = id_problem("peer_id", request.peer_id)
        if problem is None and request.channel_id:
            problem = id_problem("channel_id", request.channel_id)
        problem = problem or message_id_problem(request.invitation_id)
        size, limit = len(request.content.encode()), self.limits.invitation_content
        if problem is None and size > limit:
            problem = f"content has {size:,} bytes; the limit is {limit:,}."
        if problem is not None:
            raise InvitationApiCallError.named("INVALID_ARGUMENT", problem)
        session.spend("sends", InvitationApiCallError)
        step = InvitationFromPeer(
            session.uid, request.invitation_id, request.step, request.content, request.channel_id
        )
        delivering = self._engine.send_to_peer(session.app_id, request.peer_id, step)
        try:
            delivery = await asyncio.wait_for(delivering, _INVITATION_PATIENCE)
        except asyncio.TimeoutError:
            delivery = Delivery.UNCONFIRMED
        return InvitationSent(InvitationReceipt[delivery.name])

    async def _renew_token(self, session: Session, request: RenewToken) -> Done:
        session.spend("token_renewals", RenewTokenError)
        try:
            grant = await self._access.grant(session.app_id, session.uid, request.token)
        except LoginError as error:
            reason = error.reason if error.reason == "TOKEN_EXPIRED" else "INVALID_TOKEN"
            raise RenewTokenError.named(reason, error.message, error) from error
        session.take_grant(grant)
        return Done()

    async def _keep_history(
        self, session: Session, destination: str, sent: MessageFromPeer | ChannelMessage
    ) -> None:
        message = HistoricalMessage(
            sent.message,
            session.uid,
            destination,
            isinstance(sent, ChannelMessage),
            sent.message_id,
            replace(sent.message_props, is_historical_message=True),
        )
        await self._engine.store_history(session.app_id, message, self.limits.retention)

    async def _get_history(self, session: Session, request: GetHistory) -> HistoryPage:
        peer_id, channel_id = request.peer_id, request.channel_id
        if (peer_id is None) == (channel_id is None):
            raise HistoryError.named("INVALID_ARGUMENT", "Give a peer_id or a channel_id.")
        kind, value = ("channel_id", channel_id) if peer_id is None else ("peer_id", peer_id)
        problem = id_problem(kind, value)
        if problem is None and not 1 <= request.limit <= _HISTORY_PAGE:
            problem = f"limit is {request.limit}; it must be 1 to {_HISTORY_PAGE}."
        if problem is not None:
            raise HistoryError.named("INVALID_ARGUMENT", problem)
        if channel_id is not None and channel_id not in session.channels:
            raise HistoryError.named(
                "NOT_IN_CHANNEL", f"Join {channel_id!r} before reading its history."
            )
        session.spend("history_reads", HistoryError)
        query = HistoryQuery(
            source=None if peer_id is None else session.uid,
            destination=value,
            is_channel=peer_id is None,
            both_ways=peer_id is not None,
            start=request.start,
            end=request.end,
            newest_first=request.newest_first,
            after=request.after,
            limit=request.limit + 1,  # one more tells whether there is more
        )
        found = await self._engine.history(session.app_id, query, self._now())
        return _history_page(found, request.limit)

    # -- inside --

    async def _look_after_sessions(self) -> None:
        """Notice who was not heard of for a while, and whose token ends."""
        while True:
            now = asyncio.get_running_loop().time()
            for session in list(self._sessions.values()):
                reachable = session.silence(now) <= self.limits.unreachable_after
                if reachable is not session.reachable:
                    session.reachable = reachable
                    self._spawn(self._tell_reachable(session, reachable=reachable))
                self._look_at_token(session)
            await asyncio.sleep(_LOOK_INTERVAL)

    async def _tell_reachable(self, session: Session, *, reachable: bool) -> None:
        try:
            await self._engine.set_reachable(*session.user, session.id, reachable=reachable)
        except OSError as error:
            logger.warning("the engine was not told of %r: %s", session, error)

    def _look_at_token(self, session: Session) -> None:
        left = session.token_time_left(self._now())
        if left <= 0:
            if session.connection is not None:  # who is away hears it when it comes back
                session.connection.send_now(encode_notice(TokenExpired()))
            self._end(session, ConnectionChangeReason.TOKEN_EXPIRED)
        elif left <= self.limits.token_warning and not session.warned:
            session.warned = True
            session.push(encode_notice(TokenPrivilegeWillExpire()))

    async def sweep(self) -> int:
        """Remove what has expired; returns how many media that were."""
        self._sweep_senders()
        await self.media.sweep_uploads()
        return await self.media.sweep_media()

    def _sweep_senders(self) -> None:
        for sender in self._senders.sweep(asyncio.get_running_loop().time()):
            self._drop_uploads(sender)

    async def _sweep_for_ever(self) -> None:
        rounds = 0
        while True:
            try:
                self._sweep_senders()
                await self.media.sweep_uploads()
                if rounds % _MEDIA_SWEEP_ROUNDS == 0:
                    swept = await self.media.sweep_media()
                    if swept:
                        logger.info("removed %d expired media", swept)
            except OSError:
                logger.exception("sweeping failed; it is tried again")
            rounds += 1
            await asyncio.sleep(_SWEEP_INTERVAL)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Timed:
    """How a message went."""

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome = "received"


def _history_page(found: list[tuple[int, HistoricalMessage]], limit: int) -> HistoryPage:
    """As many messages as fit in one frame, at least one."""
    page: list[HistoricalMessage] = []
    size, last = 0, None
    for key, message in found[:limit]:
        size += len(encode_json(message))
        if page and size > FRAME_LIMIT:
            break
        page.append(message)
        last = key
    return HistoryPage(tuple(page), last if len(page) < len(found) else None)


def _as_family_error(error: ProtocolError) -> RtmError | ProtocolError:
    """Parameters that do not fit a known request are that request's own kind of error."""
    if error.request is None:
        return error
    return error.request.ERROR.named(error.request.INVALID, error.message)
