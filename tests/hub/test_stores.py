"""What every media store does, for those of the house; and the disk's own troubles."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from rtm_sync.hub.disk import DiskMediaStore
from rtm_sync.hub.media import MediaStore
from rtm_sync.hub.memory import MemoryMediaStore
from tests.support import RtmTestCase

ID, OTHER = "A" * 32, "B" * 32

if TYPE_CHECKING:
    _Base = RtmTestCase
else:
    _Base = object


class StoreCases(_Base):
    """The contract; mix in and give the store."""

    store: MediaStore

    def put(self, media_id: str, data: bytes) -> None:
        writer = self.store.create(media_id, "note")
        writer.write(data)
        writer.commit()
        self.store.settle(media_id)

    def read(self, media_id: str) -> bytes:
        with self.store.open(media_id) as file:
            return file.read()

    def assert_unknown(self, media_id: str) -> None:
        with self.assertRaises(FileNotFoundError):
            self.store.open(media_id)

    def test_what_was_committed_is_read_as_it_was_written(self) -> None:
        writer = self.store.create(ID, "note")
        for part in (b"bytes ", bytearray(b"array "), memoryview(b"a view")[2:]):
            writer.write(part)
        writer.commit()
        self.store.settle(ID)
        self.assertEqual(self.read(ID), b"bytes array view")

    def test_a_partial_blob_is_never_seen(self) -> None:
        self.assert_unknown(ID)
        writer = self.store.create(ID, "note")
        self.assert_unknown(ID)
        writer.write(b"half")
        self.assert_unknown(ID)
        writer.abort()
        self.assert_unknown(ID)

    def test_a_reader_can_seek(self) -> None:
        self.put(ID, b"0123456789")
        with self.store.open(ID) as file:
            file.seek(7)
            self.assertEqual(file.read(2), b"78")
            file.seek(0)
            self.assertEqual(file.read(1), b"0")

    def test_a_reader_goes_on_though_the_blob_is_deleted(self) -> None:
        self.put(ID, b"x" * 100_000)
        with self.store.open(ID) as file:
            self.store.delete(ID)
            self.assertEqual(len(file.read()), 100_000)
        self.assert_unknown(ID)

    def test_blobs_with_the_same_first_letters_are_apart(self) -> None:
        twin = ID[:-1] + "Z"
        self.put(ID, b"one")
        self.put(twin, b"two")
        self.store.delete(ID)
        self.assertEqual(self.read(twin), b"two")

    def test_deleting_what_is_not_there_is_no_matter(self) -> None:
        self.put(ID, b"kept")
        self.store.delete(OTHER)
        self.assertEqual(self.read(ID), b"kept")

    def test_what_was_cut_off_is_not_in_the_blob(self) -> None:
        writer = self.store.create(ID, "note")
        writer.write(b"good bad")
        writer.truncate(5)
        writer.write(b"end")
        writer.commit()
        self.assertEqual(self.read(ID), b"good end")

    def test_aborting_is_idempotent_and_harmless_after_a_commit(self) -> None:
        writer = self.store.create(ID, "note")
        writer.write(b"x")
        writer.commit()
        writer.abort()
        writer.abort()
        self.assertEqual(self.read(ID), b"x")

    def test_a_settled_blob_is_no_fragment(self) -> None:
        self.put(ID, b"x")
        self.assertEqual(self.store.fragments(), [])

    def test_many_threads_use_it_at_once(self) -> None:
        ids = [f"{number:032}" for number in range(8)]
        threads = [
            threading.Thread(target=self.put, args=(media_id, media_id.encode() * 1000))
            for media_id in ids
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        self.assertEqual([self.read(one) for one in ids], [one.encode() * 1000 for one in ids])


class MemoryStoreTest(StoreCases, RtmTestCase):
    def setUp(self) -> None:
        self.store = MemoryMediaStore()

    def test_a_closed_store_holds_nothing(self) -> None:
        self.put(ID, b"x")
        self.store.close()
        self.assert_unknown(ID)


class DiskStoreTest(StoreCases, RtmTestCase):
    def setUp(self) -> None:
        self.root = self.folder() / "media"
        self.store = DiskMediaStore(self.root)

    def test_ids_that_are_none_reach_no_file(self) -> None:
        secret = self.root.parent / "secret"
        secret.write_text("keep out")
        for wrong in (
            "../secret",
            str(secret),
            "",
            ".",
            "..",
            "A" * 31,
            "A" * 30 + "/.",
            "A\0" * 16,
        ):
            with self.subTest(media_id=wrong):
                self.assert_unknown(wrong)
                with self.assertRaises(FileNotFoundError):
                    self.store.create(wrong, "note")
                with self.assertRaises(FileNotFoundError):
                    self.store.delete(wrong)
        self.assertEqual(secret.read_text(), "keep out")
        self.assertEqual(list(self.root.iterdir()), [])

    def test_others_on_the_machine_may_not_look(self) -> None:
        self.put(ID, b"x")
        for folder in (self.root, self.root / ID[:2]):
            self.assertEqual(folder.stat().st_mode & 0o077, 0, folder)

    def test_what_a_commit_promises_has_reached_the_disk_in_order(self) -> None:
        """The blob's bytes before its name; the names before `commit` returns."""
        traced = subprocess.run(
            [sys.executable, "-c", _TRACE, str(self.root), ID],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        self.assertEqual(
            traced.stdout.split(),
            [
                "fsync:media",  # the new folder's own name
                f"fsync:{ID}.part",
                "rename",
                f"fsync:{ID[:2]}",
            ],
        )

    def test_a_full_disk_is_a_clear_error_and_what_was_kept_stays_usable(self) -> None:
        said = subprocess.run(
            [sys.executable, "-c", _FULL, str(self.root), ID],
            capture_output=True,
            text=True,
            timeout=30,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
            check=False,
        )
        self.assertEqual(said.stderr, "")
        self.assertEqual(said.stdout.split("\n")[:2], ["File too large", "100000"])
        self.assertEqual([path.name for path in self.root.glob("*/*")], [])


# Audit hooks see what is opened and renamed; fsync has none, so it is watched by its own name.
_TRACE = """
import os, sys
from pathlib import Path
from rtm_sync.hub.disk import DiskMediaStore
store = DiskMediaStore(sys.argv[1])
fsync = os.fsync
def watched(number):
    print("fsync:" + Path(os.readlink(f"/proc/self/fd/{number}")).name)
    fsync(number)
os.fsync = watched
sys.addaudithook(lambda event, _: event == "os.rename" and print("rename"))
writer = store.create(sys.argv[2], "note")
writer.write(b"x")
writer.commit()
"""
_FULL = """
import os, sys
from rtm_sync.hub.disk import DiskMediaStore
store = DiskMediaStore(sys.argv[1])
writer = store.create(sys.argv[2], "note")
try:
    writer.write(bytes(150_000))
except OSError as error:
    print(error.strerror)
part = next(path for path in store._folder.glob("*/*.part"))
print(part.stat().st_size)
writer.abort()
"""
