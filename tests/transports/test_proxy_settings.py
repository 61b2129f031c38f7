"""Proxies and certificates: WebSocket and HTTP go the same way, or say why they cannot."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import trustme

from rtm_sync import CreateInstanceError, LoginError, RtmClient
from rtm_sync.testing import local_gateway
from rtm_sync.transports.gateway.proxy_settings import find_proxy_settings
from tests.support import PATIENCE, RtmTestCase

SPEAKING = ("_proxy", "_ca_bundle", "ssl_cert_file")  # variables that would have a say


class ForwardingServer(socketserver.ThreadingTCPServer):
    """A server of byte forwarders that is closed with all its connections."""

    allow_reuse_address = True
    block_on_close = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.requests: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @classmethod
    @contextlib.contextmanager
    def running(cls, handler: type[socketserver.BaseRequestHandler]) -> Iterator[ForwardingServer]:
        with cls(handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()


def forward(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until either side ends."""
    while True:
        pending = [s for s in (one, other) if isinstance(s, ssl.SSLSocket) and s.pending()]
        ready = pending or select.select([one, other], [], [], PATIENCE)[0]
        if not ready:
            return
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)


class HttpProxy(socketserver.StreamRequestHandler):
    """An HTTP proxy that wants a password: CONNECT, and absolute URLs for plain HTTP."""

    server: ForwardingServer
    PASSWORD = base64.b64encode(b"ann:s p").decode()

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        self.server.requests.append(f"{method} {target}")
        if f"Basic {self.PASSWORD}".encode() not in head:
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        address = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address.hostname or "", address.port or 80)) as upstream,
        ):
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                origin = head.replace(target.encode(), address.path.encode(), 1)
                upstream.sendall(origin)
            buffered = self.rfile.peek() if method != "CONNECT" else b""  # type: ignore[attr-defined]
            if buffered:
                upstream.sendall(self.rfile.read(len(buffered)))
            forward(self.connection, upstream)


class NetworkTest(RtmTestCase):
    def setUp(self) -> None:
        self.gateway = self.entered(local_gateway())
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith(SPEAKING)}
        self.entered(mock.patch.dict(os.environ, kept, clear=True))

    def assert_works(self, url: str, **options: object) -> None:
        """Log in, send, upload and download."""
        with RtmClient("app", url=url, **options) as client:  # type: ignore[arg-type]
            client.login("alice")
            self.assertFalse(client.send_message_to_peer("x", "bob").has_peer_received)
            message = client.create_media_message_by_uploading(b"photo").result(PATIENCE)
            blob = client.download_media(message.media_id).result(PATIENCE)
            self.assertEqual(blob.to_bytes(), b"photo")


class ProxyTest(NetworkTest):
    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.entered(ForwardingServer.running(HttpProxy))
        self.url = f"http://ann:s%20p@127.0.0.1:{self.proxy.port}"

    def test_both_halves_go_through_an_explicit_proxy(self) -> None:
        self.assert_works(self.gateway, proxy=self.url)
        address = self.gateway.removeprefix("ws://")
        self.assertIn(f"CONNECT {address}", self.proxy.requests)
        self.assertIn(f"POST http://{address}/v1/media", self.proxy.requests)

    def test_the_environments_proxy_is_not_asked_for_this_machine(self) -> None:
        with mock.patch.dict(os.environ, {"HTTP_PROXY": "http://127.0.0.1:9"}):
            self.assert_works(self.gateway)

    def test_an_empty_proxy_is_none_at_all(self) -> None:
        with mock.patch.dict(os.environ, {"HTTP_PROXY": "http://127.0.0.1:9"}):
            self.assert_works(self.gateway, proxy="")

    def test_a_refused_password_is_one_clear_error(self) -> None:
        wrong = f"http://ann:wrong@127.0.0.1:{self.proxy.port}"
        with (
            RtmClient("app", url=self.gateway, proxy=wrong) as client,
            self.assertRaisesRegex(LoginError, "407"),
        ):
            client.login("alice")

    def test_a_proxy_that_is_down_is_one_clear_error(self) -> None:
        with (
            RtmClient("app", url=self.gateway, proxy="http://127.0.0.1:9") as client,
            self.assertRaises(LoginError),
        ):
            client.login("alice")

    def test_other_kinds_of_proxy_are_refused_without_telling_the_password(self) -> None:
        for proxy in ("socks5://ann:secret@host:1080", "https://ann:secret@host:1", "host:3128"):
            with self.assertRaisesRegex(CreateInstanceError, "http://host:3128") as caught:
                RtmClient("app", url=self.gateway, proxy=proxy)
            self.assertNotIn("secret", str(caught.exception))


class RouteTest(RtmTestCase):
    def proxy_of(self, url: str, **environment: str) -> str | None:
        clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        with mock.patch.dict(os.environ, clean | environment, clear=True):
            return find_proxy_settings(url).proxy

    def test_the_environment_decides_where_nothing_else_does(self) -> None:
        plain, secure = "http://far.example/v1/media", "https://far.example/v1/media"
        self.assertIsNone(self.proxy_of(plain))
        self.assertEqual(self.proxy_of(plain, HTTP_PROXY="http://p:1"), "http://p:1")
        self.assertEqual(self.proxy_of(plain, http_proxy="p:1"), "http://p:1")
        self.assertIsNone(self.proxy_of(secure, HTTP_PROXY="http://p:1"))
        self.assertEqual(self.proxy_of(secure, HTTPS_PROXY="http://p:2"), "http://p:2")
        self.assertEqual(self.proxy_of(secure, ALL_PROXY="http://p:3"), "http://p:3")
        self.assertIsNone(self.proxy_of(plain, HTTP_PROXY="http://p:1", NO_PROXY="far.example"))
        self.assertIsNone(self.proxy_of(plain, HTTP_PROXY="http://p:1", NO_PROXY=".example"))

    def test_this_machine_is_never_behind_the_environments_proxy(self) -> None:
        for host in ("127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST."):
            self.assertIsNone(self.proxy_of(f"http://{host}:1/", HTTP_PROXY="http://p:1"), host)

    def test_certificates_come_from_the_caller_the_environment_or_certifi(self) -> None:
        mine, other = self.folder() / "mine.pem", self.folder() / "other.pem"
        for path in (mine, other):
            path.write_text("")
        url = "https://far.example"
        self.assertEqual(find_proxy_settings(url, ca_file=mine).ca_file, str(mine))
        environment = {"SSL_CERT_FILE": str(other)}
        self.assertEqual(find_proxy_settings(url, environment=environment).ca_file, str(other))
        self.assertEqual(
            find_proxy_settings(url, ca_file=mine, environment=environment).ca_file, str(mine)
        )
        self.assertTrue(Path(find_proxy_settings(url, environment={}).ca_file).is_file())
        with self.assertRaisesRegex(ValueError, "no file of certificates at '/nowhere.pem'"):
            find_proxy_settings(url, ca_file="/nowhere.pem")


class TlsTest(NetworkTest):
    def setUp(self) -> None:
        super().setUp()
        self.authority = trustme.CA()
        self.ca_file = str(self.folder() / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca_file)

    def secure(self, name: str = "127.0.0.1") -> str:
        """The gateway behind TLS with a certificate for `name`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(context)
        upstream = urlsplit(self.gateway)

        class Terminator(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(self.request, server_side=True) as secure,
                    socket.create_connection((upstream.hostname, upstream.port)) as plain,
                ):
                    forward(secure, plain)

        server = self.entered(ForwardingServer.running(Terminator))
        return f"wss://127.0.0.1:{server.port}"

    def test_both_halves_trust_the_given_authority(self) -> None:
        self.assert_works(self.secure(), ca_file=self.ca_file)

    def test_the_environments_authority_counts_for_both_as_well(self) -> None:
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": self.ca_file}):
            self.assert_works(self.secure())

    def test_an_unknown_authority_is_one_clear_error(self) -> None:
        with (
            RtmClient("app", url=self.secure()) as client,
            self.assertRaisesRegex(LoginError, "(?i)certificate verify failed"),
        ):
            client.login("alice")

    def test_another_hosts_certificate_is_one_clear_error(self) -> None:
        with (
            RtmClient("app", url=self.secure("other.example"), ca_file=self.ca_file) as client,
            self.assertRaisesRegex(LoginError, "(?i)(hostname|IP address) mismatch"),
        ):
            client.login("alice")

    def test_tls_goes_through_a_proxy(self) -> None:
        proxy = self.entered(ForwardingServer.running(HttpProxy))
        url = self.secure()
        self.assert_works(
            url, ca_file=self.ca_file, proxy=f"http://ann:s%20p@127.0.0.1:{proxy.port}"
        )
        address = url.removeprefix("wss://")
        self.assertEqual(set(proxy.requests), {f"CONNECT {address}"})
