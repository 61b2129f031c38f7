"""Hostile and faulty WebSocket clients: each harms only itself, and never the gateway."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import unittest
from typing import Any
from unittest import mock

import requests
import websocket
from hypothesis import given, settings
from hypothesis import strategies as st

from rtm_sync import RtmClient
from rtm_sync.gateway import websocket as signalling
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.protocol.ids import FRAME_LIMIT, LOGIN_LIMIT
from tests.support import PATIENCE, RtmTestCase, Stopwatch, local_gateway

BOUND = 2.0  # seconds within which a hostile connection must end
OWED = 8 * 1024 * 1024  # bytes a client may leave unacknowledged
FLOOD = 1600  # messages
MOST_NOTICES = 500
# Counts in 600 s, so that a slow machine floods too.
LIMITS = f"notices={MOST_NOTICES}/600 sends=1500/600"
TOO_BIG = (1009, None)  # None: unread bytes caused a reset, which overtook the code


class Raw:
    """A WebSocket whose frames the test controls."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(f"{url}/v1/signalling", timeout=PATIENCE)
        self._next_id = 1

    def close(self) -> None:
        self._socket.shutdown()

    def send(self, text: str | bytes, opcode: int = websocket.ABNF.OPCODE_TEXT) -> None:
        """Send one frame. Ignores that the gateway has closed the connection already."""
        with contextlib.suppress(ConnectionError):
            self._socket.send(text, opcode)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes that are not a valid frame."""
        with contextlib.suppress(ConnectionError):
            self._socket.sock.sendall(data)

    def receive(self) -> Any:
        """The JSON of the next frame that is not an acknowledgement."""
        while True:
            frame = json.loads(self._socket.recv())
            if not isinstance(frame, dict) or frame.get("method") != "acknowledge":
                return frame

    def pong(self) -> bytes:
        """The data of the next frame, which must be a pong."""
        opcode, data = self._socket.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_PONG, opcode
        return bytes(data)

    def answer_to(self, call_id: object) -> Any:
        while True:
            frame = self.receive()
            if frame.get("id") == call_id and "method" not in frame:
                return frame

    def call(self, method: str, **params: Any) -> Any:
        """Make a call, and return the frame of the answer."""
        call_id = self._next_id
        self._next_id += 1
        self.send(rpc(call_id, method, params))
        return self.answer_to(call_id)

    def login(self, uid: str = "mallory") -> Any:
        return self.call("login", app_id="app", uid=uid)

    def closing(self, within: float = BOUND) -> int | None:
        """Read until the connection ends. Returns the close code, or None without one."""
        watch = Stopwatch()
        try:
            while True:
                opcode, data = self._socket.recv_data(control_frame=True)
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code: int = struct.unpack("!H", data[:2])[0] if data else 1005
                    return code
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            return None
        finally:
            if watch.seconds() > within:
                raise AssertionError(f"it took {watch.seconds():.1f} s to be thrown out")


def rpc(call_id: object, method: object, params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})


class SignallingCase(RtmTestCase):
    """A gateway with two regular users, who must not be affected."""

    def setUp(self) -> None:
        config = GatewayConfig(port=0, data=str(self.folder()), limits=LIMITS)
        self.url = self.entered(BackgroundGateway(config)).url
        self.alice, self.bob = self.user("alice"), self.user("bob")
        self.states: list[object] = []
        for user in (self.alice, self.bob):
            user.on("ConnectionStateChanged", lambda *change: self.states.append(change))

    def user(self, uid: str) -> RtmClient:
        client = RtmClient("app", url=self.url)
        self.addCleanup(client.close)
        with client.events("ConnectionStateChanged") as changes:
            client.login(uid)
            for event in changes.until(PATIENCE):
                if event.args[0].name == "CONNECTED":
                    break
        return client

    def raw(self, login: str | None = "mallory") -> Raw:
        raw = Raw(self.url)
        self.addCleanup(raw.close)
        if login is not None:
            self.assertIn("result", raw.login(login))
        return raw

    def check_the_others(self) -> None:
        """The gateway works, and the other users lost no message."""
        self.assertTrue(self.alice.send_message_to_peer("hi", "bob").has_peer_received)
        self.assertTrue(self.bob.send_message_to_peer("hi", "alice").has_peer_received)
        self.assertEqual(self.states, [])
        health = requests.get(self.url.replace("ws://", "http://") + "/healthz", timeout=PATIENCE)
        self.assertEqual(health.status_code, 200)

    def assert_error(self, frame: Any, code: int, family: str | None = None) -> None:
        self.assertEqual(frame["error"]["code"], code, frame)
        self.assertEqual(frame["error"].get("data", {}).get("family"), family)
        self.assertNotEqual(frame["error"]["message"], "")


DEEP = "[" * 100_000
NO_FRAMES = {
    "garbage": "hello?",
    "nothing": "",
    "half an object": '{"jsonrpc": "2.0", "id": 1',
    "deep lists": DEEP,
    "deep objects": '{"a":' * 40_000,
    "deep in a frame": rpc(1, "login", "X").replace('"X"', DEEP),
    "a number": "7",
    "null": "null",
    "a batch": f"[{rpc(1, 'logout', {})}, {rpc(2, 'logout', {})}]",
    "an empty batch": "[]",
    "another version": '{"jsonrpc": "1.0", "id": 1, "method": "logout"}',
    "no version": '{"id": 1, "method": "logout"}',
    "a text id": rpc("one", "logout", {}),
    "a negative id": rpc(-1, "logout", {}),
    "an endless id": '{"jsonrpc": "2.0", "id": ' + "9" * 5000 + ', "method": "logout"}',
    "a true id": rpc(True, "logout", {}),
    "NaN": '{"jsonrpc": "2.0", "id": NaN, "method": "logout"}',
    "an unknown notification": '{"jsonrpc": "2.0", "method": "shutdown"}',
    "an answer without an id": '{"jsonrpc": "2.0", "result": {}}',
    "an error of nothing": '{"jsonrpc": "2.0", "id": null, "error": null}',
}


class BeforeLoginTest(SignallingCase):
    def test_what_is_no_login_is_refused_and_closed(self) -> None:
        first = NO_FRAMES | {
            "another call": rpc(1, "send_message_to_peer", {"peer_id": "bob"}),
            "logout": rpc(1, "logout", {}),
            "an unknown method": rpc(1, "eval", {"code": "1"}),
            "a login without an app": rpc(1, "login", {"uid": "x"}),
            "a login of nobody": rpc(1, "login", {"app_id": "app", "uid": ""}),
            "a login with a list": rpc(1, "login", ["app", "x"]),
            "a uid of another kind": rpc(1, "login", {"app_id": "app", "uid": {"a": 1}}),
            "another protocol": rpc(1, "login", {"app_id": "app", "uid": "x", "version": 99}),
            "half a letter": rpc(1, "login", {"app_id": "app", "uid": "\ud800"}),
        }
        for name, text in first.items():
            with self.subTest(name):
                raw = self.raw(login=None)
                raw.send(text)
                if len(text) > LOGIN_LIMIT:
                    self.assertIn(raw.closing(), TOO_BIG)
                else:
                    frame = raw.receive()
                    self.assertEqual(frame["error"]["data"]["family"], "LoginError")
                    self.assertEqual(raw.closing(), 4003)
                raw.close()
        self.check_the_others()

    def test_binary_as_the_first_frame_is_refused(self) -> None:
        raw = self.raw(login=None)
        raw.send(b"\x00\x01", websocket.ABNF.OPCODE_BINARY)
        self.assertEqual(raw.closing(), 1003)
        self.check_the_others()

    def test_pings_and_pongs_before_the_login_are_no_error(self) -> None:
        raw = self.raw(login=None)
        for data in (b"", b"one", b"x" * 125):
            raw.send(b"unasked", websocket.ABNF.OPCODE_PONG)
            raw.send(data, websocket.ABNF.OPCODE_PING)
            self.assertEqual(raw.pong(), data)
        self.assertIn("result", raw.login())
        self.check_the_others()

    def test_who_only_pings_is_closed_after_a_while(self) -> None:
        with mock.patch.object(signalling, "_LOGIN_TIMEOUT", 0.2):
            raw = self.raw(login=None)
            raw.send(b"", websocket.ABNF.OPCODE_PING)
            self.assertEqual(raw.closing(), 4003)
        self.check_the_others()

    def test_a_login_of_exactly_the_limit_is_accepted(self) -> None:
        raw = self.raw(login=None)
        login = rpc(0, "login", {"app_id": "app", "uid": "mallory", "more": ""})
        raw.send(login.replace('"more": "', '"more": "' + "x" * (LOGIN_LIMIT - len(login))))
        self.assertIn("result", raw.answer_to(0))
        raw.send(rpc(7, "x", {}).ljust(FRAME_LIMIT))
        self.assert_error(raw.answer_to(7), -32601)
        self.check_the_others()

    def test_a_frame_over_the_limit_is_refused(self) -> None:
        for size in (LOGIN_LIMIT + 20, FRAME_LIMIT + 1):
            raw = self.raw(login=None)
            raw.send("x" * size)
            self.assertIn(raw.closing(), TOO_BIG)
        self.check_the_others()

    def test_pieces_that_end_nowhere_are_no_more_than_a_login(self) -> None:
        raw = self.raw(login=None)
        raw.send_bytes(_frame("x" * 6_000, first=True, last=False))
        for _ in range(2):
            raw.send_bytes(_frame("x" * 6_000, first=False, last=False))
        self.assertIn(raw.closing(), TOO_BIG)
        self.check_the_others()

    def test_who_does_not_log_in_is_closed_after_a_while(self) -> None:
        with mock.patch.object(signalling, "_LOGIN_TIMEOUT", 0.2):
            silent, dripping = self.raw(login=None), self.raw(login=None)
            dripping.send_bytes(b"\x81\xfe\x04\x00mask")  # the beginning of a long frame
            self.assertEqual(silent.closing(), 4003)
            self.assertIn(dripping.closing(), (4003, None))
        self.check_the_others()

    def test_a_stranger_who_vanishes_at_any_moment_is_no_matter(self) -> None:
        parts = self.url.removeprefix("ws://").split(":")
        upgrade = (
            f"GET /v1/signalling HTTP/1.1\r\nHost: {parts[0]}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
        login = rpc(1, "login", {"app_id": "app", "uid": "ghost"}).encode()
        frame = bytes((0x81, 0x80 | len(login))) + bytes(4) + login
        self.assertLess(len(login), 126)
        for cut in range(0, len(upgrade + frame), 7):
            with socket.create_connection((parts[0], int(parts[1])), PATIENCE) as sock:
                sock.sendall((upgrade + frame)[:cut])
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.check_the_others()

    def test_requests_that_are_no_websocket_are_refused(self) -> None:
        url = self.url.replace("ws://", "http://") + "/v1/signalling"
        for method in ("GET", "POST", "DELETE"):
            answer = requests.request(method, url, timeout=PATIENCE)
            self.assertIn(answer.status_code, (400, 405, 426))
        self.check_the_others()


class AfterLoginTest(SignallingCase):
    def test_what_is_no_frame_costs_the_connection(self) -> None:
        for number, (name, text) in enumerate(NO_FRAMES.items()):
            with self.subTest(name):
                raw = self.raw(f"mallory {number}")
                raw.send(text)
                self.assertEqual(raw.closing(), 1002)
                raw.close()
        self.check_the_others()

    def test_text_that_is_no_utf_8_costs_the_connection(self) -> None:
        raw = self.raw()
        raw.send(b'{"jsonrpc": "2.0", "id": 2, "method": "\xff\xfe"}')
        self.assertIn(raw.closing(), (1002, 1007))
        self.check_the_others()

    def test_notices_are_validated_and_have_a_rate(self) -> None:
        def cancel(key: str) -> str:
            return json.dumps({"jsonrpc": "2.0", "method": "cancel_upload", "params": {"key": key}})

        raw = self.raw("long key")
        raw.send(cancel("k" * 129))
        self.assertEqual(raw.closing(), 1002)
        raw = self.raw("many")
        for number in range(MOST_NOTICES):
            raw.send(cancel(f"{number:0128}"))
        self.assertIn("result", raw.call("get_user_attributes", user_id="many"))
        raw.send(cancel("one more"))
        self.assertEqual(raw.closing(), 1002)
        self.check_the_others()

    def test_binary_costs_the_connection(self) -> None:
        raw = self.raw()
        raw.send(rpc(2, "logout", {}).encode(), websocket.ABNF.OPCODE_BINARY)
        self.assertEqual(raw.closing(), 1003)
        self.check_the_others()

    def test_a_frame_over_the_limit_costs_the_connection(self) -> None:
        whole, announced = self.raw("whole"), self.raw("announced")
        whole.send(rpc(7, "x", {}).ljust(FRAME_LIMIT))
        self.assert_error(whole.answer_to(7), -32601)
        whole.send("x" * (FRAME_LIMIT + 1))
        self.assertIn(whole.closing(), TOO_BIG)
        announced.send_bytes(b"\x81\xff" + (2**40).to_bytes(8, "big") + b"mask")
        self.assertIn(announced.closing(), TOO_BIG)
        self.check_the_others()

    def test_fragments_without_an_end_are_bounded(self) -> None:
        raw = self.raw()
        piece = os.urandom(60_000).hex()
        raw.send_bytes(_frame(piece, first=True, last=False))
        for _ in range(5):
            raw.send_bytes(_frame(piece, first=False, last=False))
        self.assertIn(raw.closing(), TOO_BIG)
        self.check_the_others()

    def test_frames_that_break_the_websocket_protocol_cost_the_connection(self) -> None:
        broken = {
            "reserved bits": b"\xf1\x80mask",
            "a reserved opcode": b"\x83\x80mask",
            "a continuation of nothing": b"\x80\x80mask",
            "a ping that is too long": b"\x89\xfe\x00\xc8mask" + bytes(200),
            "a ping in pieces": b"\x09\x80mask",
            "a close code of nobody": b"\x88\x82\x00\x00\x00\x00\x00\x05",
        }
        for number, (name, data) in enumerate(broken.items()):
            with self.subTest(name):
                raw = self.raw(f"mallory {number}")
                raw.send_bytes(data)
                self.assertIn(raw.closing(), (1000, 1002, None))
                raw.close()
        self.check_the_others()

    def test_calls_that_do_not_fit_are_answered_and_the_session_goes_on(self) -> None:
        raw = self.raw()
        text = {"type": "TEXT", "text": "hi", "description": ""}
        send = {"peer_id": "bob", "message": text, "message_id": "m1"}
        wrong: list[tuple[str, Any, int, str | None]] = [
            ("eval", {}, -32601, None),
            ("", {}, -32601, None),
            ("x" * 10_000, {}, -32601, None),
            ("__class__", {}, -32601, None),
            ("message_from_peer", {}, 1, "PeerMessageError"),
            ("send_message_to_peer", {}, 7, "PeerMessageError"),
            ("send_message_to_peer", [], 7, "PeerMessageError"),
            ("send_message_to_peer", None, 7, "PeerMessageError"),
            ("send_message_to_peer", send | {"peer_id": 7}, 7, "PeerMessageError"),
            ("send_message_to_peer", send | {"peer_id": "a/b"}, 6, "PeerMessageError"),
            ("send_message_to_peer", send | {"message_id": ""}, 7, "PeerMessageError"),
            ("send_message_to_peer", send | {"message_id": "x" * 65}, 7, "PeerMessageError"),
            ("send_message_to_peer", send | {"message": {"type": "X"}}, 7, "PeerMessageError"),
            ("send_message_to_peer", send | {"message": {"type": []}}, 7, "PeerMessageError"),
            (
                "send_message_to_peer",
                send | {"message": text | {"text": "x" * 40_000}},
                7,
                "PeerMessageError",
            ),
            (
                "send_message_to_peer",
                send | {"message": {"type": "RAW", "raw_message": "***"}},
                7,
                "PeerMessageError",
            ),
            (
                "send_message_to_peer",
                send | {"enable_offline_messaging": "yes"},
                7,
                "PeerMessageError",
            ),
            ("join_channel", {"channel_id": 1.5}, 3, "JoinChannelError"),
            ("join_channel", {"channel_id": "x" * 65}, 3, "JoinChannelError"),
            ("leave_channel", {"channel_id": "never joined"}, 3, "LeaveChannelError"),
            (
                "send_channel_message",
                {"channel_id": "room", "message": text, "message_id": "m"},
                5,
                "ChannelMessageError",
            ),
        ]
        for method, params, code, family in wrong:
            with self.subTest(method[:40], params=str(params)[:60]):
                raw.send(rpc(500, method, params))
                self.assert_error(raw.answer_to(500), code, family)
        self.assertEqual(raw.call("send_message_to_peer", **send)["result"]["has_peer_received"], 1)
        self.check_the_others()

    def test_a_second_login_in_a_session_is_refused(self) -> None:
        raw = self.raw()
        self.assertIn("error", raw.login("alice"))
        self.assertEqual(raw.call("logout")["result"], {})
        self.assertEqual(raw.closing(), 1000)
        self.check_the_others()

    def test_a_call_of_the_hubs_own_is_refused(self) -> None:
        raw = self.raw()
        forged = {
            "peer_id": "bob",
            "message_id": "m1",
            "message": {"type": "TEXT", "text": "forged", "description": ""},
            "message_props": {"server_received_ts": 1},
        }
        self.assert_error(raw.call("message_from_peer", **forged), -32601)
        self.check_the_others()

    def test_answers_to_calls_that_were_never_made_are_passed_over(self) -> None:
        raw = self.raw()
        raw.send('{"jsonrpc": "2.0", "id": 99, "result": {"anything": [1]}}')
        raw.send('{"jsonrpc": "2.0", "id": 99, "error": {"code": "x", "message": 7}}')
        raw.send('{"jsonrpc": "2.0", "method": "cancel_upload", "params": {"key": "no-such"}}')
        self.assertIn("position", raw.call("join_channel", channel_id="room")["result"])
        self.check_the_others()

    def test_acknowledging_what_was_never_sent_costs_the_connection(self) -> None:
        for number, count in enumerate((-1, 10**6, 2**60)):
            with self.subTest(count):
                raw = self.raw(f"mallory {number}")
                params = {"received": count}
                raw.send(json.dumps({"jsonrpc": "2.0", "method": "acknowledge", "params": params}))
                self.assertEqual(raw.closing(), 1002)
        self.check_the_others()

    def test_a_flood_of_calls_is_limited_and_delays_nobody(self) -> None:
        raw = self.raw()
        text = {"type": "TEXT", "text": "spam", "description": ""}
        for number in range(FLOOD):
            params = {"peer_id": "nobody", "message": text, "message_id": f"m{number}"}
            raw.send(rpc(1000 + number, "send_message_to_peer", params))
        watch = Stopwatch()
        self.assertTrue(self.alice.send_message_to_peer("hi", "bob").has_peer_received)
        self.assertLess(watch.seconds(), BOUND)
        self.assert_error(raw.answer_to(1000 + FLOOD - 1), 5, "PeerMessageError")
        self.check_the_others()

    def test_a_stolen_session_id_of_another_user_opens_nothing(self) -> None:
        secret = self.alice._transport._connection.token  # type: ignore[attr-defined]
        raw = self.raw(login=None)
        answer = raw.call("login", app_id="app", uid="mallory", session=secret, received=0)
        self.assertFalse(answer["result"]["resumed"])
        self.assertNotEqual(answer["result"]["session"], secret)
        self.check_the_others()

    def test_a_client_that_reads_nothing_is_thrown_out_with_the_reason(self) -> None:
        deaf = self.raw()
        deaf.call("join_channel", channel_id="room")
        room = self.alice.create_channel("room")
        room.join()
        for _ in range(OWED // 32_000 + 1):
            room.send_message("x" * 32_000)
        self.assertEqual(deaf.closing(within=PATIENCE), 4008)  # megabytes precede the close frame
        fresh = self.raw(login=None)
        answer = fresh.call("login", app_id="app", uid="mallory")
        self.assertFalse(answer["result"]["resumed"])
        self.check_the_others()


class RandomFramesTest(unittest.TestCase):
    """Any JSON as the first frame gets a typed error, and the next client is served."""

    url: str
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=12,
    )
    methods = st.sampled_from(
        ["login", "logout", "join_channel", "send_message_to_peer", "cancel_upload", "x"]
    )

    @classmethod
    def setUpClass(cls) -> None:
        gateway = local_gateway()
        cls.url = gateway.__enter__()
        cls.addClassCleanup(gateway.__exit__, None, None, None)

    @settings(max_examples=150)
    @given(methods, values, st.sampled_from(["id", "no id"]))
    def test_random_parameters(self, method: str, params: object, kind: str) -> None:
        frame = {"jsonrpc": "2.0", "method": method, "params": params}
        if kind == "id":
            frame["id"] = 1
        with contextlib.closing(Raw(self.url)) as raw:
            raw.send(json.dumps(frame))
            self.assertEqual(raw.receive()["error"]["data"]["family"], "LoginError")
            self.assertEqual(raw.closing(), 4003)


def _frame(text: str, *, first: bool, last: bool) -> bytes:
    """A text frame, or a part of one, with a zero mask."""
    opcode = 1 if first else 0
    head = bytes(((0x80 if last else 0) | opcode, 0x80 | 127))
    return head + len(text).to_bytes(8, "big") + bytes(4) + text.encode()
