"""What the tests of transports share: a gateway behind a failing network, and its clients."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

from rtm_sync import ConnectionState, RtmClient
from rtm_sync.client.listeners import ReceivedEvent
from rtm_sync.errors import RtmError
from rtm_sync.plugins.hookspecs import hookimpl
from rtm_sync.testing import FaultProxy
from rtm_sync.transports.base import Transport, TransportOptions
from rtm_sync.transports.gateway.transport import GatewayTransport
from tests.support import PATIENCE, RtmTestCase, Stopwatch, local_gateway


class Timing:
    """A plugin: the gateway transport with connection times that a test can wait for."""

    def __init__(self, **times: float) -> None:
        self._times = times

    @hookimpl
    def transport(self, url: str, options: TransportOptions) -> Transport:
        return GatewayTransport(url, dataclasses.replace(options, **self._times))


class GatewayCase(RtmTestCase):
    """One gateway, and a proxy before it that fails when the test says so."""

    def setUp(self) -> None:
        self.data = self.folder()
        self.gateway = self.entered(local_gateway(self.data))
        self.proxy = self.entered(FaultProxy(self.gateway))

    def client(self, uid: str | None = None, **options: Any) -> RtmClient:
        """A client behind the proxy, logged in when a uid is given; closed after the test."""
        client = RtmClient("app", **({"url": self.proxy.url} | options))
        self.addCleanup(client.close)
        self.addCleanup(self.proxy.restore)  # before: a logout waits for its answer
        if uid is not None:
            client.login(uid)
        return client

    def watched(self, uid: str, **options: Any) -> tuple[RtmClient, Iterator[ReceivedEvent]]:
        """A logged-in client, and its state changes from then on."""
        client = self.client(**options)
        states = client.events("ConnectionStateChanged")
        self.addCleanup(states.close)
        client.login(uid)
        changes = states.until(PATIENCE)
        told = [next(changes).args[0] for _ in range(2)]
        self.assertEqual(told, [ConnectionState.CONNECTING, ConnectionState.CONNECTED])
        return client, changes

    def stored(self) -> list[str]:
        """Names of all files the gateway keeps of media, fragments included."""
        return sorted(path.name for path in (self.data / "media").glob("*/*"))

    def fails(
        self, name: str, call: Callable[..., object], *args: Any, within: float = PATIENCE
    ) -> RtmError:
        """Assert that the call raises the error with that code name, and in time."""
        watch = Stopwatch()
        with self.assertRaises(RtmError) as caught:
            call(*args)
        self.assertLess(watch.seconds(), within)
        self.assertEqual(caught.exception.code.name, name, caught.exception)
        self.assertNotEqual(caught.exception.message, "")
        return caught.exception


@contextlib.contextmanager
def media_through(client: RtmClient, address: str) -> Iterator[None]:
    """In the block, a logged-in client's HTTP goes through that web proxy, its WebSocket not."""
    http = client._transport._connection.http._http  # type: ignore[attr-defined]
    before, http.proxies = http.proxies, {"http": f"http://{address}"}
    try:
        yield
    finally:
        http.proxies = before


def pattern(size: int) -> bytes:
    """Bytes that differ at every place a chunk could go astray."""
    return hashlib.shake_128(str(size).encode()).digest(size)


@contextlib.contextmanager
def deaf_address() -> Iterator[str]:
    """`host:port` where a connection is neither accepted nor refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):  # the kernel takes one or two more than it was told
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"{address[0]}:{address[1]}"


@contextlib.contextmanager
def name_of(*addresses: str) -> Iterator[str]:
    """A name with these addresses, each `host:port`; yields `name:port`."""
    resolve = socket.getaddrinfo

    def answer(host: object, *args: object, **options: object) -> list[object]:
        if host != "several.test":
            return list(resolve(host, *args, **options))  # type: ignore[arg-type]
        found: list[object] = []
        for address in addresses:
            literal, _, port = address.rpartition(":")
            found += resolve(literal, int(port), type=socket.SOCK_STREAM)
        return found

    with mock.patch.object(socket, "getaddrinfo", answer):
        yield "several.test:8765"


@contextlib.contextmanager
def tcp_server(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that lets `talk` deal with each connection, on a thread; yields `host:port`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server, serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def http_server(
    status: int, headers: dict[str, str], body: bytes
) -> Iterator[tuple[str, list[str]]]:
    """A web server with one answer to everything; yields `host:port` and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            asked.append(f"{self.command} {self.path}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815  the names http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, serving(server):
        yield f"127.0.0.1:{server.server_address[1]}", asked


@contextlib.contextmanager
def scripted_server(
    answers: list[tuple[int, dict[str, str]]],
) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A web server with one answer after the other; the last one is its answer to all the rest.

    Yields `host:port`, and of each request the method, the Idempotency-Key and the body.
    """
    asked: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, headers = answers[min(len(asked), len(answers) - 1)]
            asked.append((self.command, self.headers.get("Idempotency-Key", ""), body))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_POST = do_PATCH = answer  # noqa: N815  the names http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, serving(server):
        yield f"127.0.0.1:{server.server_address[1]}", asked


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve on a thread, for the time of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
