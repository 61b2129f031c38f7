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
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import InvitationApiCallError, PeerMessageError, RtmError
from ..protocol.codec import decode_result
from ..protocol.errors import ProtocolError, RpcCode
from ..protocol.events import Acknowledge, ChannelMessage, Event
from ..protocol.frames import (
    Call,
    Failure,
    Notice,
    Reply,
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
from .base import Listener
from .resume_state import ResumeState

R = TypeVar("R")
Send = Callable[[str], None]

_MAX_FRAMES = 10_000
_MAX_BYTES = 64 * 1024 * 1024
_ACKNOWLEDGE_EVERY = 32
_DUPLICATE_WINDOW = 120.0  # seconds for which message ids are remembered to drop duplicates
_REMEMBERED_IDS = 60_000  # of one sender, which may send 500 messages a second
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
    threads only queue theirs.
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
        self._sending = False
        self._received = 0
        self._acknowledged = 0
        self._ended: str | None = None
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

    # -- the transport's side --

    def attach(
        self, send: Send, login: LoginResult, hang_up: Callable[[], object] = lambda: None
    ) -> None:
        """Use a new connection after its login, and send the frames that the hub lacks.

        An interruption (Ctrl-C) of `send` makes the connection unusable; `hang_up` is called then.

        If the old session was lost, the new one first restores the old state, then repeats every
        unanswered call. Receivers drop duplicates by message id.

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
            else:
                self._start_over()
            self._send = send
            self._hang_up = hang_up
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
            send = self._send
            if send is None or done - self._acknowledged < at_least:
                return
            self._acknowledged = done
        self._try(send, encode_notice(Acknowledge(done)))

    # -- the client's side --

    def call(self, request: Request[R], timeout: float) -> R:
        """Make a call and wait for its answer, across reconnects.

        Raises:
            RtmError: an error of the request's family.
        """
        pending = _PendingCall(request)
        try:
            self._post(pending)
            self._flush()
            answer = pending.answer.get(timeout=timeout)
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

    # -- inside --

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
        self._outbox.push(encode_call(self._next_id, pending.request))
        pending.id = self._next_id
        self._next_id += 1
        self._calls[pending.id] = pending

    def _start_over(self) -> None:
        notices = [
            frame for frame in self._outbox.unacknowledged if isinstance(decode(frame), Notice)
        ]
        self._outbox = Outbox(_MAX_FRAMES, _MAX_BYTES)
        for frame in notices:  # notices concern the user, not the session
            self._outbox.push(frame)
        self._received = self._acknowledged = 0
        again = [_PendingCall(request) for request in self._resume_state.take()]
        again += self._calls.values()
        self._calls = {}
        for pending in again:
            self._number(pending)

    def _flush(self) -> None:
        mine = False
        send: Send | None = None
        frame: str | None = None
        try:
            while True:
                with self._lock:
                    if self._sending and not mine:
                        return  # the sending thread also sends this frame
                    send = self._send
                    frame = self._outbox.take() if send is not None else None
                    if send is None or frame is None:
                        if mine:
                            self._sending = mine = False
                        return
                    self._sending = mine = True
                self._try(send, frame)
                frame = None
        except BaseException:  # Ctrl-C: let the next caller send
            with self._lock:
                if mine:
                    self._sending = False
                if frame is not None and self._send is send:  # sending has not begun
                    self._outbox.put_back()
            raise

    def _try(self, send: Send, frame: str) -> None:
        try:
            send(frame)
        except BaseException as error:  # a partial frame may be sent: the connection is unusable
            with self._lock:
                if self._send is send:
                    self._send = None
            if not isinstance(error, Exception):
                self._hang_up()
                raise
            logger.debug(
                "sending failed: %r", error
            )  # each transport raises its own exception types

    def _take_acknowledge(self, event: Acknowledge) -> None:
        with self._lock:
            try:
                self._outbox.acknowledge(event.received)
            except ValueError as error:
                logger.warning("the hub sent an invalid acknowledgement: %s", error)

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
        elif not self._is_new(request.peer_id, request.message_id) or self._listener.on_event(
            request
        ):
            answer = encode_reply(frame.id, Done())
        else:
            self._seen.remove(request.message_id, request.peer_id)
            full = PeerMessageError.named("FAILURE", "The receiver's event queue is full.")
            answer = encode_failure(frame.id, full)
        with self._lock:
            try:
                self._outbox.push(answer)
            except OutboxFull as error:  # the hub reads nothing: a new connection may help
                raise ProtocolError(RpcCode.INVALID_REQUEST, str(error), frame.id) from error
        self._flush()
