"""A limit on the wrong tokens and secrets of one address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import hdrs, web

from ...rules.rates import KeyedWindows, Rate
from ..errors import error_response
from .addresses import Addresses, client_network
from .request_context import Guess, TooManyGuesses, request_context

AUTH_FAILURES = Rate(100, 60.0)
"""Wrong tokens and secrets allowed for one address."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AuthFailureLimiter:
    """A middleware: refuses an address that sent too many wrong tokens or secrets (429).

    A token or secret that is being checked counts until the result is known: guesses that are sent
    at the same time are no more than those that are sent one after the other. Further ones wait.

    Args:
        addresses: requests of a trusted proxy without a client's address are not counted.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._failures = KeyedWindows(AUTH_FAILURES)
        self._running: dict[str, _Running] = {}

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        present = request_context.get()
        address = "" if present is None else present.address
        if present is None or self._addresses.is_proxy(address):
            return await handler(request)
        limit = _AddressLimit(self._failures, self._running, address)
        if not limit.room:
            retry_after = f"{AUTH_FAILURES.seconds:.0f}"
            return error_response(request, 429, limit.sentence, {hdrs.RETRY_AFTER: retry_after})
        present.guess = limit.guess
        return await handler(request)


class _Running:
    """The checks of one network that run now, or wait for those."""

    def __init__(self) -> None:
        self.checks = 0
        self.requests = 0
        self.one_ended = asyncio.Event()


class _AddressLimit:
    """The limit of one address."""

    def __init__(self, failures: KeyedWindows, running: dict[str, _Running], address: str) -> None:
        self._failures = failures
        self._running = running
        self._address = address
        self._key = client_network(address)

    @property
    def room(self) -> int:
        """How many more wrong ones are allowed now."""
        return self._failures.room(self._key, asyncio.get_running_loop().time())

    @property
    def sentence(self) -> str:
        return f"More than {AUTH_FAILURES} tokens or secrets from {self._address} were wrong; wait."

    @contextlib.asynccontextmanager
    async def guess(self) -> AsyncIterator[Guess]:
        """See `guessing`."""
        running = self._running.setdefault(self._key, _Running())
        running.requests += 1
        try:
            while 0 < self.room <= running.checks:
                running.one_ended.clear()
                await running.one_ended.wait()
            if not self.room:
                raise TooManyGuesses(self.sentence)
            running.checks += 1
            guess = Guess()
            try:
                yield guess
            finally:
                running.checks -= 1
                if guess.is_wrong:
                    self._failures.allow(self._key, asyncio.get_running_loop().time())
                running.one_ended.set()
        finally:
            running.requests -= 1
            if not running.requests:
                del self._running[self._key]
