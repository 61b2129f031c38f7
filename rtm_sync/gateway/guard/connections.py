"""Limits on the connections of a gateway, for each address and in total."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ...portable import open_file_limit
from ...rules.rates import KeyedWindows, Rate
from ..errors import JsonErrors
from .addresses import Addresses, client_network

_OWN_FILES = 256  # kept free of connections, for the database and for media
_LOGGED = Rate(1, 60.0)  # log lines about one address
_KNOWN_ADDRESSES = 10_000

logger = logging.getLogger(__name__)


class ConnectionLimiter:
    """A protocol factory for a server: aborts surplus connections before TLS and HTTP cost time.

    Args:
        server: handles the accepted connections.
        addresses: trusted proxies may have any number of connections.
        per_address: the most connections of one address; 0 is no limit.
    """

    def __init__(self, server: web.Server, addresses: Addresses, per_address: int) -> None:
        self._server = server
        self._addresses = addresses
        self._per_address = per_address
        limit = open_file_limit()
        self._total = 0 if limit is None else limit - _OWN_FILES
        self._open: dict[str, list[RequestHandler]] = {}
        self._forget_at = _KNOWN_ADDRESSES
        self._logged = KeyedWindows(_LOGGED)

    def __call__(self) -> asyncio.Protocol:
        return _LimitedConnection(self)

    def accept(self, transport: asyncio.BaseTransport) -> RequestHandler | None:
        """The protocol of a new connection, or None when a limit is reached."""
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if 0 < self._total <= len(self._server.connections):
            self._warn("all", f"{self._total:,} connections are open; open files allow no more")
            return None
        if not self._per_address or self._addresses.is_proxy(address):
            return JsonErrors.of(self._server())
        key = client_network(address)
        opened = self._open.setdefault(key, [])
        size = len(opened)
        # Closed connections are dropped at powers of two, so that the cost is constant on average.
        if size >= self._per_address or size & (size - 1) == 0:
            opened[:] = [handler for handler in opened if handler.transport is not None]
        if len(opened) >= self._per_address:
            self._warn(key, f"{key} has {len(opened):,} connections, the limit of an address")
            return None
        handler = JsonErrors.of(self._server())
        opened.append(handler)
        if len(self._open) > self._forget_at:
            self._forget()
        return handler

    def _forget(self) -> None:
        """Drop the addresses without connections."""
        self._open = {
            key: opened
            for key, opened in self._open.items()
            if any(handler.transport is not None for handler in opened)
        }
        self._forget_at = max(_KNOWN_ADDRESSES, 2 * len(self._open))

    def _warn(self, key: str, why: str) -> None:
        if self._logged.allow(key, asyncio.get_running_loop().time()):
            logger.warning(
                "a connection was refused: %s", why, extra={"event": "connection_refused"}
            )


class _LimitedConnection(asyncio.Protocol):
    """The protocol of a connection until the limiter accepts or refuses it."""

    def __init__(self, limiter: ConnectionLimiter) -> None:
        self._limiter = limiter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        handler = self._limiter.accept(transport)
        if handler is None:
            cast(asyncio.Transport, transport).abort()
        else:
            transport.set_protocol(handler)
            handler.connection_made(transport)
