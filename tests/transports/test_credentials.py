"""Credentials in URLs and line ends of tokens: refused or removed, and never repeated."""

from __future__ import annotations

import contextlib
import socket
import ssl

import trustme

from rtm_sync import CreateInstanceError, LoginError, RtmClient, RtmSender
from rtm_sync.cli.doctor import Verdict, diagnose
from rtm_sync.cli.profiles import Profile
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.testing import FaultProxy
from rtm_sync.transports.base import TransportOptions
from rtm_sync.transports.gateway.proxy_settings import find_proxy_settings, without_credentials
from tests.support import PATIENCE, RtmTestCase, local_gateway
from tests.transports.support import http_server, tcp_server

SECRET = "a secret of tests, 32 bytes or more"
URLS = (
    "ws://ann:hush@host:8765",
    "wss://ann:hush@host",
    "http://hush@host",
    "ws://ann:hush/hush@host",
    "ws://ann:hush@",
    "ws://ann:hush://hush@host",
    "ws://ann:hush@[::1",
)


class UrlTest(RtmTestCase):
    def test_a_url_with_credentials_is_refused_and_not_repeated(self) -> None:
        for url in URLS:
            for make in (RtmClient, RtmSender):
                with (
                    self.subTest(url, make=make),
                    self.assertRaisesRegex(CreateInstanceError, "Leave them out") as caught,
                ):
                    make("app", url=url)
                self.assertNotIn("hush", f"{caught.exception!r} {caught.exception.cause!r}")
            self.assertNotIn("hush", without_credentials(url))

    def test_doctor_says_so_too(self) -> None:
        for url in URLS:
            found = {finding.check: finding for finding in diagnose(Profile(url, app_id="app"))}
            with self.subTest(url):
                self.assertIs(found["network"].verdict, Verdict.FAILED)
                self.assertNotIn("hush", str(found))

    def test_a_fault_proxy_does_not_repeat_them(self) -> None:
        with self.assertRaises(ValueError) as caught:
            FaultProxy("ws://ann:hush@host")
        self.assertNotIn("hush", str(caught.exception))

    def test_a_proxys_credentials_are_in_no_repr_and_no_error(self) -> None:
        proxy = "http://ann:hush@127.0.0.1:9"
        self.assertNotIn("hush", repr(find_proxy_settings("http://host", proxy)))
        self.assertNotIn("hush", repr(TransportOptions(proxy=proxy)))
        self.assertNotIn("hush", repr(Profile(URLS[0], proxy=proxy)))
        with RtmClient("app", url="ws://host", proxy=proxy) as client:
            with self.assertRaises(LoginError) as caught:
                client.login("alice")
            self.assertNotIn("hush", f"{caught.exception!r} {caught.exception.cause!r}")
        with self.assertRaisesRegex(CreateInstanceError, "must be like http://host") as refused:
            RtmClient("app", url="ws://host", proxy="http://ann:hu/sh@host:1")
        self.assertNotIn("hu/", str(refused.exception))


class TlsHintTest(RtmTestCase):
    def refused(self, url: str, hint: str) -> None:
        with (
            RtmClient("app", url=url, login_timeout=PATIENCE) as client,
            self.assertRaisesRegex(LoginError, hint),
        ):
            client.login("alice")

    def test_wss_is_suggested_where_tls_is_spoken(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

        def serve(sock: socket.socket) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True):
                pass

        self.refused(f"ws://{self.entered(tcp_server(serve))}", "write wss://")
        answer = http_server(400, {"Content-Length": "0"}, b"")
        self.refused(f"ws://{self.entered(answer)[0]}", "write wss://")

    def test_ws_is_suggested_where_it_is_not(self) -> None:
        gateway = self.entered(local_gateway(self.folder()))
        self.refused(gateway.replace("ws:", "wss:"), "write ws://")


class LineEndTest(RtmTestCase):
    def test_a_tokens_line_end_is_removed(self) -> None:
        url = self.entered(local_gateway(self.folder(), app_id="app", app_secret=SECRET))
        tokens = {uid: f"{make_token('app', uid, SECRET)}\r\n" for uid in ("ann", "bea", "cay")}
        with RtmClient("app", url=url) as client:
            client.login("ann", tokens["ann"])
            client.renew_token(tokens["ann"])
        with RtmClient("app", url=url, token_provider=lambda: tokens["bea"]) as client:
            client.login("bea")
        with RtmSender("app", f"{SECRET}\n", url=url) as sender:
            sender.send_message_to_peer("hi", "bob")
        for profile in (
            Profile(url, app_id="app", uid="cay", token=tokens["cay"]),
            Profile(url, app_id="app", uid="dot", app_secret=f"{SECRET}\n"),
        ):
            with profile.client() as client:
                client.login(profile.uid)
