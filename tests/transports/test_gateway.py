"""The gateway transport: logins that fail clearly, and sessions that outlive their connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import websocket

from rtm_sync import ConnectionState, RtmClient
from rtm_sync.errors import LoginError, TransferCancelled
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.protocol.frames import encode_call
from rtm_sync.protocol.requests import Login
from rtm_sync.protocol.values import ConnectionChangeReason
from rtm_sync.testing import FaultProxy, GatewayProcess
from tests.support import PATIENCE, RtmTestCase, Stopwatch, local_gateway, wait_until
from tests.transports.support import (
    GatewayCase,
    Timing,
    deaf_address,
    http_server,
    pattern,
    tcp_server,
)

BOUND = 2.0  # seconds that what should happen at once may take on a loaded machine
SECRET = "a secret of tests, 32 bytes or more"
QUIET = 0.3  # seconds a lost connection stays unmentioned in these tests; 4 otherwise
QUICK = (Timing(reconnecting_after=QUIET, connect_timeout=1.0),)


class LoginTest(GatewayCase):
    def refused(self, url: str, name: str, within: float = BOUND, **options: Any) -> LoginError:
        """A login there fails so, the client is as before, and could try again."""
        client = self.client(url=url, **options)
        states: list[tuple[ConnectionState, ConnectionChangeReason]] = []
        client.on("ConnectionStateChanged", lambda *change: states.append(change))
        error = self.fails(name, client.login, "alice", within=within)
        assert isinstance(error, LoginError)
        self.assertIsNone(client.uid)
        self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)
        wait_until(lambda: len(states) == 2)
        self.assertEqual(states[0], (ConnectionState.CONNECTING, ConnectionChangeReason.LOGIN))
        timed_out = name == "LOGIN_ERR_TIMEOUT"
        reason = (
            ConnectionChangeReason.LOGIN_TIMEOUT
            if timed_out
            else ConnectionChangeReason.LOGIN_FAILURE
        )
        self.assertEqual(states[1], (ConnectionState.DISCONNECTED, reason))
        return error

    def test_a_gateway_that_is_down_is_said_at_once_with_a_hint(self) -> None:
        self.proxy.refuse()
        error = self.refused(self.proxy.url, "LOGIN_ERR_UNKNOWN")
        self.assertIn(self.proxy.url, error.message)
        self.assertIn("rtm-sync serve", error.message)
        self.assertIsInstance(error.cause, ConnectionRefusedError)

    def test_an_address_that_does_not_accept_times_out(self) -> None:
        address = self.entered(deaf_address())
        self.refused(f"ws://{address}", "LOGIN_ERR_TIMEOUT", login_timeout=0.3)

    def test_an_address_that_accepts_and_is_silent_times_out(self) -> None:
        self.proxy.stall()
        self.refused(self.proxy.url, "LOGIN_ERR_TIMEOUT", login_timeout=0.3)

    def test_a_login_that_is_never_answered_times_out(self) -> None:
        self.proxy.stall(received=150)  # the handshake's answer has as many
        self.refused(self.proxy.url, "LOGIN_ERR_TIMEOUT", login_timeout=0.3)

    def test_a_server_that_answers_in_drips_times_out(self) -> None:
        self.proxy.slow_down(20)
        self.refused(self.proxy.url, "LOGIN_ERR_TIMEOUT", login_timeout=0.5, within=3.0)
        self.proxy.restore()

    def test_a_web_server_is_no_gateway(self) -> None:
        address, _ = self.entered(http_server(200, {"Content-Length": "2"}, b"hi"))
        error = self.refused(f"ws://{address}", "LOGIN_ERR_UNKNOWN")
        self.assertIn("200", error.message)

    def test_what_is_not_even_a_web_server_is_no_gateway(self) -> None:
        for greeting in (b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\xff\r\n\r\n", b""):
            with self.subTest(greeting):
                address = self.entered(tcp_server(lambda sock, say=greeting: sock.sendall(say)))
                self.refused(f"ws://{address}", "LOGIN_ERR_UNKNOWN")

    def test_the_same_client_logs_in_once_the_gateway_is_there(self) -> None:
        self.proxy.refuse()
        client = self.client()
        self.fails("LOGIN_ERR_UNKNOWN", client.login, "alice", within=BOUND)
        self.proxy.restore()
        client.login("alice")
        self.assertEqual(client.connection_state, ConnectionState.CONNECTED)

    def test_close_ends_a_login_that_hangs(self) -> None:
        self.proxy.stall()
        client = self.client(login_timeout=60.0)
        failures: list[BaseException] = []
        login = threading.Thread(target=lambda: failures.append(_error_of(client.login, "alice")))
        login.start()
        wait_until(lambda: self.proxy.accepted == 1)
        watch = Stopwatch()
        client.close()
        login.join(PATIENCE)
        self.assertLess(watch.seconds(), 2 * BOUND)
        self.assertIsInstance(failures[0], LoginError)
        # And its reader thread is gone, which the test case checks.


class TokenTest(GatewayCase):
    def setUp(self) -> None:
        self.data = self.folder()
        self.gateway = self.entered(local_gateway(self.data, app_id="app", app_secret=SECRET))
        self.proxy = self.entered(FaultProxy(self.gateway))

    def test_tokens_that_are_not_good_are_refused_each_with_its_code(self) -> None:
        tokens = {
            "LOGIN_ERR_INVALID_TOKEN": make_token("app", "alice", SECRET + "other"),
            "LOGIN_ERR_TOKEN_EXPIRED": make_token("app", "alice", SECRET, ttl=-60),
            "LOGIN_ERR_INVALID_APP_ID": make_token("other", "alice", SECRET),
        }
        for name, token in tokens.items():
            with self.subTest(name):
                error = self.fails(name, self.client().login, "alice", token, within=BOUND)
                self.assertNotIn(token, str(error))
        for token in (None, "", "garbage", "a.b.c", make_token("app", "bob", SECRET)):
            with self.subTest(token):
                client = self.client()
                self.fails("LOGIN_ERR_INVALID_TOKEN", client.login, "alice", token, within=BOUND)
        self.client().login("alice", make_token("app", "alice", SECRET))

    def test_each_attempt_to_connect_asks_the_provider_for_a_token(self) -> None:
        asked: list[float] = []

        def provide() -> str:
            asked.append(time.monotonic())
            return make_token("app", "alice", SECRET)

        client = self.client("alice", token_provider=provide, plugins=QUICK)
        self.assertEqual(len(asked), 1)
        self.proxy.drop()
        wait_until(lambda: len(asked) > 1 and self.proxy.accepted > 1)
        self.assertFalse(client.send_message_to_peer("still here", "bob").has_peer_received)

    def test_a_token_that_is_no_longer_good_aborts_the_session(self) -> None:
        tokens = [make_token("app", "alice", SECRET)]
        client = self.client(token_provider=lambda: tokens[-1], plugins=QUICK)
        client.login("alice")
        tokens.append("revoked")
        self.proxy.drop()
        wait_until(lambda: _is(client, ConnectionState.ABORTED))
        self.fails("PEER_MESSAGE_ERR_USER_NOT_LOGGED_IN", client.send_message_to_peer, "hi", "bob")
        client.logout()
        self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)

    def test_a_token_that_ran_out_while_away_is_told_and_a_renewed_one_leads_back(self) -> None:
        tokens = [make_token("app", "alice", SECRET)]
        client = self.client(token_provider=lambda: tokens[-1], plugins=QUICK)
        client.login("alice")
        expired = client.events("TokenExpired")
        tokens.append(make_token("app", "alice", SECRET, ttl=-60))
        self.proxy.drop()
        next(expired.until(PATIENCE))
        wait_until(lambda: _is(client, ConnectionState.RECONNECTING), PATIENCE)
        client.renew_token(make_token("app", "alice", SECRET))
        wait_until(lambda: _is(client, ConnectionState.CONNECTED), BOUND)
        self.assertFalse(client.send_message_to_peer("back", "bob").has_peer_received)

    def test_a_token_is_renewed_while_connected(self) -> None:
        client = self.client()
        client.login("alice", make_token("app", "alice", SECRET, ttl=20))
        client.wait_for("TokenPrivilegeWillExpire", PATIENCE)
        self.fails("RENEW_TOKEN_ERR_INVALID_TOKEN", client.renew_token, "garbage")
        client.renew_token(make_token("app", "alice", SECRET))
        self.fails("RENEW_TOKEN_ERR_INVALID_ARGUMENT", client.renew_token, "")

    def test_a_provider_that_fails_is_a_login_error(self) -> None:
        def broken() -> str:
            raise RuntimeError("the token server is down")

        client = self.client(token_provider=broken)
        with self.assertRaises(LoginError) as caught:
            client.login("alice")
        self.assertIn("the token server is down", str(caught.exception))

    def test_a_provider_that_fails_while_reconnecting_is_asked_again(self) -> None:
        answers: list[Callable[[], str]] = [lambda: make_token("app", "alice", SECRET)]
        asked = threading.Event()

        def provide() -> str:
            asked.set()
            return answers[-1]()

        client = self.client("alice", token_provider=provide, plugins=QUICK)
        bob = self.client(url=self.gateway)
        bob.login("bob", make_token("app", "bob", SECRET))
        asked.clear()
        answers.append(_raise_runtime_error)
        self.proxy.drop()
        self.assertTrue(asked.wait(PATIENCE))
        answers.pop()
        result = client.send_message_to_peer("back", "bob", timeout=PATIENCE)
        self.assertTrue(result.has_peer_received)


class LogoutTest(GatewayCase):
    def test_a_logout_is_final(self) -> None:
        """The hub closes the connection then, and that must not look like a lost one."""
        observer = self.client("observer", url=self.gateway)
        for number in range(40):
            client = self.client(f"user {number}")
            client.logout()
            client.close()
        self.assertEqual(self.proxy.accepted, 40)
        for number in range(40):
            result = observer.send_message_to_peer("hi", f"user {number}", timeout=BOUND)
            self.assertFalse(result.has_peer_received)


class SecondLoginTest(GatewayCase):
    def test_the_first_is_aborted_its_transfers_end_and_it_does_not_come_back(self) -> None:
        first, changes = self.watched("alice", plugins=QUICK)
        self.proxy.stall(sent=1_000_000)
        upload = first.create_media_message_by_uploading(pattern(3_000_000))
        wait_until(lambda: self.proxy.held)
        accepted = self.proxy.accepted
        second = self.client("alice", url=self.gateway)
        self.assertEqual(
            next(changes).args,
            (ConnectionState.ABORTED, ConnectionChangeReason.REMOTE_LOGIN),
        )
        with self.assertRaises(TransferCancelled):
            upload.result(BOUND)
        self.fails("PEER_MESSAGE_ERR_USER_NOT_LOGGED_IN", first.send_message_to_peer, "hi", "bob")
        self.fails("LOGIN_ERR_ALREADY_LOGIN", first.login, "alice")
        wait_until(lambda: len(_threads("rtm-sync-reader")) == 1)
        self.assertEqual(self.proxy.accepted, accepted)
        self.assertEqual(second.connection_state, ConnectionState.CONNECTED)
        wait_until(lambda: self.stored() == [], message="a fragment of the first stays")
        first.logout()
        self.assertEqual(first.connection_state, ConnectionState.DISCONNECTED)


class ReconnectTest(GatewayCase):
    MESSAGES = 300
    DROPS = 6

    def received_by(self, emitter: Any, name: str) -> list[str]:
        texts: list[str] = []
        emitter.on(name, lambda message, *_: texts.append(message.text))
        return texts

    def test_nothing_is_lost_doubled_or_reordered_over_drops_both_ways(self) -> None:
        alice, bob = self.client("alice", plugins=QUICK), self.client("bob", plugins=QUICK)
        rooms = [client.create_channel("room") for client in (alice, bob)]
        for room in rooms:
            room.join()
        arrived = {
            "alice": self.received_by(alice, "MessageFromPeer"),
            "bob": self.received_by(bob, "MessageFromPeer"),
            "alice in room": self.received_by(rooms[0], "ChannelMessage"),
            "bob in room": self.received_by(rooms[1], "ChannelMessage"),
        }
        unconfirmed: list[str] = []
        failures: list[BaseException] = []

        def send_all(client: RtmClient, room: Any, peer: str) -> None:
            try:
                for number in range(self.MESSAGES):
                    text = str(number)
                    sent = client.send_message_to_peer(
                        text, peer, enable_offline_messaging=True, timeout=PATIENCE
                    )
                    if not (sent.has_peer_received or sent.cached_by_server):
                        unconfirmed.append(f"{peer} {text}")
                    room.send_message(text, timeout=PATIENCE)
            except Exception as error:
                failures.append(error)

        senders = [
            threading.Thread(target=send_all, args=(alice, rooms[0], "bob")),
            threading.Thread(target=send_all, args=(bob, rooms[1], "alice")),
        ]
        for sender in senders:
            sender.start()
        for step in range(1, self.DROPS + 1):
            goal = step * self.MESSAGES // (self.DROPS + 1)
            wait_until(lambda goal=goal: failures or len(arrived["bob"]) >= goal, PATIENCE)
            self.proxy.drop()
        for sender in senders:
            sender.join(2 * PATIENCE)
        self.assertEqual((failures, unconfirmed), ([], []))
        expected = [str(number) for number in range(self.MESSAGES)]
        wait_until(lambda: all(len(texts) >= self.MESSAGES for texts in arrived.values()))
        for who, texts in arrived.items():
            with self.subTest(who):
                self.assertEqual(texts, expected)
        self.assertGreater(self.proxy.accepted, self.DROPS)

    def test_a_call_in_flight_is_answered_after_the_drop(self) -> None:
        for lost in ("the call", "its answer"):
            with self.subTest(lost):
                alice = self.client("alice", plugins=QUICK)
                bob = self.client("bob", url=self.gateway)
                texts = self.received_by(bob, "MessageFromPeer")
                if lost == "the call":
                    self.proxy.stall()
                else:
                    self.proxy.stall(received=0)
                answers: list[Any] = []
                call = threading.Thread(
                    target=lambda alice=alice, answers=answers: answers.append(
                        alice.send_message_to_peer("once", "bob", timeout=PATIENCE)
                    )
                )
                call.start()
                if lost == "its answer":
                    wait_until(lambda texts=texts: texts == ["once"])
                self.proxy.restore()
                self.proxy.drop()
                call.join(PATIENCE)
                self.assertTrue(answers[0].has_peer_received)
                alice.send_message_to_peer("the last", "bob")
                wait_until(lambda texts=texts: "the last" in texts)
                self.assertEqual(texts, ["once", "the last"])
                alice.close()
                bob.close()

    def test_a_short_drop_is_not_mentioned(self) -> None:
        alice, changes = self.watched("alice")
        before = self.proxy.accepted
        self.proxy.drop()
        wait_until(lambda: self.proxy.accepted > before)
        self.assertFalse(alice.send_message_to_peer("hi", "nobody").has_peer_received)
        alice.logout()
        self.assertEqual(next(changes).args[0], ConnectionState.DISCONNECTED)

    def test_a_long_outage_is_told_and_its_end_too(self) -> None:
        alice, changes = self.watched("alice", plugins=QUICK)
        bob = self.client("bob", url=self.gateway)
        texts = self.received_by(alice, "MessageFromPeer")
        self.proxy.refuse()
        dropped_at = time.monotonic()
        self.proxy.drop()
        watch = Stopwatch()
        self.assertEqual(
            next(changes).args, (ConnectionState.RECONNECTING, ConnectionChangeReason.INTERRUPTED)
        )
        self.assertGreaterEqual(time.monotonic() - dropped_at, QUIET)
        self.assertLess(watch.seconds(), QUIET + BOUND)
        self.fails("PEER_MESSAGE_ERR_TIMEOUT", _send, alice, "bob", 0.2, within=BOUND)
        sending = threading.Thread(target=_send, args=(bob, "alice", PATIENCE))
        sending.start()
        self.proxy.restore()
        self.assertEqual(
            next(changes).args, (ConnectionState.CONNECTED, ConnectionChangeReason.LOGIN_SUCCESS)
        )
        sending.join(PATIENCE)
        wait_until(lambda: texts == ["hello"], message="the message of the outage is missing")

    def test_an_outage_is_told_in_time_when_the_network_is_silent(self) -> None:
        _, changes = self.watched("alice", plugins=QUICK, ping_interval=0.1, ping_timeout=0.3)
        self.proxy.stall()
        watch = Stopwatch()
        self.assertEqual(next(changes).args[0], ConnectionState.RECONNECTING)
        self.assertLess(watch.seconds(), 0.3 + QUIET + BOUND)
        self.proxy.restore()
        self.proxy.drop()
        self.assertEqual(next(changes).args[0], ConnectionState.CONNECTED)

    def test_closing_while_it_reconnects_leaves_no_thread(self) -> None:
        for broken in (self.proxy.refuse, self.proxy.stall):
            with self.subTest(broken.__name__):
                times = Timing(reconnecting_after=0.1, connect_timeout=30.0)
                alice = self.client("alice", plugins=(times,))
                before = self.proxy.accepted
                broken()
                self.proxy.drop()
                wait_until(lambda alice=alice: _is(alice, ConnectionState.RECONNECTING))
                if broken == self.proxy.stall:  # the second attempt has all its 30 s
                    wait_until(lambda before=before: self.proxy.accepted >= before + 2)
                watch = Stopwatch()
                alice.close()
                self.assertLess(watch.seconds(), 2 * BOUND)
                wait_until(lambda: _threads("rtm-sync-reader") == [], message="the reader stays")
                self.proxy.restore()

    def test_channels_are_still_joined_after_the_session_was_resumed(self) -> None:
        alice, bob = self.client("alice", plugins=QUICK), self.client("bob", url=self.gateway)
        mine, theirs = alice.create_channel("room"), bob.create_channel("room")
        news: list[str] = []
        for name in ("MemberJoined", "MemberLeft"):
            theirs.on(name, lambda member, name=name: news.append(f"{name} {member}"))
        texts = self.received_by(mine, "ChannelMessage")
        others = self.received_by(theirs, "ChannelMessage")
        theirs.join()
        mine.join()
        back: list[str] = []
        alice.on("Reconnected", lambda recovered: back.append(f"session {recovered}"))
        mine.on("Reconnected", lambda recovered: back.append(f"channel {recovered}"))
        self.proxy.drop()
        theirs.send_message("after the drop")
        wait_until(lambda: texts == ["after the drop"])
        mine.send_message("still a member")
        wait_until(lambda: others == ["still a member"])
        self.assertEqual(news, ["MemberJoined alice"])
        self.assertEqual(back, ["session True"], "nothing was missed, so channels say nothing")


class RestartedGatewayTest(RtmTestCase):
    """The gateway's process is killed: its sessions are lost, the clients come back."""

    def setUp(self) -> None:
        self.process = self.entered(GatewayProcess(self.folder()))

    def client(self, uid: str) -> RtmClient:
        client = RtmClient("app", url=self.process.url, plugins=QUICK)
        self.addCleanup(client.close)
        client.login(uid)
        return client

    def test_a_killed_gateway_that_comes_back_is_used_again(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        rooms = [client.create_channel("room") for client in (alice, bob)]
        texts: list[str] = []
        for emitter, name in ((rooms[1], "ChannelMessage"), (bob, "MessageFromPeer")):
            emitter.on(name, lambda message, *_: texts.append(message.text))
        for room in rooms:
            room.join()
        back: list[str] = []
        bob.on("Reconnected", lambda recovered: back.append(f"session {recovered}"))
        rooms[1].on("Reconnected", lambda recovered: back.append(f"channel {recovered}"))
        alice.send_message_to_peer("kept", "carol", enable_offline_messaging=True)
        alice.set_local_user_attributes({"mood": "fine"})
        bob.subscribe_peers_online_status(["alice"])
        self.process.kill()
        wait_until(lambda: _is(alice, ConnectionState.RECONNECTING), PATIENCE)
        self.process.start()
        for client in (alice, bob):
            wait_until(lambda client=client: _is(client, ConnectionState.CONNECTED), PATIENCE)
        self.assertTrue(alice.send_message_to_peer("to bob", "bob").has_peer_received)
        wait_until(lambda: texts == ["to bob"])
        rooms[0].send_message("to the room")
        wait_until(lambda: texts == ["to bob", "to the room"], message="bob left the room")
        self.assertEqual(back, ["session False", "channel True"], "the channel's log was stored")
        self.assertEqual(bob.get_user_attributes("alice"), {"mood": "fine"})
        self.assertEqual(bob.query_peers_by_subscription_option(), ["alice"])
        carol = RtmClient("app", url=self.process.url)
        self.addCleanup(carol.close)
        with carol.events("MessageFromPeer") as waiting:
            carol.login("carol")
            kept = next(waiting.until(PATIENCE))
        self.assertEqual(kept.args[0].text, "kept")

    def test_logging_out_of_a_dead_gateway_does_not_hang(self) -> None:
        alice = self.client("alice")
        self.process.kill()
        watch = Stopwatch()
        alice.logout()
        self.assertLess(watch.seconds(), 2 * BOUND)
        self.assertEqual(alice.connection_state, ConnectionState.DISCONNECTED)


class HalfOpenTest(RtmTestCase):
    """A connection that is dead without a word is noticed at both ends."""

    def test_each_end_notices_within_its_time(self) -> None:
        config = GatewayConfig(port=0, data=str(self.folder()), silence=1.0)
        gateway = self.entered(BackgroundGateway(config)).url
        proxy = self.entered(FaultProxy(gateway))
        alice = RtmClient("app", url=proxy.url, ping_interval=0.2, ping_timeout=1.0, plugins=QUICK)
        self.addCleanup(alice.close)
        alice.login("alice")
        back = alice.events("Reconnected")
        before = proxy.accepted
        proxy.stall()
        wait_until(lambda: proxy.accepted > before, PATIENCE)  # the client tries another
        proxy.restore()
        self.assertEqual(next(back.until(PATIENCE)).args, (True,))
        mute = websocket.create_connection(gateway + "/v1/signalling", timeout=PATIENCE)
        self.addCleanup(mute.shutdown)
        mute.send(encode_call(0, Login("app", "mute")))
        self.assertIn('"session"', mute.recv())
        opcode, reason = mute.recv_data()
        self.assertEqual(
            (opcode, reason[:2]), (websocket.ABNF.OPCODE_CLOSE, (4002).to_bytes(2, "big"))
        )
        self.assertEqual(alice.connection_state, ConnectionState.CONNECTED)


class FaultProxyTest(RtmTestCase):
    """The proxy itself, before a server that sends back what it gets."""

    def setUp(self) -> None:
        address = self.entered(tcp_server(_echo))
        self.proxy = self.entered(FaultProxy(f"tcp://{address}"))

    def connect(self) -> socket.socket:
        port = int(self.proxy.url.rpartition(":")[2])
        sock = self.entered(socket.create_connection(("127.0.0.1", port), PATIENCE))
        sock.settimeout(PATIENCE)
        return sock

    def test_it_forwards_everything_both_ways_and_counts(self) -> None:
        sock = self.connect()
        data = pattern(3_000_000)
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(1)))
        sender.start()
        received = bytearray()
        while piece := sock.recv(100_000):
            received += piece
        sender.join()
        self.assertEqual(received, data)
        self.assertEqual((self.proxy.bytes_sent, self.proxy.bytes_received), (len(data),) * 2)
        self.assertEqual(self.proxy.accepted, 1)

    def test_stalling_lets_exactly_so_much_through_and_restoring_the_rest(self) -> None:
        self.proxy.stall(received=4)
        sock = self.connect()
        sock.sendall(b"abcdefgh")
        self.assertEqual(_exactly(sock, 4), b"abcd")
        wait_until(lambda: self.proxy.held == 1 and self.proxy.bytes_sent == 8)
        sock.setblocking(False)
        self.assertRaises(BlockingIOError, sock.recv, 1)
        sock.settimeout(PATIENCE)
        self.proxy.restore()
        self.assertEqual(_exactly(sock, 4), b"efgh")

    def test_only_new_connections_stall_when_asked(self) -> None:
        old = self.connect()
        old.sendall(b"x")
        self.assertEqual(old.recv(1), b"x")
        self.proxy.stall(only_new=True)
        new = self.connect()
        new.sendall(b"y")
        old.sendall(b"z")
        self.assertEqual(old.recv(1), b"z")
        self.assertEqual(self.proxy.bytes_sent, 2)

    def test_dropping_resets_and_refusing_refuses(self) -> None:
        sock = self.connect()
        sock.sendall(b"x")
        self.assertEqual(sock.recv(1), b"x")
        self.proxy.drop()
        self.assertRaises(ConnectionResetError, sock.recv, 1)
        self.proxy.refuse()
        self.assertRaises(ConnectionRefusedError, self.connect)
        self.proxy.restore()
        again = self.connect()
        again.sendall(b"y")
        self.assertEqual(again.recv(1), b"y")

    def test_damage_flips_one_bit_of_that_byte(self) -> None:
        self.proxy.damage(received=2)
        sock = self.connect()
        sock.sendall(b"\x00\x00\x00\x00")
        self.assertEqual(_exactly(sock, 4), b"\x00\x00\x01\x00")

    def test_slowing_down_keeps_the_rate(self) -> None:
        self.proxy.slow_down(1_000_000)
        sock = self.connect()
        began = time.monotonic()
        sock.sendall(b"x" * 200_000)
        self.assertEqual(len(_exactly(sock, 200_000)), 200_000)
        self.assertGreater(time.monotonic() - began, 0.3)  # twice, there and back

    def test_a_url_without_a_port_is_refused(self) -> None:
        self.assertRaises(ValueError, FaultProxy, "ws://127.0.0.1")


def _send(client: RtmClient, peer: str, timeout: float) -> None:
    client.send_message_to_peer("hello", peer, timeout=timeout)


def _error_of(call: Callable[..., object], *args: Any) -> BaseException:
    try:
        call(*args)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def _raise_runtime_error() -> str:
    raise RuntimeError("the token server is down")


def _echo(sock: socket.socket) -> None:
    while data := sock.recv(65_536):
        sock.sendall(data)


def _exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        received += sock.recv(size - len(received)) or b"(ended)"
    return bytes(received)


def _is(client: RtmClient, state: ConnectionState) -> bool:
    return client.connection_state is state


def _threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]
