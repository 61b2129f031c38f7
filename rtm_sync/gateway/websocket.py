"""The WebSocket face: one JSON-RPC 2.0 frame a text message, a login first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import cast

from aiohttp import WSMsgType, web

from ..errors import LoginError, LoginErrorCode, RtmError
from ..hub.node import Hub
from ..hub.session import Session
from ..protocol.errors import ProtocolError, RpcCode
from ..protocol.frames import Call, decode, encode_failure, encode_reply
from ..protocol.ids import FRAME_LIMIT
from ..protocol.requests import Login
from .guard.request_context import note_auth_failure, note_user

_LOGIN_DEADLINE = 10.0
_WRONG = (LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, LoginErrorCode.LOGIN_ERR_INVALID_APP_ID)
_CLOSE_DEADLINE = 2.0
_SLOW_CLIENT_PAUSE = 0.02
_WRITE_MARK = 64 * 1024  # bytes the socket has not taken; beyond it frames wait in the outbox

logger = logging.getLogger(__name__)


class _WebSocketConnection:
    """Carries one session's frames over one WebSocket: a `hub.registry.Connection`.

    A frame is written the moment it is pushed, straight to the transport: handing it to a task
    costs a turn of the loop, a tenth of a message's whole way. Only when the client does not read
    (the transport's buffer is over its mark) does the owned task, which lives from `start` to
    `stop`, wait for it; the frames meanwhile stay in the session's bounded outbox.
    """

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.WriteTransport) -> None:
        self._socket = socket
        self._transport = transport
        self._session: Session | None = None
        self._work = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard_at = asyncio.get_running_loop().time()

    @property
    def silence(self) -> float:
        return asyncio.get_running_loop().time() - self._heard_at

    def heard(self) -> None:
        """Something has arrived."""
        self._heard_at = asyncio.get_running_loop().time()

    def start(self, session: Session) -> None:
        self._session = session
        self._task = asyncio.get_running_loop().create_task(self._when_asked())
        self.wake()

    async def stop(self) -> None:
        if self._task is not None:
            if self._closing is None:
                self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_DEADLINE)
            self._task.cancel()

    def wake(self) -> None:
        session = self._session
        if session is None or self._closing is not None:
            return
        while session.connection is self:
            if self._transport.get_write_buffer_size() > _WRITE_MARK:
                self._work.set()
                return
            frame = session.outbox.take()
            if frame is None:
                return
            self._write(frame)

    def send_now(self, frame: str) -> None:
        if self._closing is None:
            self._write(frame)

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
        self._work.set()

    def cut(self, code: int, reason: str) -> None:
        """Close, and do not wait for a client that may be gone to agree."""
        self.close(code, reason)
        asyncio.get_running_loop().call_later(_CLOSE_DEADLINE, self._transport.abort)

    def _write(self, frame: str) -> None:
        if not self._transport.is_closing():
            self._transport.write(_text_frame(frame.encode()))

    async def _when_asked(self) -> None:
        """Wait for a slow client, and close."""
        with contextlib.suppress(ConnectionError, RuntimeError):  # the reader sees the end as well
            while True:
                await self._work.wait()
                self._work.clear()
                if self._closing is not None:
                    code, reason = self._closing
                    await self._socket.close(code=code, message=reason.encode()[:120])
                    return
                await asyncio.sleep(_SLOW_CLIENT_PAUSE)
                self.wake()


def _text_frame(payload: bytes) -> bytes:
    """A whole, unmasked WebSocket text message (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes((size,)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class Signalling:
    """The handler of `GET /v1/signalling`.

    Args:
        silence: seconds without a frame or ping after which a client counts as gone.
    """

    def __init__(self, hub: Hub, silence: float) -> None:
        self._hub = hub
        self._silence = silence

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            max_msg_size=FRAME_LIMIT,
            timeout=_CLOSE_DEADLINE,
            compress=False,
            autoping=False,  # pings are signs of life, so they must be seen
        )
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client is gone already
            return web.Response(status=400)
        transport = request.transport
        if transport is None:
            return socket  # the client is gone already
        connection = _WebSocketConnection(socket, cast(asyncio.WriteTransport, transport))
        try:
            session = await asyncio.wait_for(self._login(socket, connection), _LOGIN_DEADLINE)
        except (asyncio.TimeoutError, ConnectionError):
            await socket.close(code=4003, message=b"no login in time")
            return socket
        if session is None:
            return socket
        note_user(*session.user)
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
            if isinstance(error, ProtocolError):
                call_id = error.call_id if call_id is None else call_id
                answer: RtmError = LoginError.named("INVALID_ARGUMENT", error.message)
            else:
                answer = error
            if answer.code in _WRONG:
                note_auth_failure()
            await socket.send_str(encode_failure(call_id, answer))
            await socket.close(code=4003, message=b"login refused")
            return None
        except OSError as error:
            logger.exception("a login failed")
            await socket.send_str(encode_failure(call_id, LoginError.named("UNKNOWN", str(error))))
            await socket.close(code=1011, message=b"login failed")
            return None
        try:
            await socket.send_str(encode_reply(frame.id, result))
        except BaseException:
            self._hub.detach(session, connection)
            raise
        if not self._hub.attach(session, connection):
            await socket.close(code=4001, message=b"the session has ended")
            return None
        connection.start(session)
        return session

    async def _read(
        self, socket: web.WebSocketResponse, session: Session, connection: _WebSocketConnection
    ) -> None:
        silence = _Silence(connection, self._silence)
        try:
            async for message in socket:
                connection.heard()
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    self._hub.receive(session, connection, message.data)
                elif message.type is not WSMsgType.PONG:
                    connection.close(1003, "frames are text")
                    return
        except ProtocolError as error:
            logger.info("%r sent no frame of ours: %s", session, error)
            connection.close(1002, error.message)
        except ConnectionError:
            logger.debug("%r went away while it was answered", session)
        finally:
            silence.end()


class _Silence:
    """Closes a connection on which nothing, no ping either, was heard for too long.

    One timer for many frames: it looks when the limit might have passed, not at every frame.
    """

    def __init__(self, connection: _WebSocketConnection, limit: float) -> None:
        self._connection = connection
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(limit, self._look)

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left = self._limit - self._connection.silence
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._connection.cut(4002, f"nothing was heard for {self._limit:g} seconds")
