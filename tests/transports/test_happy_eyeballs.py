"""A name with several addresses: one that is away does not hide the next, for any connection."""

from __future__ import annotations

import contextlib
import gc
import itertools
import socket
import ssl
import threading
import warnings
from unittest import mock
from urllib.parse import urlsplit

import trustme

from rtm_sync import LoginError, RtmClient, RtmSender
from rtm_sync.cli import doctor
from rtm_sync.cli.profiles import Profile
from rtm_sync.testing import wait_until
from rtm_sync.transports.gateway import happy_eyeballs
from rtm_sync.transports.gateway.happy_eyeballs import (
    ATTEMPT_DELAY,
    Address,
    connection_order,
    next_attempt_at,
    open_socket,
    resolve,
)
from tests.support import PATIENCE, RtmTestCase, Stopwatch, local_gateway
from tests.transports.support import deaf_address, name_of, tcp_server
from tests.transports.test_interruption import Injection, Unforeseen
from tests.transports.test_proxy_settings import ForwardingServer, HttpProxy, forward

TIMEOUT = PATIENCE / 2


def closed_address() -> str:
    """`host:port` where connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def unreachable_address() -> str:
    """`host:port` of an address that the system itself does not connect to by TCP."""
    return "255.255.255.255:9"


class OrderTest(RtmTestCase):
    def made(self, *named: str) -> list[Address]:
        return [
            Address(
                socket.AF_INET6 if ":" in name else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                (name, 1),
            )
            for name in named
        ]

    def test_the_families_alternate_and_the_resolvers_first_comes_first(self) -> None:
        for found, wanted in (
            ("::1 ::2 ::3 1.1.1.1 2.2.2.2", "::1 1.1.1.1 ::2 2.2.2.2 ::3"),
            ("1.1.1.1 2.2.2.2 ::1", "1.1.1.1 ::1 2.2.2.2"),
            ("1.1.1.1 1.1.1.1 2.2.2.2", "1.1.1.1 2.2.2.2"),
            ("", ""),
        ):
            ordered = connection_order(self.made(*found.split()))
            self.assertEqual(" ".join(map(str, ordered)), wanted)

    def test_the_next_attempt_waits_a_quarter_of_a_second_or_for_a_failure(self) -> None:
        self.assertEqual(next_attempt_at(5.0, None, has_failed=False), 5.0)
        self.assertEqual(next_attempt_at(5.0, 4.9, has_failed=True), 5.0)
        self.assertEqual(next_attempt_at(5.0, 4.9, has_failed=False), 4.9 + ATTEMPT_DELAY)


class OpenSocketTest(RtmTestCase):
    def setUp(self) -> None:
        self.accepted: list[bytes] = []
        self.live = self.entered(
            tcp_server(lambda sock: self.accepted.append(sock.recv(1) or b"closed"))
        )

    def connected_to(self, *addresses: str) -> tuple[str, float]:
        """The address that was connected to, and the seconds that it took."""
        with name_of(*addresses):
            watch = Stopwatch()
            with open_socket(resolve("several.test", 8765), TIMEOUT) as sock:
                self.assertEqual(sock.gettimeout(), TIMEOUT)
                host, port = sock.getpeername()[:2]
                return f"{host}:{port}", watch.seconds()

    def test_a_silent_a_refused_and_an_unreachable_address_are_passed_over(self) -> None:
        deaf = self.entered(deaf_address())
        all_away = (deaf, closed_address(), unreachable_address())
        for away in (*([address] for address in all_away), all_away):
            with self.subTest(away), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ResourceWarning)
                address, seconds = self.connected_to(*away, self.live)
                gc.collect()
                self.assertEqual(address, self.live)
                self.assertLess(seconds, TIMEOUT / 2)
                self.assertEqual([str(warning.message) for warning in caught], [])

    def test_a_first_address_that_answers_is_the_only_one_that_is_asked(self) -> None:
        other_accepted: list[bytes] = []
        other = self.entered(tcp_server(lambda sock: other_accepted.append(sock.recv(1))))
        address, _ = self.connected_to(self.live, other)
        self.assertEqual(address, self.live)
        wait_until(lambda: self.accepted == [b"closed"])
        self.assertEqual(other_accepted, [])

    def test_the_only_addresss_error_is_raised_as_it_is(self) -> None:
        host, _, port = closed_address().rpartition(":")
        with self.assertRaisesRegex(ConnectionRefusedError, r"^\[Errno \d+\] Connection refused$"):
            open_socket(resolve(host, int(port)), TIMEOUT)

    def test_the_error_of_several_addresses_names_each(self) -> None:
        with (
            name_of(closed_address(), unreachable_address()),
            self.assertRaisesRegex(
                OSError, r"no address can be reached \(127\.0\.0\.1: .*, 255\.255\.255\.255: .*\)"
            ),
        ):
            open_socket(resolve("several.test", 1), TIMEOUT)
        with name_of(closed_address(), closed_address()), self.assertRaises(ConnectionRefusedError):
            open_socket(resolve("several.test", 1), TIMEOUT)

    def test_the_time_out_is_for_all_addresses_together(self) -> None:
        deaf = [self.entered(deaf_address()) for _ in range(3)]
        watch = Stopwatch()
        with name_of(*deaf), self.assertRaisesRegex(TimeoutError, "127.0.0.1: no answer"):
            open_socket(resolve("several.test", 1), 0.6)
        self.assertGreater(watch.seconds(), 0.5)
        self.assertLess(watch.seconds(), PATIENCE / 2)

    def test_a_canceller_ends_it(self) -> None:
        host, _, port = self.entered(deaf_address()).rpartition(":")
        answers = iter([False, False, True])
        with self.assertRaises(ConnectionAbortedError):
            open_socket(resolve(host, int(port)), None, lambda: next(answers))

    def test_what_is_no_name_is_not_known(self) -> None:
        for name in ("a..b", "x" * 64 + ".test"):
            with self.subTest(name), self.assertRaises(socket.gaierror):
                resolve(name, 1)

    def test_an_interruption_at_any_step_leaves_no_socket_open(self) -> None:
        deaf = self.entered(deaf_address())

        def connect() -> None:
            with open_socket(resolve("several.test", 8765), TIMEOUT):
                pass

        with (
            mock.patch.object(happy_eyeballs, "ATTEMPT_DELAY", 0.01),
            name_of(closed_address(), deaf, self.live),
        ):
            for place in itertools.count(1):
                injection = Injection(place, KeyboardInterrupt if place % 2 else Unforeseen)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", ResourceWarning)
                    error = injection.run(connect)
                    del error
                    gc.collect()
                self.assertEqual([str(warning.message) for warning in caught], [], injection.where)
                if not injection.where:
                    self.assertGreater(place, 20, "too few steps")
                    return


class EverywhereTest(RtmTestCase):
    """The same name for a login, for media, for a proxy and for a sender."""

    def setUp(self) -> None:
        self.gateway = self.entered(local_gateway(self.folder()))
        self.deaf = self.entered(deaf_address())
        address = self.gateway.removeprefix("ws://")
        self.name = self.entered(name_of(self.deaf, closed_address(), address))

    def assert_works(self, url: str, **options: object) -> None:
        watch = Stopwatch()
        with RtmClient("app", url=url, **options) as client:  # type: ignore[arg-type]
            client.login("alice")
            message = client.create_media_message_by_uploading(b"photo").result(PATIENCE)
            blob = client.download_media(message.media_id).result(PATIENCE)
            self.assertEqual(blob.to_bytes(), b"photo")
        self.assertLess(watch.seconds(), 5.0)  # the default time-out of one connection is 10 s

    def test_a_client(self) -> None:
        self.assert_works(f"ws://{self.name}", proxy="")

    def test_a_clients_proxy(self) -> None:
        proxy = self.entered(ForwardingServer.running(HttpProxy))
        with name_of(self.deaf, f"127.0.0.1:{proxy.port}") as name:
            self.assert_works(self.gateway, proxy=f"http://ann:s%20p@{name}")
        self.assertIn(f"CONNECT {self.gateway.removeprefix('ws://')}", proxy.requests)

    def test_doctor_shows_the_addresses(self) -> None:
        profile = Profile(f"ws://{self.name}", app_id="app", proxy="none")
        with mock.patch.object(doctor, "_ADDRESS_TIMEOUT", 0.1):
            found = {finding.check: finding for finding in doctor.diagnose(profile)}
        self.assertIs(found["addresses"].verdict, doctor.Verdict.WARNING)
        self.assertRegex(
            found["addresses"].detail,
            r"^several\.test: 127\.0\.0\.1 no answer .*, 127\.0\.0\.1 Connection refused, "
            r"127\.0\.0\.1 answers; ",
        )
        self.assertIs(found["reachability"].verdict, doctor.Verdict.OK)

    def test_a_sender(self) -> None:
        watch = Stopwatch()
        with RtmSender("app", url=f"ws://{self.name}", proxy="") as sender:
            self.assertFalse(sender.send_message_to_peer("hi", "bob").has_peer_received)
            sender.create_media_message_by_uploading(b"photo").result(PATIENCE)
        self.assertLess(watch.seconds(), 4.0)  # the connect time-out is 5 s


class TlsHandshakeTest(RtmTestCase):
    def test_closing_ends_a_login_in_the_handshake_of_tls(self) -> None:
        is_asked = threading.Event()

        def hang(sock: socket.socket) -> None:
            sock.recv(4096)
            is_asked.set()
            sock.recv(4096)

        address = self.entered(tcp_server(hang))
        client = RtmClient("app", url=f"wss://{address}", login_timeout=PATIENCE)
        self.addCleanup(client.close)
        outcome: list[BaseException] = []

        def login() -> None:
            try:
                client.login("alice")
            except LoginError as error:
                outcome.append(error)

        thread = threading.Thread(target=login)
        thread.start()
        self.assertTrue(is_asked.wait(PATIENCE))
        watch = Stopwatch()
        client.close()
        thread.join(PATIENCE)
        self.assertLess(watch.seconds(), 1.5)  # a reader that cannot be woken is left after 2 s
        self.assertEqual([type(error) for error in outcome], [LoginError])

    def test_the_names_certificate_is_checked_at_whatever_address_answers(self) -> None:
        upstream = urlsplit(self.entered(local_gateway(self.folder())))
        authority = trustme.CA()
        ca_file = self.folder() / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))

        def terminator(name: str) -> str:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(name).configure_cert(context)

            def serve(sock: socket.socket) -> None:
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(sock, server_side=True) as secure,
                    socket.create_connection((upstream.hostname, upstream.port)) as plain,
                ):
                    forward(secure, plain)

            return self.entered(tcp_server(serve))

        deaf = self.entered(deaf_address())
        with (
            name_of(deaf, terminator("several.test")) as name,
            RtmClient("app", url=f"wss://{name}", proxy="", ca_file=ca_file) as client,
        ):
            client.login("alice")
            client.create_media_message_by_uploading(b"photo").result(PATIENCE)
        with (
            name_of(deaf, terminator("other.test")) as name,
            RtmClient("app", url=f"wss://{name}", proxy="", ca_file=ca_file) as client,
            self.assertRaisesRegex(LoginError, "(?i)hostname mismatch"),
        ):
            client.login("alice")
