"""Users and a gateway whose media are in a real S3 server."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import rtm_sync_s3
from rtm_sync_s3.store import PART_SIZE

from rtm_sync import RtmClient, RtmError, RtmFileMessage, TransferCancelled
from rtm_sync.testing import FaultProxy, local_gateway, wait_until

from .support import S3Case

PATIENCE = 30.0
DATA = hashlib.shake_128(b"cat").digest(PART_SIZE * 2 + 1234)


class EndToEndTest(S3Case):
    def gateway(self, options: str = "", endpoint: str | None = None) -> str:
        """A gateway whose media are in the test's bucket."""
        media = self.url(options, endpoint)
        return self.entered(local_gateway(self.folder(), media=media, plugins=(rtm_sync_s3,)))

    def client(self, url: str, uid: str) -> RtmClient:
        client = self.entered(RtmClient("app", url=url))
        client.login(uid)
        return client

    def uploaded(self, client: RtmClient, data: bytes = DATA, **options: Any) -> RtmFileMessage:
        message = client.create_media_message_by_uploading(data, file_name="cat.bin", **options)
        found = message.result(PATIENCE)
        assert isinstance(found, RtmFileMessage)
        return found

    def assert_fails(self, name: str, transfer: Any) -> RtmError:
        error = transfer.exception(PATIENCE)
        self.assertIsInstance(error, RtmError)
        self.assertEqual(error.code.name, name, error)
        return error  # type: ignore[no-any-return]

    def test_one_user_uploads_and_another_downloads(self) -> None:
        url = self.gateway()
        alice, bob = self.client(url, "alice"), self.client(url, "bob")
        for data in (b"x", DATA):
            message = self.uploaded(alice, data)
            self.assertIn(f"rtm-media/{message.media_id}", self.keys())
            blob = bob.download_media(message.media_id).result(PATIENCE)
            self.assertEqual((blob.to_bytes(), blob.name), (data, "cat.bin"))
        self.assertEqual(self.unfinished(), [])

    def test_an_embedded_hub_keeps_its_media_there_too(self) -> None:
        url = f"memory://{self.bucket}"
        with RtmClient("app", url=url, media=self.url(), plugins=(rtm_sync_s3,)) as client:
            client.login("alice")
            media_id = self.uploaded(client).media_id
            self.assertEqual(self.keys(), [f"rtm-media/{media_id}"])
            self.assertEqual(client.download_media(media_id).result(PATIENCE).to_bytes(), DATA)

    def test_clients_are_sent_to_the_service_and_go_on_there_after_a_lost_connection(self) -> None:
        service = self.entered(FaultProxy(self.server.url))
        gateway = self.entered(FaultProxy(self.gateway("&redirect=1", service.url)))
        alice = self.client(gateway.url, "alice")
        media_id = self.uploaded(alice).media_id
        from_gateway, from_service = gateway.bytes_received, service.bytes_received
        service.truncate(received=3_000_000)
        download = alice.download_media(media_id, to=self.folder() / "copy")
        wait_until(lambda: service.bytes_received - from_service >= 3_000_000)
        service.restore()
        self.assertEqual(Path(download.result(PATIENCE)).read_bytes(), DATA)
        self.assertLess(gateway.bytes_received - from_gateway, 20_000)
        self.assertLess(service.bytes_received - from_service, len(DATA) + 5_000_000)
        from_service = service.bytes_received
        with alice.open_media(media_id, start=5_000_000, stop=5_000_100) as part:
            self.assertEqual(part.read(), DATA[5_000_000:5_000_100])
        self.assertEqual(alice.get_media_info(media_id).size, len(DATA))
        self.assertLess(service.bytes_received - from_service, 20_000)

    def test_a_cancelled_upload_leaves_nothing(self) -> None:
        gateway = self.entered(FaultProxy(self.gateway()))
        alice = self.client(gateway.url, "alice")
        gateway.stall(sent=PART_SIZE * 2, only_new=True)
        cancel = threading.Event()
        upload = alice.create_media_message_by_uploading(DATA, cancel_signal=cancel)
        wait_until(self.unfinished, PATIENCE, "no part has been sent")
        cancel.set()
        self.assert_fails("UPLOAD_MEDIA_ERR_INTERRUPTED", upload)
        gateway.restore()
        wait_until(lambda: not self.unfinished(), PATIENCE, "the parts stay")
        self.assertEqual(self.keys(), [])

    def test_an_upload_that_is_cancelled_while_the_service_stores_it_leaves_nothing(self) -> None:
        for kind in ("gateway", "embedded"):
            with self.subTest(kind):
                service = self.entered(FaultProxy(self.server.url))
                if kind == "gateway":
                    alice = self.client(self.gateway(endpoint=service.url), "alice")
                else:
                    alice = self.entered(
                        RtmClient(
                            "app",
                            url=f"memory://{self.bucket}",
                            media=self.url(endpoint=service.url),
                            plugins=(rtm_sync_s3,),
                        )
                    )
                    alice.login("alice")
                service.stall(received=0)  # the service stores the object; its answer is late
                upload = alice.create_media_message_by_uploading(b"x" * 1_000_000)
                wait_until(self.keys, PATIENCE, "the object has not been stored")
                self.assertTrue(upload.cancel())
                service.restore()
                with self.assertRaises(TransferCancelled):
                    upload.result(PATIENCE)
                wait_until(lambda: not self.keys(), PATIENCE, "the object stays")

    def test_a_server_that_is_killed_in_an_upload_is_a_clear_error(self) -> None:
        server = self.own_server()
        gateway = self.entered(FaultProxy(self.gateway()))
        alice = self.client(gateway.url, "alice")
        gateway.stall(sent=PART_SIZE + 1_000_000, only_new=True)
        upload = alice.create_media_message_by_uploading(DATA)
        wait_until(self.unfinished, PATIENCE, "no part has been sent")
        server.kill()
        with self.assertLogs("rtm_sync", "WARNING") as logged:
            gateway.restore()
            error = self.assert_fails("UPLOAD_MEDIA_ERR_FAILURE", upload)
        self.assertEqual(error.message, "The media store failed.")
        self.assertIn("S3 failed at storing", logged.output[0])
        self.assertIn("Could not connect", logged.output[0])

    def test_a_server_that_is_gone_is_a_clear_error_of_a_download(self) -> None:
        server = self.own_server()
        alice = self.client(self.gateway(), "alice")
        media_id = self.uploaded(alice, b"x").media_id
        server.kill()
        with self.assertLogs("rtm_sync", "WARNING") as logged:
            error = self.assert_fails("DOWNLOAD_MEDIA_ERR_FAILURE", alice.download_media(media_id))
        self.assertEqual(error.message, "The media store failed.")
        self.assertIn("S3 failed at reading", logged.output[0])

    def test_what_was_deleted_in_the_bucket_does_not_exist(self) -> None:
        for options in ("", "&redirect=1"):
            with self.subTest(options=options):
                alice = self.client(self.gateway(options), "alice")
                media_id = self.uploaded(alice, b"x").media_id
                self.s3.delete_object(Bucket=self.bucket, Key=f"rtm-media/{media_id}")
                self.assert_fails("DOWNLOAD_MEDIA_ERR_NOT_EXIST", alice.download_media(media_id))
