"""Invitations: each step is delivered to the other user, and the sender gets a receipt."""

from __future__ import annotations

import asyncio

from ...errors import InvitationApiCallError
from ...protocol.requests import InvitationFromPeer, SendInvitation
from ...protocol.values import InvitationReceipt, InvitationSent
from ...rules.limits import Limits
from ...rules.requests import invitation_problem
from ..engine.bus import Bus
from ..engine.node import Delivery
from ..session import Session

_RECEIPT_TIMEOUT = 2.0  # seconds; the caller sends the step again after the same time


class InvitationService:
    """Serves `send_invitation`. The two clients keep the state of an invitation.

    Args:
        bus: delivers the steps.
        limits: rates, sizes and times.
    """

    def __init__(self, bus: Bus, limits: Limits) -> None:
        self._bus = bus
        self._limits = limits

    async def send(self, session: Session, request: SendInvitation) -> InvitationSent:
        problem = invitation_problem(request, self._limits)
        if problem is not None:
            raise InvitationApiCallError.named("INVALID_ARGUMENT", problem)
        session.check_rate("sends", InvitationApiCallError)
        step = InvitationFromPeer(
            session.uid, request.invitation_id, request.step, request.content, request.channel_id
        )
        delivering = self._bus.send_to_peer(session.app_id, request.peer_id, step)
        try:
            delivery = await asyncio.wait_for(delivering, _RECEIPT_TIMEOUT)
        except asyncio.TimeoutError:
            delivery = Delivery.UNCONFIRMED
        return InvitationSent(InvitationReceipt[delivery.name])
