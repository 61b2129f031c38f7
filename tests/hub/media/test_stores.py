"""The built-in stores pass the contract kit; and failures of a disk."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys

from rtm_sync.hub.media.disk import DiskMediaStore
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.hub.media.store import MediaStore
from rtm_sync.testing import MediaStoreContract
from tests.support import PATIENCE, RtmTestCase

ID = "A" * 32


class MemoryStoreTest(MediaStoreContract, RtmTestCase):
    outlives_process = False
    memory_limit = None
    # It has no redirects, and no storage that could fail.
    test_a_location_gives_the_bytes_and_ranges_of_them_to_whoever_has_it = None
    test_a_place_that_fails_is_an_os_error = None
    test_giving_up_never_raises_though_the_place_fails = None

    def store(self) -> MediaStore:
        return MemoryMediaStore()

    def test_a_closed_store_holds_nothing(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        store.close()
        self.assert_unknown(store, ID)


class DiskStoreTest(MediaStoreContract, RtmTestCase):
    keeps_fragments = True
    memory_limit = 2 * 1024 * 1024
    # It has no redirects.
    test_a_location_gives_the_bytes_and_ranges_of_them_to_whoever_has_it = None

    def setUp(self) -> None:
        self.root = self.folder() / "media"

    def store(self) -> MediaStore:
        return DiskMediaStore(self.root)

    def break_store(self) -> None:
        shutil.rmtree(self.root)
        self.root.write_text("in its place")

    def test_ids_that_are_none_reach_no_file(self) -> None:
        store = self.opened()
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
                self.assert_unknown(store, wrong)
                with self.assertRaises(FileNotFoundError):
                    store.create(wrong, "note")
                with self.assertRaises(FileNotFoundError):
                    store.delete(wrong)
        self.assertEqual(secret.read_text(), "keep out")
        self.assertEqual(list(self.root.iterdir()), [])

    def test_others_on_the_machine_may_not_look(self) -> None:
        self.put(self.opened(), ID, b"x")
        for folder in (self.root, self.root / ID[:2]):
            self.assertEqual(folder.stat().st_mode & 0o077, 0, folder)

    def test_what_a_commit_promises_has_reached_the_disk_in_order(self) -> None:
        """The blob's bytes are synced before the rename, and the names before `commit` returns."""
        traced = subprocess.run(
            [sys.executable, "-c", _TRACE, str(self.root), ID],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
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
            timeout=PATIENCE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
            check=False,
        )
        self.assertEqual(said.stderr, "")
        self.assertEqual(said.stdout.split("\n")[:2], ["File too large", "100000"])
        self.assertEqual([path.name for path in self.root.glob("*/*")], [])


# Audit hooks report `open` and `rename`; `fsync` has no audit event, so it is replaced.
_TRACE = """
import os, sys
from pathlib import Path
from rtm_sync.hub.media.disk import DiskMediaStore
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
from rtm_sync.hub.media.disk import DiskMediaStore
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
