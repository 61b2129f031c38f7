"""Frames of a session's client: decoded, acknowledged, and each request given to its service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from ..errors import RtmError
from ..protocol.errors import ProtocolError, RpcCode
from ..protocol.events import Acknowledge, CancelUpload
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

_ACKNOWLEDGE_EVERY = 32

logger = logging.getLogger(__name__)


class Dispatcher:
    """Gives requests to their handlers, for sessions that live. Used on the hub's loop.

    It asks whether the session lives before a handler runs and again after it, and has undone what
    the handler registered for a session that ended meanwhile.

    Args:
        handlers: what serves each type of request.
        cancel_upload: serves the one notice that asks for something.
        log_out: ends a session whose client logs out.
        undo: removes what is registered for a session that has ended; may be called again.
        tasks: run the handlers.
    """

    def __init__(
        self,
        handlers: Mapping[type[Request[Any]], Handler],
        cancel_upload: Callable[[Session, str], Coroutine[Any, Any, None]],
        log_out: Callable[[Session], None],
        undo: Callable[[Session], None],
        tasks: BackgroundTasks,
    ) -> None:
        self._handlers = handlers
        self._cancel_upload = cancel_upload
        self._log_out = log_out
        self._undo = undo
        self._tasks = tasks

    def receive(self, session: Session, connection: Connection, text: str | bytes) -> None:
        """Take one frame from the session's client. Never blocks; answers go to the outbox.

        Raises:
            ProtocolError: not a frame at all; the connection should be closed.
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
            if isinstance(frame.event, CancelUpload):
                self._tasks.spawn(self._cancel_upload(session, frame.event.key))
        elif frame.id is not None:
            session.answer(frame.id, accepted=not isinstance(frame, Failure))
        if session.received - session.acknowledged >= _ACKNOWLEDGE_EVERY:
            session.acknowledged = session.received
            connection.send_now(encode_notice(Acknowledge(session.received)))

    async def perform(self, session: Session, request: Request[R]) -> R:
        """Do what a request asks of a session that lives.

        Raises:
            RtmError: of the request's family; NOT_LOGGED_IN when the session has ended.
            ProtocolError: a hub does not serve such requests.
            OSError: the engine or the store could not do it.
        """
        handler = self._handlers.get(type(request))
        if handler is None:
            raise ProtocolError(RpcCode.METHOD_NOT_FOUND, f"A hub has no {request.METHOD}.")
        session.require_life(request.ERROR)
        try:
            result: R = await handler(session, request)
        finally:
            if not session.lives:
                self._undo(session)  # what the handler has registered since the session ended
        return result

    async def _answer(self, session: Session, call: Call) -> None:
        request = call.request
        if not session.lives:
            return  # the call was sent behind a logout; the connection is closing
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
    """Parameters that do not fit a known request are that request's own kind of error."""
    if error.request is None:
        return error
    return error.request.ERROR.named(error.request.INVALID, error.message)
