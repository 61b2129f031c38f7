"""A limit on the wrong tokens and secrets of one address."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from ...rules.rates import KeyedWindows, Rate
from ..errors import error_response
from .addresses import Addresses, client_network
from .request_context import request_context

AUTH_FAILURES = Rate(100, 60.0)
"""Wrong tokens and secrets allowed for one address."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AuthFailureLimiter:
    """A middleware: refuses an address that sent too many wrong tokens or secrets (429).

    Args:
        addresses: requests of a trusted proxy without a client's address are not counted.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._failures = KeyedWindows(AUTH_FAILURES)

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        present = request_context.get()
        address = "" if present is None else present.address
        if present is None or self._addresses.is_proxy(address):
            return await handler(request)
        key, now = client_network(address), asyncio.get_running_loop().time
        if self._failures.is_full(key, now()):
            most = AUTH_FAILURES
            return error_response(
                request,
                429,
                f"More than {most} tokens or secrets from {address} were wrong; wait.",
                {hdrs.RETRY_AFTER: f"{AUTH_FAILURES.seconds:.0f}"},
            )
        try:
            return await handler(request)
        finally:
            if present.auth_failed:
                self._failures.allow(key, now())
