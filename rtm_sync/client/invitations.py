"""Call invitations: the state machines of the caller's end and of the callee's end.

An invitation is two objects: the caller's `LocalInvitation` and the callee's `RemoteInvitation`.
The hub only relays the steps between them; each end knows its own state, and gives up by its own
clock. Accepting joins no channel: what an invitation is about is the applications' affair.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvitationApiCallError
from ..protocol.ids import id_problem
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
from .handlers import LocalInvitationEvents, RemoteInvitationEvents

if TYPE_CHECKING:
    from .invitation_registry import InvitationRegistry

CONTENT_LIMIT = 8 * 1024
"""Bytes in an invitation's content and in its response (reference 1.3: 8 KB)."""


@dataclass(frozen=True, slots=True)
class InvitationTimes:
    """How long the ends of an invitation wait for each other, in seconds.

    Attributes:
        resend: between attempts to reach the callee (reference 1.3, web: 2 s).
        give_up: without a receipt (reference 1.3: 30 s).
        answer: for the callee to answer (reference 1.3: 60 s).
    """

    resend: float = 2.0
    give_up: float = 30.0
    answer: float = 60.0


class _Invitation(EventEmitter):
    """What both ends have. `_registry._lock` guards all that changes."""

    def __init__(self, registry: InvitationRegistry, peer_id: str, invitation_id: str) -> None:
        super().__init__()
        self._registry = registry
        self._peer_id = peer_id
        self._id = invitation_id
        self._content = ""
        self._channel_id = ""
        self._response = ""
        self._due: float | None = None  # when the book's thread must look at it, monotonic
        self._outgoing: list[InvitationStep] = []  # steps to send

    @property
    def content(self) -> str:
        """What the caller says; at most 8 KB."""
        return self._content

    @property
    def channel_id(self) -> str:
        """A channel the caller names, or "" (for the applications; nobody joins it)."""
        return self._channel_id

    @property
    def response(self) -> str:
        """What the callee answers; at most 8 KB."""
        return self._response


class LocalInvitation(LocalInvitationEvents, _Invitation):
    """An invitation to somebody; made by `RtmClient.create_local_invitation`. Thread-safe.

    Set `content` and `channel_id`, then `send()`. Events: `LocalInvitationReceivedByPeer()`,
    `LocalInvitationAccepted(response)`, `LocalInvitationRefused(response)`,
    `LocalInvitationCanceled()`, `LocalInvitationFailure(reason)`.
    """

    EVENTS = frozenset(
        {
            "LocalInvitationReceivedByPeer",
            "LocalInvitationAccepted",
            "LocalInvitationRefused",
            "LocalInvitationCanceled",
            "LocalInvitationFailure",
        }
    )
    _OVER = frozenset(
        {
            LocalInvitationState.ACCEPTED_BY_REMOTE,
            LocalInvitationState.REFUSED_BY_REMOTE,
            LocalInvitationState.CANCELED,
            LocalInvitationState.FAILURE,
        }
    )

    def __init__(self, registry: InvitationRegistry, callee_id: str) -> None:
        super().__init__(registry, callee_id, secrets.token_urlsafe(16))
        self._state = LocalInvitationState.IDLE
        self._give_up = 0.0
        self._seen_online = False

    def __repr__(self) -> str:
        return f"<LocalInvitation to {self._peer_id!r} {self._state.value}>"

    @property
    def callee_id(self) -> str:
        """Who is invited."""
        return self._peer_id

    @property
    def state(self) -> LocalInvitationState:
        """Where it stands now."""
        return self._state

    @property
    def content(self) -> str:
        """What the caller says, until it is sent; at most 8 KB (checked by `send`)."""
        return self._content

    @content.setter
    def content(self, content: str) -> None:
        self._content = content

    @property
    def channel_id(self) -> str:
        """A channel to name, or "" (for the applications; nobody joins it)."""
        return self._channel_id

    @channel_id.setter
    def channel_id(self, channel_id: str) -> None:
        self._channel_id = channel_id

    def send(self) -> None:
        """Send it; returns at once, events tell the rest.

        It is sent again every two seconds until the callee has it, for 30 s; then the callee has
        60 s to answer (reference 1.3).

        Raises:
            InvitationApiCallError: ALREADY_SENT, or INVALID_ARGUMENT for content over 8 KB or a bad
                channel id. Sent while nobody is logged in, it fails with NOT_LOGGEDIN.
        """
        problem = _text_problem("content", self._content)
        if problem is None and self._channel_id:
            problem = id_problem("channel_id", self._channel_id)
        if problem is not None:
            raise InvitationApiCallError.named("INVALID_ARGUMENT", problem)
        with self._registry.changing() as now:
            if self._state is not LocalInvitationState.IDLE:
                raise InvitationApiCallError.named(
                    "ALREADY_SENT", "An invitation is sent once; make a new one."
                )
            if not self._registry.logged_in():
                self._fail(LocalInvitationFailureReason.NOT_LOGGEDIN)
                return
            self._registry.keep(self)
            self._state = LocalInvitationState.SENT_TO_REMOTE
            self._give_up = now + self._registry.times.give_up
            self._outgoing.append(InvitationStep.INVITE)
            self._due = now

    def cancel(self) -> None:
        """Take it back; the callee is told.

        Raises:
            InvitationApiCallError: NOT_STARTED before `send`, ALREADY_END when it is over.
        """
        with self._registry.changing() as now:
            if self._state is LocalInvitationState.IDLE:
                raise InvitationApiCallError.named("NOT_STARTED", "It was not sent yet.")
            if self._state in self._OVER:
                raise InvitationApiCallError.named(
                    "ALREADY_END", f"The invitation is over: {self._state.value}."
                )
            self._state = LocalInvitationState.CANCELED
            self._outgoing = [InvitationStep.CANCEL]
            self._due = now
            self._registry.tell(self, "LocalInvitationCanceled")

    # -- the book's, with its lock --

    def _delivered(self, receipt: InvitationReceipt, now: float) -> None:
        if self._state is not LocalInvitationState.SENT_TO_REMOTE:
            return
        if receipt is InvitationReceipt.RECEIVED:
            self._state = LocalInvitationState.RECEIVED_BY_REMOTE
            self._due = self._give_up = now + self._registry.times.answer
            self._registry.tell(self, "LocalInvitationReceivedByPeer")
        else:
            self._seen_online = receipt is InvitationReceipt.UNCONFIRMED
            self._outgoing = [InvitationStep.INVITE]
            self._due = now + self._registry.times.resend

    def _look(self, now: float) -> None:
        """Give up when it is time."""
        reasons = LocalInvitationFailureReason
        if now < self._give_up:
            return
        if self._state is LocalInvitationState.SENT_TO_REMOTE:
            self._fail(reasons.PEER_NO_RESPONSE if self._seen_online else reasons.PEER_OFFLINE)
        elif self._state is LocalInvitationState.RECEIVED_BY_REMOTE:
            self._fail(reasons.INVITATION_EXPIRE)

    def _take(self, step: InvitationStep, content: str) -> bool:
        """The callee's answer; False when it is too late for one."""
        sent = (LocalInvitationState.SENT_TO_REMOTE, LocalInvitationState.RECEIVED_BY_REMOTE)
        answers = {
            InvitationStep.ACCEPT: (
                LocalInvitationState.ACCEPTED_BY_REMOTE,
                "LocalInvitationAccepted",
            ),
            InvitationStep.REFUSE: (
                LocalInvitationState.REFUSED_BY_REMOTE,
                "LocalInvitationRefused",
            ),
        }
        if step not in answers:
            return False
        state, event = answers[step]
        if self._state not in sent:
            return False
        if self._state is LocalInvitationState.SENT_TO_REMOTE:  # the answer overtook the receipt
            self._registry.tell(self, "LocalInvitationReceivedByPeer")
        self._state, self._response = state, content
        self._outgoing, self._due = [], None
        self._registry.tell(self, event, content)
        self._registry.drop(self, step)
        return True

    def _fail(self, reason: LocalInvitationFailureReason) -> None:
        self._state = LocalInvitationState.FAILURE
        self._outgoing, self._due = [], None
        self._registry.tell(self, "LocalInvitationFailure", reason)
        self._registry.drop(self)

    def _abandon(self) -> None:
        if self._state not in self._OVER:
            self._fail(LocalInvitationFailureReason.NOT_LOGGEDIN)


class RemoteInvitation(RemoteInvitationEvents, _Invitation):
    """An invitation from somebody; comes with the event `RemoteInvitationReceived`. Thread-safe.

    Events: `RemoteInvitationAccepted()`, `RemoteInvitationRefused()`,
    `RemoteInvitationCanceled(content)`, `RemoteInvitationFailure(reason)`.
    """

    EVENTS = frozenset(
        {
            "RemoteInvitationAccepted",
            "RemoteInvitationRefused",
            "RemoteInvitationCanceled",
            "RemoteInvitationFailure",
        }
    )

    def __init__(
        self, registry: InvitationRegistry, invitation: InvitationFromPeer, now: float
    ) -> None:
        super().__init__(registry, invitation.peer_id, invitation.invitation_id)
        self._content = invitation.content
        self._channel_id = invitation.channel_id
        self._state = RemoteInvitationState.INVITATION_RECEIVED
        self._due = self._give_up = now + registry.times.answer

    def __repr__(self) -> str:
        return f"<RemoteInvitation from {self._peer_id!r} {self._state.value}>"

    @property
    def caller_id(self) -> str:
        """Who invites."""
        return self._peer_id

    @property
    def state(self) -> RemoteInvitationState:
        """Where it stands now."""
        return self._state

    def accept(self, response: str = "") -> None:
        """Accept it; returns at once, events tell whether the caller has heard it.

        Args:
            response: what to answer; at most 8 KB.

        Raises:
            InvitationApiCallError: ALREADY_ACCEPT, ALREADY_END, or INVALID_ARGUMENT.
        """
        self._answer(response, InvitationStep.ACCEPT, RemoteInvitationState.ACCEPT_SENT_TO_LOCAL)

    def refuse(self, response: str = "") -> None:
        """Refuse it. As `accept`."""
        self._answer(response, InvitationStep.REFUSE, RemoteInvitationState.REFUSED)

    def _answer(self, response: str, step: InvitationStep, state: RemoteInvitationState) -> None:
        problem = _text_problem("response", response)
        if problem is not None:
            raise InvitationApiCallError.named("INVALID_ARGUMENT", problem)
        accepted = (RemoteInvitationState.ACCEPT_SENT_TO_LOCAL, RemoteInvitationState.ACCEPTED)
        with self._registry.changing() as now:
            if self._state in accepted and step is InvitationStep.ACCEPT:
                raise InvitationApiCallError.named("ALREADY_ACCEPT", "It was accepted already.")
            if self._state is not RemoteInvitationState.INVITATION_RECEIVED:
                raise InvitationApiCallError.named(
                    "ALREADY_END", f"The invitation is over: {self._state.value}."
                )
            self._state, self._response = state, response
            self._outgoing, self._due = [step], now
            if step is InvitationStep.REFUSE:
                self._registry.tell(self, "RemoteInvitationRefused")

    # -- the book's, with its lock --

    def _delivered(self, receipt: InvitationReceipt, now: float) -> None:
        if self._state is RemoteInvitationState.ACCEPT_SENT_TO_LOCAL:
            reasons = RemoteInvitationFailureReason
            if receipt is InvitationReceipt.RECEIVED:
                self._state = RemoteInvitationState.ACCEPTED
                self._registry.tell(self, "RemoteInvitationAccepted")
            else:
                offline = receipt is InvitationReceipt.OFFLINE
                self._fail(reasons.PEER_OFFLINE if offline else reasons.ACCEPT_FAILURE)
                return
        elif receipt is InvitationReceipt.UNCONFIRMED and now < self._give_up:
            self._outgoing = [InvitationStep.REFUSE]
            self._due = now + self._registry.times.resend
            return
        self._due = None
        self._registry.drop(self)

    def _look(self, now: float) -> None:
        waiting = self._state is RemoteInvitationState.INVITATION_RECEIVED
        if waiting and now >= self._give_up:
            self._fail(RemoteInvitationFailureReason.INVITATION_EXPIRE)

    def _take(self, step: InvitationStep, content: str) -> bool:
        if step is InvitationStep.INVITE:
            return True  # a copy
        if step is not InvitationStep.CANCEL:
            return False
        if self._state is not RemoteInvitationState.INVITATION_RECEIVED:
            return False
        self._state = RemoteInvitationState.CANCELED
        self._due = None
        self._registry.tell(self, "RemoteInvitationCanceled", content)
        self._registry.drop(self, step)
        return True

    def _fail(self, reason: RemoteInvitationFailureReason) -> None:
        self._state = RemoteInvitationState.FAILURE
        self._outgoing, self._due = [], None
        self._registry.tell(self, "RemoteInvitationFailure", reason)
        self._registry.drop(self)

    def _abandon(self) -> None:
        open_states = (
            RemoteInvitationState.INVITATION_RECEIVED,
            RemoteInvitationState.ACCEPT_SENT_TO_LOCAL,
        )
        if self._state in open_states:
            self._fail(RemoteInvitationFailureReason.UNKNOWN)


def _text_problem(name: str, text: object) -> str | None:
    if not isinstance(text, str):
        return f"{name} must be a str, not {type(text).__name__}."
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return f"{name} is not valid Unicode text: {error}."
    if size > CONTENT_LIMIT:
        return f"{name} has {size:,} bytes; the limit is {CONTENT_LIMIT:,}."
    return None
