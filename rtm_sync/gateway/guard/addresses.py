"""The client address of a request behind proxies, and the network that limits apply to."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable
from typing import TypeAlias

from aiohttp import hdrs, web

_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]*))(?::[0-9]*)?")
_OF_PROXIES = ("Forwarded", "Via", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_PROBES = ("/healthz", "/readyz")  # balancers ask for themselves

logger = logging.getLogger(__name__)

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Addresses:
    """Finds the client address of a request, by a list of trusted proxies.

    Args:
        proxies: networks of the trusted proxies; `X-Forwarded-For` of other addresses is ignored.
    """

    def __init__(self, proxies: Iterable[Network]) -> None:
        self._proxies = tuple(proxies)
        self._has_warned = False

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
        """The right-most untrusted `X-Forwarded-For` entry, else the peer's address.

        Limits do not apply to a proxy's own address: the first time that a proxy hands on none, the
        log says so.
        """
        address = request.remote or ""
        handed_on = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())).split(",")
        while handed_on and self.is_proxy(address):
            before = handed_on.pop().strip()
            try:
                address = str(ipaddress.ip_address(before))
            except ValueError:  # not an address: use the proxy's own
                break
        if not self._has_warned and self.is_proxy(address) and _is_handed_on(request):
            self._has_warned = True
            logger.error(
                "THE PROXY %s HANDS ON NO ADDRESSES: its requests have no valid X-Forwarded-For, "
                "so the limits of connections and of wrong tokens for each address apply to none "
                "of its clients. Set the header (nginx: proxy_set_header X-Forwarded-For "
                "$proxy_add_x_forwarded_for), or take the proxy out of `proxies`",
                address or "at the Unix socket",
                extra={"event": "no_addresses", "address": address},
            )
        return address


def is_of_this_machine(host: str) -> bool:
    """Whether a Host header names this machine, or nothing that a page could have as its name."""
    parts = _HOST.fullmatch(host)
    if parts is None:
        return False
    name = parts["address"] or parts["name"]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return "." not in name or name.lower().endswith(".localhost")


def _is_handed_on(request: web.Request) -> bool:
    """Whether a request from a proxy's address is another client's, and not the machine's own."""
    if request.path in _PROBES:
        return False
    try:
        is_here = ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        is_here = False
    return (
        not is_here
        or not is_of_this_machine(request.headers.get(hdrs.HOST, ""))
        or any(name in request.headers for name in _OF_PROXIES)
    )


def client_network(address: str) -> str:
    """The network that limits apply to: an IPv4 address, or the /64 of an IPv6 address."""
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return address
