"""Messages from user to user: delivered with a receipt, or stored for the next login."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from ...errors import PeerMessageError
from ...protocol.errors import ProtocolError
from ...protocol.requests import MessageFromPeer, SendMessageToPeer
from ...protocol.values import PeerMessageSendResult, ReceivedMessageProperties
from ...rules.limits import Limits
from ...rules.requests import peer_message_refusal
from ..engine.bus import Bus
from ..engine.mailbox import Mailbox
from ..engine.node import Delivery
from ..metrics_sink import MetricsSink, timed
from ..session import Session
from ..tasks import Outcomes, once
from .history import HistoryService

logger = logging.getLogger(__name__)


class MessageService:
    """Serves `send_message_to_peer`, and delivers a user's offline messages to a new session.

    Args:
        bus: delivers messages.
        mailbox: stores messages for the next login.
        history: stores the messages sent with `enable_historical_messaging`.
        sends: the outcomes of recent sends: a message sent twice is delivered once.
        limits: rates, sizes and times.
        now: the wall clock, seconds since the epoch.
        metrics_sink: records each message.
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
    ) -> None:
        self._bus = bus
        self._mailbox = mailbox
        self._history = history
        self._sends = sends
        self._limits = limits
        self._now = now
        self._metrics_sink = metrics_sink

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
                lambda: self._deliver(session, request),
                PeerMessageError,
                # Remember only a delivery: an offline peer may be online at the next attempt.
                lambda result: result.has_peer_received or result.cached_by_server,
            )
            if not result.has_peer_received:
                timing.outcome = "cached" if result.cached_by_server else "offline"
            return result

    async def deliver_offline_messages(self, session: Session) -> None:
        """Send a new session its user's offline messages, then the frames deferred since login."""
        receipts: list[asyncio.Future[Delivery]] = []
        try:
            waiting = await self._mailbox.offline(session.app_id, session.uid, self._now())
            receipts = [await session.call_first(item.message) for item in waiting]
        except (OSError, ProtocolError):
            logger.exception("offline messages of %r cannot be read; they stay stored", session)
        finally:
            session.release()
        for item, receipt in zip(waiting if receipts else (), receipts, strict=True):
            if await receipt is Delivery.RECEIVED:
                # On failure the message is delivered again; the client drops duplicates.
                with contextlib.suppress(OSError):
                    await self._mailbox.discard_offline(session.app_id, session.uid, [item.key])

    async def _deliver(self, session: Session, request: SendMessageToPeer) -> PeerMessageSendResult:
        message = MessageFromPeer(
            request.message,
            session.uid,
            request.message_id,
            ReceivedMessageProperties(int(self._now() * 1000)),
        )
        if request.enable_historical_messaging:
            await self._history.keep(session, request.peer_id, message)
        delivery = await self._bus.send_to_peer(session.app_id, request.peer_id, message)
        if delivery is Delivery.UNCONFIRMED:
            raise PeerMessageError.named(
                "TIMEOUT",
                f"{request.peer_id!r} did not confirm within {self._limits.receipt_timeout:g} "
                "seconds; it may still arrive.",
            )
        if delivery is Delivery.RECEIVED or not request.enable_offline_messaging:
            return PeerMessageSendResult(delivery is Delivery.RECEIVED)
        kept = replace(
            message, message_props=replace(message.message_props, is_offline_message=True)
        )
        await self._mailbox.store_offline(
            session.app_id,
            request.peer_id,
            kept,
            self._limits.offline_messages,
            self._limits.retention,
        )
        return PeerMessageSendResult(has_peer_received=False, cached_by_server=True)
