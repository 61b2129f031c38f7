"""Requests that attack the gateway: refused fast and cheaply, without effect on other users."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import socket
import tempfile
import zlib
from pathlib import Path
from typing import ClassVar
from urllib.parse import urljoin, urlsplit

import requests
import websocket

from rtm_sync import RtmClient
from rtm_sync.testing import GatewayProcess
from tests.benchmarks.processes import peak, reset_peak
from tests.support import PATIENCE, RtmTestCase, Stopwatch

SOON = 2.0
STREAM = "application/offset+octet-stream"
OUTSIDE = b"the file outside"


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


class AbuseCase(RtmTestCase):
    """One gateway for the tests of a class: none of them may harm it."""

    gateway: ClassVar[GatewayProcess]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        place = tempfile.TemporaryDirectory(prefix="rtm-sync-test-")
        cls.addClassCleanup(place.cleanup)
        Path(place.name, "outside.txt").write_bytes(OUTSIDE)
        # Alice logs in once for each test, more often than a user may.
        cls.gateway = GatewayProcess(Path(place.name, "data"), {"limits": "logins=20/1"})
        cls.gateway.start()
        cls.addClassCleanup(cls.gateway.close)

    def setUp(self) -> None:
        reset_peak(self.gateway.pid)
        self.http = self.gateway.url.replace("ws://", "http://")
        self.client = self.entered(RtmClient("app", url=self.gateway.url))
        self.client.login("alice")
        token = self.client._transport._connection.token  # type: ignore[attr-defined]
        self.bearer = {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> requests.Response:
        """A request whose path is sent unchanged. The answer must come soon."""
        sent = self.bearer | {name.replace("_", "-"): value for name, value in headers.items()}
        prepared = requests.Request(method, self.http, data=body, headers=sent).prepare()
        prepared.url = self.http + path
        watch = Stopwatch()
        with requests.Session() as session:
            answer = session.send(prepared, timeout=PATIENCE, allow_redirects=False)
        self.assertLess(watch.seconds(), SOON, f"{method} {path[:60]}")
        return answer

    def raw(self, data: bytes, *, hang_up: bool = True) -> bytes:
        """The complete answer to these bytes, until the connection is closed or reset."""
        parts = urlsplit(self.http)
        answer = b""
        with (
            socket.create_connection((parts.hostname, parts.port), PATIENCE) as made,
            contextlib.suppress(ConnectionError),  # it refuses without reading what is left
        ):
            made.sendall(data)
            if hang_up:
                made.shutdown(socket.SHUT_WR)
            while chunk := made.recv(65_536):
                answer += chunk
        return answer

    def megabytes(self) -> float:
        """The peak memory of the gateway in this test."""
        return peak(self.gateway.pid)

    def assert_well(self) -> None:
        """The gateway works normally."""
        self.assertTrue(self.gateway.is_running)
        message = self.client.create_media_message_by_uploading(b"still here").result(PATIENCE)
        with self.client.download_media(message.media_id).result(PATIENCE).open() as file:
            self.assertEqual(file.read(), b"still here")
        self.assertNotIn("Traceback", self.gateway.log)


class PathTest(AbuseCase):
    def test_no_path_leads_out_of_the_media(self) -> None:
        for escape in (
            "../outside.txt",
            "..%2foutside.txt",
            "%2e%2e%2foutside.txt",
            "..%252foutside.txt",
            "..%5coutside.txt",
            "....//outside.txt",
            "%00" + "A" * 31,
            "A" * 31 + "%0a",
            "/etc/passwd",
            "%2fetc%2fpasswd",
            "..",
            ".",
            "rtm.sqlite3",
            "~",
            "A" * 5_000,
            "%F0%9F%98%80",
            "%ff%fe",
        ):
            for method in ("GET", "HEAD", "PATCH", "DELETE"):
                with self.subTest(method, path=escape[:40]):
                    answer = self.ask(method, f"/v1/media/{escape}", Upload_Offset="0")
                    self.assertIn(answer.status_code, (400, 404, 405, 414, 415))
                    self.assertNotIn(OUTSIDE, answer.content)
                    self.assertNotIn(b"root:", answer.content)
        self.assert_well()

    def test_no_uid_or_app_id_leads_anywhere_else(self) -> None:
        base = "/dev/v2/project"
        body = json.dumps({"destination": "bob", "payload": "x"}).encode()
        for path in (
            f"{base}/..%2f..%2fetc/rtm/users/alice/peer_messages",
            f"{base}/app/rtm/users/..%2fbob/peer_messages",
            f"{base}/app/rtm/users/%00/peer_messages",
            f"{base}/app/rtm/users/{'a' * 65}/peer_messages",
            f"{base}/app/rtm/message/history/query/..%2f..%2fetc%2fpasswd",
            f"{base}/app/rtm/message/history/query/{encoded(b'{}')}",
        ):
            method = "GET" if "history" in path else "POST"
            with self.subTest(path):
                answer = self.ask(method, path, body if method == "POST" else None)
                self.assertIn(answer.status_code, (400, 404))
        self.assert_well()


class HeaderTest(AbuseCase):
    def test_what_an_uploader_says_cannot_become_a_header_of_a_download(self) -> None:
        name = 'x"\r\nSet-Cookie: evil=1\r\n\r\n<script>alert(1)</script>.html'
        kind = "text/html\r\nX-Evil: 1"
        answer = self.ask(
            "POST",
            "/v1/media",
            b"<script>alert(1)</script>",
            Content_Type=STREAM,
            Upload_Length="25",
            Upload_Metadata=f"filename {encoded(name)},filetype {encoded(kind)}",
        )
        self.assertEqual(answer.status_code, 201, answer.text)
        answer = self.ask("GET", urljoin("/v1/media", answer.headers["Location"]))
        self.assertEqual(answer.status_code, 200)
        self.assertNotIn("Set-Cookie", answer.headers)
        self.assertNotIn("X-Evil", answer.headers)
        self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")
        self.assertTrue(answer.headers["Content-Disposition"].startswith("attachment"))
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(answer.headers["Content-Security-Policy"], "default-src 'none'; sandbox")
        self.assert_well()

    def test_what_is_asked_is_not_repeated_as_a_header(self) -> None:
        for header in ("Origin", "Access-Control-Request-Headers", "X-Forwarded-For", "Host"):
            answer = self.raw(
                b"OPTIONS /v1/media HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n"
                b"Access-Control-Request-Method: POST\r\nConnection: close\r\n"
                + f"{header}: http://x\tevil: 1\r\n\r\n".encode(),
                hang_up=False,
            )
            self.assertTrue(answer.startswith(b"HTTP/1."), header)
            self.assertNotIn(b"\r\nevil: 1", answer.lower())
        self.assert_well()

    def test_headers_without_end_are_refused(self) -> None:
        line = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
        for data in (
            line + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
            line + b"X: a\r\n" * 100_000 + b"\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            answer = self.raw(data[:200_000])
            self.assertIn(answer[:10], (b"", b"HTTP/1.0 4", b"HTTP/1.1 4"))
        self.assert_well()

    def test_smuggled_requests_are_refused(self) -> None:
        for data in (
            b"POST /v1/media HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"
            b"\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /v1/media HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6"
            b"\r\n\r\nxxxxxx",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
            b"GET /healthz\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            answer = self.raw(data)
            self.assertNotIn(b" 200 ", answer.split(b"\r\n")[0], data[:60])
        self.assert_well()


class BodyTest(AbuseCase):
    def test_a_packed_body_is_counted_as_what_it_unpacks_to(self) -> None:
        before = self.megabytes()
        zeros = bytes(80_000_000)
        for encoding, packed in (
            ("gzip", gzip.compress(zeros, 6)),
            ("deflate", zlib.compress(zeros, 6)),
        ):
            answer = self.ask(
                "POST",
                "/v1/media",
                packed,
                Content_Type=STREAM,
                Content_Encoding=encoding,
                Upload_Length="1000000",
            )
            self.assertGreaterEqual(answer.status_code, 400)
            answer = self.ask(
                "POST",
                "/dev/v2/project/app/rtm/users/alice/peer_messages",
                packed,
                Content_Type="application/json",
                Content_Encoding=encoding,
            )
            self.assertGreaterEqual(answer.status_code, 400)
        self.assertLess(self.megabytes() - before, 60)
        self.assert_well()

    def test_lies_about_lengths_and_offsets_are_found(self) -> None:
        created = self.ask("POST", "/v1/media", Upload_Length="1000")
        path = urljoin("/v1/media", created.headers["Location"])
        for offset, body in (
            ("-1", b"x"),
            ("1e3", b"x"),
            ("0x0", b"x"),
            ("9" * 30, b"x"),
            ("٣", b"x"),
            ("0", b"x" * 1001),
            ("1", b"x"),
            ("", b"x"),
        ):
            with self.subTest(offset):
                answer = self.ask(
                    "PATCH",
                    path,
                    body,
                    Content_Type=STREAM,
                    Upload_Offset=offset.encode().decode("latin-1"),
                )
                self.assertIn(answer.status_code, (400, 409, 413))
        for length in ("-5", "1.5", "", "9" * 40, "31457281", "0"):
            answer = self.ask("POST", "/v1/media", Upload_Length=length)
            self.assertIn(answer.status_code, (400, 413), length)
        answer = self.ask("PATCH", path, b"x" * 1000, Content_Type=STREAM, Upload_Offset="0")
        self.assertEqual(answer.status_code, 204)
        self.assert_well()

    def test_a_body_in_chunks_may_be_no_longer_than_was_said(self) -> None:
        created = self.ask("POST", "/v1/media", Upload_Length="10")
        path = urljoin("/v1/media", created.headers["Location"])
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Authorization: {self.bearer['Authorization']}\r\nContent-Type: {STREAM}\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        ).encode()
        answer = self.raw(head + b"5\r\nhello\r\nFFFFFFFF\r\n" + b"x" * 100_000)
        self.assertFalse(answer.startswith(b"HTTP/1.1 2"), answer[:60])
        self.assert_well()

    def test_bodies_without_end_are_not_read(self) -> None:
        before = self.megabytes()
        answer = self.ask(
            "POST",
            "/dev/v2/project/app/rtm/users/alice/peer_messages",
            b'{"destination": "bob", "payload": "' + b"x" * 20_000_000,
            Content_Type="application/json",
        )
        self.assertIn(answer.status_code, (400, 413))
        self.assertLess(self.megabytes() - before, 30)
        self.assert_well()

    def test_odd_texts_take_no_time(self) -> None:
        """Crafted texts make regular expressions, hash tables and parsers slow."""
        collisions = json.dumps({f"k{number}": number for number in range(20_000)}).encode()
        nested = b'{"destination":' * 10_000
        for body in (collisions, nested, b"[" * 200_000, b'"' + b"\\" * 200_000, b"1" * 200_000):
            answer = self.ask(
                "POST",
                "/dev/v2/project/app/rtm/users/alice/peer_messages",
                body,
                Content_Type="application/json",
            )
            self.assertIn(answer.status_code, (400, 413))
        for headers in (
            {"Range": "bytes=" + "0-," * 2_000},
            {"Range": "bytes=" + "9" * 5_000 + "-"},
            {"If-None-Match": '"' + "a" * 7_000},
            {"Authorization": "Bearer " + "." * 7_000},
            {"Authorization": "Basic " + "=" * 7_000},
            {"Upload-Metadata": "a ," * 2_000},
            {"Upload-Metadata": "filename " + "A" * 7_000},
            {"Upload-Checksum": "sha256 " + "=" * 7_000},
            {"Content-Type": "a/" + "b;" * 3_000},
            {"Cookie": "a=" * 3_000},
            {"Accept-Encoding": "gzip;q=" * 1_000},
            {"Idempotency-Key": "a " * 200},
        ):
            for method, path in (("GET", f"/v1/media/{'A' * 32}"), ("POST", "/v1/media")):
                sent = {name.replace("-", "_"): value for name, value in headers.items()}
                answer = self.ask(method, path, **sent)
                self.assertGreaterEqual(answer.status_code, 400)
                self.assertLess(answer.status_code, 500)
        self.assert_well()


class BeforeLoginTest(AbuseCase):
    def test_frames_that_nobody_ends_hold_no_memory(self) -> None:
        before = self.megabytes()
        made: list[websocket.WebSocket] = []
        for _ in range(300):
            socket_ = websocket.create_connection(
                f"{self.gateway.url}/v1/signalling", timeout=PATIENCE
            )
            self.addCleanup(socket_.shutdown)
            made.append(socket_)
            with contextlib.suppress(ConnectionError):
                # The beginning of a frame of 262,000 bytes, the largest but for its end.
                socket_.sock.sendall(b"\x81\xff" + (262_000).to_bytes(8, "big") + bytes(4))
                socket_.sock.sendall(b"x" * 250_000)
        for socket_ in made:
            with contextlib.suppress(ConnectionError):  # with 1009, or a reset that overtakes it
                opcode, data = socket_.recv_data(control_frame=True)
                self.assertEqual((opcode, data[:2]), (websocket.ABNF.OPCODE_CLOSE, b"\x03\xf1"))
        self.assertLess(self.megabytes() - before, 30)
        self.assert_well()
