"""Error answers in JSON, also in place of those that aiohttp would write as plain text.

There are two forms. Under `/v1/` the body is the error object of the protocol, `{"jsonrpc": "2.0",
"id": null, "error": …}`. Elsewhere it is the object of the HTTP API, `{"result": "failed", …}`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import ClientError, hdrs, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from ..errors import DownloadMediaError, LoginError, RtmError, UploadMediaError
from ..protocol.frames import encode_failure

PROTOCOL_PREFIX = "/v1/"
SIGNALLING_PATH = PROTOCOL_PREFIX + "signalling"
MEDIA_PATH = PROTOCOL_PREFIX + "media"

BODY_ERRORS = (ClientError, HttpProcessingError, web.RequestPayloadError)
"""What reading a request's body raises when the body is cut off or cannot be decoded."""

_CODES = {400: "INVALID_ARGUMENT", 413: "SIZE_OVERFLOW", 429: "TOO_OFTEN", 500: "FAILURE"}
_REASONS = {
    400: "INVALID_ARGUMENT",
    403: "FAILURE",
    404: "NOT_EXIST",
    409: "FAILURE",
    413: "SIZE_OVERFLOW",
    429: "TOO_OFTEN",
}
_LINE_TOO_LONG = (
    "The request's first line, or a header, is longer than 8,190 bytes. Where many users are asked "
    "for, send them in the body of a POST."
)
_MESSAGE_LIMIT = 300  # characters of a message by aiohttp, which repeats what it was sent
_OWN_HEADERS = frozenset({hdrs.CONTENT_TYPE.lower(), hdrs.CONTENT_LENGTH.lower()})


def error_response(
    request: web.BaseRequest,
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An error answer to a request, in the form of its path.

    Args:
        request: the request, which may have had no valid path.
        status: 400 or more.
        message: one readable sentence.
        headers: more headers of the answer.
    """
    if request.path.startswith(PROTOCOL_PREFIX):
        family: type[RtmError] = UploadMediaError
        if request.path.startswith(SIGNALLING_PATH):
            family = LoginError
        elif request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
            family = DownloadMediaError
        response = protocol_failure(status, family.named(error_reason(status), message))
    else:
        code = _CODES.get(status, HTTPStatus(status).name)
        response = api_failure(uuid.uuid4().hex, status, code, message)
    response.headers.update(headers or {})
    return response


def error_reason(status: int) -> str:
    """The reason, as for `RtmError.named`, of an error answer with this status."""
    return _REASONS.get(status, "INVALID_ARGUMENT" if status < 500 else "FAILURE")


def protocol_failure(status: int, error: RtmError) -> web.Response:
    """An error answer of `/v1/`. Its body is the same error object as on the WebSocket."""
    return _json(status, encode_failure(None, error))


def api_failure(request_id: str, status: int, code: str, message: str) -> web.Response:
    """An error answer of the HTTP API, in the reference's format."""
    body = {"result": "failed", "request_id": request_id, "code": code, "message": message}
    return web.json_response(body, status=status)


def _json(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, content_type="application/json")


class JsonErrors(RequestHandler):
    """Converts the plain-text errors of aiohttp: no such path, no valid HTTP, a failed handler.

    aiohttp writes most of them outside of its middlewares. It has no setting for the class of its
    connections; therefore the class of each new connection is replaced by this one.
    """

    __slots__ = ()

    @classmethod
    def of(cls, connection: RequestHandler) -> RequestHandler:
        """Let a new connection answer errors as JSON, and return it."""
        connection.__class__ = cls
        return connection

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # writes the log
        if isinstance(exc, LineTooLong):
            message = _LINE_TOO_LONG
        elif isinstance(exc, HttpProcessingError):
            message = "The request is no valid HTTP; the gateway's log says why."
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or not message:
            message = "Internal error."
        response = error_response(request, status, _line(message))
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPError):
            kept = {
                name: value
                for name, value in resp.headers.items()
                if name.lower() not in _OWN_HEADERS
            }
            resp = error_response(request, resp.status, _sentence(request, resp), kept)
        return await super().finish_response(request, resp, start_time)


def _sentence(request: web.BaseRequest, error: web.HTTPError) -> str:
    if isinstance(error, web.HTTPNotFound):
        return f"There is no {request.path[:200]!r} here; /openapi.json lists the HTTP API."
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return f"{error.method} is not possible here; use {allowed}."
    return _line(error.text or error.reason)


def _line(text: str) -> str:
    return " ".join(text.split())[:_MESSAGE_LIMIT]
