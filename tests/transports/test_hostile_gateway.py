"""A hostile gateway or media store: what it sends is bounded, and the error says by what."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import socket
import threading
import unittest
from collections.abc import Callable
from unittest import mock

import websocket

from rtm_sync import Blob, DownloadMediaError, RtmSender, SenderError, UploadMediaError
from rtm_sync.protocol.ids import FRAME_LIMIT
from rtm_sync.transfers.control import TransferControl, TransferKind
from rtm_sync.transfers.sink import Sink
from rtm_sync.transports.gateway import media_http, wire
from rtm_sync.transports.gateway.frame_socket import FrameSocket
from rtm_sync.transports.gateway.happy_eyeballs import is_public
from rtm_sync.transports.gateway.media_http import MediaHttp
from rtm_sync.transports.gateway.proxy_settings import ProxySettings, find_proxy_settings
from rtm_sync.transports.retry import RetryPolicy, Transient
from tests.support import PATIENCE, RtmTestCase

SECRET = "a secret of tests, 32 bytes or more"
BOMB = gzip.compress(bytes(200_000_000))  # 200 KB
DIGEST = base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
MEDIUM = f"Repr-Digest: sha-256=:{DIGEST}:\r\n"


class Media(MediaHttp):
    """The two transfers of these tests."""

    def download_bytes(self) -> bytes:
        file = io.BytesIO()
        self.download("A" * 32, Sink(file), TransferControl(TransferKind.DOWNLOAD))
        return file.getvalue()

    def try_download(self) -> None:
        """One attempt."""
        control = TransferControl(TransferKind.DOWNLOAD)
        self._try_download("A" * 32, Sink(io.BytesIO()), control)

    def upload_bytes(self) -> object:
        control = TransferControl(TransferKind.UPLOAD)
        return self.upload(Blob.of(b"bytes"), control, "key")


class HostileCase(RtmTestCase):
    def serve(self, answer: Callable[[socket.socket], object], host: str = "127.0.0.1") -> int:
        """Answer each request in the same way. Returns the port."""
        listener = socket.create_server((host, 0))
        self.requests = 0

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        head = b""
                        while b"\r\n\r\n" not in head:
                            data = connection.recv(65536)
                            if not data:
                                break
                            head += data
                        if head:
                            self.requests += 1
                            answer(connection)
                            connection.shutdown(socket.SHUT_WR)
                            while connection.recv(65536):
                                pass
                    except OSError:
                        continue

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(listener.close)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
        return int(listener.getsockname()[1])

    def media(self, port: int, host: str = "127.0.0.1") -> Media:
        settings: ProxySettings = find_proxy_settings(f"http://{host}:{port}", "")
        media = Media(
            f"http://{host}:{port}/v1/media",
            settings,
            lambda: "token",
            PATIENCE,
            PATIENCE,
            RetryPolicy(),
        )
        self.addCleanup(media.close)
        return media

    def sender(self, port: int) -> RtmSender:
        return self.entered(RtmSender("app", SECRET, url=f"http://127.0.0.1:{port}"))


def endless(head: str, piece: bytes) -> Callable[[socket.socket], object]:
    """An answer whose body does not end."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head.encode())
        while True:
            connection.sendall(piece)

    return answer


def whole(head: str, body: bytes) -> Callable[[socket.socket], object]:
    """An answer that is sent as a whole."""
    return lambda connection: connection.sendall(head.encode() + b"\r\n" + body)


class ErrorTest(HostileCase):
    """Bodies of errors and of answers that are not media: 256 KB, and nothing is unpacked."""

    JSON = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"

    def test_an_error_that_unpacks_to_much_is_not_unpacked(self) -> None:
        for encoding in ("gzip", "br", "deflate"):
            with self.subTest(encoding):
                head = f"{self.JSON}Content-Encoding: {encoding}\r\nContent-Length: {len(BOMB)}\r\n"
                port = self.serve(whole(head, BOMB))
                with self.assertRaisesRegex(DownloadMediaError, "Content-Encoding"):
                    self.media(port).download_bytes()
                with self.assertRaisesRegex(UploadMediaError, "Content-Encoding"):
                    self.media(port).upload_bytes()
                with self.assertRaisesRegex(SenderError, "Content-Encoding"):
                    self.sender(port).get_bans()
                self.assertEqual(self.requests, 3)  # what is too large is not asked for again

    def test_an_error_without_end_is_read_for_256_kb(self) -> None:
        for status in ("400 Bad Request", "404 Not Found"):
            with self.subTest(status):
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n"
                port = self.serve(endless(head, b'{"message": "' + b"x" * 65536))
                for call in (self.media(port).download_bytes, self.media(port).upload_bytes):
                    with self.assertRaisesRegex(Exception, "more than 262,144 bytes"):
                        call()
                with self.assertRaisesRegex(SenderError, "more than 262,144 bytes"):
                    self.sender(port).get_bans()
                self.assertEqual(self.requests, 3)

    def test_the_packed_page_of_a_busy_proxy_is_no_final_answer(self) -> None:
        head = "HTTP/1.1 503 Busy\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n"
        port = self.serve(whole(head, b"bytes"))
        sender = self.entered(RtmSender("app", SECRET, url=f"http://127.0.0.1:{port}", timeout=0.5))
        with self.assertRaises(SenderError) as caught:
            sender.get_bans()
        self.assertEqual(caught.exception.reason, "TIMEOUT")
        self.assertGreater(self.requests, 1)
        with self.assertRaisesRegex(Transient, "503"):
            self.media(port).try_download()

    def test_an_answer_to_a_call_is_bounded(self) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
        port = self.serve(endless(head, b" " * 1_000_000))
        with self.assertRaisesRegex(SenderError, "more than 67,108,864 bytes"):
            self.sender(port).get_bans()


class MediumTest(HostileCase):
    """Media: as many bytes as were announced, and 30 MB at the most."""

    def test_a_medium_without_end_ends_at_what_was_announced(self) -> None:
        head = f"HTTP/1.1 200 OK\r\n{MEDIUM}\r\n"  # no length: it ends with the connection
        port = self.serve(endless(head, bytes(65536)))
        with self.assertRaisesRegex(DownloadMediaError, "More bytes came than the 0 that were"):
            self.media(port).download_bytes()
        chunked = f"HTTP/1.1 206 OK\r\n{MEDIUM}Content-Range: bytes 0-4/5\r\n"
        port = self.serve(endless(f"{chunked}Transfer-Encoding: chunked\r\n\r\n", b"2\r\nxx\r\n"))
        with self.assertRaisesRegex(DownloadMediaError, "More bytes came than the 5 that were"):
            self.media(port).download_bytes()

    def test_a_medium_of_more_than_30_mb_is_refused_by_its_length(self) -> None:
        head = f"HTTP/1.1 200 OK\r\n{MEDIUM}Content-Length: 10000000000\r\n\r\n"
        port = self.serve(endless(head, bytes(65536)))
        with self.assertRaisesRegex(DownloadMediaError, "10,000,000,000 bytes; the limit is"):
            self.media(port).download_bytes()
        self.assertEqual(self.requests, 1)


class RedirectTest(HostileCase):
    """A gateway at a public address sends nobody into a private network."""

    def redirecting(self, location: str) -> Media:
        head = f"HTTP/1.1 307 There\r\n{MEDIUM}Content-Length: 0\r\nLocation: {location}\r\n"
        return self.media(self.serve(whole(head, b""), "127.0.0.5"), "127.0.0.5")

    def test_a_public_gateway_redirects_to_no_private_address(self) -> None:
        inside = self.serve(whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", b"bytes"))
        here = self.requests
        media = [
            self.redirecting(f"http://{host}:{inside}/secret")
            for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433")
        ]
        self.requests = here
        # No test can be at a public address.
        with mock.patch.object(media_http, "is_public", lambda address: address == "127.0.0.5"):
            for one in media:
                with self.assertRaisesRegex(DownloadMediaError, "no public address"):
                    one.download_bytes()
        self.assertEqual(self.requests, len(media))  # those to the gateway alone
        media[0].download_bytes()  # a gateway that is there itself may

    def test_other_schemes_and_loops_are_refused(self) -> None:
        for location in ("file:///etc/passwd", "ftp://127.0.0.1/x", "//127.0.0.1/x", ""):
            with (
                self.subTest(location),
                self.assertRaisesRegex(DownloadMediaError, "which is not http"),
            ):
                self.redirecting(location).download_bytes()

    def test_what_is_public(self) -> None:
        for address, public in (
            ("8.8.8.8", True),
            ("2001:4860:4860::8888", True),
            ("10.1.2.3", False),
            ("127.0.0.1", False),
            ("169.254.169.254", False),
            ("100.64.0.1", False),
            ("224.0.0.1", False),
            ("0.0.0.0", False),
            ("::1", False),
            ("fe80::1%eth0", False),
            ("fd00::1", False),
            ("::ffff:10.0.0.1", False),
            ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
            ("::ffff:8.8.8.8", True),
            ("no address", False),
        ):
            with self.subTest(address):
                self.assertEqual(is_public(address), public)
        self.assertIs(wire.is_public, is_public)


class FrameTest(unittest.TestCase):
    """Frames: 262,144 bytes, whatever their headers announce."""

    def setUp(self) -> None:
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.socket = FrameSocket(1.0)
        self.socket.sock = self.near
        self.socket.connected = True
        self.near.settimeout(PATIENCE)

    def send(self, data: bytes) -> None:
        threading.Thread(target=self.far.sendall, args=(data,), daemon=True).start()

    def test_a_frame_of_600_mb_is_refused_by_its_header(self) -> None:
        self.far.sendall(b"\x81\x7f" + (600_000_000).to_bytes(8, "big") + b"x" * 1000)
        with self.assertRaisesRegex(websocket.WebSocketPayloadException, "600,000,000 bytes"):
            self.socket.recv()

    def test_fragments_without_end_are_refused_at_the_limit(self) -> None:
        fragment = b"\x7e" + (60_000).to_bytes(2, "big") + b"x" * 60_000
        self.send(b"\x01" + fragment + (b"\x00" + fragment) * 4)
        with self.assertRaisesRegex(websocket.WebSocketPayloadException, "300,000 bytes"):
            self.socket.recv()

    def test_a_frame_of_exactly_the_limit_arrives(self) -> None:
        self.send(b"\x81\x7f" + FRAME_LIMIT.to_bytes(8, "big") + b"x" * FRAME_LIMIT)
        self.assertEqual(len(self.socket.recv()), FRAME_LIMIT)
        self.send(b"\x81\x02ok")
        self.assertEqual(self.socket.recv(), "ok")
