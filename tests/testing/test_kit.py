"""What `rtm_sync.testing` gives to tests of applications: faults, a clock, a gateway process."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
from pathlib import Path

from rtm_sync import RtmClient, RtmError
from rtm_sync.testing import (
    FaultProxy,
    FaultStep,
    GatewayProcess,
    VirtualClock,
    local_gateway,
    random_faults,
)
from tests.support import PATIENCE, RtmTestCase, wait_until
from tests.transports.support import pattern, tcp_server

WEEK = 7 * 24 * 3600.0


class VirtualClockTest(RtmTestCase):
    def setUp(self) -> None:
        self.clock = VirtualClock()
        self.url = self.entered(local_gateway(self.folder(), now=self.clock))

    def client(self, uid: str) -> RtmClient:
        client = self.entered(RtmClient("app", url=self.url))
        client.login(uid)
        return client

    def test_it_stands_still_until_it_is_moved(self) -> None:
        clock = VirtualClock(1000.0)
        self.assertEqual([clock(), clock()], [1000.0, 1000.0])
        clock.advance(0.5)
        clock.advance(-10)
        self.assertEqual(clock(), 990.5)

    def test_a_medium_is_there_for_seven_days_and_not_a_second_more(self) -> None:
        alice = self.client("alice")
        message = alice.create_media_message_by_uploading(b"a cat").result(PATIENCE)
        self.assertEqual(message.expires_at, self.clock() + WEEK)
        self.clock.advance(WEEK - 1)
        blob = alice.download_media(message.media_id).result(PATIENCE)
        self.assertEqual(blob.to_bytes(), b"a cat")
        self.clock.advance(1)
        with self.assertRaises(RtmError) as caught:
            alice.download_media(message.media_id).result(PATIENCE)
        self.assertEqual(caught.exception.code.name, "DOWNLOAD_MEDIA_ERR_NOT_EXIST")
        self.assertIn("has expired", str(caught.exception))

    def test_an_offline_message_waits_for_seven_days_and_not_a_second_more(self) -> None:
        alice = self.client("alice")
        for text in ("too old", "just in time"):
            sent = alice.send_message_to_peer(text, "bob", enable_offline_messaging=True)
            self.assertTrue(sent.cached_by_server)
            self.clock.advance(1)
        self.clock.advance(WEEK - 2)
        bob = self.entered(RtmClient("app", url=self.url))
        with bob.events("MessageFromPeer") as arriving:
            bob.login("bob")
            alice.send_message_to_peer("now", "bob")
            texts = [event.args[0].text for event in itertools.islice(arriving.until(PATIENCE), 2)]
        self.assertEqual(texts, ["just in time", "now"])


class GatewayProcessTest(RtmTestCase):
    def setUp(self) -> None:
        self.gateway = self.entered(GatewayProcess(self.folder()))

    def client(self, uid: str) -> RtmClient:
        client = self.entered(RtmClient("app", url=self.gateway.url, ping_interval=0.1))
        client.login(uid)
        return client

    def test_stopped_and_started_again_it_has_the_same_address_and_data(self) -> None:
        alice = self.client("alice")
        media_id = alice.create_media_message_by_uploading(b"kept").result(PATIENCE).media_id
        url, pid = self.gateway.url, self.gateway.pid
        self.assertEqual(self.gateway.stop(), 0)
        self.assertFalse(self.gateway.is_running)
        self.gateway.start()
        self.assertEqual(self.gateway.url, url)
        self.assertNotEqual(self.gateway.pid, pid)
        bob = self.client("bob")
        self.assertEqual(bob.download_media(media_id).result(PATIENCE).to_bytes(), b"kept")

    def test_paused_it_answers_nothing_until_it_is_resumed(self) -> None:
        alice = self.client("alice")
        self.gateway.pause()
        with self.assertRaises(RtmError) as caught:
            alice.send_message_to_peer("hello", "bob", timeout=0.2)
        self.assertEqual(caught.exception.code.name, "PEER_MESSAGE_ERR_TIMEOUT")
        self.assertTrue(self.gateway.is_running)
        self.gateway.resume()
        self.assertFalse(alice.send_message_to_peer("hello", "bob").has_peer_received)

    def test_a_paused_one_can_be_stopped_and_killed(self) -> None:
        self.gateway.pause()
        self.assertEqual(self.gateway.stop(), 0)
        self.gateway.start()
        pid = self.gateway.pid
        self.gateway.pause()
        self.gateway.kill()
        self.assertRaises(ProcessLookupError, os.kill, pid, signal.SIG_DFL)

    def test_without_a_folder_it_leaves_nothing_behind(self) -> None:
        with GatewayProcess() as gateway:
            pid, data = gateway.pid, gateway.data
            self.assertTrue((data / "rtm.sqlite3").exists())
        self.assertFalse(data.exists())
        self.assertRaises(ProcessLookupError, os.kill, pid, signal.SIG_DFL)

    def test_one_that_cannot_start_says_why(self) -> None:
        with self.assertRaises(RuntimeError) as caught:
            GatewayProcess(self.gateway.data).start()
        self.assertIn("used by another gateway", str(caught.exception))

    def test_what_it_wrote_to_standard_error_can_be_read_alive_and_dead(self) -> None:
        self.assertIn("NO APP SECRET", self.gateway.log)
        self.gateway.kill()
        self.assertIn("NO APP SECRET", self.gateway.log)

    def test_settings_are_the_gateways_own(self) -> None:
        with self.assertRaisesRegex(RuntimeError, 'limits: .*"linux", "web"'):
            GatewayProcess(self.folder(), {"limits": "none"}).start()

    def test_what_needs_a_running_one_says_so(self) -> None:
        self.gateway.kill()
        self.gateway.kill()
        for call in (self.gateway.stop, self.gateway.pause, self.gateway.resume):
            self.assertRaisesRegex(RuntimeError, "does not run", call)
        self.gateway.start()
        self.assertRaisesRegex(RuntimeError, "runs already", self.gateway.start)


class FaultTest(RtmTestCase):
    """The proxy's faults, before a server that sends back what it gets."""

    def setUp(self) -> None:
        self.arrivals: list[bytes] = []
        address = self.entered(tcp_server(self.echo))
        self.proxy = self.entered(FaultProxy(f"tcp://{address}"))

    def echo(self, sock: socket.socket) -> None:
        while data := sock.recv(65_536):
            self.arrivals.append(data)
            sock.sendall(data)

    def connect(self) -> socket.socket:
        port = int(self.proxy.url.rpartition(":")[2])
        sock = self.entered(socket.create_connection(("127.0.0.1", port), PATIENCE))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE)
        return sock

    def all_of(self, sock: socket.socket) -> bytes:
        received = b""
        while data := sock.recv(65_536):
            received += data
        return received

    def exactly(self, sock: socket.socket, size: int) -> bytes:
        received = b""
        while len(received) < size:
            data = sock.recv(size - len(received))
            self.assertTrue(data, f"it ended after {len(received)} of {size} bytes")
            received += data
        return received

    def test_bytes_that_have_arrived_are_counted(self) -> None:
        sock = self.connect()
        for number in range(1, 301):
            sock.sendall(b"x")
            self.exactly(sock, 1)
            self.assertEqual(self.proxy.bytes_received, number)
            self.assertEqual(self.proxy.bytes_sent, number)

    def test_hanging_up_says_goodbye_to_both_ends(self) -> None:
        sock = self.connect()
        sock.sendall(b"x")
        self.assertEqual(self.exactly(sock, 1), b"x")
        self.proxy.hang_up()
        self.assertEqual(sock.recv(1), b"")
        again = self.connect()
        again.sendall(b"y")
        self.assertEqual(self.exactly(again, 1), b"y")

    def test_delayed_bytes_come_late_and_whole(self) -> None:
        self.proxy.delay(0.1)
        sock = self.connect()
        data = pattern(300_000)
        sender = threading.Thread(target=sock.sendall, args=(data,))
        began = time.monotonic()
        sender.start()
        self.assertEqual(self.exactly(sock, len(data)), data)
        self.assertGreater(time.monotonic() - began, 0.2)  # there and back
        sender.join()

    def test_restoring_lets_delayed_bytes_go_at_once(self) -> None:
        self.proxy.delay(600)
        sock = self.connect()
        sock.sendall(b"late")
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: self.proxy.accepted == 1)
        self.proxy.restore()
        self.assertEqual(self.all_of(sock), b"late")

    def test_split_bytes_arrive_in_small_pieces(self) -> None:
        self.proxy.split(10)
        sock = self.connect()
        data = pattern(1000)
        sock.sendall(data)
        self.assertEqual(self.exactly(sock, len(data)), data)
        self.assertEqual(b"".join(self.arrivals), data)
        self.assertGreater(len(self.arrivals), 1)  # some may meet in the server's buffer

    def test_coalesced_writes_arrive_as_one(self) -> None:
        self.proxy.coalesce(0.3)
        sock = self.connect()
        for number in range(50):
            sock.sendall(bytes((number,)))
        self.assertEqual(self.exactly(sock, 50), bytes(range(50)))
        self.assertLessEqual(len(self.arrivals), 2)  # they may fall across the end of an interval

    def test_a_truncated_connection_ends_after_exactly_so_much(self) -> None:
        self.proxy.truncate(received=7)
        sock = self.connect()
        sock.sendall(b"0123456789")
        self.assertEqual(self.all_of(sock), b"0123456")
        self.proxy.restore()
        again = self.connect()
        again.sendall(b"0123456789")
        self.assertEqual(self.exactly(again, 10), b"0123456789")

    def test_a_script_is_played_step_by_step_and_counted(self) -> None:
        sock = self.connect()
        sock.sendall(b"x")
        self.assertEqual(self.exactly(sock, 1), b"x")
        script = [FaultStep("refuse", 0), FaultStep("hang_up", PATIENCE), FaultStep("drop", 0)]
        with self.proxy.play(script) as made:
            self.assertEqual(sock.recv(1), b"")
            wait_until(lambda: made["hang_up"])
            self.assertRaises(ConnectionRefusedError, self.connect)
        self.assertEqual(made, {"refuse": 1, "hang_up": 1})
        again = self.connect()  # the end of the block restores
        again.sendall(b"y")
        self.assertEqual(self.exactly(again, 1), b"y")

    def test_a_step_that_cannot_be_made_fails_the_block(self) -> None:
        with (
            self.assertRaisesRegex(AttributeError, "explode"),
            self.proxy.play([FaultStep("explode", 0)]),
        ):
            pass

    def test_random_faults_are_the_same_for_the_same_seed(self) -> None:
        scripts = [list(itertools.islice(random_faults(seed), 200)) for seed in (1, 1, 2)]
        self.assertEqual(scripts[0], scripts[1])
        self.assertNotEqual(scripts[0], scripts[2])
        self.assertEqual({step.fault for step in scripts[0][1::2]}, {"restore"})
        self.assertEqual(
            {step.fault for step in scripts[0][::2]},
            {
                *("hang_up", "drop", "stall", "refuse", "delay", "slow_down"),
                *("split", "coalesce", "truncate"),
            },
        )

    def test_every_random_fault_can_be_played(self) -> None:
        script = itertools.islice(random_faults(7, every=0.001), 100)
        with self.proxy.play(script) as made:
            wait_until(lambda: made["restore"] == 50, PATIENCE)
        self.assertGreaterEqual(len(made), 8)


class FolderTest(RtmTestCase):
    def test_a_gateway_process_makes_the_folder_it_is_given(self) -> None:
        folder = self.folder() / "not" / "there"
        with GatewayProcess(folder):
            self.assertTrue(Path(folder, "media").is_dir())
