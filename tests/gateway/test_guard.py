"""The limits of one address, and the client's address behind proxies."""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import requests
import websocket

from rtm_sync import LoginError, RtmClient
from rtm_sync.errors import LoginErrorCode
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.gateway.guard.addresses import client_network
from rtm_sync.gateway.guard.auth_failures import AUTH_FAILURES
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.protocol.frames import encode_call
from rtm_sync.protocol.requests import Login
from tests.support import PATIENCE, RtmTestCase, wait_until

SECRET = "a secret of tests, 32 bytes or more"
EVENTS = "/dev/v2/project/app/rtm/vendor/user_events"


class AddressCase(RtmTestCase):
    def served(self, **settings: Any) -> str:
        config = GatewayConfig(
            port=0, data=str(self.folder()), app_id="app", app_secret=SECRET, **settings
        )
        return self.entered(BackgroundGateway(config)).url

    def login(self, url: str, uid: str, token: str) -> None:
        with RtmClient("app", url=url) as client:
            client.login(uid, token)


class ConnectionsTest(AddressCase):
    def connect(self, url: str) -> socket.socket:
        parts = urlsplit(url)
        made = socket.create_connection((parts.hostname, parts.port), PATIENCE)
        self.addCleanup(made.close)
        made.settimeout(PATIENCE)
        return made

    def is_served(self, made: socket.socket) -> bool:
        try:
            made.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok\n") and (data := made.recv(1000)):
                answer += data
            return answer.startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False

    def test_an_address_has_so_many_and_another_when_one_has_ended(self) -> None:
        url = self.served(proxies="", connections_per_address=5)
        five = [self.connect(url) for _ in range(5)]
        for _ in range(2):
            self.assertEqual([self.is_served(made) for made in five], [True] * 5)
            self.assertFalse(self.is_served(self.connect(url)))
        five[0].close()
        wait_until(lambda: self.is_served(self.connect(url)))

    def test_proxies_have_any_number_and_nought_is_no_limit(self) -> None:
        for settings in (
            {"proxies": "127.0.0.0/8", "connections_per_address": 2},
            {"proxies": "", "connections_per_address": 0},
        ):
            url = self.served(**settings)
            connections = [self.connect(url) for _ in range(8)]
            self.assertTrue(all(self.is_served(made) for made in connections), settings)

    def test_of_ipv6_a_whole_network_counts_as_one(self) -> None:
        self.assertEqual(client_network("2001:db8::1"), client_network("2001:db8::ffff:1"))
        self.assertNotEqual(client_network("2001:db8::1"), client_network("2001:db8:0:1::1"))
        self.assertEqual(client_network("192.0.2.1"), "192.0.2.1")
        self.assertEqual(client_network("::ffff:192.0.2.1"), client_network("::ffff:192.0.2.1"))
        self.assertNotEqual(client_network("::ffff:192.0.2.1"), client_network("::ffff:192.0.2.2"))


class ProxyTest(AddressCase):
    def address_seen(self, url: str, *forwarded: str) -> str:
        headers = [("X-Forwarded-For", item) for item in forwarded]
        with self.assertLogs("rtm_sync.gateway.logs", "INFO") as logs:
            parts = urlsplit(url)
            with socket.create_connection((parts.hostname, parts.port), PATIENCE) as made:
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
                made.sendall(f"GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
                self.assertIn(b"200", made.recv(100))
                wait_until(lambda: logs.records)
        return str(json.loads(json.dumps(logs.records[0].__dict__["address"])))

    def test_only_what_proxies_of_ours_say_is_believed(self) -> None:
        url = self.served(proxies="127.0.0.1 10.0.0.0/8")
        for forwarded, seen in (
            ((), "127.0.0.1"),
            (("192.0.2.7",), "192.0.2.7"),
            (("198.51.100.1, 192.0.2.7",), "192.0.2.7"),  # the client invented the first entry
            (("192.0.2.7, 10.1.2.3",), "192.0.2.7"),
            (("192.0.2.7", "10.1.2.3"), "192.0.2.7"),
            (("nonsense",), "127.0.0.1"),
            (("192.0.2.7, nonsense",), "127.0.0.1"),
            (("2001:db8::1",), "2001:db8::1"),
        ):
            with self.subTest(forwarded):
                self.assertEqual(self.address_seen(url, *forwarded), seen)
        self.assertEqual(self.address_seen(self.served(proxies=""), "192.0.2.7"), "127.0.0.1")


class AuthFailureTest(AddressCase):
    def setUp(self) -> None:
        self.http = self.entered(requests.Session())

    def ask(self, address: str, secret: str) -> int:
        return self.http.get(
            f"{self.url.replace('ws', 'http', 1)}{EVENTS}",
            auth=("app", secret),
            headers={"X-Forwarded-For": address},
            timeout=PATIENCE,
        ).status_code

    def test_an_address_with_too_many_wrong_secrets_waits_and_others_do_not(self) -> None:
        self.url = self.served()
        ask = self.ask
        refused = [ask("192.0.2.7", "wrong") for _ in range(AUTH_FAILURES.count + 1)]
        self.assertEqual(refused, [401] * AUTH_FAILURES.count + [429])
        self.assertEqual(ask("192.0.2.7", SECRET), 429)
        self.assertEqual(ask("192.0.2.8", SECRET), 200)
        self.assertEqual(ask("", SECRET), 200)  # failures are never counted against the proxy

    def test_guesses_at_the_same_time_are_no_more_than_one_after_the_other(self) -> None:
        self.url = self.served(proxies="")
        surplus = 30
        sockets = []
        for _ in range(AUTH_FAILURES.count + surplus):
            made = websocket.create_connection(f"{self.url}/v1/signalling", timeout=PATIENCE)
            self.addCleanup(made.close)
            sockets.append(made)
        for number, made in enumerate(sockets):
            token = make_token("app", "alice", f"wrong secret {number:3} of 32 bytes or more")
            made.send(encode_call(1, Login("app", "alice", token=token)))
        codes = Counter(json.loads(made.recv())["error"]["code"] for made in sockets)
        self.assertEqual(
            codes,
            {
                LoginErrorCode.LOGIN_ERR_INVALID_TOKEN: AUTH_FAILURES.count,
                LoginErrorCode.LOGIN_ERR_TOO_OFTEN: surplus,
            },
        )

    def test_a_request_without_a_secret_is_no_guess(self) -> None:
        self.url = self.served(proxies="")
        for _ in range(AUTH_FAILURES.count + 1):
            answer = self.http.get(f"{self.url.replace('ws', 'http', 1)}{EVENTS}", timeout=PATIENCE)
            self.assertEqual(answer.status_code, 401)
        self.assertEqual(self.ask("", SECRET), 200)

    def test_a_client_is_told_why_it_cannot_log_in(self) -> None:
        self.url = self.served(proxies="")
        good = make_token("app", "alice", SECRET)
        self.login(self.url, "alice", good)
        for _ in range(AUTH_FAILURES.count - 1):
            self.ask("", "wrong")
        self.login(self.url, "alice", good)
        with self.assertRaises(LoginError) as caught:
            self.login(self.url, "alice", "wrong")
        self.assertEqual(caught.exception.reason, "INVALID_TOKEN")
        with self.assertRaises(LoginError) as caught:
            self.login(self.url, "alice", good)
        self.assertEqual(caught.exception.reason, "TOO_OFTEN")
        self.assertIn("wrong tokens", caught.exception.message)


class HostTest(AddressCase):
    def answer(self, url: str, *headers: str) -> bytes:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), PATIENCE) as made:
            lines = "".join(f"{header}\r\n" for header in ("Connection: close", *headers))
            made.sendall(f"GET /healthz HTTP/1.1\r\n{lines}\r\n".encode())
            answer = b""
            while chunk := made.recv(10_000):
                answer += chunk
        return answer.split(b"\r\n")[0]

    def test_without_tokens_it_answers_for_names_of_this_machine_only(self) -> None:
        trial = self.entered(BackgroundGateway(GatewayConfig(port=0, data=str(self.folder()))))
        for host, status in (
            ("localhost:1", b"200"),
            ("127.0.0.2", b"200"),
            ("[::1]:7", b"200"),
            ("chat.localhost", b"200"),
            ("gateway", b"200"),
            ("evil.example", b"421"),
            ("evil.example:80", b"421"),
            ("localhost.evil.example", b"421"),
            ("127.0.0.1.evil.example", b"421"),
            ("192.0.2.1", b"421"),
            ("http://[", b"421"),
        ):
            with self.subTest(host):
                for mark in ("User-Agent: Mozilla/5.0", "Sec-Fetch-Site: same-origin"):
                    self.assertIn(status, self.answer(trial.url, f"Host: {host}", mark))
        page = ("Host: evil.example", "Origin: http://evil.example")
        self.assertIn(b"421", self.answer(trial.url, *page))
        self.assertIn(b"200", self.answer(trial.url, "Host: name.example"))  # no browser
        browser = ("Host: rtm.example", "User-Agent: Mozilla/5.0")
        self.assertIn(b"200", self.answer(self.served(proxies=""), *browser))

    def test_every_host_and_origin_gets_an_answer(self) -> None:
        url = self.served(proxies="")
        for headers in (
            (),
            ("Host: ",),
            ("Host: http://[",),
            ("Host: x", "Origin: http://["),
            ("Host: [", "Origin: http://["),
            ("Host: x", "Origin: null"),
            ("Origin: https://x",),
        ):
            with self.subTest(headers):
                self.assertRegex(self.answer(url, *headers), rb"^HTTP/1\.[01] (200|400|403) ")

    def test_behind_tls_an_http_page_of_the_same_host_is_foreign(self) -> None:
        url = self.served(proxies="127.0.0.1")
        for origin, proto, status in (
            ("http://rtm.example", "http", b"200"),
            ("http://rtm.example", "https", b"403"),
            ("https://rtm.example", "https", b"200"),
            ("https://rtm.example", "http", b"200"),  # a proxy that does not say so
            ("ftp://rtm.example", "http", b"403"),
        ):
            with self.subTest(origin, proto=proto):
                answer = self.answer(
                    url, "Host: rtm.example", f"Origin: {origin}", f"X-Forwarded-Proto: {proto}"
                )
                self.assertIn(status, answer)
