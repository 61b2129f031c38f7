"""Requests that a browser makes for pages of other sites, and under foreign host names: refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Flask, Request, abort, request

_OWN_SITES = ("same-origin", "none")  # "none": the user typed the address, or has a bookmark


def protect(app: Flask, hosts: Iterable[str] = ()) -> None:
    """Refuse what browsers do for pages of other sites (403), and foreign host names (400).

    Without it, a page of another site, or another program's page on this machine, could send
    messages in the name of a user who is signed in (CSRF), or give its own name your server's
    address and read everything (DNS rebinding). Programs that are no browsers are not affected.

    A link from another site to a page of yours works: a GET that opens a document is allowed.
    Everything else needs `Sec-Fetch-Site: same-origin`, or from an older browser an `Origin` with
    the request's own host.

    Args:
        app: the app, before its first request.
        hosts: the names under which the app is reached, without port. IP addresses, `localhost` and
            names without a dot need not be listed: no page of another site has one.
    """
    allowed = frozenset(host.lower() for host in hosts)

    @app.before_request
    def check() -> None:
        if not _is_known(request.host, allowed):
            abort(400, f"The host {request.host[:200]!r} is not known here; see `protect`.")
        if _is_foreign(request):
            abort(403, "The request was made for a page of another site.")


def _is_known(host: str, allowed: frozenset[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return False
    if not name:
        return False
    if name in allowed or "." not in name or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_foreign(asked: Request) -> bool:
    """Whether a browser makes the request for a page of another site."""
    site = asked.headers.get("Sec-Fetch-Site")
    if site is not None:
        opens_page = (
            asked.method == "GET"
            and asked.headers.get("Sec-Fetch-Mode") == "navigate"
            and asked.headers.get("Sec-Fetch-Dest") == "document"
        )
        return site not in _OWN_SITES and not opens_page
    origin = asked.headers.get("Origin")
    return origin is not None and origin.partition("://")[2].lower() != asked.host.lower()
