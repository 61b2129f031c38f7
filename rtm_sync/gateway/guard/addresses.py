"""The client address of a request behind proxies, and the network that limits apply to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

from aiohttp import hdrs, web

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Addresses:
    """Finds the client address of a request, by a list of trusted proxies.

    Args:
        proxies: networks of the trusted proxies; `X-Forwarded-For` of other addresses is ignored.
    """

    def __init__(self, proxies: Iterable[Network]) -> None:
        self._proxies = tuple(proxies)

    def is_proxy(self, address: str) -> bool:
        """Whether the address is a trusted proxy. A Unix socket (no address) counts as one."""
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return True
        return any(known in network for network in self._proxies)

    def is_secure(self, request: web.BaseRequest) -> bool:
        """Whether the client has used TLS, to this gateway or to a trusted proxy."""
        if request.secure:
            return True
        proto = request.headers.get(hdrs.X_FORWARDED_PROTO, "").strip().lower()
        return proto == "https" and self.is_proxy(request.remote or "")

    def of(self, request: web.Request) -> str:
        """The right-most untrusted `X-Forwarded-For` entry, else the peer's address."""
        address = request.remote or ""
        handed_on = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())).split(",")
        while handed_on and self.is_proxy(address):
            before = handed_on.pop().strip()
            try:
                address = str(ipaddress.ip_address(before))
            except ValueError:  # not an address: use the proxy's own
                break
        return address


def client_network(address: str) -> str:
    """The network that limits apply to: an IPv4 address, or the /64 of an IPv6 address."""
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return address
