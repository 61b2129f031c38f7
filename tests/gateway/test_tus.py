"""The gateway's HTTP API, used by other clients than ours: tus, ranges, refusals."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
from tusclient.client import TusClient

from rtm_sync import RtmClient
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.gateway.rest import EventLog
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.media.disk import DiskMediaStore
from rtm_sync.hub.metrics_sink import MetricsSink
from rtm_sync.hub.node import Hub
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

DATA = os.urandom(600_000)
LARGE = DATA * 5
STREAM = "application/offset+octet-stream"


def location_of(answer: requests.Response) -> str:
    """The URL of a created upload, as a tus client resolves it."""
    return urljoin(answer.url, answer.headers["Location"])


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class PrefixProxy(ThreadingHTTPServer):
    """A proxy that serves a gateway's URL under a prefix of the path, for a `with` block.

    Attributes:
        url: the URL with the prefix.
    """

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(("127.0.0.1", 0), _PrefixHandler)
        parts = urlsplit(url)
        self.target = f"{parts.scheme}://{parts.netloc}"
        self.prefix = prefix
        self.url = f"http://127.0.0.1:{self.server_address[1]}{prefix}{parts.path}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> PrefixProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _PrefixHandler(BaseHTTPRequestHandler):
    server: PrefixProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        url = self.server.target + self.path.removeprefix(self.server.prefix)
        answer = requests.request(
            self.command, url, data=body, headers=headers, timeout=PATIENCE, allow_redirects=False
        )
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_HEAD = do_POST = do_PATCH = _pass_on  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class MediaCase(RtmTestCase):
    def setUp(self) -> None:
        self.data = self.folder()
        url = self.entered(local_gateway(self.data))
        self.media = url.replace("ws://", "http://") + "/v1/media"
        self.client = RtmClient("app", url=url)
        self.addCleanup(self.client.close)
        self.client.login("alice")
        self.token = self.client._transport._connection.token  # type: ignore[attr-defined]
        self.http = self.entered(requests.Session())
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def tus(
        self, method: str, url: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ):
        sent = {"Tus-Resumable": "1.0.0"}
        if body is not None:
            sent["Content-Type"] = STREAM
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, url, data=body, headers=sent, timeout=PATIENCE)

    def create(self, size: int, body: bytes | None = None, **headers: str):
        return self.tus("POST", self.media, body, Upload_Length=str(size), **headers)

    def stored_files(self) -> list[str]:
        return sorted(path.name for path in (self.data / "media").glob("*/*"))

    def uploaded(self, data: bytes = DATA, name: str = "f.txt") -> str:
        upload = self.client.create_media_message_by_uploading(data, file_name=name)
        return upload.result(10).media_id


class TusTest(MediaCase):
    def test_one_request_creates_uploads_and_publishes(self) -> None:
        answer = self.create(len(DATA), DATA)
        self.assertEqual(answer.status_code, 201)
        self.assertEqual(answer.headers["Upload-Offset"], str(len(DATA)))
        digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
        self.assertEqual(answer.headers["Repr-Digest"], f"sha-256=:{digest}:")
        media_id = location_of(answer).rpartition("/")[2]
        self.assertRegex(media_id, r"^[A-Za-z0-9_-]{32}$")
        self.assertEqual(answer.headers["Location"], f"media/{media_id}")
        blob = self.client.download_media(media_id).result(10)
        self.assertEqual(blob.to_bytes(), DATA)
        self.assertEqual(self.stored_files(), [media_id])

    def test_an_upload_in_pieces_is_published_with_its_last_byte(self) -> None:
        location = location_of(self.create(len(DATA)))
        media_id = location.rpartition("/")[2]
        for start in range(0, len(DATA), 250_000):
            head = self.tus("HEAD", location)
            self.assertEqual(head.headers["Upload-Offset"], str(start))
            self.assertEqual(head.headers["Upload-Length"], str(len(DATA)))
            self.assertEqual(head.headers["Cache-Control"], "no-store")
            self.assertEqual(self.http.get(location, timeout=PATIENCE).status_code, 404)
            piece = DATA[start : start + 250_000]
            answer = self.tus("PATCH", location, piece, Upload_Offset=str(start))
            self.assertEqual(answer.status_code, 204)
        self.assertEqual(self.http.get(location, timeout=PATIENCE).content, DATA)
        self.assertEqual(self.stored_files(), [media_id])

    def test_tuspy_works_unmodified(self) -> None:
        source = self.folder() / "source.bin"
        source.write_bytes(DATA)
        client = TusClient(self.media, headers={"Authorization": f"Bearer {self.token}"})
        for checksum in (False, True):
            with source.open("rb") as stream:
                uploader = client.uploader(
                    file_stream=stream, chunk_size=200_000, upload_checksum=checksum
                )
                uploader.upload()
            self.assertEqual(self.http.get(uploader.url, timeout=PATIENCE).content, DATA)

    def test_tuspy_works_behind_a_proxy_with_a_prefix(self) -> None:
        prefixed = self.entered(PrefixProxy(self.media, "/chat")).url
        client = TusClient(prefixed, headers={"Authorization": f"Bearer {self.token}"})
        uploader = client.uploader(
            file_stream=io.BytesIO(DATA), chunk_size=200_000, metadata={"filename": "naïve.bin"}
        )
        uploader.upload()
        self.assertTrue(uploader.url.startswith(prefixed + "/"), uploader.url)
        self.assertEqual(self.http.get(uploader.url, timeout=PATIENCE).content, DATA)

    def test_head_returns_the_metadata_that_the_client_sent(self) -> None:
        sent = f"filename {encoded('a.txt')},mine {encoded('x')},empty"
        location = location_of(self.create(3, Upload_Metadata=sent))
        self.assertEqual(self.tus("HEAD", location).headers["Upload-Metadata"], sent)
        self.tus("PATCH", location, b"abc", Upload_Offset="0")
        self.assertEqual(self.tus("HEAD", location).headers["Upload-Metadata"], sent)
        # Another user sees what the medium's record has.
        url = self.media.replace("http://", "ws://").removesuffix("/v1/media")
        bob = self.entered(RtmClient("app", url=url))
        bob.login("bob")
        token = bob._transport._connection.token  # type: ignore[attr-defined]
        head = self.tus("HEAD", location, Authorization=f"Bearer {token}")
        known = f"filename {encoded('a.txt')},filetype {encoded('application/octet-stream')}"
        self.assertEqual(head.headers["Upload-Metadata"], known)
        bare = location_of(self.create(3))
        self.assertNotIn("Upload-Metadata", self.tus("HEAD", bare).headers)

    def test_content_types_keep_their_parameters(self) -> None:
        for sent, kept in (
            ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
            ('text/csv;header="a \\" b"; x=1', 'text/csv;header="a \\" b"; x=1'),
            ("text/plain; charset", "application/octet-stream"),
            ("text/plain; a=ü", "application/octet-stream"),
            ("text/plain; a=" + "1" * 300, "application/octet-stream"),
        ):
            with self.subTest(sent):
                metadata = f"filetype {encoded(sent)}"
                location = location_of(self.create(3, b"abc", Upload_Metadata=metadata))
                for method in ("GET", "HEAD"):
                    answer = self.http.request(method, location, timeout=PATIENCE)
                    self.assertEqual(answer.status_code, 200)
                    self.assertEqual(answer.headers["Content-Type"], kept)

    def test_a_wrong_checksum_keeps_nothing_of_its_chunk(self) -> None:
        location = location_of(self.create(len(DATA)))
        first, rest = DATA[:300_000], DATA[300_000:]
        good = "sha256 " + base64.b64encode(hashlib.sha256(first).digest()).decode()
        bad = "sha1 " + base64.b64encode(hashlib.sha1(b"other").digest()).decode()
        sent = {"Upload_Offset": "0", "Upload_Checksum": good}
        self.assertEqual(self.tus("PATCH", location, first, **sent).status_code, 204)
        sent = {"Upload_Offset": "300000", "Upload_Checksum": bad}
        self.assertEqual(self.tus("PATCH", location, rest, **sent).status_code, 460)
        self.assertEqual(self.tus("HEAD", location).headers["Upload-Offset"], "300000")
        answer = self.tus("PATCH", location, rest, Upload_Offset="300000")
        self.assertEqual(answer.status_code, 204)
        self.assertEqual(self.http.get(location, timeout=PATIENCE).content, DATA)

    def test_a_terminated_upload_is_gone(self) -> None:
        location = location_of(self.create(len(DATA)))
        self.tus("PATCH", location, DATA[:1000], Upload_Offset="0")
        self.assertNotEqual(self.stored_files(), [])
        self.assertEqual(self.tus("DELETE", location).status_code, 204)
        self.assertEqual(self.stored_files(), [])
        self.assertEqual(self.tus("PATCH", location, b"x", Upload_Offset="1000").status_code, 404)

    def test_the_method_can_be_overridden(self) -> None:
        location = location_of(self.create(3))
        answer = self.tus(
            "POST", location, b"abc", Upload_Offset="0", X_HTTP_Method_Override="PATCH"
        )
        self.assertEqual(answer.status_code, 204)
        self.assertEqual(self.http.get(location, timeout=PATIENCE).content, b"abc")

    def test_options_tells_what_is_spoken(self) -> None:
        answer = requests.options(self.media, timeout=PATIENCE)
        self.assertEqual(answer.status_code, 204)
        self.assertEqual(answer.headers["Tus-Version"], "1.0.0")
        self.assertEqual(answer.headers["Tus-Max-Size"], str(30 * 1024 * 1024))
        self.assertEqual(
            set(answer.headers["Tus-Extension"].split(",")),
            {"creation", "creation-with-upload", "checksum", "expiration", "termination"},
        )
        self.assertEqual(answer.headers["Tus-Checksum-Algorithm"], "sha1,sha256")

    def test_an_idempotency_key_finds_the_upload_again(self) -> None:
        first = self.create(len(DATA), Idempotency_Key="k1")
        self.tus("PATCH", location_of(first), DATA[:1234], Upload_Offset="0")
        again = self.create(len(DATA), Idempotency_Key="k1")
        self.assertEqual(location_of(again), location_of(first))
        self.assertEqual(again.headers["Upload-Offset"], "1234")
        other = self.create(len(DATA), Idempotency_Key="k2")
        self.assertNotEqual(location_of(other), location_of(first))

    def test_a_key_is_of_one_size_and_of_the_same_bytes(self) -> None:
        first = self.create(len(DATA), DATA, Idempotency_Key="k")
        again = self.create(len(DATA), DATA, Idempotency_Key="k")
        self.assertEqual(again.status_code, 201)
        self.assertEqual(location_of(again), location_of(first))
        for other, reason in ((DATA[1:], "600,000 bytes"), (DATA[::-1], "different bytes")):
            answer = self.create(len(other), other, Idempotency_Key="k")
            self.assertEqual(answer.status_code, 400)
            self.assertIn(reason, answer.text)
            self.assertNotIn("Location", answer.headers)
        begun = self.create(10, Idempotency_Key="begun")
        self.assertEqual(begun.status_code, 201)
        self.assertEqual(self.create(11, Idempotency_Key="begun").status_code, 400)

    def test_an_interrupted_creation_with_a_key_keeps_its_bytes(self) -> None:
        kept = self.broken_off({"Idempotency-Key": "mine"})
        again = self.create(len(LARGE), Idempotency_Key="mine")
        location, offset = location_of(again), int(again.headers["Upload-Offset"])
        self.assertGreaterEqual(offset, kept)
        answer = self.tus("PATCH", location, LARGE[offset:], Upload_Offset=str(offset))
        self.assertEqual(answer.status_code, 204)
        self.assertEqual(self.http.get(location, timeout=PATIENCE).content, LARGE)

    def test_an_interrupted_creation_without_a_key_is_forgotten(self) -> None:
        self.broken_off({})
        wait_until(lambda: self.stored_files() == [], message="a fragment stays")

    def broken_off(self, headers: dict[str, str]) -> int:
        """Send two thirds of a creation's body and disconnect; returns the stored bytes."""
        parts = urlsplit(self.media)
        lines = {
            "Host": parts.netloc,
            "Authorization": f"Bearer {self.token}",
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(len(LARGE)),
            "Content-Length": str(len(LARGE)),
            "Content-Type": STREAM,
        } | headers
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with socket.create_connection((parts.hostname, parts.port)) as raw:
            raw.sendall(f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + LARGE[:2_000_000])
            wait_until(lambda: self.bytes_stored() > 0)
            return self.bytes_stored()

    def bytes_stored(self) -> int:
        return sum(path.stat().st_size for path in (self.data / "media").glob("*/*.part"))

    def test_what_is_wrong_is_refused_with_its_status(self) -> None:
        location = location_of(self.create(10))
        unknown = f"{self.media}/{'A' * 32}"
        refusals = {
            "no version": (
                requests.post(self.media, headers=self.http.headers, timeout=PATIENCE),
                412,
            ),
            "no length": (self.tus("POST", self.media), 400),
            "bad length": (self.tus("POST", self.media, Upload_Length="-1"), 400),
            "empty": (self.create(0), 400),
            "too large": (self.create(30 * 1024 * 1024 + 1), 413),
            "deferred": (self.create(1, Upload_Defer_Length="1"), 400),
            "bad metadata": (self.create(1, Upload_Metadata="filename ???"), 400),
            "bad key": (self.create(1, Idempotency_Key="a b"), 400),
            "wrong offset": (self.tus("PATCH", location, b"x", Upload_Offset="5"), 409),
            "no offset": (self.tus("PATCH", location, b"x"), 400),
            "too many bytes": (self.tus("PATCH", location, b"x" * 11, Upload_Offset="0"), 413),
            "bad checksum": (
                self.tus("PATCH", location, b"x", Upload_Offset="0", Upload_Checksum="md5 x"),
                400,
            ),
            "unknown": (
                self.tus("PATCH", unknown, b"", Upload_Offset="0"),
                404,
            ),
            "plain POST": (self.tus("POST", location), 405),
        }
        for name, (answer, status) in refusals.items():
            with self.subTest(name):
                self.assertEqual(answer.status_code, status, answer.text)
                self.assertEqual(answer.headers["Tus-Resumable"], "1.0.0")

    def test_uploads_belong_to_their_session(self) -> None:
        location = location_of(self.create(10))
        url = self.media.replace("http://", "ws://").removesuffix("/v1/media")
        with RtmClient("app", url=url) as bob:
            bob.login("bob")
            token = bob._transport._connection.token  # type: ignore[attr-defined]
            sent = {"Authorization": f"Bearer {token}"}
            answer = self.tus("PATCH", location, b"x", Upload_Offset="0", **sent)
            self.assertEqual(answer.status_code, 404)

    def test_a_hundred_unfinished_uploads_are_enough(self) -> None:
        locations = [location_of(self.create(10)) for _ in range(100)]
        answer = self.create(10)
        self.assertEqual(answer.status_code, 429)
        self.assertIn("CONCURRENCY_LIMIT_EXCEEDED", answer.text)
        self.tus("DELETE", locations[0])
        self.assertEqual(self.create(10).status_code, 201)

    def test_nine_bodies_at_once_are_enough(self) -> None:
        stored = location_of(self.create(3, b"abc"))
        locations = [location_of(self.create(300_001)) for _ in range(10)]
        gate = threading.Event()
        self.addCleanup(gate.set)

        def slow_body() -> Iterator[bytes]:
            yield b"1" * 300_000
            gate.wait(10)
            yield b"2"

        with ThreadPoolExecutor(9) as threads:
            nine = [
                threads.submit(self.tus, "PATCH", location, slow_body(), Upload_Offset="0")
                for location in locations[:9]
            ]
            wait_until(lambda: len([name for name in self.stored_files() if ".part" in name]) == 9)
            answer = self.tus("PATCH", locations[9], b"1" * 300_001, Upload_Offset="0")
            self.assertEqual(answer.status_code, 429)
            # An answer without bytes takes no slot.
            self.assertEqual(self.http.head(stored, timeout=PATIENCE).status_code, 200)
            cached = {"If-None-Match": f'"{hashlib.sha256(b"abc").hexdigest()}"'}
            answer = self.http.get(stored, headers=cached, timeout=PATIENCE)
            self.assertEqual(answer.status_code, 304)
            gate.set()
            self.assertEqual({one.result(10).status_code for one in nine}, {204})
        answer = self.tus("PATCH", locations[9], b"1" * 300_001, Upload_Offset="0")
        self.assertEqual(answer.status_code, 204)

    def test_of_two_requests_with_one_offset_the_second_is_refused(self) -> None:
        location = location_of(self.create(len(DATA)))
        with self.begun_patch(location) as first:
            second = self.tus("PATCH", location, DATA, Upload_Offset="0")
            self.assertEqual(second.status_code, 409, second.text)
            self.assertIn("Another request is sending", second.text)
            first.sendall(DATA[300_000:])
            self.assertTrue(first.recv(1000).startswith(b"HTTP/1.1 204"))
        late = self.tus("PATCH", location, DATA, Upload_Offset="0")
        self.assertEqual(late.status_code, 409)
        self.assertEqual(self.http.get(location, timeout=PATIENCE).content, DATA)

    def test_of_many_requests_with_one_offset_one_is_taken(self) -> None:
        with ThreadPoolExecutor(4) as threads:
            for _ in range(10):
                location = location_of(self.create(len(DATA)))
                sent = [
                    threads.submit(self.tus, "PATCH", location, DATA, Upload_Offset="0")
                    for _ in range(4)
                ]
                found = sorted(one.result(PATIENCE).status_code for one in sent)
                self.assertEqual(found, [204, 409, 409, 409])
                self.assertEqual(self.http.get(location, timeout=PATIENCE).content, DATA)

    def test_a_request_that_was_superseded_is_told_so_at_once(self) -> None:
        location = location_of(self.create(len(DATA)))
        with self.begun_patch(location) as first:
            offset = int(self.tus("HEAD", location).headers["Upload-Offset"])
            answer = first.recv(1000)  # although it has not sent all of its body
            self.assertTrue(answer.startswith(b"HTTP/1.1 409"), answer)
            self.assertIn(b"has taken over the upload", answer)
            rest = self.tus("PATCH", location, DATA[offset:], Upload_Offset=str(offset))
            self.assertEqual(rest.status_code, 204)
        self.assertEqual(self.http.get(location, timeout=PATIENCE).content, DATA)

    @contextlib.contextmanager
    def begun_patch(self, location: str) -> Iterator[socket.socket]:
        """A PATCH of DATA that has sent 300,000 bytes."""
        parts = urlsplit(location)
        with socket.create_connection((parts.hostname, parts.port), PATIENCE) as raw:
            raw.sendall(
                f"PATCH {parts.path} HTTP/1.1\r\nHost: gateway\r\nTus-Resumable: 1.0.0\r\n"
                f"Authorization: Bearer {self.token}\r\nContent-Type: {STREAM}\r\n"
                f"Upload-Offset: 0\r\nContent-Length: {len(DATA)}\r\n\r\n".encode()
                + DATA[:300_000]
            )
            wait_until(lambda: self.bytes_stored() > 0)
            yield raw

    def test_logging_out_forgets_unfinished_uploads(self) -> None:
        location = location_of(self.create(len(DATA)))
        self.tus("PATCH", location, DATA[:1000], Upload_Offset="0")
        self.client.logout()
        wait_until(lambda: self.stored_files() == [], message="a fragment stays")
        self.assertEqual(self.tus("HEAD", location).status_code, 401)


class SlowToOpen(DiskMediaStore):
    """A store whose `open` waits until it is allowed, and which records the opened files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked, self.may_open = threading.Event(), threading.Event()
        self.opened: list[BinaryIO] = []

    def open(self, media_id: str) -> BinaryIO:
        self.asked.set()
        self.may_open.wait(60.0)
        self.opened.append(super().open(media_id))
        return self.opened[-1]


class HangUpTest(RtmTestCase):
    def test_a_client_that_hangs_up_as_its_download_begins_leaves_no_file_open(self) -> None:
        folder = self.folder()
        store = SlowToOpen(folder / "media")

        def hub_of(config: GatewayConfig, events: EventLog, metrics_sink: MetricsSink) -> Hub:
            return Hub(LocalEngine(), store)

        gateway = BackgroundGateway(GatewayConfig(port=0, data=str(folder)), hub_of)
        url = self.entered(gateway).url
        client = self.entered(RtmClient("app", url=url))
        client.login("alice")
        uploaded = client.create_media_message_by_uploading(DATA, file_name="f").result(60)
        token = client._transport._connection.token  # type: ignore[attr-defined]
        parts = urlsplit(url)
        with self.assertNoLogs("rtm_sync.gateway", "ERROR"):
            with socket.create_connection((parts.hostname, parts.port)) as connection:
                reset = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                connection.sendall(
                    f"GET /v1/media/{uploaded.media_id} HTTP/1.1\r\nHost: gateway\r\n"
                    f"Authorization: Bearer {token}\r\n\r\n".encode()
                )
                self.assertTrue(store.asked.wait(60.0))
            # When the gateway answers a later request, it has seen the reset.
            requests.get(url.replace("ws://", "http://") + "/healthz", timeout=60)
            store.may_open.set()
            wait_until(lambda: store.opened and store.opened[0].closed, 60.0)
        again = client.download_media(uploaded.media_id).result(60)
        self.assertEqual(again.to_bytes(), DATA)
        wait_until(lambda: all(file.closed for file in store.opened), 60.0)


class DownloadTest(MediaCase):
    def test_headers_protect_and_describe(self) -> None:
        media_id = self.uploaded(name="söme <b>.html")
        answer = self.http.get(f"{self.media}/{media_id}", timeout=PATIENCE)
        digest = hashlib.sha256(DATA)
        self.assertEqual(answer.content, DATA)
        self.assertEqual(answer.headers["ETag"], f'"{digest.hexdigest()}"')
        self.assertEqual(
            answer.headers["Repr-Digest"],
            f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
        )
        self.assertEqual(
            answer.headers["Content-Disposition"],
            "attachment; filename*=UTF-8''s%C3%B6me%20%3Cb%3E.html",
        )
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        self.assertAlmostEqual(
            float(answer.headers["Rtm-Expires-At"]), time.time() + 7 * 86400, delta=60
        )

    def test_ranges(self) -> None:
        url = f"{self.media}/{self.uploaded()}"
        etag = self.http.head(url, timeout=PATIENCE).headers["ETag"]
        cases = {
            "bytes=0-0": (206, DATA[:1]),
            "bytes=100-199": (206, DATA[100:200]),
            "bytes=599999-": (206, DATA[599_999:]),
            "bytes=-5": (206, DATA[-5:]),
            "bytes=5-999999999": (206, DATA[5:]),
            "bytes=600000-": (416, b""),
            "bytes=0-1,5-6": (200, DATA),
            "nonsense": (200, DATA),
        }
        for wanted, (status, content) in cases.items():
            with self.subTest(wanted):
                answer = self.http.get(url, headers={"Range": wanted}, timeout=PATIENCE)
                self.assertEqual((answer.status_code, answer.content), (status, content))
        sent = {"Range": "bytes=0-9", "If-Range": etag}
        self.assertEqual(self.http.get(url, headers=sent, timeout=PATIENCE).status_code, 206)
        sent["If-Range"] = '"other"'
        self.assertEqual(self.http.get(url, headers=sent, timeout=PATIENCE).status_code, 200)
        answer = self.http.get(url, headers={"If-None-Match": etag}, timeout=PATIENCE)
        self.assertEqual((answer.status_code, answer.content), (304, b""))
        head = self.http.head(url, timeout=PATIENCE)
        self.assertEqual(head.headers["Content-Length"], str(len(DATA)))

    def test_clients_that_hang_up_in_the_middle_have_their_slots_back_within_seconds(self) -> None:
        media_id = self.uploaded(os.urandom(30_000_000))
        deaf = [self.deaf_download(media_id) for _ in range(9)]
        answer = self.http.get(f"{self.media}/{media_id}", timeout=PATIENCE)
        self.assertEqual(answer.status_code, 429)  # the slots are taken; the refusal took 3 seconds
        for number, sock in enumerate(deaf):
            if number % 2:
                sock.close()  # unread bytes make this a reset
            else:
                sock.shutdown(socket.SHUT_WR)  # the gateway sees EOF, but still cannot send
        with ThreadPoolExecutor(9) as threads:  # a wait of more than 3 seconds ends in a 429
            list(threads.map(self.deaf_download, [media_id] * 9))

    def deaf_download(self, media_id: str) -> socket.socket:
        """A download whose first bytes have been read, and no more."""
        parts = urlsplit(self.media)
        sock = self.entered(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.connect((parts.hostname, parts.port))
        sock.sendall(
            f"GET {parts.path}/{media_id} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n".encode()
        )
        self.assertIn(b"200 OK", sock.recv(1000))
        return sock

    def test_media_need_a_session(self) -> None:
        media_id = self.uploaded()
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
            answer = requests.get(f"{self.media}/{media_id}", headers=headers, timeout=PATIENCE)
            self.assertEqual(answer.status_code, 401)
            self.assertIn("DOWNLOAD_MEDIA_ERR_NOT_LOGGED_IN", answer.text)

    def test_media_of_another_app_do_not_exist(self) -> None:
        media_id = self.uploaded()
        url = self.media.replace("http://", "ws://").removesuffix("/v1/media")
        with RtmClient("other", url=url) as stranger:
            stranger.login("alice")
            error = stranger.download_media(media_id).exception(10)
        self.assertIn("NOT_EXIST", str(error))

    def test_unknown_and_malformed_ids(self) -> None:
        self.assertEqual(
            self.http.get(f"{self.media}/{'A' * 32}", timeout=PATIENCE).status_code, 404
        )
        for bad in ("x", "A" * 33, "..%2f..%2frtm.sqlite3"):
            answer = self.http.get(f"{self.media}/{bad}", timeout=PATIENCE)
            self.assertIn(answer.status_code, (400, 404))
            self.assertNotIn(b"SQLite format", answer.content)

    def test_a_medium_that_left_the_store_does_not_exist(self) -> None:
        media_id = self.uploaded()
        for path in Path(self.data, "media").glob("*/*"):
            path.unlink()
        answer = self.http.get(f"{self.media}/{media_id}", timeout=PATIENCE)
        self.assertEqual(answer.status_code, 404)
