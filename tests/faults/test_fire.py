"""The gateway under fire, as a process of its own: a clear error, one connection lost at most, the
others unharmed, the process alive, its memory bounded, and what still works goes on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from unittest import mock
from urllib.parse import urlsplit

import requests

from rtm_sync import PeerMessageSendResult, RtmClient, RtmError
from rtm_sync.gateway.guard import idle
from rtm_sync.protocol.ids import FRAME_LIMIT
from rtm_sync.testing import FaultProxy, GatewayProcess, local_gateway
from tests.benchmarks.processes import resident
from tests.gateway.test_signalling import NO_FRAMES, Raw, rpc
from tests.support import PATIENCE, RtmTestCase, Stopwatch, wait_until
from tests.transports.support import pattern

BOUND = 2.0  # seconds in which the others are served whatever happens
GROWTH = 48.0  # megabytes that the gateway may grow by in any of these
MEDIUM = pattern(1_000_000)
SMALL = pattern(1_000)
DATABASE = 16 * 1024  # bytes with which a file of SQLite cannot grow any more


class FireCase(RtmTestCase):
    """A gateway, and two well-behaved users that must not notice anything."""

    gateway: ClassVar[GatewayProcess]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.gateway = cls.made()
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)

    def setUp(self) -> None:
        self.alice, self.bob = self.user("alice"), self.user("bob")
        self.states: list[object] = []
        for user in (self.alice, self.bob):
            user.on("ConnectionStateChanged", lambda *change: self.states.append(change))
        self.pid = self.gateway.pid
        self.check_the_others()  # warm, so that memory is measured from here
        self.memory = resident(self.pid)

    @classmethod
    def made(cls) -> GatewayProcess:
        # A second login of a user comes with the next test. As many sends as in three seconds are
        # too many in ten minutes as well, so that a slow machine can flood the gateway.
        return GatewayProcess(settings={"limits": "logins=20/1 sends=1500/600"})

    def user(self, uid: str) -> RtmClient:
        client = RtmClient("app", url=self.gateway.url)
        self.addCleanup(client.close)
        with client.events("ConnectionStateChanged") as changes:
            client.login(uid)
            for event in changes.until(PATIENCE):
                if event.args[0].name == "CONNECTED":
                    break
        return client

    def connect(self) -> socket.socket:
        address = urlsplit(self.gateway.url)
        return self.entered(socket.create_connection((address.hostname, address.port), PATIENCE))

    def raw(self, uid: str) -> Raw:
        raw = Raw(self.gateway.url)
        self.addCleanup(raw.close)
        self.assertIn("result", raw.login(uid))
        return raw

    def fails(self, name: str, call: object, *args: object, **options: object) -> RtmError:
        assert callable(call)
        with self.assertRaises(RtmError) as caught:
            call(*args, **options)
        self.assertEqual(caught.exception.code.name, name, caught.exception)
        return caught.exception

    def upload(self, data: bytes) -> str:
        return self.alice.create_media_message_by_uploading(data).result(PATIENCE).media_id

    def check_the_others(self) -> None:
        """Messages and media go through, at once."""
        watch = Stopwatch()
        self.assertTrue(self.alice.send_message_to_peer("hi", "bob").has_peer_received)
        media_id = self.upload(SMALL)
        self.assertEqual(self.bob.download_media(media_id).result(PATIENCE).to_bytes(), SMALL)
        self.assertLess(watch.seconds(), BOUND)
        self.check_it_lives()

    def check_it_lives(self) -> None:
        self.check_nobody_noticed()
        health = requests.get(self.http("/healthz"), timeout=PATIENCE)
        self.assertEqual(health.status_code, 200)

    def check_nobody_noticed(self) -> None:
        self.assertEqual(self.states, [])
        self.assertTrue(self.gateway.is_running, self.gateway.log)
        self.assertEqual(self.gateway.pid, self.pid)

    def check_memory(self) -> None:
        self.assertLess(resident(self.pid) - self.memory, GROWTH)

    def http(self, path: str) -> str:
        return self.gateway.url.replace("ws://", "http://") + path

    def fragments(self) -> list[str]:
        return sorted(
            path.name for path in (self.gateway.data / "media").glob("*/*") if path.suffix
        )

    @contextlib.contextmanager
    def limited(self, limit: int, soft: int) -> Iterator[None]:
        """In the block, the gateway may not have more than that of a resource."""
        before = resource.prlimit(self.pid, limit)
        resource.prlimit(self.pid, limit, (soft, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, limit, before)


class DiskTest(FireCase):
    def test_a_medium_that_does_not_fit_is_refused_and_smaller_ones_go_on(self) -> None:
        with self.limited(resource.RLIMIT_FSIZE, 400_000):
            upload = self.alice.create_media_message_by_uploading(MEDIUM)
            error = self.fails("UPLOAD_MEDIA_ERR_FAILURE", upload.result, PATIENCE)
            self.assertIn("media store failed", error.message)
            self.check_the_others()
        wait_until(lambda: self.fragments() == [], message="a fragment fills the disk")
        media_id = self.upload(MEDIUM)
        self.assertEqual(self.bob.download_media(media_id).result(PATIENCE).to_bytes(), MEDIUM)

    def test_with_a_full_disk_all_that_needs_none_goes_on(self) -> None:
        media_id = self.upload(MEDIUM)
        with self.limited(resource.RLIMIT_FSIZE, DATABASE):
            error = self.fails(
                "PEER_MESSAGE_ERR_FAILURE",
                self.alice.send_message_to_peer,
                "for later",
                "carol",
                enable_offline_messaging=True,
            )
            self.assertIn("database failed", error.message)
            upload = self.alice.create_media_message_by_uploading(MEDIUM)
            self.fails("UPLOAD_MEDIA_ERR_FAILURE", upload.result, PATIENCE)
            self.assertTrue(self.alice.send_message_to_peer("hi", "bob").has_peer_received)
            data = self.bob.download_media(media_id).result(PATIENCE).to_bytes()
            self.assertEqual(data, MEDIUM)
            self.assertIsNotNone(self.user("dave").uid)
            self.check_it_lives()
        sent = self.alice.send_message_to_peer("for later", "carol", enable_offline_messaging=True)
        self.assertTrue(sent.cached_by_server)
        self.check_the_others()
        wait_until(lambda: self.fragments() == [], message="a fragment fills the disk")

    def test_a_slow_disk_delays_those_who_need_it_and_nobody_else(self) -> None:
        sent: list[PeerMessageSendResult] = []

        def send_offline() -> None:
            sent.append(
                self.alice.send_message_to_peer("later", "carol", enable_offline_messaging=True)
            )

        with contextlib.closing(sqlite3.connect(self.gateway.data / "rtm.sqlite3")) as database:
            database.execute("BEGIN IMMEDIATE")  # the gateway cannot commit meanwhile
            sender = threading.Thread(target=send_offline)
            sender.start()
            watch = Stopwatch()
            for _ in range(20):
                self.assertTrue(self.bob.send_message_to_peer("hi", "alice").has_peer_received)
            self.assertLess(watch.seconds(), BOUND)
            self.assertEqual(sent, [])
            database.rollback()
        sender.join(PATIENCE)
        self.assertTrue(sent[0].cached_by_server)
        self.check_the_others()

    def test_when_no_file_can_be_opened_the_present_users_go_on(self) -> None:
        def files() -> int:
            return len(os.listdir(f"/proc/{self.pid}/fd"))

        before = files()
        with self.limited(resource.RLIMIT_NOFILE, before + 20):
            crowd = [self.connect() for _ in range(60)]
            wait_until(lambda: files() > before + 15, PATIENCE)
            watch = Stopwatch()
            self.assertTrue(self.alice.send_message_to_peer("hi", "bob").has_peer_received)
            self.assertLess(watch.seconds(), BOUND)
            late = RtmClient("app", url=self.gateway.url, login_timeout=0.5)
            self.addCleanup(late.close)
            with contextlib.suppress(RtmError):  # typed, and in time, or there was a place
                late.login("late")
            self.check_nobody_noticed()
            for sock in crowd:
                sock.close()
            wait_until(lambda: files() <= before + 5, PATIENCE)
            self.check_the_others()
        self.check_memory()


class ReadOnlyDiskTest(FireCase):
    @classmethod
    def made(cls) -> GatewayProcess:
        return _Unprivileged()

    def test_a_media_folder_that_cannot_be_written_is_an_error_and_the_rest_goes_on(self) -> None:
        media_id = self.upload(MEDIUM)
        folder = self.gateway.data / "media"
        with _read_only([folder, *folder.iterdir()]):
            upload = self.alice.create_media_message_by_uploading(SMALL)
            error = self.fails("UPLOAD_MEDIA_ERR_FAILURE", upload.result, PATIENCE)
            self.assertIn("Permission denied", error.message)
            data = self.bob.download_media(media_id).result(PATIENCE).to_bytes()
            self.assertEqual(data, MEDIUM)
            self.assertTrue(self.alice.send_message_to_peer("hi", "bob").has_peer_received)
            sent = self.alice.send_message_to_peer("later", "carol", enable_offline_messaging=True)
            self.assertTrue(sent.cached_by_server)
            self.check_it_lives()
        self.check_the_others()

    def test_a_data_folder_that_cannot_be_written_is_said_at_the_start(self) -> None:
        folder = self.folder()
        with (
            _read_only([folder]),
            self.assertRaisesRegex(RuntimeError, "cannot start: .*Permission denied"),
        ):
            _Unprivileged(folder).start()


class HttpTest(FireCase):
    def test_halves_of_requests_keep_nobody_else_waiting(self) -> None:
        for _ in range(200):
            self.connect().sendall(b"GET /v1/media/x HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        self.check_the_others()
        self.check_memory()

    def test_slow_bodies_take_their_own_places_only(self) -> None:
        token = self.alice._transport._connection.token  # type: ignore[attr-defined]
        for _ in range(8):  # of Alice's nine
            sock = self.connect()
            sock.sendall(
                b"POST /v1/media HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n"
                b"Upload-Length: 20000000\r\nContent-Length: 20000000\r\n"
                b"Content-Type: application/offset+octet-stream\r\n"
                b"Authorization: Bearer " + token.encode() + b"\r\n\r\n" + bytes(1000)
            )
        self.check_the_others()
        self.check_memory()

    def test_downloads_that_nobody_reads_are_not_kept_in_memory(self) -> None:
        media_id = self.upload(pattern(20_000_000))
        self.memory = resident(self.pid)
        for number in range(20):
            user = self.user(f"reader {number}")
            token = user._transport._connection.token  # type: ignore[attr-defined]
            sock = self.connect()
            sock.sendall(
                f"GET /v1/media/{media_id} HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            self.assertTrue(sock.recv(1))
        self.check_the_others()
        self.check_memory()

    def test_what_is_no_http_is_refused(self) -> None:
        chance = random.Random(1)
        hostile = [
            *(chance.randbytes(chance.randint(1, 5000)) for _ in range(60)),
            b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 1_000_000,
            b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(50_000)) + b"\r\n",
            b"POST /v1/media HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 100_000,
            b"POST /v1/media HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS hello
            b"\r\n" * 100_000,
        ]
        for data in hostile:
            sock = self.connect()
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                answer = _all_of(sock)
                self.assertNotIn(b" 200 ", answer[:20])
                self.assertNotIn(b"Traceback", answer)
        self.check_the_others()
        self.check_memory()


class LoitererTest(RtmTestCase):
    """Connections that ask for nothing, before a gateway that has no patience."""

    def setUp(self) -> None:
        for name in ("REQUEST_LIMIT", "IDLE_LIMIT"):
            self.entered(mock.patch.object(idle, name, 0.4))
        url = urlsplit(self.entered(local_gateway(self.folder())))
        self.address = (url.hostname, url.port)
        self.url = url.geturl()

    def connect(self) -> socket.socket:
        return self.entered(socket.create_connection(self.address, PATIENCE))

    def drips(self, sock: socket.socket) -> float:
        """Send byte after byte until the gateway has enough of it; returns seconds."""
        watch = Stopwatch()
        sock.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while watch.seconds() < PATIENCE:
                sock.sendall(b"y")
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(100):
                        break
        return watch.seconds()

    def test_a_request_that_drips_in_is_cut_off(self) -> None:
        sock = self.connect()
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        self.assertLess(self.drips(sock), BOUND)

    def test_so_is_a_second_one_and_one_that_never_begins(self) -> None:
        second, silent = self.connect(), self.connect()
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b" 200 ", second.recv(1000))
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        self.assertLess(self.drips(second), BOUND)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(silent.recv(1), b"")

    def test_what_is_being_served_takes_its_time(self) -> None:
        with RtmClient("app", url=self.url) as alice, FaultProxy(self.url) as proxy:
            alice.login("alice")
            states: list[object] = []
            alice.on("ConnectionStateChanged", lambda *change: states.append(change))
            message = alice.create_media_message_by_uploading(MEDIUM).result(PATIENCE)
            proxy.slow_down(1_000_000)
            with RtmClient("app", url=proxy.url) as bob:
                bob.login("bob")
                began = time.monotonic()
                data = bob.download_media(message.media_id).result(PATIENCE).to_bytes()
                self.assertEqual(data, MEDIUM)
                self.assertGreater(time.monotonic() - began, 0.8)  # twice the limit
                self.assertTrue(alice.send_message_to_peer("hi", "bob").has_peer_received)
            self.assertEqual([change for change in states if "RECONNECTING" in str(change)], [])


class WebSocketTest(FireCase):
    def test_floods_of_garbage_cost_those_who_send_it(self) -> None:
        frames = list(NO_FRAMES.values())
        for number in range(4 * len(frames)):
            raw = self.raw(f"mallory {number}")
            raw.send(frames[number % len(frames)])
            raw.send_bytes(b"\x81\x84mask" + b"\xff\xfe\xfd\xfc")  # no UTF-8
            self.assertIn(raw.closing(PATIENCE), (1002, 1007, None))
            raw.close()
        self.check_the_others()
        self.check_memory()

    def test_frames_over_the_limit_are_never_held_in_memory(self) -> None:
        for number in range(20):
            raw = self.raw(f"mallory {number}")
            claimed = 2**40 if number % 2 else 2 * FRAME_LIMIT
            raw.send_bytes(b"\x81\xff" + claimed.to_bytes(8, "big") + b"mask")
            raw.send_bytes(os.urandom(4 * FRAME_LIMIT))
            self.assertIn(raw.closing(PATIENCE), (1002, 1009, None))
        self.check_the_others()
        self.check_memory()

    def test_clients_that_never_read_are_thrown_out_and_not_buffered_for(self) -> None:
        deaf = [self.raw(f"deaf {number}") for number in range(20)]
        for raw in deaf:
            raw.call("join_channel", channel_id="room")
        room = self.alice.create_channel("room")
        room.join()
        for _ in range(400):  # 12 MB for each of them
            room.send_message("x" * 30_000)
        self.check_the_others()
        self.check_memory()
        for raw in deaf[:2]:  # megabytes come before it
            self.assertEqual(raw.closing(PATIENCE), 4008)

    def test_floods_of_calls_from_many_are_answered_with_too_often(self) -> None:
        text = {"type": "TEXT", "text": "spam", "description": ""}
        raws = [self.raw(f"mallory {number}") for number in range(4)]

        def flood(raw: Raw) -> None:
            for number in range(2_000):
                params = {"peer_id": "nobody", "message": text, "message_id": f"m{number}"}
                raw.send(rpc(1000 + number, "send_message_to_peer", params))

        threads = [threading.Thread(target=flood, args=(raw,)) for raw in raws]
        for thread in threads:
            thread.start()
        self.check_the_others()
        for thread in threads:
            thread.join(PATIENCE)
        for raw in raws:
            self.assertEqual(raw.answer_to(2_999)["error"]["data"]["family"], "PeerMessageError")
        self.check_the_others()
        self.check_memory()


class _Unprivileged(GatewayProcess):
    """A gateway for which file permissions hold even when the tests run as root."""

    def start(self, timeout: float = 30.0) -> float:
        seconds: list[float] = []
        errors: list[Exception] = []

        def start() -> None:
            # What a thread may not have its children never get, and with it the privilege ends.
            for capability in range(4):  # CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
                ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
            try:
                seconds.append(super(_Unprivileged, self).start(timeout))
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return seconds[0]


@contextlib.contextmanager
def _read_only(folders: list[Path]) -> Iterator[None]:
    for folder in folders:
        folder.chmod(0o500)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o700)


def _all_of(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(65_536):
        received += data
    return received
