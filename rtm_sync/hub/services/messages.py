"""Messages from user to user: delivered with a receipt, and stored until they are handled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from ...errors import PeerMessageError
from ...protocol.errors import ProtocolError, RpcCode
from ...protocol.events import ListeningChanged, MessagesHandled
from ...protocol.requests import MessageFromPeer, PeerCall, SendMessageToPeer
from ...protocol.values import PeerMessageSendResult, ReceivedMessageProperties
from ...rules.limits import Limits
from ...rules.requests import peer_message_refusal
from ..engine.bus import Bus
from ..engine.mailbox import Mailbox, MailboxFull, MailboxLimits
from ..engine.node import Delivery
from ..engine.part import QuotaExceeded, Quotas
from ..metrics_sink import MetricsSink, timed
from ..session import Session
from ..tasks import BackgroundTasks, Outcomes, once
from .deliveries import Deliveries
from .history import HistoryService

_REPORTED_AT_ONCE = 1000  # keys in one report of a client
_MAX_REPORTED = 20_000  # keys of one user that wait for their deletion
_DELETE_EVERY = 0.02  # seconds; what is reported meanwhile is deleted together
_PAUSE = 1.0  # seconds until a failed deletion is tried again

logger = logging.getLogger(__name__)


class MessageService:
    """Serves `send_message_to_peer`, and delivers messages to the sessions of this node.

    Args:
        bus: delivers messages.
        mailbox: stores messages until they are handled.
        history: stores the messages sent with `enable_historical_messaging`.
        sends: the outcomes of recent sends: a message sent twice is delivered once.
        limits: rates, sizes and times.
        now: the wall clock, seconds since the epoch.
        metrics_sink: records each message.
        tasks: runs what delivers and deletes stored messages.
    """

    def __init__(
        self,
        bus: Bus,
        mailbox: Mailbox,
        history: HistoryService,
        sends: Outcomes,
        limits: Limits,
        now: Callable[[], float],
        metrics_sink: MetricsSink,
        tasks: BackgroundTasks,
    ) -> None:
        self._bus = bus
        self._mailbox = mailbox
        self._history = history
        self._sends = sends
        self._limits = limits
        self._now = now
        self._metrics_sink = metrics_sink
        self._tasks = tasks
        self._deliveries: dict[Session, Deliveries] = {}
        # Handled, and not deleted yet: nobody is offered them again.
        self._reported: dict[tuple[str, str], set[int]] = {}
        self._is_deleting = False
        self._mailbox_limits = MailboxLimits(
            limits.offline_messages,
            limits.mailbox_messages,
            limits.mailbox_bytes,
            limits.retention,
            limits.mailbox_sender_messages,
            limits.mailbox_sender_bytes,
            Quotas(limits.user_message_bytes, limits.app_message_bytes),
        )

    # -- sending --

    async def send(self, session: Session, request: SendMessageToPeer) -> PeerMessageSendResult:
        refusal = peer_message_refusal(request)
        if refusal is not None:
            raise PeerMessageError.named(*refusal)
        session.check_rate("sends", PeerMessageError)
        with timed(self._metrics_sink, "peer") as timing:
            result = await once(
                self._sends,
                session.user,
                f"peer {request.peer_id} {request.message_id}",
                lambda: self._send(session, request),
                PeerMessageError,
                # Remember only a delivery: an offline peer may be online at the next attempt.
                lambda result: result.has_peer_received or result.cached_by_server,
            )
            if not result.has_peer_received:
                timing.outcome = "cached" if result.cached_by_server else "offline"
            return result

    async def _send(self, session: Session, request: SendMessageToPeer) -> PeerMessageSendResult:
        is_kept = request.enable_offline_messaging
        listens = not is_kept or await self._bus.listens(session.app_id, request.peer_id)
        props = ReceivedMessageProperties(
            int(self._now() * 1000),
            is_offline_message=not listens,
            message_id=request.message_id,
        )
        message = MessageFromPeer(request.message, session.uid, request.message_id, props)
        if request.enable_historical_messaging:
            await self._history.keep(session, request.peer_id, message)
        if is_kept:
            stored = await self._stored(
                session.app_id, request.peer_id, message, is_offered=listens
            )
            if stored is None:
                return PeerMessageSendResult(has_peer_received=True)
            message = stored
        try:
            delivery = await self._bus.send_to_peer(session.app_id, request.peer_id, message)
        except OSError:
            if message.key is None:
                raise
            delivery = Delivery.OFFLINE
        if message.key is not None:
            received = delivery is Delivery.RECEIVED
            return PeerMessageSendResult(received, cached_by_server=not received)
        if delivery is Delivery.UNCONFIRMED:
            raise PeerMessageError.named(
                "TIMEOUT",
                f"{request.peer_id!r} did not confirm within {self._limits.receipt_timeout:g} "
                "seconds; it may still arrive.",
            )
        return PeerMessageSendResult(delivery is Delivery.RECEIVED)

    async def _stored(
        self, app_id: str, uid: str, message: MessageFromPeer, *, is_offered: bool
    ) -> MessageFromPeer | None:
        """Store a message before it is offered. Returns it with its key.

        Returns None for a copy of a message that the receiver has handled: another hub, or this one
        before its restart, delivered it, and the sender was not told.
        """
        try:
            key = await self._mailbox.store(
                app_id, uid, message, self._mailbox_limits, is_offered=is_offered
            )
        except (MailboxFull, QuotaExceeded) as full:
            raise PeerMessageError.named("FAILURE", str(full), full) from full
        return None if key is None else replace(message, key=key)

    # -- delivering to the sessions of this node --

    def opened(self, session: Session, *, listens: bool) -> None:
        """A new session of this node receives its user's messages, the stored ones first."""
        self._deliveries[session] = Deliveries(
            session,
            self._mailbox,
            self._limits,
            self._tasks,
            listens=listens,
            reported=lambda: self._reported.get(session.user, ()),
        )

    def forget(self, session: Session) -> None:
        """Forget an ended session. The messages that it has not handled stay stored. Idempotent."""
        deliveries = self._deliveries.pop(session, None)
        if deliveries is not None:
            deliveries.end()

    async def deliver(self, session: Session, call: PeerCall) -> Delivery:
        """Deliver a message, or a step of an invitation, to a session of this node."""
        deliveries = self._deliveries.get(session)
        if deliveries is None:
            return Delivery.OFFLINE
        if isinstance(call, MessageFromPeer):
            return await deliveries.deliver(call)
        return await session.call(call) if session.has_room_for_peers() else Delivery.OFFLINE

    def listens(self, session: Session) -> bool:
        """Whether the session's client takes stored messages now."""
        deliveries = self._deliveries.get(session)
        return deliveries is not None and deliveries.listens

    def set_listening(self, session: Session, event: ListeningChanged) -> None:
        """The session's client has begun or stopped to take stored messages."""
        deliveries = self._deliveries.get(session)
        if deliveries is not None:
            deliveries.set_listening(event.listens)

    def handled(self, session: Session, event: MessagesHandled) -> None:
        """The session's client has handled stored messages: delete them.

        Raises:
            ProtocolError: the report has too many keys.
        """
        if len(event.keys) > _REPORTED_AT_ONCE:
            raise ProtocolError(
                RpcCode.INVALID_PARAMS,
                f"{len(event.keys):,} keys are reported; the limit is {_REPORTED_AT_ONCE:,}.",
            )
        deliveries = self._deliveries.get(session)
        if deliveries is not None:
            deliveries.handled(event.keys)
        reported = self._reported.setdefault(session.user, set())
        if len(reported) < _MAX_REPORTED:  # a message that is not deleted comes again
            reported.update(event.keys)
        if not self._is_deleting:
            self._is_deleting = True
            self._tasks.spawn(self._delete_reported())

    async def _delete_reported(self) -> None:
        """Delete what was reported; what is reported meanwhile is deleted together, later."""
        try:
            while self._reported:
                batch = {user: sorted(keys) for user, keys in self._reported.items()}
                outcomes = await asyncio.gather(
                    *(
                        self._mailbox.discard(*user, keys, remember=self._limits.duplicate_window)
                        for user, keys in batch.items()
                    ),
                    return_exceptions=True,
                )
                failures = []
                for (user, keys), outcome in zip(batch.items(), outcomes, strict=True):
                    if isinstance(outcome, BaseException):
                        failures.append(outcome)
                        continue
                    self._reported[user].difference_update(keys)
                    if not self._reported[user]:
                        del self._reported[user]
                if failures:
                    logger.warning("handled messages cannot be deleted yet: %s", failures[0])
                if self._reported:
                    await asyncio.sleep(_PAUSE if failures else _DELETE_EVERY)
        finally:
            self._is_deleting = False
