"""Starting over: a big data folder costs no time, and what was left half done is cleared away."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from pathlib import Path

from rtm_sync import RtmClient, RtmError
from rtm_sync.protocol.codec import encode_json
from rtm_sync.protocol.values import MediaInfo
from rtm_sync.testing import GatewayProcess, local_gateway, wait_until
from tests.benchmarks.processes import cpu_seconds
from tests.support import PATIENCE, RtmTestCase

START_BOUND = 3.0  # seconds of a core: two by the promise, and one for the interpreter
MEDIA = 20_000
SIZE = 52_429  # bytes each: a gigabyte in all
DIGEST = "d7c6cd5f" * 8  # of nothing: these media are never read
DAY = 24 * 3600.0


def stored_media(data: Path, count: int, expires_at: float) -> list[str]:
    """Put media into a gateway's folder while it is down: records, and files without blocks.

    All are links to one file, which makes them 50 times as fast as files of their own.
    """
    ids = [secrets.token_urlsafe(24) for _ in range(count)]
    folders = {media_id[:2] for media_id in ids}
    for folder in folders:
        (data / "media" / folder).mkdir(mode=0o700, exist_ok=True)
    blob = data / "blob"
    with blob.open("wb") as file:
        file.truncate(SIZE)
    rows = []
    for media_id in ids:
        os.link(blob, f"{data}/media/{media_id[:2]}/{media_id}")
        info = MediaInfo(media_id, SIZE, DIGEST, "f.bin", "image/png", expires_at)
        rows.append((media_id, "app", "alice", expires_at, encode_json(info), SIZE))
    blob.unlink()
    with contextlib.closing(sqlite3.connect(data / "rtm.sqlite3")) as connection, connection:
        connection.executemany(
            "INSERT INTO media (media_id, app_id, uid, expires_at, info, size) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
    return ids


class BigFolderTest(RtmTestCase):
    def test_a_gateway_with_a_gigabyte_of_media_starts_in_two_seconds(self) -> None:
        gateway = self.entered(GatewayProcess(self.folder()))
        with RtmClient("app", url=gateway.url) as alice:
            alice.login("alice")
            message = alice.create_media_message_by_uploading(b"a cat").result(PATIENCE)
        for end in (gateway.stop, gateway.kill):
            end()
            stored_media(gateway.data, MEDIA // 2, time.time() + DAY)
            gateway.start()
            self.assertLess(cpu_seconds(gateway.pid), START_BOUND)
        with RtmClient("app", url=gateway.url) as alice:
            alice.login("alice")
            blob = alice.download_media(message.media_id).result(PATIENCE)
            self.assertEqual(blob.to_bytes(), b"a cat")

    def test_media_that_expired_while_it_was_down_are_swept_after_the_start(self) -> None:
        gateway = self.entered(GatewayProcess(self.folder()))
        gateway.stop()
        kept = stored_media(gateway.data, 20, time.time() + DAY)
        stored_media(gateway.data, 1_000, time.time() - 1)
        gateway.start()
        wait_until(lambda: _files(gateway.data) == sorted(kept), PATIENCE)


class HalfDoneTest(RtmTestCase):
    def setUp(self) -> None:
        self.data = self.folder()

    def test_what_a_kill_left_of_an_upload_that_nobody_can_finish_is_removed(self) -> None:
        folder = self.data / "media" / "ab"
        folder.mkdir(parents=True)
        (folder / ("ab" + "x" * 30 + ".part")).write_bytes(b"half")  # no note beside it
        (folder / ("ab" + "y" * 30 + ".note")).write_text("{}")  # no part
        (folder / ("ab" + "z" * 30 + ".part")).write_bytes(b"half")
        (folder / ("ab" + "z" * 30 + ".note")).write_text("damaged")
        with local_gateway(self.data):
            self.assertEqual(_files(self.data), [])

    def test_a_whole_file_without_a_record_is_nobodys_medium(self) -> None:
        """Killed between the blob and its record: nobody was told its id."""
        media_id = "ab" + "x" * 30
        folder = self.data / "media" / "ab"
        folder.mkdir(parents=True)
        (folder / media_id).write_bytes(b"whole")
        note = (
            '{"app_id":"app","uid":"alice","spec":{"size":5,"file_name":"f","content_type":"a/b"}}'
        )
        (folder / f"{media_id}.note").write_text(note)
        with local_gateway(self.data) as url, RtmClient("app", url=url) as alice:
            self.assertEqual(_files(self.data), [])
            alice.login("alice")
            with self.assertRaises(RtmError) as caught:
                alice.download_media(media_id).result(PATIENCE)
            self.assertEqual(caught.exception.code.name, "DOWNLOAD_MEDIA_ERR_NOT_EXIST")


def _files(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "media").glob("*/*"))
