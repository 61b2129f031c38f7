"""Downloads from where the media store is, past the gateway: nothing of ours but the question."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from rtm_sync import RtmClient, hookimpl
from rtm_sync.gateway.app import BackgroundGateway, make_hub
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.hub.media.disk import DiskMediaStore
from rtm_sync.hub.media.store import MediaStore
from rtm_sync.plugins.loader import PluginManager
from rtm_sync.protocol.values import MediaInfo
from rtm_sync.testing import FaultProxy, RtmTestCase, local_gateway, wait_until
from tests.support import PATIENCE

from .support import Timing, http_server, media_through, pattern, serving

DATA = pattern(4_000_000)
PIECE = 1_500_000


class _Elsewhere(DiskMediaStore):
    """A plugin, and its store: files that a web server gives to clients."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.address = ""

    @hookimpl
    def media_store(self, url: str) -> MediaStore | None:
        return self if url == "elsewhere:" else None

    def location(self, info: MediaInfo, seconds: float) -> str | None:
        return f"{self.address}/{info.media_id[:2]}/{info.media_id}?for={seconds:g}"


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A web server of a folder's files, with ranges; yields its URL and the headers it was sent."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers.items()))
            path = folder / self.path.partition("?")[0].lstrip("/")
            data = path.read_bytes() if path.exists() else b""
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.send_response(404 if not data else 206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[start:])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, serving(server):
        yield f"http://127.0.0.1:{server.server_address[1]}", asked


class ElsewhereTest(RtmTestCase):
    def setUp(self) -> None:
        self.files = self.folder()
        store = _Elsewhere(self.files)
        server, self.asked = self.entered(file_server(self.files))
        self.store_proxy = self.entered(FaultProxy(server))
        store.address = self.store_proxy.url
        gateway = self.entered(local_gateway(self.folder(), media="elsewhere:", plugins=(store,)))
        self.gateway_proxy = self.entered(FaultProxy(gateway))
        self.alice = RtmClient(
            "app", url=self.gateway_proxy.url, plugins=(Timing(retry_timeout=2.0),)
        )
        self.addCleanup(self.alice.close)
        self.alice.login("alice")

    def medium(self) -> str:
        message = self.alice.create_media_message_by_uploading(DATA, file_name="naïve.bin")
        return message.result(PATIENCE).media_id

    def download(self, media_id: str, **options: Any) -> Any:
        return self.alice.download_media(media_id, **options)

    def test_the_bytes_come_from_the_store_and_the_rest_from_the_gateway(self) -> None:
        media_id = self.medium()
        before = self.gateway_proxy.bytes_received
        blob = self.download(media_id).result(PATIENCE)
        self.assertEqual(blob.to_bytes(), DATA)
        self.assertEqual((blob.name, blob.content_type), ("naïve.bin", "application/octet-stream"))
        self.assertLess(self.gateway_proxy.bytes_received - before, 10_000)

    def test_the_store_is_told_nothing_of_the_session(self) -> None:
        self.download(self.medium()).result(PATIENCE)
        (headers,) = self.asked
        token = self.alice._transport._connection.token  # type: ignore[attr-defined]
        self.assertTrue(token)
        self.assertNotIn(token, str(headers))
        self.assertFalse({"authorization", "cookie"} & {name.lower() for name in headers})

    def test_a_broken_download_goes_on_where_it_stopped(self) -> None:
        media_id = self.medium()
        self.store_proxy.truncate(received=PIECE)
        download = self.download(media_id, to=self.folder() / "copy")
        wait_until(lambda: len(self.asked) > 1)
        self.store_proxy.restore()
        self.assertEqual(Path(download.result(PATIENCE)).read_bytes(), DATA)
        first, second, *_ = self.asked
        self.assertNotIn("Range", first)
        self.assertRegex(second["Range"], r"^bytes=1[34]\d{5}-$")
        self.assertNotIn("If-Range", second)  # the gateway has compared the digests

    def test_other_bytes_than_the_gateways_digest_says_are_refused(self) -> None:
        media_id = self.medium()
        path = self.files / media_id[:2] / media_id
        path.write_bytes(DATA[:-1] + b"!")
        copy = self.folder() / "copy"
        error = self.download(media_id, to=copy).exception(PATIENCE)
        self.assertEqual(error.code.name, "DOWNLOAD_MEDIA_ERR_FAILURE")
        self.assertIn("do not have the stored ones' digest", error.message)
        self.assertFalse(copy.exists())

    def test_what_the_store_does_not_have_does_not_exist(self) -> None:
        media_id = self.medium()
        (self.files / media_id[:2] / media_id).unlink()
        error = self.download(media_id).exception(PATIENCE)
        self.assertEqual(error.code.name, "DOWNLOAD_MEDIA_ERR_NOT_EXIST")
        self.assertIn("media store", error.message)

    def test_a_store_out_of_reach_is_a_clear_error(self) -> None:
        media_id = self.medium()
        self.store_proxy.refuse()
        error = self.download(media_id).exception(PATIENCE)
        self.assertEqual(error.code.name, "DOWNLOAD_MEDIA_ERR_FAILURE")
        self.assertIn("Cannot connect", error.message)

    def test_cancelling_wakes_a_download_that_hangs_in_the_store(self) -> None:
        media_id = self.medium()
        self.store_proxy.stall(received=PIECE)
        download = self.download(media_id)
        wait_until(lambda: self.store_proxy.held)
        download.cancel()
        error = download.exception(PATIENCE)
        self.assertEqual(error.code.name, "DOWNLOAD_MEDIA_ERR_INTERRUPTED")

    def test_an_address_that_is_none_of_the_web_is_refused(self) -> None:
        digest = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
        headers = {"Repr-Digest": f"sha-256=:{digest}:", "Content-Length": "0"}
        for location in ("file:///etc/passwd", "ftp://127.0.0.1/", "//127.0.0.1/x", ""):
            with self.subTest(location=location), contextlib.ExitStack() as stack:
                answer = http_server(307, headers | {"Location": location}, b"")
                address, _ = stack.enter_context(answer)
                stack.enter_context(media_through(self.alice, address))
                error = self.download("A" * 32).exception(PATIENCE)
                self.assertEqual(error.code.name, "DOWNLOAD_MEDIA_ERR_FAILURE")
                self.assertIn("http:// or https://", error.message)


class SecureGatewayTest(RtmTestCase):
    def test_a_client_of_https_is_not_led_to_http(self) -> None:
        files, store = self.folder(), _Elsewhere(self.folder())
        server, asked = self.entered(file_server(files))
        store.address = server
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(files / "ca.pem"))
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(files / "gateway.pem"))
        config = GatewayConfig(
            port=0,
            data=str(files / "data"),
            media="elsewhere:",
            tls_cert=str(files / "gateway.pem"),
            tls_key=str(files / "gateway.pem"),
        )
        hub_of = functools.partial(make_hub, plugins=PluginManager(extra=(store,)))
        url = self.entered(BackgroundGateway(config, hub_of)).url
        with RtmClient("app", url=url, ca_file=files / "ca.pem") as alice:
            alice.login("alice")
            upload = alice.create_media_message_by_uploading(DATA)
            error = alice.download_media(upload.result(PATIENCE).media_id).exception(PATIENCE)
        self.assertIn("not https://, as the gateway is", str(error))
        self.assertEqual(asked, [])
