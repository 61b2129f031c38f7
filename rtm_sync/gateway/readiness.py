"""The gateway's answer to `GET /readyz`: whether it can serve, and if not, why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

_PATIENCE = 3.0  # seconds for an answer of the disk, the engine and the media store

logger = logging.getLogger(__name__)

Check = Callable[[], Awaitable[str | None]]


class Readiness:
    """Asks all checks each time, at most one time at once. The caller calls `close`.

    Args:
        checks: each returns the sentence about a problem, or None. It may raise OSError.
    """

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = checks
        self._asking: asyncio.Task[str | None] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        """200, or 503 with a sentence."""
        problem = await self.problem()
        if problem is None:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=problem + "\n")

    async def problem(self) -> str | None:
        """The sentence that says why the gateway cannot serve for now, or None."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        asking = self._asking
        await asyncio.wait({asking}, timeout=_PATIENCE)
        if not asking.done():
            return f"The disk, the engine or the media store has not answered for {_PATIENCE:g} s."
        return asking.result()

    async def close(self) -> None:
        """End a check that hangs."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _ask(self) -> str | None:
        for check in self._checks:
            try:
                problem = await check()
            except OSError as error:
                logger.error("not ready: %s", error)  # noqa: TRY400
                return "The engine or the media store failed; the gateway's log says more."
            if problem is not None:
                return problem
        return None
