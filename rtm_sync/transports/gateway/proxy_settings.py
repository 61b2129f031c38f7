"""The HTTP proxy and the trusted certificates for the connections to a gateway.

They are chosen once for a transport, so that its WebSocket and its HTTP use the same settings. The
underlying libraries each read the environment differently.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import certifi  # `requests` requires it; to import that for a path would load all of it

if TYPE_CHECKING:
    import requests

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The network settings for one gateway.

    Attributes:
        proxy: URL of the HTTP proxy, or None for a direct connection.
        ca_file: the certificates to trust, as a PEM file.
    """

    proxy: str | None = field(repr=False)  # it may have a password
    ca_file: str

    def for_requests(self, session: requests.Session) -> None:
        """Apply the settings to a `requests` session, which then ignores the environment."""
        session.trust_env = False
        session.verify = self.ca_file
        if self.proxy is not None:
            session.proxies = {"http": self.proxy, "https": self.proxy}

    def tls_context(self) -> ssl.SSLContext:
        """A TLS context that trusts the certificates and checks the host's name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca_file)
        return context

    def first_hop(self, host: str, port: int) -> tuple[str, int]:
        """The host and port to connect to: the proxy's, or else the gateway's own."""
        if self.proxy is None:
            return host, port
        parts = urlsplit(self.proxy)
        return parts.hostname or "", parts.port or 80

    def open_tunnel(self, sock: socket.socket, host: str, port: int) -> None:
        """Ask the proxy at the other end of a socket for a tunnel to the gateway.

        Raises:
            OSError: the proxy refused, or did not answer as a proxy.
        """
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        parts = urlsplit(self.proxy or "")
        if parts.username:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}")
        sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        with contextlib.closing(HTTPResponse(sock, method="CONNECT")) as answer:
            try:
                answer.begin()
            except HTTPException as error:
                raise ConnectionError(f"the proxy's answer is not HTTP: {error}") from error
            if answer.status != HTTPStatus.OK:
                raise ConnectionError(
                    f"the proxy refused the connection: {answer.status} {answer.reason}"
                )


def find_proxy_settings(
    url: str,
    proxy: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ProxySettings:
    """Choose the settings for the gateway at `url` (http or https).

    Args:
        proxy: an HTTP proxy's URL; "" for none; None for what the environment says (`HTTP_PROXY`,
            `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`), which never concerns this machine itself.
        ca_file: certificates to trust, a PEM file; None for what the environment says
            (`REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`), or else certifi's.

    Raises:
        ValueError: the proxy is no HTTP proxy, or the file does not exist.
    """
    if proxy is None and not _is_this_machine(urlsplit(url).hostname or ""):
        proxy = _environment_proxy(url)
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
    if proxy and not _is_http_proxy(proxy):
        shown = proxy.rpartition("@")[2]
        raise ValueError(
            f"The proxy must be like http://host:3128, not {shown!r}; proxy='' goes without."
        )
    chosen = ca_file or next(filter(None, map(environment.get, _CA_VARIABLES)), None)
    if chosen is None:
        chosen = certifi.where()
    elif not Path(chosen).is_file():
        raise ValueError(f"There is no file of certificates at {os.fspath(chosen)!r}.")
    return ProxySettings(proxy or None, os.fspath(chosen))


def gateway_url_problem(url: str) -> str | None:
    """The reason why a URL cannot be a gateway's, without its credentials, or None."""
    if "@" in url:
        return (
            f"url has a user name or a password before {without_credentials(url)!r}; a gateway "
            "takes none. Leave them out; users have tokens, and RtmSender has the app's secret."
        )
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return None
    except ValueError:  # the port or the IPv6 address
        pass
    return f"url must be like ws://host:8765, not {url!r}."


def without_credentials(url: str) -> str:
    """A URL for messages: without what is before an @, which may be a password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.rpartition('@')[2]}{separator}{rest.rpartition('@')[2]}"


def _is_http_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def _environment_proxy(url: str) -> str | None:
    """The proxy for the URL by the environment, with the rules of `requests` for NO_PROXY."""
    from urllib.request import getproxies

    if not getproxies():  # then `requests` is not loaded before the first transfer
        return None
    import requests.utils

    return requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
