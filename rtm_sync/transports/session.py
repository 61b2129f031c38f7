"""The client's end of a session: calls, events and acknowledgements, across reconnects.

A `ClientSession` knows frames and their order; it does not know the transport. The transport
gives it a `send` function while it has a connection, and passes it the frames that arrive.
The session outlives the connection: frames that the hub has not acknowledged are sent again on the
next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import InvitationApiCallError, PeerMessageError, RtmError
from ..protocol.codec import decode_result
from ..protocol.errors import ProtocolError, RpcCode
from ..protocol.events import (
    Acknowledge,
    ChannelMessage,
    Event,
    ListeningChanged,
    MessagesHandled,
)
from ..protocol.frames import (
    Call,
    Failure,
    Notice,
    Reply,
    call_size_problem,
    decode,
    encode_call,
    encode_failure,
    encode_notice,
    encode_reply,
)
from ..protocol.requests import InvitationFromPeer, JoinChannel, MessageFromPeer, Request
from ..protocol.values import Done, JoinResult, LoginResult
from ..rules.idempotency import RecentIds
from ..rules.sequence import Outbox, OutboxFull
from ..rules.timing import Deadline
from .base import Listener
from .resume_state import ResumeState

R = TypeVar("R")
Send = Callable[[str], object]
"""Sends a frame on the connection without waiting. Returns something true when the connection takes
no further frame for now: whoever gave the function calls `resume_sending` later."""

_MAX_FRAMES = 10_000
_MAX_BYTES = 64 * 1024 * 1024
_ACKNOWLEDGE_EVERY = 32
_DUPLICATE_WINDOW = 120.0  # seconds for which message ids are remembered to drop duplicates
_REMEMBERED_IDS = 60_000  # of one sender, which may send 500 messages a second
_MOST_KEYS = 1000  # of one MessagesHandled
_LONG_REMEMBERED_IDS = 10_000  # the newest of all senders, remembered longer
logger = logging.getLogger(__name__)


class _PendingCall:
    """An unanswered request and the queue on which its caller waits.

    Attributes:
        id: the request's id in the current session; it changes with the session.
    """

    __slots__ = ("answer", "id", "request")

    def __init__(self, request: Request[Any]) -> None:
        self.id = 0
        self.request = request
        self.answer: SimpleQueue[Reply | RtmError] = SimpleQueue()


class ClientSession:
    """One session seen from the client. Thread-safe.

    Callers of `call` send on their own thread. Frames are sent in the order of their creation,
    although no lock is held while sending. One thread at a time sends all queued frames; other
    threads only queue theirs. Nobody waits for a connection that is full, and no caller sends the
    frames of others beyond its own deadline: the connection's thread goes on then.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()  # guards all below; never held while sending or in callbacks
        self._outbox = Outbox(_MAX_FRAMES, _MAX_BYTES)
        self._calls: dict[int, _PendingCall] = {}
        self._next_id = 1  # 0 is the login's
        self._resume_state = ResumeState()
        self._send: Send | None = None
        self._hang_up: Callable[[], object] = lambda: None
        self._take_over: Callable[[], object] | None = None
        self._sending = False
        self._is_full = False  # nothing is sent until `resume_sending`
        self._owes_acknowledgement = False
        self._received = 0
        self._acknowledged = 0
        self._ended: str | None = None
        self._listens = True
        self._hub_listens = True  # what the hub knows, or will know from the login and the outbox
        self._listening_was_sent = False  # in this session, beside the login
        self._handled: list[int] = []  # keys for which the outbox had no room, or no connection
        # Used by the thread that feeds `receive` alone:
        self._seen = RecentIds(_REMEMBERED_IDS, _DUPLICATE_WINDOW, _LONG_REMEMBERED_IDS)

    @property
    def received(self) -> int:
        """The number of the hub's counted frames that arrived in this session."""
        return self._received

    @property
    def is_attached(self) -> bool:
        """Whether the session has a connection, as far as the client knows."""
        return self._send is not None

    def listens_at_login(self) -> bool:
        """The value of `Login.listens`, for a login that is sent now."""
        with self._lock:
            self._hub_listens = self._listens
            return self._listens

    # -- the transport's side --

    def attach(
        self,
        send: Send,
        login: LoginResult,
        hang_up: Callable[[], object] = lambda: None,
        take_over: Callable[[], object] | None = None,
    ) -> None:
        """Use a new connection after its login, and send the frames that the hub lacks.

        If the old session was lost, the new one first restores the old state, then repeats every
        unanswered call. Receivers drop duplicates by message id.

        Args:
            send: sends a frame without waiting; see `Send`.
            login: the answer to the login.
            hang_up: called when `send` has failed, so that the connection is unusable, and the
                transport may not have noticed: after an interruption (Ctrl-C), for example.
            take_over: has another thread call `resume_sending`; None if `send` takes no time.

        Raises:
            ProtocolError: the hub acknowledged frames that were never sent.
        """
        with self._lock:
            if login.resumed:
                try:
                    self._outbox.rewind(login.received)
                except ValueError as error:
                    raise ProtocolError(RpcCode.INVALID_PARAMS, str(error)) from error
                self._acknowledged = self._received  # the login reported it; counts never decrease
                if self._listening_was_sent:  # an older state may be sent again, after the login
                    self._hub_listens = not self._listens
            else:
                self._start_over()
            self._send = send
            self._hang_up = hang_up
            self._take_over = take_over
            self._is_full = self._owes_acknowledgement = False
            self._push_states()
        self._flush()

    def resume_sending(self) -> None:
        """Send what is queued: the connection takes frames again."""
        with self._lock:
            self._is_full = False
        self._flush()

    def detach(self) -> None:
        """Stop using the connection, which was lost."""
        with self._lock:
            self._send = None

    def end(self, message: str) -> None:
        """End the session. Every waiting call fails, and every later call fails at once."""
        with self._lock:
            self._send = None
            self._ended = message
            calls = list(self._calls.values())
            self._calls.clear()
        for pending in calls:
            pending.answer.put(pending.request.ERROR.named("FAILURE", message))

    def receive(self, text: str | bytes) -> None:
        """Handle one frame. Called by one thread, in order of arrival.

        Raises:
            ProtocolError: the frame is invalid; the connection should be closed.
        """
        frame = decode(text)
        if isinstance(frame, Notice) and isinstance(frame.event, Acknowledge):
            self._take_acknowledge(frame.event)
            self._flush()  # reports that had no room
            return
        with self._lock:
            self._received += 1
        if isinstance(frame, (Reply, Failure)):
            self._take_answer(frame)
        elif isinstance(frame, Call):
            self._take_call(frame)
        elif isinstance(frame.event, ChannelMessage):
            event = frame.event
            with self._lock:
                if event.position is not None:
                    self._resume_state.came_to(event.channel_id, event.position)
            if self._is_new(event.member_id, event.message_id):
                self._listener.on_event(event)
        else:
            self._listener.on_event(frame.event)
        self.acknowledge(_ACKNOWLEDGE_EVERY)

    def acknowledge(self, at_least: int = 1) -> None:
        """Acknowledge the handled frames, if at least `at_least` of them are new.

        Frames whose events still wait for the application are not acknowledged. This slows the
        hub down to the pace of the handlers.
        """
        backlog = self._listener.backlog
        with self._lock:
            done = self._received - backlog
            if self._send is None or done - self._acknowledged < at_least:
                return
            self._acknowledged = done
            self._owes_acknowledgement = True
        self._flush()

    # -- the client's side --

    def call(self, request: Request[R], timeout: float) -> R:
        """Make a call and wait for its answer, across reconnects.

        Raises:
            RtmError: an error of the request's family.
        """
        pending = _PendingCall(request)
        deadline = Deadline(timeout)
        try:
            self._post(pending)
            self._flush(deadline)
            answer = pending.answer.get(timeout=deadline.left)
        except Empty:
            raise request.ERROR.named(
                "TIMEOUT", f"{request.METHOD} was not answered within {timeout:g} seconds."
            ) from None
        finally:  # timed out or interrupted (Ctrl-C): do not repeat the call
            with self._lock:
                self._calls.pop(pending.id, None)
        if isinstance(answer, RtmError):
            raise answer
        try:
            result: R = decode_result(request.RESULT, answer.result)
        except ProtocolError as error:
            raise request.ERROR.named(
                "FAILURE", f"The answer to {request.METHOD} is damaged: {error}", error
            ) from error
        return result

    def notify(self, event: Event) -> None:
        """Send a notice, now or after a reconnect; drop it when full or ended."""
        with self._lock:
            if self._ended is not None:
                return
            try:
                self._outbox.push(encode_notice(event))
            except OutboxFull:
                return
        self._flush()

    def set_listening(self, listens: bool) -> None:
        """Tell the hub whether the application takes stored messages. See `Transport`."""
        with self._lock:
            self._listens = listens
            self._push_states()
        self._flush()

    def messages_handled(self, keys: Sequence[int]) -> None:
        """Report handled messages to the hub. See `Transport`."""
        with self._lock:
            self._handled.extend(keys)
            self._push_states()
        self._flush()

    # -- inside --

    def _push_states(self) -> None:
        """Queue what the hub is to know. What has no room waits for it, and no report is lost.

        Without a connection it waits as well, so that the next one needs few frames.
        """
        if self._send is None or self._ended is not None:
            return
        try:
            if self._hub_listens is not self._listens:
                self._outbox.push(encode_notice(ListeningChanged(self._listens)))
                self._hub_listens = self._listens
                self._listening_was_sent = True
            while self._handled:
                keys = tuple(self._handled[:_MOST_KEYS])
                self._outbox.push(encode_notice(MessagesHandled(keys)))
                del self._handled[:_MOST_KEYS]
        except OutboxFull:
            return

    def _post(self, pending: _PendingCall) -> None:
        request = pending.request
        with self._lock:
            if self._ended is not None:
                raise request.ERROR.named("USER_NOT_LOGGED_IN", self._ended)
            try:
                self._number(pending)
            except OutboxFull as error:
                raise request.ERROR.named("FAILURE", f"Too much waits: {error}", error) from error

    def _number(self, pending: _PendingCall) -> None:
        request = pending.request
        frame = encode_call(self._next_id, request)
        # The gateway closes the connection for a frame that is too large, at every repetition.
        problem = call_size_problem(frame, Call(self._next_id, request))
        if problem is not None:
            raise request.ERROR.named(request.INVALID, problem)
        self._outbox.push(frame)
        pending.id = self._next_id
        self._next_id += 1
        self._calls[pending.id] = pending

    def _start_over(self) -> None:
        notices = [
            text
            for text in self._outbox.unacknowledged
            if isinstance(frame := decode(text), Notice)
            and not isinstance(frame.event, ListeningChanged)  # the login has the state
        ]
        self._outbox = Outbox(_MAX_FRAMES, _MAX_BYTES)
        for text in notices:  # notices concern the user, not the session
            self._outbox.push(text)
        self._received = self._acknowledged = 0
        self._listening_was_sent = False
        again = [_PendingCall(request) for request in self._resume_state.take()]
        again += self._calls.values()
        self._calls = {}
        for pending in again:
            self._number(pending)

    def _flush(self, deadline: Deadline | None = None) -> None:
        """Send what is queued, unless another thread does so or the connection is full.

        After the deadline, the connection's thread goes on.
        """
        mine = is_full = False
        send: Send | None = None
        undo: Callable[[], object] | None = None
        try:
            while True:
                with self._lock:
                    if self._sending and not mine:
                        return  # the sending thread also sends this frame
                    if mine and not is_full and self._send is send:
                        self._is_full = False
                    is_full = False
                    send = None if self._is_full else self._send
                    take_over = self._take_over
                    is_late = mine and deadline is not None and deadline.has_passed
                    if not is_late or not self._outbox.unsent:
                        take_over = None
                    found = None if send is None or take_over is not None else self._next()
                    if send is None or found is None:
                        self._sending = mine = False
                        break
                    frame, undo = found
                    self._sending = mine = True
                    self._is_full = True  # until we know: `resume_sending` may come before that
                is_full = self._try(send, frame)
                undo = None
            if take_over is not None:
                take_over()
        except BaseException:  # Ctrl-C: let the next caller send
            with self._lock:
                if mine:
                    self._sending = False
                    if self._send is send and not is_full:
                        self._is_full = False
                if undo is not None and self._send is send:  # sending has not begun
                    undo()
            raise

    def _next(self) -> tuple[str, Callable[[], object]] | None:
        """The next frame to send, and a function that puts it back."""
        if self._owes_acknowledgement:
            self._owes_acknowledgement = False
            return encode_notice(Acknowledge(self._acknowledged)), self._owe_acknowledgement
        frame = self._outbox.take()
        return None if frame is None else (frame, self._outbox.put_back)

    def _owe_acknowledgement(self) -> None:
        self._owes_acknowledgement = True

    def _try(self, send: Send, frame: str) -> bool:
        """Send a frame. Returns whether the connection is full."""
        try:
            return bool(send(frame))
        except BaseException as error:  # a partial frame may be sent: the connection is unusable
            with self._lock:
                if self._send is send:
                    self._send = None
            if not isinstance(error, ConnectionError):  # of that one the transport knows
                self._hang_up()
            if not isinstance(error, Exception):
                raise
            logger.debug(
                "sending failed: %r", error
            )  # each transport raises its own exception types
            return False

    def _take_acknowledge(self, event: Acknowledge) -> None:
        with self._lock:
            try:
                self._outbox.acknowledge(event.received)
            except ValueError as error:
                logger.warning("the hub sent an invalid acknowledgement: %s", error)
            self._push_states()

    def _take_answer(self, frame: Reply | Failure) -> None:
        with self._lock:
            pending = None if frame.id is None else self._calls.pop(frame.id, None)
            if pending is None:
                return  # the caller has stopped waiting
            request = pending.request
            result = self._note(request, frame)
        if isinstance(request, JoinChannel) and request.since is not None:
            if isinstance(frame, Failure):
                logger.warning("%r could not be joined again: %s", request.channel_id, frame.error)
            recovered = isinstance(result, JoinResult) and result.recovered
            self._listener.on_reconnected(request.channel_id, recovered=recovered)
        if isinstance(frame, Reply):
            pending.answer.put(frame)
        elif isinstance(frame.error, request.ERROR):
            pending.answer.put(frame.error)
        else:
            pending.answer.put(request.ERROR.named("FAILURE", frame.error.message, frame.error))

    def _note(self, request: Request[Any], frame: Reply | Failure) -> object:
        """Update the resume state. Returns the result of a join."""
        if isinstance(frame, Failure):
            refused = frame.error.reason if isinstance(frame.error, RtmError) else "FAILURE"
            self._resume_state.refused(request, refused)
            return None
        result: object = None
        if isinstance(request, JoinChannel):
            try:
                result = decode_result(JoinResult, frame.result)
            except ProtocolError:  # the caller raises it
                return None
        self._resume_state.accepted(request, result)
        return result

    def _is_new(self, sender: str, message_id: str) -> bool:
        """Remember a message. Returns False when it came before."""
        return self._seen.add(message_id, time.monotonic(), sender)

    def _take_call(self, frame: Call) -> None:
        request = frame.request
        if isinstance(request, InvitationFromPeer):
            if self._listener.on_event(request):
                answer = encode_reply(frame.id, Done())
            else:
                late = InvitationApiCallError.named("ALREADY_END", "That step comes too late.")
                answer = encode_failure(frame.id, late)
        elif not isinstance(request, MessageFromPeer):
            error = ProtocolError(RpcCode.METHOD_NOT_FOUND, f"A client has no {request.METHOD}.")
            answer = encode_failure(frame.id, error)
        elif self._take_message(request):
            answer = encode_reply(frame.id, Done())
        else:
            full = PeerMessageError.named("FAILURE", "The receiver's event queue is full.")
            answer = encode_failure(frame.id, full)
        with self._lock:
            try:
                self._outbox.push(answer)
            except OutboxFull as error:  # the hub reads nothing: a new connection may help
                raise ProtocolError(RpcCode.INVALID_REQUEST, str(error), frame.id) from error
        self._flush()

    def _take_message(self, message: MessageFromPeer) -> bool:
        """Queue a message, unless it came before. Returns False when the application has no room.

        Stored messages come again until they are handled, and the client knows which ones are.
        """
        if message.key is not None:
            return self._listener.on_event(message)
        if not self._is_new(message.peer_id, message.message_id):
            return True
        taken = self._listener.on_event(message)
        if not taken:
            self._seen.remove(message.message_id, message.peer_id)
        return taken
