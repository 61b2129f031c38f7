"""Connections that make no request, or only byte by byte: aiohttp itself waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from ...hub.tasks import supervised

REQUEST_LIMIT = 20.0
"""Seconds a new connection may take until it has said, in full, what it wants."""

IDLE_LIMIT = 75.0
"""The same after a request; longer than the minute for which web proxies keep connections open."""

_LOOKS = 4  # in a limit's time


class IdleConnectionReaper:
    """Cuts connections that take too long over a request: a middleware, and a task while `watch`
    runs."""

    def __init__(self) -> None:
        self._deadlines: dict[object, float] = {}  # of connections with no request under way
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
        """Look at the server's connections now and then, until cancelled."""
        await supervised("idle connections", lambda: self._watch(server))

    async def _watch(self, server: web.Server) -> None:
        while True:
            await asyncio.sleep(min(REQUEST_LIMIT, IDLE_LIMIT) / _LOOKS)
            now = asyncio.get_running_loop().time()
            before, self._deadlines = self._deadlines, {}
            for connection in server.connections:
                if connection in self._served:
                    continue
                deadline = before.get(connection, now + REQUEST_LIMIT)
                self._deadlines[connection] = deadline
                if now > deadline and connection.transport is not None:
                    connection.transport.abort()
