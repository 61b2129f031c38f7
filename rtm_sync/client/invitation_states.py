"""The state machines of an invitation: the caller's end and the callee's end.

The hub only relays the steps between the two ends. Each end has its own state and its own
time-outs.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ..errors import InvitationApiCallError
from ..protocol.requests import InvitationFromPeer
from ..protocol.values import (
    InvitationReceipt,
    InvitationStep,
    LocalInvitationFailureReason,
    LocalInvitationState,
    RemoteInvitationFailureReason,
    RemoteInvitationState,
)
from .events import EventEmitter


@dataclass(frozen=True, slots=True)
class InvitationTimes:
    """The time limits of an invitation, in seconds.

    Attributes:
        resend: between two attempts to reach the callee (reference 1.3, web: 2 s).
        give_up: from `send` until the invitation fails without a receipt (reference 1.3: 30 s).
        answer: from the receipt until the callee must have answered (reference 1.3: 60 s).
    """

    resend: float = 2.0
    give_up: float = 30.0
    answer: float = 60.0


class Registry(Protocol):
    """The methods of `InvitationRegistry` that an end uses."""

    @property
    def times(self) -> InvitationTimes: ...

    def is_logged_in(self) -> bool: ...

    def changing(self) -> AbstractContextManager[float]:
        """Hold the registry's lock for a block that changes an end; gives the time."""

    def keep(self, end: InvitationEnd) -> None:
        """Add a sent end to the open ones. The lock is held.

        Raises:
            InvitationApiCallError: there are too many open ones, or no thread can be started.
        """

    def drop(self, end: InvitationEnd, by: InvitationStep | None = None) -> None:
        """Remove an end that is over; `by` is the other end's step. The lock is held."""

    def tell(self, end: InvitationEnd, event: str, *args: object) -> None:
        """Queue the event for its handlers. The lock is held."""


class InvitationEnd(ABC):
    """One end of an invitation. The registry's lock guards its mutable attributes.

    Attributes:
        is_ours: this client is the caller.
        peer_id: the user at the other end.
        id: the invitation's id, the same at both ends.
        content, channel_id: the caller's text, and a channel that the caller names, or "".
        response: the callee's text.
        due: the monotonic time at which the registry's thread must act on the end; None for never.
        outgoing: the steps that the registry has to send.
        is_sending: a step is being sent. The others wait, so that none overtakes another.
        emitter: the invitation as the application sees it; it sets this.
    """

    is_ours: bool
    emitter: EventEmitter

    def __init__(self, registry: Registry, peer_id: str, invitation_id: str) -> None:
        self._registry = registry
        self.peer_id = peer_id
        self.id = invitation_id
        self.content = ""
        self.channel_id = ""
        self.response = ""
        self.due: float | None = None
        self.outgoing: list[InvitationStep] = []
        self.is_sending = False

    @abstractmethod
    def delivered(self, receipt: InvitationReceipt, now: float) -> None:
        """Record that a step was sent, and its receipt. The lock is held."""

    @abstractmethod
    def check_times(self, now: float) -> None:
        """Fail when the time limit has passed. The lock is held."""

    @abstractmethod
    def received(self, step: InvitationStep, content: str) -> bool:
        """Process a step of the other end; False when it is too late. The lock is held."""

    @abstractmethod
    def abandon(self) -> None:
        """Fail an open invitation because the session has ended. The lock is held."""


_ANSWERS = {
    InvitationStep.ACCEPT: (LocalInvitationState.ACCEPTED_BY_REMOTE, "LocalInvitationAccepted"),
    InvitationStep.REFUSE: (LocalInvitationState.REFUSED_BY_REMOTE, "LocalInvitationRefused"),
}
"""The caller's state after each answer, and the event that reports it."""


class CallerEnd(InvitationEnd):
    """The caller's end: sent again until it is received, then waits for the answer."""

    is_ours = True
    _OVER = frozenset(
        {
            LocalInvitationState.ACCEPTED_BY_REMOTE,
            LocalInvitationState.REFUSED_BY_REMOTE,
            LocalInvitationState.CANCELED,
            LocalInvitationState.FAILURE,
        }
    )

    def __init__(self, registry: Registry, callee_id: str) -> None:
        super().__init__(registry, callee_id, secrets.token_urlsafe(16))
        self.state = LocalInvitationState.IDLE
        self._give_up = 0.0
        self._seen_online = False

    def send(self) -> None:
        """Have the registry send the invitation; it fails when the client is not logged in.

        Raises:
            InvitationApiCallError: ALREADY_SENT, or as `Registry.keep`.
        """
        with self._registry.changing() as now:
            if self.state is not LocalInvitationState.IDLE:
                raise InvitationApiCallError.named(
                    "ALREADY_SENT", "An invitation is sent once; make a new one."
                )
            if not self._registry.is_logged_in():
                self._fail(LocalInvitationFailureReason.NOT_LOGGEDIN)
                return
            self._registry.keep(self)
            self.state = LocalInvitationState.SENT_TO_REMOTE
            self._give_up = now + self._registry.times.give_up
            self.outgoing.append(InvitationStep.INVITE)
            self.due = now

    def cancel(self) -> None:
        """Have the registry send the cancellation.

        Raises:
            InvitationApiCallError: NOT_STARTED or ALREADY_END.
        """
        with self._registry.changing() as now:
            if self.state is LocalInvitationState.IDLE:
                raise InvitationApiCallError.named(
                    "NOT_STARTED", "The invitation was not sent yet; call send() first."
                )
            if self.state in self._OVER:
                raise InvitationApiCallError.named(
                    "ALREADY_END", f"The invitation is over: {self.state.value}."
                )
            self.state = LocalInvitationState.CANCELED
            self.outgoing = [InvitationStep.CANCEL]
            self.due = now
            self._registry.tell(self, "LocalInvitationCanceled")

    def delivered(self, receipt: InvitationReceipt, now: float) -> None:
        if self.state is not LocalInvitationState.SENT_TO_REMOTE:
            return
        if receipt is InvitationReceipt.RECEIVED:
            self.state = LocalInvitationState.RECEIVED_BY_REMOTE
            self.due = self._give_up = now + self._registry.times.answer
            self._registry.tell(self, "LocalInvitationReceivedByPeer")
        else:
            self._seen_online = receipt is InvitationReceipt.UNCONFIRMED
            self.outgoing = [InvitationStep.INVITE]
            self.due = now + self._registry.times.resend

    def check_times(self, now: float) -> None:
        reasons = LocalInvitationFailureReason
        if now < self._give_up:
            return
        if self.state is LocalInvitationState.SENT_TO_REMOTE:
            self._fail(reasons.PEER_NO_RESPONSE if self._seen_online else reasons.PEER_OFFLINE)
        elif self.state is LocalInvitationState.RECEIVED_BY_REMOTE:
            self._fail(reasons.INVITATION_EXPIRE)

    def received(self, step: InvitationStep, content: str) -> bool:
        sent = (LocalInvitationState.SENT_TO_REMOTE, LocalInvitationState.RECEIVED_BY_REMOTE)
        if step not in _ANSWERS or self.state not in sent:
            return False
        if self.state is LocalInvitationState.SENT_TO_REMOTE:  # the answer came before the receipt
            self._registry.tell(self, "LocalInvitationReceivedByPeer")
        self.state, event = _ANSWERS[step]
        self.response = content
        self.outgoing, self.due = [], None
        self._registry.tell(self, event, content)
        self._registry.drop(self, step)
        return True

    def abandon(self) -> None:
        if self.state not in self._OVER:
            self._fail(LocalInvitationFailureReason.NOT_LOGGEDIN)

    def _fail(self, reason: LocalInvitationFailureReason) -> None:
        self.state = LocalInvitationState.FAILURE
        self.outgoing, self.due = [], None
        self._registry.tell(self, "LocalInvitationFailure", reason)
        self._registry.drop(self)


class CalleeEnd(InvitationEnd):
    """The callee's end: waits for the application's answer, and sends it."""

    is_ours = False

    def __init__(self, registry: Registry, invitation: InvitationFromPeer, now: float) -> None:
        super().__init__(registry, invitation.peer_id, invitation.invitation_id)
        self.content = invitation.content
        self.channel_id = invitation.channel_id
        self.state = RemoteInvitationState.INVITATION_RECEIVED
        self.due = self._give_up = now + registry.times.answer

    def answer(self, response: str, step: InvitationStep) -> None:
        """Have the registry send the answer: ACCEPT or REFUSE.

        Raises:
            InvitationApiCallError: ALREADY_ACCEPT or ALREADY_END.
        """
        accepting = step is InvitationStep.ACCEPT
        accepted = (RemoteInvitationState.ACCEPT_SENT_TO_LOCAL, RemoteInvitationState.ACCEPTED)
        with self._registry.changing() as now:
            if self.state in accepted and accepting:
                raise InvitationApiCallError.named(
                    "ALREADY_ACCEPT", "The invitation was accepted already."
                )
            if self.state is not RemoteInvitationState.INVITATION_RECEIVED:
                raise InvitationApiCallError.named(
                    "ALREADY_END", f"The invitation is over: {self.state.value}."
                )
            self.state = (
                RemoteInvitationState.ACCEPT_SENT_TO_LOCAL
                if accepting
                else RemoteInvitationState.REFUSED
            )
            self.response = response
            self.outgoing, self.due = [step], now
            if not accepting:
                self._registry.tell(self, "RemoteInvitationRefused")

    def delivered(self, receipt: InvitationReceipt, now: float) -> None:
        if self.state is RemoteInvitationState.ACCEPT_SENT_TO_LOCAL:
            reasons = RemoteInvitationFailureReason
            if receipt is InvitationReceipt.RECEIVED:
                self.state = RemoteInvitationState.ACCEPTED
                self._registry.tell(self, "RemoteInvitationAccepted")
            else:
                offline = receipt is InvitationReceipt.OFFLINE
                self._fail(reasons.PEER_OFFLINE if offline else reasons.ACCEPT_FAILURE)
                return
        elif receipt is InvitationReceipt.UNCONFIRMED and now < self._give_up:
            self.outgoing = [InvitationStep.REFUSE]
            self.due = now + self._registry.times.resend
            return
        self.due = None
        self._registry.drop(self)

    def check_times(self, now: float) -> None:
        waiting = self.state is RemoteInvitationState.INVITATION_RECEIVED
        if waiting and now >= self._give_up:
            self._fail(RemoteInvitationFailureReason.INVITATION_EXPIRE)

    def received(self, step: InvitationStep, content: str) -> bool:
        if step is InvitationStep.INVITE:
            return True  # a copy
        if step is not InvitationStep.CANCEL:
            return False
        if self.state is not RemoteInvitationState.INVITATION_RECEIVED:
            return False
        self.state = RemoteInvitationState.CANCELED
        self.due = None
        self._registry.tell(self, "RemoteInvitationCanceled", content)
        self._registry.drop(self, step)
        return True

    def abandon(self) -> None:
        open_states = (
            RemoteInvitationState.INVITATION_RECEIVED,
            RemoteInvitationState.ACCEPT_SENT_TO_LOCAL,
        )
        if self.state in open_states:
            self._fail(RemoteInvitationFailureReason.UNKNOWN)

    def _fail(self, reason: RemoteInvitationFailureReason) -> None:
        self.state = RemoteInvitationState.FAILURE
        self.outgoing, self.due = [], None
        self._registry.tell(self, "RemoteInvitationFailure", reason)
        self._registry.drop(self)
