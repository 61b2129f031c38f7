"""Blobs on disk: atomic, resumed after a crash, and never outside their folder."""

from __future__ import annotations

import os
from pathlib import Path

from rtm_sync.errors import PluginError
from rtm_sync.hub.media.disk import DiskMediaStore
from tests.support import RtmTestCase

ID, OTHER = "A" * 32, "B" * 32


class DiskMediaStoreTest(RtmTestCase):
    def setUp(self) -> None:
        self.root = self.folder() / "media"
        self.store = DiskMediaStore(self.root)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*/*"))

    def test_a_blob_is_seen_only_when_it_is_whole(self) -> None:
        writer = self.store.create(ID, "note")
        writer.write(b"first ")
        self.assertEqual(self.names(), [f"{ID}.note", f"{ID}.part"])
        with self.assertRaises(FileNotFoundError):
            self.store.open(ID)
        writer.write(memoryview(b"second"))
        writer.commit()
        self.store.finalize(ID)
        with self.store.open(ID) as file:
            self.assertEqual(file.read(), b"first second")
        self.assertEqual(self.names(), [ID])

    def test_an_aborted_blob_leaves_nothing_and_a_committed_one_stays(self) -> None:
        writer = self.store.create(ID, "note")
        writer.write(b"x")
        writer.abort()
        writer.abort()
        self.assertEqual(self.names(), [])
        whole = self.store.create(ID, "note")
        whole.write(b"x")
        whole.commit()
        whole.abort()
        self.assertEqual(self.names(), [ID])

    def test_deleting_is_complete_and_forgiving(self) -> None:
        self.store.create(ID, "note").suspend()
        self.store.delete(ID)
        self.store.delete(ID)
        self.assertEqual(self.names(), [])

    def test_what_a_killed_process_left_is_taken_up(self) -> None:
        writer = self.store.create(ID, "half")
        writer.write(b"12345")
        writer.suspend()  # as the system closes the file of a killed process
        whole = self.store.create(OTHER, "whole")
        whole.write(b"67")
        whole.commit()
        later = DiskMediaStore(self.root)
        half, done = sorted(later.fragments(), key=lambda found: found.media_id)
        self.assertEqual(
            (half.media_id, half.metadata, half.size, half.is_whole), (ID, "half", 5, False)
        )
        self.assertEqual((done.media_id, done.size, done.is_whole), (OTHER, 2, True))
        again, reader = later.reopen(ID)
        with reader:
            self.assertEqual(reader.read(), b"12345")
        again.write(b"6")
        again.commit()
        with later.open(ID) as file:
            self.assertEqual(file.read(), b"123456")

    def test_fragments_that_nobody_can_explain_are_removed(self) -> None:
        (self.root / "AA").mkdir()
        (self.root / "AA" / f"{ID}.part").write_bytes(b"x")
        (self.root / "AA" / f"{ID[:-1]}C.note").write_text("of nothing")
        store = DiskMediaStore(self.root)
        self.assertEqual(store.fragments(), [])
        self.assertEqual(self.names(), [])

    def test_urls_name_a_folder_or_are_refused(self) -> None:
        url = f"disk://{self.root}/with%20space"
        DiskMediaStore.from_url(url)
        self.assertTrue((self.root / "with space").is_dir())
        before = Path.cwd()
        for wrong in ("disk://relative/folder", "disk://", "disk:", "disk:///"):
            with self.assertRaisesRegex(PluginError, "disk:///absolute/folder"):
                DiskMediaStore.from_url(wrong)
        self.assertEqual(Path.cwd(), before)

    def test_a_folder_that_cannot_be_written_is_an_os_error(self) -> None:
        blocked = self.folder() / "file"
        blocked.write_text("")
        with self.assertRaises(OSError):
            DiskMediaStore(blocked / "media")
        self.assertEqual(os.listdir(blocked.parent), ["file"])
