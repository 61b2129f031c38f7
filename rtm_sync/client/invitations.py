"""Call invitations, as the application sees them.

An invitation is two objects: the caller's `LocalInvitation` and the callee's `RemoteInvitation`.
`invitation_states` has their states. Accepting an invitation joins no channel; the
applications decide what follows.
"""

from __future__ import annotations

from ..errors import InvitationApiCallError
from ..protocol.ids import id_problem
from ..protocol.values import InvitationStep, LocalInvitationState, RemoteInvitationState
from .invitation_events import LocalInvitationEvents, RemoteInvitationEvents
from .invitation_states import CalleeEnd, CallerEnd

CONTENT_LIMIT = 8 * 1024
"""Bytes in an invitation's content and in its response (reference 1.3: 8 KB)."""


class LocalInvitation(LocalInvitationEvents):
    """An invitation to a user; made by `RtmClient.create_local_invitation`. Thread-safe.

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

    def __init__(self, end: CallerEnd) -> None:
        super().__init__()
        self._end = end
        end.emitter = self

    def __repr__(self) -> str:
        return f"<LocalInvitation to {self.callee_id!r} {self.state.value}>"

    @property
    def callee_id(self) -> str:
        """The callee's uid."""
        return self._end.peer_id

    @property
    def state(self) -> LocalInvitationState:
        """The invitation's state now."""
        return self._end.state

    @property
    def content(self) -> str:
        """The caller's text, to set before `send`; at most 8 KB (checked by `send`)."""
        return self._end.content

    @content.setter
    def content(self, content: str) -> None:
        self._end.content = content

    @property
    def channel_id(self) -> str:
        """A channel for the callee's application, or ""; the SDK does not join it."""
        return self._end.channel_id

    @channel_id.setter
    def channel_id(self, channel_id: str) -> None:
        self._end.channel_id = channel_id

    @property
    def response(self) -> str:
        """The callee's answer; at most 8 KB."""
        return self._end.response

    def send(self) -> None:
        """Send the invitation. Returns at once; events report the result.

        It is sent every two seconds until the callee has received it, for at most 30 s. The callee
        then has 60 s to answer (reference 1.3).

        Raises:
            InvitationApiCallError: ALREADY_SENT, or INVALID_ARGUMENT for content over 8 KB or a bad
                channel id. Without a login, the invitation fails with NOT_LOGGEDIN.
        """
        problem = _text_problem("content", self.content)
        if problem is None and self.channel_id:
            problem = id_problem("channel_id", self.channel_id)
        if problem is not None:
            raise InvitationApiCallError.named("INVALID_ARGUMENT", problem)
        self._end.send()

    def cancel(self) -> None:
        """Cancel the invitation; the callee gets `RemoteInvitationCanceled`.

        Raises:
            InvitationApiCallError: NOT_STARTED before `send`, ALREADY_END when it is over.
        """
        self._end.cancel()


class RemoteInvitation(RemoteInvitationEvents):
    """An invitation from a user; an argument of `RemoteInvitationReceived`. Thread-safe.

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

    def __init__(self, end: CalleeEnd) -> None:
        super().__init__()
        self._end = end
        end.emitter = self

    def __repr__(self) -> str:
        return f"<RemoteInvitation from {self.caller_id!r} {self.state.value}>"

    @property
    def caller_id(self) -> str:
        """The caller's uid."""
        return self._end.peer_id

    @property
    def state(self) -> RemoteInvitationState:
        """The invitation's state now."""
        return self._end.state

    @property
    def content(self) -> str:
        """The caller's text; at most 8 KB."""
        return self._end.content

    @property
    def channel_id(self) -> str:
        """The channel that the caller named, or ""; the SDK does not join it."""
        return self._end.channel_id

    @property
    def response(self) -> str:
        """The text of this user's answer, or ""; at most 8 KB."""
        return self._end.response

    def accept(self, response: str = "") -> None:
        """Accept the invitation. Returns at once; an event reports whether the caller got it.

        Args:
            response: the answer's text; at most 8 KB.

        Raises:
            InvitationApiCallError: ALREADY_ACCEPT, ALREADY_END, or INVALID_ARGUMENT.
        """
        self._answer(response, InvitationStep.ACCEPT)

    def refuse(self, response: str = "") -> None:
        """Refuse the invitation. Arguments and errors are those of `accept`."""
        self._answer(response, InvitationStep.REFUSE)

    def _answer(self, response: str, step: InvitationStep) -> None:
        problem = _text_problem("response", response)
        if problem is not None:
            raise InvitationApiCallError.named("INVALID_ARGUMENT", problem)
        self._end.answer(response, step)


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
