"""Transfers that outlive the process that began them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rtm_sync import RtmClient, UploadCancelled, UploadMediaError
from rtm_sync.testing import FaultProxy
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

SIZE = 6_000_000
PIECE = 2_000_000

UPLOADER = """
import sys
from rtm_sync import RtmClient
with RtmClient("app", url=sys.argv[1]) as client:
    client.login("alice")
    upload = client.create_media_message_by_uploading(sys.argv[2], resume_from=sys.argv[3])
    print(upload.result().media_id)
"""


class ResumedUploadTest(RtmTestCase):
    def setUp(self) -> None:
        self.data, self.home = self.folder(), self.folder()
        self.gateway = self.entered(local_gateway(self.data))
        self.proxy = self.entered(FaultProxy(self.gateway))
        self.source = self.home / "photo.jpg"
        self.source.write_bytes(os.urandom(SIZE))
        self.journal = self.home / "photo.journal"

    def client(self, url: str | None = None) -> RtmClient:
        client = RtmClient("app", url=url or self.gateway)
        self.addCleanup(client.close)
        client.login("alice")
        return client

    def upload(self, client: RtmClient) -> Any:
        return client.create_media_message_by_uploading(self.source, resume_from=self.journal)

    def kill_in_the_middle(self) -> None:
        self.proxy.stall(sent=PIECE, only_new=True)
        arguments = [self.proxy.url, str(self.source), str(self.journal)]
        with subprocess.Popen([sys.executable, "-c", UPLOADER, *arguments]) as process:
            # The signalling connection gets by on less than a piece.
            wait_until(lambda: self.proxy.held and self.part_sizes(), PATIENCE)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        self.proxy.restore()
        self.proxy.drop()

    def part_sizes(self) -> list[int]:
        return [path.stat().st_size for path in (self.data / "media").glob("*/*.part")]

    def stored(self) -> list[str]:
        return [path.name for path in (self.data / "media").glob("*/*")]

    def assert_is_there(self, client: RtmClient, media_id: str) -> None:
        blob = client.download_media(media_id).result(PATIENCE)
        self.assertEqual(blob.to_bytes(), self.source.read_bytes())
        self.assertEqual(self.stored(), [media_id])
        self.assertFalse(self.journal.exists())

    def test_a_killed_process_goes_on_where_it_stopped(self) -> None:
        self.kill_in_the_middle()
        self.assertTrue(self.journal.exists())
        before = self.proxy.bytes_sent
        client = self.client(self.proxy.url)
        media_id = self.upload(client).result(PATIENCE).media_id
        sent = self.proxy.bytes_sent - before
        self.assertLess(sent, SIZE - PIECE // 2)
        self.assert_is_there(client, media_id)

    def test_a_source_with_other_bytes_is_sent_anew(self) -> None:
        self.changed_meanwhile(SIZE)

    def test_a_source_of_another_size_is_sent_anew(self) -> None:
        self.changed_meanwhile(SIZE - 1000)

    def changed_meanwhile(self, size: int) -> None:
        self.kill_in_the_middle()
        self.source.write_bytes(os.urandom(size))
        client = self.client()
        message = self.upload(client).result(PATIENCE)
        blob = client.download_media(message.media_id).result(PATIENCE)
        self.assertEqual(blob.to_bytes(), self.source.read_bytes())

    def test_closing_the_client_keeps_what_is_there(self) -> None:
        self.proxy.stall(sent=PIECE, only_new=True)
        first = self.client(self.proxy.url)
        self.proxy.stall(sent=PIECE, only_new=True)
        upload = self.upload(first)
        wait_until(lambda: self.proxy.held and self.part_sizes(), PATIENCE)
        first.close()
        self.assertTrue(upload.cancelled())
        self.assertTrue(self.part_sizes())
        client = self.client()
        self.assert_is_there(client, self.upload(client).result(PATIENCE).media_id)

    def test_cancelling_forgets_it_here_and_there(self) -> None:
        client = self.client(self.proxy.url)
        self.proxy.stall(sent=PIECE, only_new=True)
        upload = self.upload(client)
        wait_until(lambda: self.proxy.held and self.part_sizes(), PATIENCE)
        upload.cancel()
        self.assertRaises(UploadCancelled, upload.result, PATIENCE)
        wait_until(lambda: not self.journal.exists())
        wait_until(lambda: self.stored() == [])

    def test_it_works_when_nothing_goes_wrong_on_both_transports(self) -> None:
        for url in ("memory://", self.gateway):
            client = self.client(url)
            message = self.upload(client).result(PATIENCE)
            blob = client.download_media(message.media_id).result(PATIENCE)
            self.assertEqual(blob.size, SIZE)
            self.assertFalse(self.journal.exists())
            client.close()

    def test_another_file_is_not_taken_for_a_journal(self) -> None:
        self.journal.write_text("my diary")
        with self.assertRaisesRegex(UploadMediaError, "is not the journal of an upload"):
            self.upload(self.client())
        self.assertEqual(self.journal.read_text(), "my diary")

    def test_a_journal_that_cannot_be_written_is_said(self) -> None:
        self.journal = Path("/nowhere/at/all.journal")
        with self.assertRaisesRegex(UploadMediaError, "The journal cannot be written"):
            self.upload(self.client()).result(PATIENCE)
