"""The web origins whose pages may use a gateway from a browser (CORS)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from ..errors import error_response

_EXPOSED = (
    "Content-Disposition, Content-Range, ETag, Location, Repr-Digest, Retry-After, Tus-Extension, "
    "Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Expires, Upload-Length, Upload-Offset"
)
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
_MAX_AGE = "600"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Origins:
    """A middleware: refuses requests that a browser makes for another site's page (403).

    Browsers send the page's origin. Requests without one come from other programs and are not
    checked. A page of the gateway's own host is always allowed (a proxy in front must pass the Host
    header on).

    Args:
        allowed: origins such as `https://app.example`; `*` allows all.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)

    def allows(self, origin: str, host: str) -> bool:
        """Whether a page of that origin may use the gateway; `host` is the Host header."""
        origin = origin.lower()
        if "*" in self._allowed or origin in self._allowed:
            return True
        return urlsplit(origin).netloc == host.lower() != ""

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return await handler(request)
        if not self.allows(origin, request.headers.get(hdrs.HOST, "")):
            return error_response(
                request, 403, f"Pages of {origin[:200]!r} may not use this gateway; see `origins`."
            )
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in (
            request.headers
        ):
            response = web.Response(status=204)
            asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = _MAX_AGE
            return response
        return await handler(request)

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the CORS headers that let an allowed page read the response.

        A handler of `on_response_prepare`.
        """
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self.allows(origin, request.headers.get(hdrs.HOST, "")):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
