"""Shared code of uploads and downloads over HTTP: sessions, answers, and stalled connections."""

from __future__ import annotations

import asyncio
import base64
import re

from aiohttp import web

from ..errors import RtmError, UploadMediaError
from ..hub.auth.tokens import NotPrivileged
from ..hub.media.upload import UploadCancelled, UploadConflict, UploadSuspended
from ..hub.node import Hub
from ..hub.session import Session
from ..protocol.values import MediaInfo
from .errors import protocol_failure
from .guard.request_context import note_user

STALL_LIMIT = 120.0
"""Seconds without a byte of a body, in either direction, after which a connection is closed."""

_CHECK_INTERVAL = 0.25  # a client that closed its connection must free its slot within a second
_STATUS = {
    "NOT_LOGGED_IN": 401,
    "INVALID_ARGUMENT": 400,
    "SIZE_OVERFLOW": 413,
    "NOT_EXIST": 404,
    "CONCURRENCY_LIMIT_EXCEEDED": 429,
    "TIMEOUT": 408,
    "FAILURE": 507,
}
_CAUSE_STATUS: dict[type, int] = {  # these causes decide before the reason does
    NotPrivileged: 403,
    UploadConflict: 409,
    UploadCancelled: 410,
    UploadSuspended: 503,
}

_NAME = r"[A-Za-z0-9_!#$%&'*+.^`|~-]{1,64}"  # a token of RFC 9110
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
_CONTENT_TYPE = re.compile(rf"{_NAME}/{_NAME}(?: *; *{_NAME}=(?:{_NAME}|{_QUOTED}))*")
_CONTENT_TYPE_LIMIT = 255


def session_of(hub: Hub, request: web.Request, family: type[RtmError]) -> Session:
    """The living session whose bearer token the request carries.

    Raises:
        RtmError: NOT_LOGGED_IN, of that family.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    session = hub.session(token.strip()) if scheme.lower() == "bearer" else None
    if session is None:
        raise family.named(
            "NOT_LOGGED_IN", "Authorization must be Bearer with the token of a living session."
        )
    note_user(*session.user)
    return session


def check_encoding(request: web.Request) -> None:
    """Refuse a medium with a Content-Encoding: it is stored, counted and digested as it is sent.

    Raises:
        UploadMediaError: INVALID_ARGUMENT.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UploadMediaError.named(
            "INVALID_ARGUMENT",
            f"Content-Encoding is {encoding[:40]!r}; send a medium without an encoding.",
        )


class ConnectionGuard:
    """Aborts a request's connection when its body stalls, or when the client has closed it.

    And when the credentials of the request's session end.

    Nothing else detects a client that closes the connection while an answer waits to be sent: the
    transport is in the closing state until all is sent, which never happens.
    """

    def __init__(self, hub: Hub, session: Session, request: web.Request) -> None:
        self._hub = hub
        self._session = session
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._touched_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def touch(self) -> None:
        """Record that bytes were sent or received."""
        self._touched_at = self._loop.time()

    def __enter__(self) -> ConnectionGuard:
        self.touch()
        self._check()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        transport = self._request.transport
        stalled = self._loop.time() - self._touched_at >= STALL_LIMIT
        if (
            stalled
            or transport is None
            or transport.is_closing()
            or not self._hub.allows(self._session)
        ):
            hang_up(self._request)
        else:
            self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check)


def hang_up(request: web.Request) -> None:
    """Abort the request's connection."""
    if request.transport is not None:
        request.transport.abort()


def is_forbidden(error: RtmError) -> bool:
    """Whether the error means that the user's token does not allow the action (HTTP 403)."""
    return isinstance(error.cause, NotPrivileged)


def failure(error: RtmError, status: int | None = None) -> web.Response:
    """An error answer; without `status`, with the status of the error's cause or reason."""
    if status is None:
        status = _CAUSE_STATUS.get(type(error.cause), _STATUS.get(error.reason, 500))
    response = protocol_failure(status, error)
    if response.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if response.status == 429:
        response.headers["Retry-After"] = "1"
    return response


def info_headers(info: MediaInfo) -> dict[str, str]:
    """The headers that carry a medium's SHA-256 and expiry (seconds since the epoch)."""
    digest = base64.b64encode(bytes.fromhex(info.sha256)).decode()
    return {"Repr-Digest": f"sha-256=:{digest}:", "Rtm-Expires-At": repr(info.expires_at)}


def valid_content_type(text: str) -> str:
    """A content type with its parameters, or application/octet-stream for any other text."""
    text = text.strip()
    if len(text) <= _CONTENT_TYPE_LIMIT and _CONTENT_TYPE.fullmatch(text):
        return text
    return "application/octet-stream"
