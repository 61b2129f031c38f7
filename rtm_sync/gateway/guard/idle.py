"""Time limits for connections without a request: aiohttp itself has none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from ...hub.tasks import supervised

REQUEST_LIMIT = 20.0
"""Seconds within which a new connection must have sent its first request in full."""

IDLE_LIMIT = 75.0
"""Seconds from the end of one request to the next; web proxies keep connections for 60 s."""

_CHECKS = 4  # checks within the shorter limit


class IdleConnectionReaper:
    """Aborts connections that take too long to send a request.

    `note` is a middleware that records the connections with a request in progress. `watch` is a
    task that aborts the others after their limit.
    """

    def __init__(self) -> None:
        self._deadlines: dict[object, float] = {}  # of connections without a request in progress
        self._served: set[object] = set()

    @web.middleware
    async def note(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        connection = request.protocol
        self._served.add(connection)
        try:
            return await handler(request)
        finally:
            self._served.discard(connection)
            self._deadlines[connection] = asyncio.get_running_loop().time() + IDLE_LIMIT

    async def watch(self, server: web.Server) -> None:
        """Abort the server's idle connections until cancelled."""
        await supervised("idle connections", lambda: self._watch(server))

    async def _watch(self, server: web.Server) -> None:
        while True:
            await asyncio.sleep(min(REQUEST_LIMIT, IDLE_LIMIT) / _CHECKS)
            now = asyncio.get_running_loop().time()
            before, self._deadlines = self._deadlines, {}
            for connection in server.connections:
                if connection in self._served:
                    continue
                deadline = before.get(connection, now + REQUEST_LIMIT)
                self._deadlines[connection] = deadline
                if now > deadline and connection.transport is not None:
                    connection.transport.abort()
