"""The hub: the domain rules on one node. The gateway and the embedded transport share it.

All code here runs on one asyncio loop and needs no locks. Blocking work (media, SQLite) runs on the
threads of the media service and the engine. A hub uses no sockets: a connection is an object that
takes frames (`registry.Connection`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import LoginError, LoginErrorCode, RenewTokenError
from ..protocol.events import (
    CancelUpload,
    Event,
    ListeningChanged,
    MessagesHandled,
    SessionEnded,
    TokenExpired,
)
from ..protocol.frames import encode_notice
from ..protocol.requests import (
    ChangeChannelAttributes,
    ChangeUserAttributes,
    GetChannelAttributes,
    GetChannelMemberCount,
    GetHistory,
    GetMembers,
    GetUserAttributes,
    JoinChannel,
    LeaveChannel,
    Login,
    PeerCall,
    QueryPeersBySubscriptionOption,
    QueryPeersOnlineStatus,
    RenewToken,
    Request,
    SendChannelMessage,
    SendInvitation,
    SendMessageToPeer,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
)
from ..protocol.values import ConnectionChangeReason, Done, LoginResult, PeerOnlineState
from ..rules.idempotency import IdempotencyCache
from ..rules.limits import Limits
from ..rules.requests import UserRates, sessions_problem
from .auth.policy import LoginPolicy
from .auth.tokens import TokenVerifier
from .dispatch import Dispatcher, Handler
from .engine.contract import Engine
from .engine.node import ChannelEvent, Delivery
from .media.service import MediaService
from .media.store import MediaStore
from .metrics_sink import MetricsSink
from .registry import Action, Connection, Finish, Registry, SessionEnd, Supersede
from .services.administration import AdministrationService
from .services.attributes import AttributeService
from .services.channels import ChannelService
from .services.history import HistoryService
from .services.invitations import InvitationService
from .services.messages import MessageService
from .services.presence import PresenceService
from .session import Session
from .session_log import log_login, log_session_end
from .session_watch import SessionWatch
from .tasks import BackgroundTasks, Outcomes

_SWEEP_INTERVAL = 60.0
_MEDIA_SWEEP_ROUNDS = 60  # media last for days: they are swept once an hour
_STOP_TIMEOUT = 5.0
_ATTACH_TIME = 10.0  # as long as a connection may take for its login

logger = logging.getLogger(__name__)


class Hub:
    """One node. Create it, `start` it on a running loop, and `stop` it on the same loop.

    Args:
        engine: connects the node with users, channels and storage; the hub starts and stops it.
        media_store: keeps the blobs; the hub closes it.
        limits: rates, sizes and times.
        verifiers: maps an app id to the verifier of its tokens; other apps are refused. None is
            for trials: every app id and uid is accepted, and tokens are not verified.
        now: the wall clock, seconds since the epoch.
        observe: called with the app id, "user" or "channel", and the event, when a user logs in or
            out, or joins or leaves a channel.
        metrics_sink: receives the hub's metrics.

    Attributes:
        limits: rates, sizes and times.
        media, channels, presence, history, administration: the services that a gateway calls
            directly.
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
        metrics_sink: MetricsSink | None = None,
    ) -> None:
        self.limits = limits = limits or Limits()
        self.metrics_sink = metrics_sink = metrics_sink or MetricsSink()
        self._engine = engine
        self._now = now
        self._observe = observe
        self._login_policy = LoginPolicy(engine, verifiers, now)
        self._rates = UserRates(limits)
        self._registry: Registry[Session] = Registry(_ATTACH_TIME, limits.session_grace)
        self._expiry: asyncio.TimerHandle | None = None  # fires at the registry's next deadline
        self._tasks = BackgroundTasks()
        self._is_stopping = False
        sends: Outcomes = IdempotencyCache(
            limits.duplicate_window, limits.remembered_sends_of_sender
        )
        self.media = MediaService(engine, media_store, limits, now, metrics_sink)
        self.history = HistoryService(engine, limits, now)
        self._messages = MessageService(
            engine, engine, self.history, sends, limits, now, metrics_sink, self._tasks
        )
        self.channels = ChannelService(
            engine, self.history, sends, limits, now, metrics_sink, observe, self._tasks
        )
        self.presence = PresenceService(engine, limits, self._tasks)
        self.administration = AdministrationService(
            engine, self._login_policy, limits, self._rates, now, self._drop_uploads, self._end_app
        )
        attributes = AttributeService(engine, engine, lambda: int(now() * 1000))
        invitations = InvitationService(engine, limits)
        handlers: dict[type[Request[Any]], Handler] = {
            SendMessageToPeer: self._messages.send,
            SendChannelMessage: self.channels.send,
            JoinChannel: self.channels.join,
            LeaveChannel: self.channels.leave,
            GetMembers: self.channels.members,
            GetChannelMemberCount: self.channels.counts,
            GetHistory: self.history.get,
            SendInvitation: invitations.send,
            RenewToken: self._renew_token,
            QueryPeersOnlineStatus: self.presence.query,
            SubscribePeersOnlineStatus: self.presence.subscribe,
            UnsubscribePeersOnlineStatus: self.presence.unsubscribe,
            QueryPeersBySubscriptionOption: self.presence.subscribed,
            ChangeUserAttributes: attributes.change_user,
            GetUserAttributes: attributes.get_user,
            ChangeChannelAttributes: attributes.change_channel,
            GetChannelAttributes: attributes.get_channel,
        }
        notices: dict[type[Event], Callable[[Session, Any], object]] = {
            CancelUpload: self._cancel_upload,
            ListeningChanged: self._messages.set_listening,
            MessagesHandled: self._messages.handled,
        }
        self._dispatcher = Dispatcher(handlers, notices, self.end, self._undo, self._tasks)
        self._watch = SessionWatch(
            self._registry,
            self.administration,
            self._login_policy,
            self._dispatcher,
            engine,
            limits,
            now,
            self._tasks,
            self._end,
        )
        self.receive = self._dispatcher.receive
        self.perform = self._dispatcher.perform

    # -- start and stop --

    async def start(self) -> None:
        """Start the engine, the media service and the background loops."""
        await self._engine.start(self)
        await self.media.start()
        self._tasks.run_loop("sweep", self._sweep_repeatedly)
        self._tasks.run_loop("session watch", self._watch.run)

    def disconnect_all(self) -> None:
        """Close every connection (1001). Sessions and their transfers stay for the grace period."""
        for session in self._registry:
            if session.connection is not None:
                session.connection.close(1001, "the hub is stopping")

    async def stop(self) -> None:
        """End every session, suspend the uploads, and stop the engine."""
        self._is_stopping = True
        self.disconnect_all()
        for session in self._registry:
            self._end(session, SessionEnd.STOPPING)
        if self._expiry is not None:
            self._expiry.cancel()
        await self._tasks.close(_STOP_TIMEOUT)
        await self.media.stop()
        await self._engine.stop()

    async def problem(self) -> str | None:
        """The sentence that says why the hub cannot serve for now, or None. Raises OSError."""
        return await self._engine.problem() or await self.media.problem()

    @property
    def session_count(self) -> int:
        """The number of sessions on this node, with or without a connection."""
        return len(self._registry)

    @property
    def connection_count(self) -> int:
        """The number of sessions that have a connection."""
        return sum(session.connection is not None for session in self._registry)

    @property
    def channel_count(self) -> int:
        """The number of channels that have members on this node."""
        return len(self.channels)

    @property
    def queued_frames(self) -> int:
        """The number of frames that clients have not acknowledged yet."""
        return sum(len(session.outbox) for session in self._registry)

    # -- sessions --

    async def login(self, login: Login, connection: Connection) -> tuple[Session, LoginResult]:
        """Open a session, or resume the session that the login names.

        The caller sends the result on the connection and then calls `attach`. When it cannot send
        the result, it calls `detach`. A session that is not attached within 10 seconds ends.

        Raises:
            LoginError: the login is refused.
            OSError: the engine failed, or the hub is stopping.
        """
        # The hub owns the task: the claim has to be awaited even when the caller is cancelled.
        task = self._tasks.start(self._log_in(login, connection))
        try:
            session, result = await asyncio.shield(task)
        except LoginError as error:
            self._note_login(login, error.reason.lower())
            raise
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._abandon(done, connection))
            raise
        self._note_login(login, "resumed" if result.resumed else "new")
        return session, result

    async def _log_in(self, login: Login, connection: Connection) -> tuple[Session, LoginResult]:
        grant = await self._login_policy.admit(login)
        if self._is_stopping:
            raise OSError("The hub is stopping.")
        now = asyncio.get_running_loop().time()
        session = self._registry.get(login.session or "")
        if session is not None and session.user == (login.app_id, login.uid):
            try:
                session.rewind(login.received)
            except ValueError as error:
                logger.info("%r cannot resume: %s", session, error)
            else:
                session.set_grant(grant)
                self._messages.set_listening(session, ListeningChanged(login.listens))
                self._perform(self._registry.resumed(session, connection, now))
                return session, self._login_result(session, resumed=True)
        refusal = self._rates.of((login.app_id, login.uid), now).refusal("logins", now)
        if refusal is not None:
            raise LoginError.named(*refusal)
        of_app = self._registry.count(login.app_id)
        problem = sessions_problem(len(self._registry), of_app, self.limits)
        if problem is not None:
            raise LoginError(LoginErrorCode.LOGIN_ERR_REJECTED, problem)
        session = Session(login.app_id, login.uid, self.limits, self._rates, self._overflowed)
        session.set_grant(grant)
        self._registry.opened(session, connection, now)
        self._await_deadline()
        try:
            claim = await self._engine.claim(login.app_id, login.uid, session.id)
        except BaseException:
            self._end(session, SessionEnd.REFUSED)
            raise
        self._perform(self._registry.claimed(session, claim.revision))
        if not session.lives:
            self._tasks.spawn(self._leave_engine(session))  # the claim succeeded after its end
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_REJECTED,
                "The session ended before its login was complete.",
            )
        self._messages.opened(session, listens=login.listens)
        self._report_user_event(session, "Login")
        return session, self._login_result(session, resumed=False)

    def attach(self, session: Session, connection: Connection) -> bool:
        """Attach the login's connection. Returns False when the session no longer waits for it."""
        if not self._registry.attached(session, connection):
            return False
        connection.wake()
        return True

    def detach(self, session: Session, connection: Connection) -> None:
        """A connection is closed. A session that can be resumed stays for the grace period."""
        now = asyncio.get_running_loop().time()
        self._perform(self._registry.detached(session, connection, now))

    def _abandon(
        self, login: asyncio.Task[tuple[Session, LoginResult]], connection: Connection
    ) -> None:
        """Detach the session of a finished login whose caller was cancelled."""
        if not login.cancelled() and login.exception() is None:
            self.detach(login.result()[0], connection)

    def end(self, session: Session) -> None:
        """Log the session out."""
        self._end(session, SessionEnd.LOGOUT)

    def _overflowed(self, session: Session) -> None:
        self._end(session, SessionEnd.SLOW_CONSUMER)

    def _end(self, session: Session, end: SessionEnd) -> None:
        self._perform(self._registry.ended(session, end))

    def _tick(self) -> None:
        self._expiry = None
        self._perform(self._registry.tick(asyncio.get_running_loop().time()))

    def _perform(self, actions: list[Action[Session]]) -> None:
        """Perform all actions that the registry returned, whatever becomes of the others."""
        for action in actions:
            try:
                if isinstance(action, Supersede):
                    action.connection.close(4000, "another connection has taken over the session")
                else:
                    self._finish(action)
            except Exception:
                logger.exception("a change of sessions was not completed: %r", action)
        self._await_deadline()

    def _await_deadline(self) -> None:
        """Set the timer to the registry's next deadline."""
        deadline = self._registry.deadline
        if deadline is None or self._is_stopping:
            return
        if self._expiry is not None:
            if self._expiry.when() <= deadline:
                return
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_at(deadline, self._tick)

    def session(self, session_id: str) -> Session | None:
        """The session or service session with this secret id, or None."""
        session = self._registry.get(session_id) or self.administration.by_bearer(session_id)
        return session if session is not None and self.allows(session) else None

    def allows(self, session: Session) -> bool:
        """Whether a transfer of the session may go on: its credentials are still valid.

        A service session of which there were too many makes no transfer invalid.
        """
        has_ended = session.life.end not in (None, SessionEnd.REPLACED)
        return not has_ended and self._login_policy.holds(session.app_id, session.grant)

    def replace_verifiers(self, verifiers: Mapping[str, TokenVerifier]) -> None:
        """Replace the apps and their keys. Sessions of keys that are gone end within a second."""
        self._login_policy.replace(verifiers)

    def _end_app(self, app_id: str) -> int:
        """End the sessions of an app on this node; returns their number."""
        sessions = [session for session in self._registry if session.app_id == app_id]
        for session in sessions:
            self._end(session, SessionEnd.BANNED_BY_SERVER)
        return len(sessions)

    def _login_result(self, session: Session, *, resumed: bool) -> LoginResult:
        session.acknowledged = session.received
        return LoginResult(session.id, resumed, session.received, self.limits.outbox_frames)

    def _finish(self, finish: Finish[Session]) -> None:
        """Close the connection of an ended session, and remove its registered state."""
        self._undo(finish.session)  # first: what follows may fail
        session, connection, end = finish.session, finish.connection, finish.end
        self.metrics_sink.session_ended(end.value)
        log_session_end(session, end)
        if connection is not None:
            _close(connection, end)
        if end is SessionEnd.LOGOUT or end.reason is not None:
            self._drop_uploads(session)  # after a lost connection the client may resume them
        session.end()
        self._report_user_event(session, "Logout")
        self.channels.ended(session)

    def _undo(self, session: Session) -> None:
        """Remove the registered state of an ended session. Idempotent."""
        self.presence.forget(session)
        self.channels.forget(session)
        self._messages.forget(session)
        self._tasks.spawn(self._leave_engine(session))

    def _drop_uploads(self, session: Session) -> None:
        for upload in self.media.discardable_uploads(session):
            self._tasks.spawn(self.media.drop_upload(upload))

    async def _leave_engine(self, session: Session) -> None:
        try:
            await self._engine.release(session.app_id, session.uid, session.id)
            for channel_id in sorted(session.memberships):
                await self._engine.leave(session.app_id, channel_id, session.uid, session.id)
        except OSError:
            logger.exception("the engine could not release %r", session)

    # -- Node: called by the engine --

    async def deliver_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        session = self._registry.of_user(app_id, uid)
        if session is None:
            return Delivery.OFFLINE
        return await self._messages.deliver(session, message)

    def listens(self, app_id: str, uid: str) -> bool:
        session = self._registry.of_user(app_id, uid)
        return session is not None and self._messages.listens(session)

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        self.channels.deliver(app_id, event)

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        session = self._registry.get(session_id)
        if session is not None:
            self._end(session, SessionEnd.of(reason))

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        self.presence.changed(app_id, uid, state)

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        self.channels.count_changed(app_id, channel_id, count)

    # -- inside --

    def _cancel_upload(self, session: Session, event: CancelUpload) -> None:
        self._tasks.spawn(self.media.cancel_upload(session, event.key))

    async def _renew_token(self, session: Session, request: RenewToken) -> Done:
        session.check_rate("token_renewals", RenewTokenError)
        try:
            grant = await self._login_policy.grant(session.app_id, session.uid, request.token)
        except LoginError as error:
            reason = error.reason if error.reason == "TOKEN_EXPIRED" else "INVALID_TOKEN"
            raise RenewTokenError.named(reason, error.message, error) from error
        session.set_grant(grant)
        return Done()

    def _note_login(self, login: Login, outcome: str) -> None:
        self.metrics_sink.login(outcome)
        log_login(login, outcome)

    def _report_user_event(self, session: Session, kind: str) -> None:
        event = {"user_id": session.uid, "type": kind, "ms": int(self._now() * 1000)}
        self._observe(session.app_id, "user", event)

    async def sweep(self) -> int:
        """Remove expired service sessions, uploads and media; return the number of media."""
        self.administration.sweep()
        await self.media.sweep_uploads()
        return await self.media.sweep_media()

    async def _sweep_repeatedly(self) -> None:
        rounds = 0
        while True:
            await self.media.sweep_uploads()
            if rounds % _MEDIA_SWEEP_ROUNDS == 0:
                swept = await self.media.sweep_media()
                if swept:
                    logger.info("removed %d expired media", swept)
            rounds += 1
            await asyncio.sleep(_SWEEP_INTERVAL)


def _close(connection: Connection, end: SessionEnd) -> None:
    """Send the reason for the session's end on a connection, and close it."""
    if end is SessionEnd.TOKEN_EXPIRED:
        connection.send_now(encode_notice(TokenExpired()))
    if end.reason is not None:
        connection.send_now(encode_notice(SessionEnded(end.reason)))
        connection.close(4001, end.reason.name)
    elif end is SessionEnd.SLOW_CONSUMER:
        connection.close(4008, "slow consumer: too many frames are not acknowledged")
    elif end is SessionEnd.STOPPING:
        connection.close(1001, "the hub is stopping")
    elif end is SessionEnd.LOST:
        connection.close(4003, "the login was not answered in time")
