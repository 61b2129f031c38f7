"""Where urllib3 is bent from below: fails with its version when it changes underneath."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import requests
import urllib3

from rtm_sync import DownloadCancelled
from rtm_sync.testing import wait_until
from rtm_sync.transfers import TransferControl, TransferKind
from rtm_sync.transports.gateway.wire import Wire, WiredAdapter, wired
from tests.support import PATIENCE, RtmTestCase, Stopwatch
from tests.transports.support import deaf_address, http_server, tcp_server

VERSION = f"urllib3 {urllib3.__version__}"


class WireTest(RtmTestCase):
    def setUp(self) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.addCleanup(self.session.close)
        self.session.mount("http://", WiredAdapter())
        self.control = TransferControl(TransferKind.DOWNLOAD)

    def get(self, address: str, proxies: dict[str, str] | None = None) -> None:
        self.session.get(f"http://{address}/", timeout=PATIENCE, proxies=proxies)

    def cut_when(self, is_time: Callable[[Wire], bool], address: str, problem: str) -> None:
        """GET, and cancel the transfer from another thread; the call must end at once."""
        outcome: list[BaseException] = []
        wires: list[Wire] = []

        def talk() -> None:
            try:
                with wired(self.control) as wire:
                    wires.append(wire)
                    self.get(address)
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
        self.cut_when(
            lambda wire: wire.in_use is not None,
            self.entered(deaf_address()),
            "does not call HTTPConnection._new_conn any more, or not before it connects",
        )

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
