"""The client's end of a session: calls out, calls and events in, nothing lost between sockets.

A `ClientSession` knows frames and their order; it does not know what carries them. A transport
gives it a `send` function for as long as it has a connection and feeds it the texts that arrive.
The session outlives the connection: frames that the hub has not acknowledged are sent again on the
next one.
"""

from __future__ import annotations

import logging
import threading
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
_REMEMBERED_IDS = 10_000  # message ids kept to drop a retried copy
logger = logging.getLogger(__name__)


class _PendingCall:
    """A request on its way and the one-place queue its caller waits on.

    Attributes:
        id: the request's in the present session; a new session gives it a new one.
    """

    __slots__ = ("answer", "id", "request")

    def __init__(self, request: Request[Any]) -> None:
        self.id = 0
        self.request = request
        self.answer: SimpleQueue[Reply | RtmError] = SimpleQueue()


class ClientSession:
    """One session seen from the client. Thread-safe.

    Callers of `call` send on their own thread. Frames leave in the order they were made although
    no lock is held while sending: one thread at a time sends all the frames there are, and other
    threads only add theirs.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()  # guards all below; never held while sending or telling
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
        self._seen = RecentIds(_REMEMBERED_IDS)

    @property
    def received(self) -> int:
        """Numbered frames of the hub that arrived in this session."""
        return self._received

    @property
    def is_attached(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self._send is not None

    # -- the transport's side --

    def attach(
        self, send: Send, login: LoginResult, hang_up: Callable[[], object] = lambda: None
    ) -> None:
        """A connection is logged in: send what the hub does not have.

        An interruption (Ctrl-C) of `send` makes the connection useless; `hang_up` is called then.

        In a new session (the old one was lost) what it held is asked for again first, then every
        unanswered call is made again; message ids let the receivers drop copies.

        Raises:
            ProtocolError: the hub says it has frames that were never sent.
        """
        with self._lock:
            if login.resumed:
                try:
                    self._outbox.rewind(login.received)
                except ValueError as error:
                    raise ProtocolError(RpcCode.INVALID_PARAMS, str(error)) from error
                self._acknowledged = self._received  # the login said so; a count never goes back
            else:
                self._start_over()
            self._send = send
            self._hang_up = hang_up
        self._flush()

    def detach(self) -> None:
        """The connection is gone."""
        with self._lock:
            self._send = None

    def end(self, message: str) -> None:
        """The session is over: every waiting call fails, and every later one at once."""
        with self._lock:
            self._send = None
            self._ended = message
            calls = list(self._calls.values())
            self._calls.clear()
        for pending in calls:
            pending.answer.put(pending.request.ERROR.named("FAILURE", message))

    def receive(self, text: str | bytes) -> None:
        """Take one arrived frame. Called by one thread, in order.

        Raises:
            ProtocolError: not one of our frames; the connection should be given up.
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
            if self._seen.add((event.member_id, event.message_id)):
                self._listener.on_event(event)
        else:
            self._listener.on_event(frame.event)
        self.acknowledge(_ACKNOWLEDGE_EVERY)

    def acknowledge(self, at_least: int = 1) -> None:
        """Tell the hub how much was dealt with, when that is at least so many frames more.

        Frames whose events still wait for the application are not counted: that is what slows a
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
            RtmError: of the request's family.
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
        finally:  # timed out or interrupted (Ctrl-C): never to be made again
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
        """Tell the hub something, now or when the connection is back; dropped when full or over."""
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
        for frame in notices:  # what they tell is about the user, not about the session
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
                        return  # the thread that is sending takes ours along
                    send = self._send
                    frame = self._outbox.take() if send is not None else None
                    if send is None or frame is None:
                        if mine:
                            self._sending = mine = False
                        return
                    self._sending = mine = True
                self._try(send, frame)
                frame = None
        except BaseException:  # Ctrl-C: the next caller must not wait for us
            with self._lock:
                if mine:
                    self._sending = False
                if frame is not None and self._send is send:  # not even begun
                    self._outbox.put_back()
            raise

    def _try(self, send: Send, frame: str) -> None:
        try:
            send(frame)
        except BaseException as error:  # half a frame may be out: nothing can follow it
            with self._lock:
                if self._send is send:
                    self._send = None
            if not isinstance(error, Exception):
                self._hang_up()
                raise
            logger.debug("sending failed: %r", error)  # transports have exceptions of their own

    def _take_acknowledge(self, event: Acknowledge) -> None:
        with self._lock:
            try:
                self._outbox.acknowledge(event.received)
            except ValueError as error:
                logger.warning("the hub acknowledged nonsense: %s", error)

    def _take_answer(self, frame: Reply | Failure) -> None:
        with self._lock:
            pending = None if frame.id is None else self._calls.pop(frame.id, None)
            if pending is None:
                return  # its caller gave up
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
        """Learn what the session holds now; returns the result of a join."""
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
        elif not self._seen.add((request.peer_id, request.message_id)) or self._listener.on_event(
            request
        ):
            answer = encode_reply(frame.id, Done())
        else:
            self._seen.remove((request.peer_id, request.message_id))
            full = PeerMessageError.named("FAILURE", "The receiver's event queue is full.")
            answer = encode_failure(frame.id, full)
        with self._lock:
            try:
                self._outbox.push(answer)
            except OutboxFull as error:  # the hub takes nothing: a new connection may help
                raise ProtocolError(RpcCode.INVALID_REQUEST, str(error), frame.id) from error
        self._flush()
