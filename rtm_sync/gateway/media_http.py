"""What uploads and downloads over HTTP share: sessions, answers, and stalled connections."""

from __future__ import annotations

import asyncio
import base64

from aiohttp import web

from ..errors import RtmError
from ..hub.auth.tokens import NotPrivileged
from ..hub.node import Hub
from ..hub.session import Session
from ..protocol.frames import encode_failure
from ..protocol.values import MediaInfo
from .guard.request_context import note_user

STALL_LIMIT = 120.0
"""Seconds without a byte of a body, either way, after which its connection is closed."""

_LOOK_INTERVAL = 0.25  # for clients that hung up; the promise is a free slot within a second
_STATUS = {
    "NOT_LOGGED_IN": 401,
    "INVALID_ARGUMENT": 400,
    "SIZE_OVERFLOW": 413,
    "NOT_EXIST": 404,
    "CONCURRENCY_LIMIT_EXCEEDED": 429,
    "TIMEOUT": 408,
    "FAILURE": 507,
}


def session_of(hub: Hub, request: web.Request, family: type[RtmError]) -> Session:
    """The living session whose bearer token the request carries.

    Raises:
        RtmError: NOT_LOGGED_IN, of that family.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    session = hub.session(token.strip()) if scheme.lower() == "bearer" else None
    if session is None:
        raise family.named(
            "NOT_LOGGED_IN", "Authorization must be Bearer with a live session's token."
        )
    note_user(*session.user)
    return session


class ConnectionGuard:
    """Cuts a request's connection when no byte of a body moves for too long, or nobody listens.

    A client that hangs up while an answer waits to be sent is noticed by nothing else: the
    connection counts as closing, and closes when all is sent, which is never.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._touched_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def touch(self) -> None:
        """Bytes have moved."""
        self._touched_at = self._loop.time()

    def __enter__(self) -> ConnectionGuard:
        self.touch()
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        transport = self._request.transport
        stalled = self._loop.time() - self._touched_at >= STALL_LIMIT
        if stalled or transport is None or transport.is_closing():
            hang_up(self._request)
        else:
            self._timer = self._loop.call_later(_LOOK_INTERVAL, self._look)


def hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def is_forbidden(error: RtmError) -> bool:
    """Whether the user's token does not allow it: HTTP's 403."""
    return isinstance(error.cause, NotPrivileged)


def failure(error: RtmError) -> web.Response:
    """An error answer; it carries the same error object as the WebSocket's."""
    response = web.Response(
        status=403 if is_forbidden(error) else _STATUS.get(error.reason, 500),
        text=encode_failure(None, error),
        content_type="application/json",
    )
    if response.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if response.status == 429:
        response.headers["Retry-After"] = "1"
    return response


def info_headers(info: MediaInfo) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(info.sha256)).decode()
    return {"Repr-Digest": f"sha-256=:{digest}:", "Rtm-Expires-At": repr(info.expires_at)}
