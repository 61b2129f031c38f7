"""Where clients come from, and how much one address may take: connections, and wrong tokens."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias, cast

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from ...portable import open_file_limit
from ...rules.rates import KeyedWindows, Rate
from .request_context import request_context

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

REFUSALS = Rate(100, 60.0)
"""Wrong tokens and secrets that one address may show."""

_OWN_FILES = 256
"""Files kept free of connections, for the database, media and whatever else."""

_SAID = Rate(1, 60.0)  # log lines about one address
_KNOWN_ADDRESSES = 10_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)


class Addresses:
    """Tells the address that a request comes from, and which addresses are proxies.

    Args:
        proxies: where those are that hand requests on; what their `X-Forwarded-For` says is
            believed.
    """

    def __init__(self, proxies: Iterable[Network]) -> None:
        self._proxies = tuple(proxies)

    def is_proxy(self, address: str) -> bool:
        """Whether it is one of the proxies; so is no address at all, as of a Unix socket."""
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return True
        return any(known in network for network in self._proxies)

    def of(self, request: web.Request) -> str:
        """The nearest address that is no proxy's; a proxy's own when it hands none on."""
        address = request.remote or ""
        handed_on = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())).split(",")
        while handed_on and self.is_proxy(address):
            before = handed_on.pop().strip()
            try:
                address = str(ipaddress.ip_address(before))
            except ValueError:  # nobody's address: the proxy is as far as we can see
                break
        return address


def client_network(address: str) -> str:
    """What counts as one address: of IPv6 the /64, which one customer has whole."""
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return address


class ConnectionLimiter:
    """Makes a server's protocols, and cuts connections that are too many, before they cost.

    Args:
        server: handles what is let in.
        addresses: proxies are let in, however many connections they have.
        per_address: connections that one address may have; 0 is any number.
    """

    def __init__(self, server: web.Server, addresses: Addresses, per_address: int) -> None:
        self._server = server
        self._addresses = addresses
        self._per_address = per_address
        limit = open_file_limit()
        self._total = 0 if limit is None else limit - _OWN_FILES
        self._open: dict[str, list[RequestHandler]] = {}
        self._forget_at = _KNOWN_ADDRESSES
        self._said = KeyedWindows(_SAID)

    def __call__(self) -> asyncio.Protocol:
        return _LimitedConnection(self)

    def let_in(self, transport: asyncio.BaseTransport) -> RequestHandler | None:
        """The protocol of a new connection, or None when it may not be."""
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if 0 < self._total <= len(self._server.connections):
            self._say("all", f"{self._total:,} connections are open, as many as files allow")
            return None
        if not self._per_address or self._addresses.is_proxy(address):
            return self._server()
        key = client_network(address)
        opened = self._open.setdefault(key, [])
        size = len(opened)
        if size >= self._per_address or size & (size - 1) == 0:  # often enough, and cheap
            opened[:] = [handler for handler in opened if handler.transport is not None]
        if len(opened) >= self._per_address:
            self._say(key, f"{key} has {len(opened):,} connections, as many as one may")
            return None
        handler = self._server()
        opened.append(handler)
        if len(self._open) > self._forget_at:
            self._forget()
        return handler

    def _forget(self) -> None:
        """Forget the addresses without connections."""
        self._open = {
            key: opened
            for key, opened in self._open.items()
            if any(handler.transport is not None for handler in opened)
        }
        self._forget_at = max(_KNOWN_ADDRESSES, 2 * len(self._open))

    def _say(self, key: str, why: str) -> None:
        if self._said.allow(key, asyncio.get_running_loop().time()):
            logger.warning(
                "a connection was refused: %s", why, extra={"event": "connection_refused"}
            )


class _LimitedConnection(asyncio.Protocol):
    """A connection until it is let in or not."""

    def __init__(self, limiter: ConnectionLimiter) -> None:
        self._limiter = limiter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        handler = self._limiter.let_in(transport)
        if handler is None:
            cast(asyncio.Transport, transport).abort()
        else:
            transport.set_protocol(handler)
            handler.connection_made(transport)


class AuthFailureLimiter:
    """A middleware: an address that showed too many wrong tokens or secrets waits a while.

    Args:
        addresses: a proxy that does not say for whom it asks is not held to account.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._refusals = KeyedWindows(REFUSALS)

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        present = request_context.get()
        address = "" if present is None else present.address
        if present is None or self._addresses.is_proxy(address):
            return await handler(request)
        key, now = client_network(address), asyncio.get_running_loop().time
        if self._refusals.is_full(key, now()):
            return web.Response(
                status=429,
                text=f"More than {REFUSALS} tokens or secrets from {address} were wrong; wait.\n",
                headers={hdrs.RETRY_AFTER: f"{REFUSALS.seconds:.0f}"},
            )
        try:
            return await handler(request)
        finally:
            if present.is_wrong:
                self._refusals.allow(key, now())
