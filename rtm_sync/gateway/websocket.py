"""The WebSocket endpoint: one JSON-RPC 2.0 frame in each text message; the first is a login."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, cast

from aiohttp import WSMsgType, web

from ..errors import LoginError, LoginErrorCode, RtmError
from ..hub.node import Hub
from ..hub.session import Session
from ..protocol.errors import ProtocolError, RpcCode
from ..protocol.frames import Call, decode, encode_failure, encode_reply
from ..protocol.ids import FRAME_LIMIT, LOGIN_LIMIT
from ..protocol.requests import Login
from ..protocol.values import LoginResult
from .guard.request_context import TooManyGuesses, guessing, note_user

_LOGIN_TIMEOUT = 10.0
_AUTH_FAILURES = (LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, LoginErrorCode.LOGIN_ERR_INVALID_APP_ID)
_CLOSE_TIMEOUT = 2.0
_SLOW_CLIENT_INTERVAL = 0.02
_TOO_LARGE = b"\x88\x02" + (1009).to_bytes(2, "big")  # a close frame (RFC 6455, section 7.4.1)
_FRAME_HEADER = 14  # bytes, at most
_WRITE_MARK = 64 * 1024  # unsent bytes in the transport; above it, frames wait in the outbox

logger = logging.getLogger(__name__)


class _WebSocketConnection:
    """Carries one session's frames over one WebSocket: a `hub.registry.Connection`.

    A pushed frame is written at once and directly to the transport: a task would cost one turn of
    the loop, a tenth of a message's latency. When the client does not read (the transport's buffer
    is above `_WRITE_MARK`), the frames stay in the session's bounded outbox, and the owned task
    tries again. The task runs from `start` to `stop`; it also closes the connection.
    """

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.WriteTransport) -> None:
        self._socket = socket
        self._transport = transport
        self._session: Session | None = None
        self._work = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_seen = asyncio.get_running_loop().time()

    @property
    def silence(self) -> float:
        return asyncio.get_running_loop().time() - self._last_seen

    def saw_frame(self) -> None:
        """Record that a frame or ping has arrived."""
        self._last_seen = asyncio.get_running_loop().time()

    def start(self, session: Session) -> None:
        self._session = session
        self._task = asyncio.get_running_loop().create_task(self._run())
        self.wake()

    async def stop(self) -> None:
        if self._task is not None:
            if self._closing is None:
                self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT)
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
        """Close, and abort after 2 s if the client does not answer the close frame."""
        self.close(code, reason)
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._transport.abort)

    def _write(self, frame: str) -> None:
        if not self._transport.is_closing():
            self._transport.write(_text_frame(frame.encode()))

    async def _run(self) -> None:
        """Send the waiting frames of a slow client, and close the connection on request."""
        with contextlib.suppress(ConnectionError, RuntimeError):  # the reader handles the end
            while True:
                await self._work.wait()
                self._work.clear()
                if self._closing is not None:
                    code, reason = self._closing
                    await self._socket.close(code=code, message=reason.encode()[:120])
                    return
                await asyncio.sleep(_SLOW_CLIENT_INTERVAL)
                self.wake()


def _text_frame(payload: bytes) -> bytes:
    """An unfragmented, unmasked WebSocket text message (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes((size,)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class _LoginBound:
    """Bounds what a client may send before the answer to its login.

    aiohttp keeps an unfinished message of up to `max_msg_size`, which cannot change later. Until
    the login this object is the connection's parser, in front of aiohttp's.
    """

    def __init__(self, request: web.Request) -> None:
        self._protocol: Any = request.protocol
        self._transport = request.transport
        self._parser = self._protocol._payload_parser
        self._left = LOGIN_LIMIT + _FRAME_HEADER
        self._protocol._payload_parser = self

    def lift(self) -> None:
        """The client may send what a session may."""
        self._protocol._payload_parser = self._parser

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._left -= len(data)
        if self._left >= 0:
            fed: tuple[bool, bytes] = self._parser.feed_data(data)
            return fed
        if self._transport is not None:
            self._transport.write(_TOO_LARGE)
        return True, b""  # the connection ends

    def feed_eof(self) -> None:
        self._parser.feed_eof()


class Signalling:
    """The handler of `GET /v1/signalling`.

    Args:
        hub: serves the sessions.
        silence: seconds without a frame or ping after which a connection is closed.
    """

    def __init__(self, hub: Hub, silence: float) -> None:
        self._hub = hub
        self._silence = silence

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            max_msg_size=FRAME_LIMIT + 1,  # aiohttp refuses a message of exactly this size
            timeout=_CLOSE_TIMEOUT,
            compress=False,
            autoping=False,  # pings reset the silence timer, so they must reach `_read`
        )
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client has closed the connection already
            return web.Response(status=400)
        transport = request.transport
        if transport is None:
            return socket  # the client has closed the connection already
        connection = _WebSocketConnection(socket, cast(asyncio.WriteTransport, transport))
        try:
            login = self._login(socket, connection, _LoginBound(request))
            session = await asyncio.wait_for(login, _LOGIN_TIMEOUT)
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
        self, socket: web.WebSocketResponse, connection: _WebSocketConnection, bound: _LoginBound
    ) -> Session | None:
        message = await socket.receive()
        while message.type in (WSMsgType.PING, WSMsgType.PONG):
            if message.type is WSMsgType.PING:
                await socket.pong(message.data)
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
            session, result = await self._checked_login(frame.request, connection)
        except (RtmError, ProtocolError) as error:
            if isinstance(error, ProtocolError):
                call_id = error.call_id if call_id is None else call_id
                answer: RtmError = LoginError.named("INVALID_ARGUMENT", error.message)
            else:
                answer = error
            await socket.send_str(encode_failure(call_id, answer))
            await socket.close(code=4003, message=b"login refused")
            return None
        except OSError as error:
            logger.exception("a login failed")
            await socket.send_str(encode_failure(call_id, LoginError.named("UNKNOWN", str(error))))
            await socket.close(code=1011, message=b"login failed")
            return None
        bound.lift()
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

    async def _checked_login(
        self, login: Login, connection: _WebSocketConnection
    ) -> tuple[Session, LoginResult]:
        """`Hub.login`; a wrong token counts against the address."""
        try:
            async with guessing() as guess:
                try:
                    return await self._hub.login(login, connection)
                except LoginError as error:
                    guess.is_wrong = error.code in _AUTH_FAILURES
                    raise
        except TooManyGuesses as error:
            raise LoginError.named("TOO_OFTEN", str(error), error) from error

    async def _read(
        self, socket: web.WebSocketResponse, session: Session, connection: _WebSocketConnection
    ) -> None:
        silence = _SilenceTimer(connection, self._silence)
        try:
            async for message in socket:
                connection.saw_frame()
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    self._hub.receive(session, connection, message.data)
                elif message.type is not WSMsgType.PONG:
                    connection.close(1003, "frames are text")
                    return
        except ProtocolError as error:
            logger.info("%r sent an invalid frame: %s", session, error)
            connection.close(1002, error.message)
        except ConnectionError:
            logger.debug("the connection of %r was lost during an answer", session)
        finally:
            silence.end()


class _SilenceTimer:
    """Closes a connection that receives no frame and no ping for `limit` seconds.

    The timer is not restarted at every frame: it fires when the limit might have passed, and then
    checks the connection's silence.
    """

    def __init__(self, connection: _WebSocketConnection, limit: float) -> None:
        self._connection = connection
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(limit, self._check)

    def end(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        left = self._limit - self._connection.silence
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._connection.cut(4002, f"no frame or ping for {self._limit:g} seconds")
