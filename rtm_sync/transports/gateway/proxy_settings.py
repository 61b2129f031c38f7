"""The HTTP proxy and the trusted certificates for the connections to a gateway.

They are chosen once for a transport, so that its WebSocket and its HTTP use the same settings. The
underlying libraries each read the environment differently.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import certifi  # `requests` requires it; to import that for a path would load all of it

if TYPE_CHECKING:
    import requests

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_NOWHERE = "not-a-host.invalid"


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The network settings for one gateway.

    Attributes:
        proxy: URL of the HTTP proxy, or None for a direct connection.
        ca_file: the certificates to trust, as a PEM file.
    """

    proxy: str | None
    ca_file: str

    def for_requests(self, session: requests.Session) -> None:
        """Apply the settings to a `requests` session, which then ignores the environment."""
        session.trust_env = False
        session.verify = self.ca_file
        if self.proxy is not None:
            session.proxies = {"http": self.proxy, "https": self.proxy}

    def tls_for_websocket(self) -> dict[str, Any]:
        """websocket-client's `sslopt`."""
        return {"ca_certs": self.ca_file}

    def proxy_for_websocket(self) -> dict[str, Any]:
        """The proxy options for websocket-client's `connect`."""
        if self.proxy is None:
            # websocket-client honours http_no_proxy only if a proxy is given.
            return {"http_proxy_host": _NOWHERE, "http_no_proxy": ["*"]}
        parts = urlsplit(self.proxy)
        auth = (unquote(parts.username or ""), unquote(parts.password or ""))
        return {
            "proxy_type": "http",
            "http_proxy_host": parts.hostname,
            "http_proxy_port": parts.port or 80,
            "http_proxy_auth": auth if parts.username else None,
            "http_no_proxy": [_NOWHERE],  # an empty list would mean the environment's
        }


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
    if proxy:
        parts = urlsplit(proxy)
        if parts.scheme != "http" or not parts.hostname:
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
