"""The dispatcher: decodes and acknowledges a client's frames, and runs the service's handler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from ..errors import RtmError
from ..protocol.errors import ProtocolError, RpcCode
from ..protocol.events import Acknowledge, Event
from ..protocol.frames import (
    Call,
    Failure,
    Notice,
    decode,
    encode_failure,
    encode_notice,
    encode_reply,
)
from ..protocol.requests import Logout, Request
from .registry import Connection
from .session import Session
from .tasks import BackgroundTasks

R = TypeVar("R")
Handler = Callable[[Session, Any], Coroutine[Any, Any, Any]]

_ACKNOWLEDGE_EVERY = 32  # frames

logger = logging.getLogger(__name__)


class Dispatcher:
    """Runs the handler of each request of a living session. Used on the hub's loop.

    The dispatcher checks that the session lives before a handler runs, and checks again after it.
    When the session has ended meanwhile, `undo` removes the state that the handler registered.

    Args:
        handlers: the handler of each request type.
        notices: the handler of each notice that a client sends; those without one are ignored.
        log_out: ends the session when its client logs out.
        undo: removes the state registered for an ended session; idempotent.
        tasks: runs the handlers.
    """

    def __init__(
        self,
        handlers: Mapping[type[Request[Any]], Handler],
        notices: Mapping[type[Event], Callable[[Session, Any], object]],
        log_out: Callable[[Session], None],
        undo: Callable[[Session], None],
        tasks: BackgroundTasks,
    ) -> None:
        self._handlers = handlers
        self._notices = notices
        self._log_out = log_out
        self._undo = undo
        self._tasks = tasks

    def receive(self, session: Session, connection: Connection, text: str | bytes) -> None:
        """Process one frame from the session's client. Never blocks; answers go to the outbox.

        Raises:
            ProtocolError: the text is not a valid frame; the caller closes the connection.
        """
        if session.connection is not connection:
            return  # a frame from a superseded connection, or of a session that has ended
        try:
            frame = decode(text)
        except ProtocolError as error:
            if error.call_id is None:
                raise
            session.received += 1
            session.push(encode_failure(error.call_id, _as_family_error(error)))
            return
        if isinstance(frame, Notice) and isinstance(frame.event, Acknowledge):
            try:
                session.acknowledge(frame.event.received)
            except ValueError as error:
                raise ProtocolError(RpcCode.INVALID_PARAMS, str(error)) from error
            return
        session.received += 1
        if isinstance(frame, Call):
            self._tasks.spawn(self._answer(session, frame))
        elif isinstance(frame, Notice):
            handle = self._notices.get(type(frame.event))
            if handle is not None:
                refusal = session.refusal("notices")
                if refusal is not None:
                    raise ProtocolError(RpcCode.INVALID_REQUEST, refusal.message)
                handle(session, frame.event)
        elif frame.id is not None:
            session.answer(frame.id, accepted=not isinstance(frame, Failure))
        self.acknowledge(session, at_least=_ACKNOWLEDGE_EVERY)

    @staticmethod
    def acknowledge(session: Session, *, at_least: int = 1) -> None:
        """Acknowledge the frames that the hub has received, when there are `at_least` new ones."""
        connection = session.connection
        if connection is not None and session.received - session.acknowledged >= at_least:
            session.acknowledged = session.received
            connection.send_now(encode_notice(Acknowledge(session.received)))

    async def perform(self, session: Session, request: Request[R]) -> R:
        """Run the handler of a request for a living session, and return its result.

        Raises:
            RtmError: of the request's family; NOT_LOGGED_IN when the session has ended.
            ProtocolError: the hub has no handler for this request type.
            OSError: the engine or the media store failed.
        """
        handler = self._handlers.get(type(request))
        if handler is None:
            raise ProtocolError(RpcCode.METHOD_NOT_FOUND, f"A hub has no {request.METHOD}.")
        session.require_life(request.ERROR)
        try:
            result: R = await handler(session, request)
        finally:
            if not session.lives:
                self._undo(session)  # the handler may have registered state after the end
        return result

    async def _answer(self, session: Session, call: Call) -> None:
        request = call.request
        if isinstance(request, Logout):
            connection = session.connection
            self._log_out(session)
            if connection is not None:
                connection.send_now(encode_reply(call.id, request.RESULT()))
                connection.close(1000, "logged out")
            return
        try:
            reply = encode_reply(call.id, await self.perform(session, request))
        except (RtmError, ProtocolError) as error:
            reply = encode_failure(call.id, error)
        except OSError as error:
            logger.warning("%s of %r failed: %s", request.METHOD, session, error)
            reply = encode_failure(call.id, request.ERROR.named("FAILURE", str(error)))
        except Exception:
            logger.exception("%s of %r failed", request.METHOD, session)
            reply = encode_failure(call.id, request.ERROR.named("FAILURE", "Internal error."))
        session.push(reply)


def _as_family_error(error: ProtocolError) -> RtmError | ProtocolError:
    """The error of the request's own family, when the parameters of a known request are invalid."""
    if error.request is None:
        return error
    return error.request.ERROR.named(error.request.INVALID, error.message)
