"""Where urllib3 is bent from below: fails with its version when it changes underneath."""

from __future__ import annotations

import contextlib
import gc
import itertools
import socket
import ssl
import threading
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import requests
import trustme
import urllib3

from rtm_sync import DownloadCancelled
from rtm_sync.testing import wait_until
from rtm_sync.transfers import TransferControl, TransferKind
from rtm_sync.transports.gateway.wire import Wire, WiredAdapter, wired
from tests.support import PATIENCE, RtmTestCase, Stopwatch
from tests.transports.support import deaf_address, http_server, tcp_server
from tests.transports.test_interruption import Injection, Unforeseen

VERSION = f"urllib3 {urllib3.__version__}"


class WireTest(RtmTestCase):
    def setUp(self) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.addCleanup(self.session.close)
        self.session.mount("http://", WiredAdapter())
        self.control = TransferControl(TransferKind.DOWNLOAD)

    def get(
        self, address: str, proxies: dict[str, str] | None = None, scheme: str = "http"
    ) -> None:
        self.session.get(f"{scheme}://{address}/", timeout=PATIENCE, proxies=proxies)

    def cut_when(
        self, is_time: Callable[[Wire], bool], address: str, problem: str, scheme: str = "http"
    ) -> None:
        """GET, and cancel the transfer from another thread; the call must end at once."""
        outcome: list[BaseException] = []
        wires: list[Wire] = []

        def talk() -> None:
            try:
                with wired(self.control) as wire:
                    wires.append(wire)
                    self.get(address, scheme=scheme)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            wait_until(lambda: bool(wires) and is_time(wires[0]), 5, f"{VERSION} {problem}")
        finally:
            watch = Stopwatch()
            self.control.cancel()
            thread.join()
        self.assertIsInstance(outcome[0], DownloadCancelled)
        self.assertLess(watch.seconds(), PATIENCE / 2, VERSION)

    def test_a_connection_is_cut_while_it_connects(self) -> None:
        is_asked = threading.Event()
        resolve = socket.getaddrinfo

        def observed(*args: Any, **options: Any) -> Any:
            is_asked.set()
            return resolve(*args, **options)

        address = self.entered(deaf_address())
        with mock.patch.object(socket, "getaddrinfo", observed):
            self.cut_when(
                lambda _: is_asked.is_set(),
                address,
                "does not call HTTPConnection._new_conn any more",
            )

    def test_a_connection_is_cut_in_the_handshake_of_tls(self) -> None:
        is_asked = threading.Event()

        def hang(connection: socket.socket) -> None:
            connection.recv(4096)
            is_asked.set()
            connection.recv(4096)

        self.session.mount("https://", WiredAdapter())
        self.cut_when(
            lambda _: is_asked.is_set(),
            self.entered(tcp_server(hang)),
            "does not make its TLS connections by HTTPSConnection.connect",
            scheme="https",
        )

    def test_a_first_request_over_tls_is_cut_while_it_waits_for_an_answer(self) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        ca_file = self.folder() / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        self.session.verify = str(ca_file)
        is_asked = threading.Event()

        def hang(connection: socket.socket) -> None:
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(connection, server_side=True) as secure,
            ):
                secure.recv(4096)
                is_asked.set()
                secure.recv(4096)

        self.session.mount("https://", WiredAdapter())
        self.cut_when(
            lambda _: is_asked.is_set(),
            self.entered(tcp_server(hang)),
            "does not make its TLS connections by HTTPSConnection.connect",
            scheme="https",
        )

    def test_an_unforeseen_error_at_any_step_leaves_no_socket_open(self) -> None:
        address, _ = self.entered(http_server(200, {"Content-Length": "0"}, b""))

        def is_interrupted(injection: Injection) -> bool:
            """Whether a GET over a connection of its own raised the injected error."""
            with requests.Session() as session, wired(TransferControl(TransferKind.DOWNLOAD)):
                session.trust_env = False
                session.mount("http://", WiredAdapter())
                return isinstance(
                    injection.run(lambda: session.get(f"http://{address}/")), Unforeseen
                )

        for place in itertools.count(1):
            injection = Injection(place, Unforeseen)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ResourceWarning)
                is_unforeseen = is_interrupted(injection)
                gc.collect()
            if not injection.where:
                self.assertGreater(place, 10, f"{VERSION}: too few steps")
                return
            with self.subTest(at=injection.where):
                self.assertTrue(is_unforeseen)
                self.assertEqual([str(warning.message) for warning in caught], [])

    def test_a_kept_alive_connection_is_cut_while_it_waits_for_an_answer(self) -> None:
        is_asked = threading.Event()

        def serve(connection: socket.socket) -> None:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.recv(4096)
            is_asked.set()
            connection.recv(4096)  # the second request is not answered

        address = self.entered(tcp_server(serve))
        with wired(self.control):
            self.get(address)
        self.cut_when(
            lambda wire: is_asked.is_set() and wire.in_use is not None,
            address,
            "does not call HTTPConnection.request on a connection that it kept",
        )

    def test_a_connection_to_a_proxy_is_on_the_wire_too(self) -> None:
        address, asked = self.entered(http_server(200, {"Content-Length": "0"}, b""))
        with wired(self.control) as wire:
            self.get("nowhere.invalid", proxies={"http": f"http://{address}"})
        self.assertEqual(asked, ["GET http://nowhere.invalid/"])
        self.assertIsNotNone(
            wire.in_use, f"{VERSION} does not make pools of PoolManager.pool_classes_by_scheme"
        )
