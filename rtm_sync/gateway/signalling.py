"""The WebSocket face: one JSON-RPC 2.0 frame a text message, a login first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

from aiohttp import WSMsgType, web

from ..errors import LoginError, RtmError
from ..hub.hub import Hub
from ..hub.session import Session
from ..protocol import (
    FRAME_LIMIT,
    Call,
    Login,
    ProtocolError,
    RpcCode,
    decode,
    encode_failure,
    encode_reply,
)

SILENCE_LIMIT = 15.0
"""Seconds without a frame or ping after which a client counts as gone; ours pings every two."""

_LOGIN_DEADLINE = 10.0
_CLOSE_DEADLINE = 2.0

logger = logging.getLogger(__name__)


class _WebSocketConnection:
    """Carries one session's frames over one WebSocket: a `hub.session.Connection`.

    Owns one writing task, from `start` to `stop`. When the client does not read, the task waits in
    the socket and the frames stay in the session's bounded outbox.
    """

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._now: deque[str] = deque()
        self._work = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, session: Session) -> None:
        self._task = asyncio.get_running_loop().create_task(self._write(session))

    async def stop(self) -> None:
        if self._task is not None:
            if self._closing is None:
                self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_DEADLINE)
            self._task.cancel()

    def wake(self) -> None:
        self._work.set()

    def send_now(self, frame: str) -> None:
        self._now.append(frame)
        self._work.set()

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
        self._work.set()

    async def _write(self, session: Session) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):  # the reader sees the end as well
            while True:
                await self._work.wait()
                self._work.clear()
                while self._now:
                    await self._socket.send_str(self._now.popleft())
                if self._closing is not None:
                    code, reason = self._closing
                    await self._socket.close(code=code, message=reason.encode()[:120])
                    return
                while session.connection is self:
                    frame = session.outbox.take()
                    if frame is None:
                        break
                    await self._socket.send_str(frame)


class Signalling:
    """The handler of `GET /v1/signalling`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            max_msg_size=FRAME_LIMIT,
            receive_timeout=SILENCE_LIMIT,
            timeout=_CLOSE_DEADLINE,
            compress=False,
        )
        await socket.prepare(request)
        connection = _WebSocketConnection(socket)
        try:
            session = await asyncio.wait_for(self._login(socket, connection), _LOGIN_DEADLINE)
        except (asyncio.TimeoutError, ConnectionError):
            await socket.close(code=4003, message=b"no login in time")
            return socket
        if session is None:
            return socket
        try:
            await self._read(socket, session, connection)
        finally:
            self._hub.detach(session, connection)
            await connection.stop()
        return socket

    async def _login(
        self, socket: web.WebSocketResponse, connection: _WebSocketConnection
    ) -> Session | None:
        message = await socket.receive()
        if message.type is not WSMsgType.TEXT:
            await socket.close(code=1003, message=b"the first frame must be a login, as text")
            return None
        call_id: int | None = None
        try:
            frame = decode(message.data)
            if not isinstance(frame, Call) or not isinstance(frame.request, Login):
                raise ProtocolError(RpcCode.INVALID_REQUEST, "The first frame must be a login.")
            call_id = frame.id
            session, result = await self._hub.login(frame.request, connection)
        except (RtmError, ProtocolError) as error:
            answer: RtmError | ProtocolError = error
            if isinstance(error, ProtocolError):
                call_id = error.call_id if call_id is None else call_id
                answer = LoginError.named("INVALID_ARGUMENT", error.message)
            await socket.send_str(encode_failure(call_id, answer))
            await socket.close(code=4003, message=b"login refused")
            return None
        except OSError as error:
            logger.exception("a login failed")
            await socket.send_str(encode_failure(call_id, LoginError.named("UNKNOWN", str(error))))
            await socket.close(code=1011, message=b"login failed")
            return None
        await socket.send_str(encode_reply(frame.id, result))
        if not self._hub.attach(session, connection):
            await socket.close(code=4001, message=b"the session has ended")
            return None
        connection.start(session)
        return session

    async def _read(
        self, socket: web.WebSocketResponse, session: Session, connection: _WebSocketConnection
    ) -> None:
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    connection.close(1003, "frames are text")
                    return
                self._hub.receive(session, connection, message.data)
        except ProtocolError as error:
            logger.info("%r sent no frame of ours: %s", session, error)
            connection.close(1002, error.message)
        except asyncio.TimeoutError:
            connection.close(4002, f"nothing was heard for {SILENCE_LIMIT:g} seconds")
