"""Metrics: users' actions are counted without user ids, and not served on the public port."""

from __future__ import annotations

import socket

import requests
from prometheus_client.parser import text_string_to_metric_families

from rtm_sync import RtmClient
from rtm_sync.errors import LoginError
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.hub.auth.tokens import make_token
from tests.support import PATIENCE, RtmTestCase, wait_until

SECRET = "a secret of tests, 32 bytes or more"


class MetricsTest(RtmTestCase):
    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.metrics = f"127.0.0.1:{free.getsockname()[1]}"
        config = GatewayConfig(
            port=0,
            data=str(self.folder()),
            app_id="app",
            app_secret=SECRET,
            metrics=self.metrics,
        )
        self.url = self.entered(BackgroundGateway(config)).url

    def client(self, uid: str) -> RtmClient:
        client = RtmClient("app", url=self.url)
        self.addCleanup(client.close)
        client.login(uid, make_token("app", uid, SECRET))
        return client

    def read(self) -> dict[tuple[str, tuple[str, ...]], float]:
        text = requests.get(f"http://{self.metrics}/metrics", timeout=PATIENCE).text
        self.assertNotIn("alice", text)
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def test_what_was_done_is_counted(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        room = alice.create_channel("room")
        room.join()
        room.send_message("hi")
        alice.send_message_to_peer("hi", "bob")
        alice.send_message_to_peer("hi", "carol")
        alice.send_message_to_peer("hi", "carol", enable_offline_messaging=True)
        message = alice.create_media_message_by_uploading(b"12345").result(PATIENCE)
        bob.download_media(message.media_id).result(PATIENCE)
        with RtmClient("app", url=self.url) as dave, self.assertRaises(LoginError):
            dave.login("dave", "garbage")
        found = self.read()
        for name, labels, value in (
            ("rtm_messages_total", ("channel", "sent"), 1),
            ("rtm_messages_total", ("peer", "received"), 1),
            ("rtm_messages_total", ("peer", "offline"), 1),
            ("rtm_messages_total", ("peer", "cached"), 1),
            ("rtm_message_seconds_count", ("peer",), 3),
            ("rtm_logins_total", ("new",), 2),
            ("rtm_logins_total", ("invalid_token",), 1),
            ("rtm_media_uploads_total", (), 1),
            ("rtm_media_bytes_total", ("up",), 5),
            ("rtm_media_bytes_total", ("down",), 5),
            ("rtm_sessions", (), 2),
            ("rtm_connections", (), 2),
            ("rtm_channels", (), 1),
            ("rtm_unfinished_uploads", (), 0),
        ):
            with self.subTest(name, labels=labels):
                self.assertEqual(found.get((name, labels)), value)
        bob.logout()
        ended = ("rtm_sessions_ended_total", ("logout",))
        wait_until(lambda: self.read().get(ended) == 1)

    def test_the_public_port_has_health_and_no_metrics(self) -> None:
        base = self.url.replace("ws:", "http:")
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 404)):
            answer = requests.get(base + path, timeout=PATIENCE)
            self.assertEqual(answer.status_code, status)
