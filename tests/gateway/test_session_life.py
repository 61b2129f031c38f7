"""Clients that disconnect at a bad moment, over real sockets: every session ends."""

from __future__ import annotations

import json
import socket
import struct
from unittest import mock
from urllib.parse import urlsplit

from rtm_sync import RtmClient
from rtm_sync.gateway.app import BackgroundGateway, make_hub
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.gateway.rest import EventLog
from rtm_sync.hub.metrics_sink import MetricsSink
from rtm_sync.hub.node import Hub
from rtm_sync.testing import RtmTestCase, wait_until

PATIENCE = 60.0
FLAKY = 40


def rpc(number: int, method: str, **params: object) -> bytes:
    """A call as one masked frame with a zero mask."""
    text = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    data = text.encode()
    size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
    return b"\x81" + size + bytes(4) + data


class SessionLifeTest(RtmTestCase):
    def setUp(self) -> None:
        self.hubs: list[Hub] = []

        def hub_of(config: GatewayConfig, events: EventLog, metrics_sink: MetricsSink) -> Hub:
            self.hubs.append(make_hub(config, events, metrics_sink))
            return self.hubs[-1]

        config = GatewayConfig(
            port=0,
            data=str(self.folder()),
            limits="linux session_grace=1 receipt_timeout=1 sessions=30",
        )
        # The deadline of a login ends what nothing else has ended. It must not be needed here.
        with mock.patch("rtm_sync.hub.node._ATTACH_TIME", 3600.0):
            self.url = self.entered(BackgroundGateway(config, hub_of)).url
        [self.hub] = self.hubs

    def opened(self) -> socket.socket:
        """A new WebSocket, before its first frame."""
        parts = urlsplit(self.url)
        connection = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.sendall(
            b"GET /v1/signalling HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        connection.recv(4096)
        return connection

    def client(self, uid: str) -> RtmClient:
        client = self.entered(RtmClient("app", url=self.url))
        client.login(uid)
        return client

    def test_a_client_that_is_reset_before_its_login_is_answered_leaves_nothing(self) -> None:
        for number in range(FLAKY):
            connection = self.opened()
            reset = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.sendall(rpc(0, "login", app_id="app", uid=f"flaky{number}"))
            connection.close()
        wait_until(lambda: self.hub.session_count == 0, PATIENCE)
        alice = self.client("alice")
        flaky = [f"flaky{number}" for number in range(FLAKY)]
        self.assertEqual(set(alice.query_peers_online_status(flaky).values()), {False})
        sent = alice.send_message_to_peer("hi", "flaky0", enable_offline_messaging=True)
        self.assertTrue(sent.cached_by_server)

    def test_frames_that_were_sent_behind_a_logout_do_nothing(self) -> None:
        for number in range(3):
            connection = self.opened()
            connection.sendall(rpc(0, "login", app_id="app", uid=f"ghost{number}"))
            connection.recv(4096)
            connection.sendall(
                rpc(1, "logout")
                + rpc(2, "join_channel", channel_id="room")
                + rpc(3, "subscribe_peers_online_status", peer_ids=["x1", "x2"])
            )
            while connection.recv(4096):
                pass
        wait_until(lambda: self.hub.session_count == 0, PATIENCE)
        room = self.client("alice").create_channel("room")
        room.join()
        self.assertEqual(room.get_members(), ["alice"])
        self.assertEqual(self.hub.channel_count, 1)
        room.leave()
        wait_until(lambda: self.hub.channel_count == 0, PATIENCE)
