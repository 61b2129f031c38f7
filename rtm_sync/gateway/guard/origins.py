"""The web origins whose pages may use a gateway from a browser (CORS), and its host names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from aiohttp import hdrs, web

from ..errors import error_response
from .addresses import Addresses, is_of_this_machine

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
    header on), but not an `http` page of a gateway that serves TLS: anybody on the way to the
    browser can write it.

    A gateway that needs no tokens answers a browser for names of this machine only (421). Else a
    page could give its own name the address 127.0.0.1, and use the gateway as a page of the
    gateway's host (DNS rebinding). A name without a dot is taken for one of this machine: no page
    can have it.

    Args:
        allowed: origins such as `https://app.example`; `*` allows all.
        addresses: know whether a client has used TLS.
        needs_no_tokens: whether the gateway has no app with a secret at present.
    """

    def __init__(
        self, allowed: Iterable[str], addresses: Addresses, needs_no_tokens: Callable[[], bool]
    ) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self._addresses = addresses
        self._needs_no_tokens = needs_no_tokens

    def allows(self, origin: str, request: web.BaseRequest) -> bool:
        """Whether a page of that origin may make the request."""
        origin = origin.lower()
        if "*" in self._allowed or origin in self._allowed:
            return True
        scheme, _, place = origin.partition("://")
        if scheme == "http" and self._addresses.is_secure(request):
            return False
        host = request.headers.get(hdrs.HOST, "").lower()
        return scheme in ("http", "https") and place == host != ""

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get(hdrs.HOST, "")
        if self._needs_no_tokens() and _is_of_browser(request) and not is_of_this_machine(host):
            return error_response(
                request,
                421,
                f"{host[:200]!r} is no name of this machine. A gateway without an app's secret "
                "answers browsers for localhost only; see `app_secret`.",
            )
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return await handler(request)
        if not self.allows(origin, request):
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
        if origin is not None and self.allows(origin, request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)


def _is_of_browser(request: web.BaseRequest) -> bool:
    """Whether a browser may have made the request: all of them send one of these headers."""
    headers = request.headers
    return (
        hdrs.ORIGIN in headers
        or "Sec-Fetch-Site" in headers
        or headers.get(hdrs.USER_AGENT, "").startswith("Mozilla/")
    )
