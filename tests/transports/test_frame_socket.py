"""A socket that is full holds nobody, and what it did not take goes out in order afterwards."""

from __future__ import annotations

import contextlib
import socket
import threading

import websocket

from rtm_sync import RtmClient
from rtm_sync.errors import RtmError
from rtm_sync.testing import FaultProxy
from rtm_sync.transports.gateway.frame_socket import FrameSocket
from tests.support import PATIENCE, RtmTestCase, Stopwatch, local_gateway, wait_until
from tests.transports.support import Timing

VERSION = f"websocket-client {websocket.__version__}"
LARGE = "x" * 1_000_000
"""More than the buffers of a socket pair take."""


class FrameSocketTest(RtmTestCase):
    def setUp(self) -> None:
        self.room = threading.Event()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.ours.settimeout(PATIENCE)
        self.theirs.settimeout(PATIENCE)
        self.peer = websocket.WebSocket()
        self.peer.sock = self.theirs

    def frames(self, patience: float = PATIENCE) -> FrameSocket:
        frames = FrameSocket(patience, self.room.set)
        frames.sock = self.ours
        self.addCleanup(frames.shutdown)
        return frames

    def test_a_frame_that_does_not_fit_is_sent_later_and_its_sender_does_not_wait(self) -> None:
        frames = self.frames()
        watch = Stopwatch()
        frames.send(LARGE)
        self.assertTrue(frames.is_full)
        frames.send("second")
        self.assertLess(watch.seconds(), PATIENCE / 2)
        self.assertFalse(self.room.is_set())
        received = [self.peer.recv_frame() for _ in range(2)]
        self.assertEqual([frame.data for frame in received], [LARGE.encode(), b"second"])
        self.assertTrue(self.room.wait(PATIENCE))
        self.assertFalse(frames.is_full)

    def test_pings_and_pongs_do_not_wait_either_and_never_cut_a_frame_in_two(self) -> None:
        frames = self.frames()
        frames.send(LARGE)
        watch = Stopwatch()
        with frames.lock:  # with which websocket-client waits
            sender = threading.Thread(target=lambda: (frames.ping(b"1"), frames.pong(b"2")))
            sender.start()
            sender.join(PATIENCE)
            self.assertLess(
                watch.seconds(), PATIENCE / 2, f"{VERSION} sends pings without `send_frame`"
            )
        received = [self.peer.recv_frame() for _ in range(3)]
        self.assertEqual(
            [(frame.opcode, len(frame.data)) for frame in received],
            [
                (websocket.ABNF.OPCODE_TEXT, len(LARGE)),
                (websocket.ABNF.OPCODE_PING, 1),
                (websocket.ABNF.OPCODE_PONG, 1),
            ],
        )

    def test_a_peer_that_reads_nothing_loses_the_connection(self) -> None:
        frames = self.frames(patience=0.05)
        with self.assertLogs("rtm_sync.transports.gateway.frame_socket", "INFO"):
            frames.send(LARGE)
            while self.theirs.recv(65536):  # until the end of the stream
                self.assertTrue(frames.is_full)
                if not frames._thread.is_alive:
                    break
                wait_until(lambda: not frames._thread.is_alive)
        with self.assertRaises(websocket.WebSocketConnectionClosedException):
            frames.send("more")

    def test_after_an_interruption_in_a_frame_no_other_frame_is_sent(self) -> None:
        class Interrupted(socket.socket):
            def send(self, data: object, flags: int = 0) -> int:
                raise KeyboardInterrupt

        frames = self.frames()
        frames.sock = self.entered(Interrupted(fileno=self.ours.detach()))
        with self.assertRaises(KeyboardInterrupt):
            frames.send("first")
        with self.assertRaises(websocket.WebSocketConnectionClosedException):
            frames.ping()

    def test_closing_wakes_the_thread_and_waits_for_its_end(self) -> None:
        frames = self.frames()
        frames.send(LARGE)
        self.assertTrue(frames._thread.is_alive)
        frames.shutdown()
        self.assertFalse(frames._thread.is_alive)


class CallTest(RtmTestCase):
    def test_with_a_gateway_that_does_not_read_a_call_ends_at_its_own_time_out(self) -> None:
        gateway = self.entered(local_gateway(self.folder()))
        proxy = self.entered(FaultProxy(gateway))
        times = Timing(ping_interval=PATIENCE, ping_timeout=2 * PATIENCE)
        client = RtmClient("app", url=proxy.url, plugins=[times])
        self.addCleanup(client.close)
        self.addCleanup(proxy.restore)
        client.login("alice")
        proxy.stall()
        text = "x" * 30_000
        ends = threading.Event()

        def send_on() -> None:
            while not ends.is_set():
                with contextlib.suppress(RtmError):
                    client.send_message_to_peer(text, "bob", timeout=0.01)

        watch = Stopwatch()
        others = [threading.Thread(target=send_on) for _ in range(4)]
        for other in others:
            other.start()
        try:
            sock = client._transport._connection._socket  # type: ignore[attr-defined]
            wait_until(lambda: sock.is_full, PATIENCE, "the socket takes everything")
            for _ in range(20):
                with self.assertRaises(RtmError) as caught:
                    client.send_message_to_peer(text, "bob", timeout=0.05)
                self.assertIn(caught.exception.reason, ("TIMEOUT", "FAILURE"))
        finally:
            ends.set()
            for other in others:
                other.join()
        self.assertLess(watch.seconds(), PATIENCE / 2)
        proxy.restore()  # everything goes out now, and the connection is as before
        self.assertFalse(
            client.send_message_to_peer("hi", "bob", timeout=PATIENCE).cached_by_server
        )
        self.assertEqual(proxy.accepted, 1)
