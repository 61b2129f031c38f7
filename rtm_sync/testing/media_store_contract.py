"""What every media store must do, as a test case to mix in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..hub.media.store import Fragment, MediaStore
from ..protocol.values import MediaInfo
from .case import RtmTestCase

ID, OTHER = "A" * 32, "B" * 32
_NOTE = '{"note": "naïve 你好"}'
_CHUNK = 256 * 1024  # what a hub hands over at once
_BIG = 30 * 1024 * 1024  # the largest medium there is
_SECONDS = 60.0

if TYPE_CHECKING:
    _Base = RtmTestCase
else:
    _Base = object


class MediaStoreContract(_Base):
    """Mix into a `RtmTestCase` and say where the store is:

        class MyStoreTest(MediaStoreContract, RtmTestCase):
            def store(self) -> MediaStore:
                return MyStore(…)

    Attributes:
        outlives_process: what was committed is there after a restart.
        keeps_fragments: what was begun is there after a restart, as `MediaStore.fragments` says.
        memory_limit: bytes of Python's memory that a blob of 30 MB may take on its way in or out;
            None for a store that keeps its blobs there.
    """

    outlives_process: bool = True
    keeps_fragments: bool = False
    memory_limit: int | None = 16 * 1024 * 1024

    def store(self) -> MediaStore:
        """A store at this test's own place, which is empty at first.

        Called again, with the first one closed, it stands for the store after a restart.
        """
        raise NotImplementedError

    def break_store(self) -> None:
        """Make the store's place fail from now on (leave this out where it cannot)."""
        self.skipTest("the store's place cannot be made to fail")

    # -- factories --

    def opened(self) -> MediaStore:
        """The store, closed after the test."""
        store = self.store()
        self.addCleanup(store.close)
        return store

    def put(self, store: MediaStore, media_id: str, data: bytes) -> None:
        """Store a blob as a hub does."""
        writer = store.create(media_id, _NOTE)
        try:
            for start in range(0, len(data), _CHUNK):
                writer.write(data[start : start + _CHUNK])
            writer.commit()
        except OSError:
            writer.abort()
            raise
        store.finalize(media_id)

    def read(self, store: MediaStore, media_id: str) -> bytes:
        """A blob's bytes."""
        with store.open(media_id) as file:
            return file.read()

    def assert_unknown(self, store: MediaStore, media_id: str) -> None:
        """Assert that no such blob is seen."""
        with self.assertRaises(FileNotFoundError):
            store.open(media_id).close()

    # -- writing --

    def test_what_was_committed_is_read_as_it_was_written(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        for part in (b"bytes ", bytearray(b"array "), memoryview(b"a view")[2:]):
            writer.write(part)
        writer.commit()
        store.finalize(ID)
        self.assertEqual(self.read(store, ID), b"bytes array view")

    def test_blobs_of_all_sizes_keep_every_byte(self) -> None:
        store = self.opened()
        mebi = 1024 * 1024
        for size in (1, _CHUNK - 1, _CHUNK, _CHUNK + 1, 5 * mebi - 1, 5 * mebi, 5 * mebi + 1):
            with self.subTest(size=size):
                data = os.urandom(size)
                media_id = f"{size:032}"
                self.put(store, media_id, data)
                # Digests: the difference of megabytes is nothing to print.
                self.assertEqual(_sha256(self.read(store, media_id)), _sha256(data))

    def test_the_callers_buffer_can_be_used_again(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        buffer = bytearray(b"first")
        writer.write(buffer)
        buffer[:] = b"second"
        writer.commit()
        self.assertEqual(self.read(store, ID), b"first")

    def test_writing_nothing_adds_nothing(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        for part in (b"", b"x", b""):
            writer.write(part)
        writer.commit()
        self.assertEqual(self.read(store, ID), b"x")

    def test_a_writer_may_change_threads(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        for part in (b"one ", b"two"):
            _in_threads([lambda part=part: writer.write(part)])  # type: ignore[misc]
        _in_threads([writer.commit])
        self.assertEqual(self.read(store, ID), b"one two")

    def test_blobs_that_come_at_the_same_time_are_apart(self) -> None:
        store = self.opened()
        one, two = store.create(ID, _NOTE), store.create(OTHER, _NOTE)
        for number in range(10):
            one.write(b"%d" % number)
            two.write(b"%c" % (ord("a") + number))
        two.commit()
        self.assert_unknown(store, ID)
        one.commit()
        self.assertEqual(self.read(store, ID), b"0123456789")
        self.assertEqual(self.read(store, OTHER), b"abcdefghij")

    # -- only whole blobs are visible --

    def test_a_partial_blob_is_never_seen(self) -> None:
        store = self.opened()
        self.assert_unknown(store, ID)
        writer = store.create(ID, _NOTE)
        self.assert_unknown(store, ID)
        writer.write(b"half")
        self.assert_unknown(store, ID)
        writer.abort()
        self.assert_unknown(store, ID)

    def test_a_large_partial_blob_is_never_seen(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        for _ in range(28):  # seven megabytes
            writer.write(bytes(_CHUNK))
        self.assert_unknown(store, ID)
        writer.abort()
        self.assert_unknown(store, ID)

    def test_a_suspended_blob_is_not_seen(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        writer.write(b"half")
        writer.suspend()
        self.assert_unknown(store, ID)
        store.delete(ID)
        self.assertEqual(store.fragments(), [])

    def test_whoever_looks_during_a_commit_sees_all_or_nothing(self) -> None:
        store = self.opened()
        data = os.urandom(6 * 1024 * 1024)
        writer = store.create(ID, _NOTE)
        seen: list[bytes] = []
        committed = threading.Event()

        def look() -> None:
            while not committed.is_set():
                try:
                    seen.append(hashlib.sha256(self.read(store, ID)).digest())
                except FileNotFoundError:
                    continue

        def commit() -> None:
            try:
                for start in range(0, len(data), _CHUNK):
                    writer.write(data[start : start + _CHUNK])
                writer.commit()
            finally:
                committed.set()

        _in_threads([look, look, commit])
        seen.append(hashlib.sha256(self.read(store, ID)).digest())
        self.assertEqual(set(seen), {hashlib.sha256(data).digest()})

    # -- cutting off --

    def test_what_was_cut_off_is_not_in_the_blob(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        writer.write(b"good bad")
        writer.truncate(5)
        writer.write(b"end")
        writer.commit()
        self.assertEqual(self.read(store, ID), b"good end")

    def test_everything_may_be_cut_off_and_nothing_too(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        writer.write(b"bad")
        writer.truncate(0)
        writer.write(b"good")
        writer.truncate(4)
        writer.commit()
        self.assertEqual(self.read(store, ID), b"good")

    def test_megabytes_may_be_cut_off_more_than_once(self) -> None:
        store = self.opened()
        good = os.urandom(12_345_678)
        writer = store.create(ID, _NOTE)
        kept = 0
        for size in (100, 3_000_000, 5 * 1024 * 1024, 7_777_777, len(good)):
            writer.write(good[kept:size])
            kept = size
            for _ in range(40):  # ten megabytes that failed their checksum
                writer.write(bytes(_CHUNK))
            writer.truncate(kept)
        writer.commit()
        self.assertEqual(_sha256(self.read(store, ID)), _sha256(good))

    # -- giving up --

    def test_aborting_is_idempotent_and_harmless_after_a_commit(self) -> None:
        store = self.opened()
        writer = store.create(ID, _NOTE)
        writer.write(b"x")
        writer.commit()
        writer.abort()
        writer.abort()
        self.assertEqual(self.read(store, ID), b"x")

    def test_an_aborted_blobs_id_is_free_again(self) -> None:
        store = self.opened()
        for data in (b"", b"x", bytes(6 * 1024 * 1024)):
            writer = store.create(ID, _NOTE)
            writer.write(data)
            writer.abort()
            writer.abort()
            self.assertEqual(store.fragments(), [])
        self.put(store, ID, b"again")
        self.assertEqual(self.read(store, ID), b"again")

    # -- reading --

    def test_a_reader_can_seek(self) -> None:
        store = self.opened()
        self.put(store, ID, b"0123456789")
        with store.open(ID) as file:
            file.seek(7)
            self.assertEqual(file.read(2), b"78")
            self.assertEqual(file.tell(), 9)
            self.assertEqual(file.seek(-3, os.SEEK_END), 7)
            self.assertEqual(file.read(1), b"7")
            file.seek(-2, os.SEEK_CUR)
            self.assertEqual(file.read(), b"6789")
            file.seek(0)
            self.assertEqual(file.read(1), b"0")

    def test_any_range_of_a_large_blob_is_read(self) -> None:
        store = self.opened()
        data = os.urandom(6 * 1024 * 1024)
        self.put(store, ID, data)
        chance = random.Random(7)
        with store.open(ID) as file:
            for _ in range(20):
                start = chance.randrange(len(data))
                size = chance.randrange(_CHUNK)
                file.seek(start)
                self.assertEqual(
                    _sha256(_read_exactly(file.read, min(size, len(data) - start))),
                    _sha256(data[start : start + size]),
                )

    def test_at_the_end_and_beyond_it_there_is_nothing_to_read(self) -> None:
        store = self.opened()
        self.put(store, ID, b"0123456789")
        with store.open(ID) as file:
            self.assertEqual(file.read(), b"0123456789")
            self.assertEqual(file.read(), b"")
            self.assertEqual(file.read(5), b"")
            file.seek(10)
            self.assertEqual(file.read(1), b"")
            file.seek(100)
            self.assertEqual(file.read(1), b"")
            file.seek(9)
            self.assertEqual(file.read(100), b"9")

    def test_readers_of_one_blob_do_not_disturb_each_other(self) -> None:
        store = self.opened()
        self.put(store, ID, b"0123456789")
        with store.open(ID) as one, store.open(ID) as two:
            self.assertEqual(one.read(5), b"01234")
            self.assertEqual(two.read(2), b"01")
            self.assertEqual(one.read(), b"56789")
            self.assertEqual(two.read(), b"23456789")

    def test_a_closed_reader_refuses(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        file = store.open(ID)
        file.close()
        file.close()
        with self.assertRaises(ValueError):
            file.read()

    def test_a_reader_goes_on_though_the_blob_is_deleted(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x" * 100_000)
        with store.open(ID) as file:
            store.delete(ID)
            self.assertEqual(len(_read_exactly(file.read, 100_000)), 100_000)
        self.assert_unknown(store, ID)

    # -- ids --

    def test_blobs_with_nearly_the_same_id_are_apart(self) -> None:
        store = self.opened()
        for twin in (ID[:-1] + "Z", "Z" + ID[1:], ID.lower()):
            with self.subTest(twin=twin):
                self.put(store, ID, b"one")
                self.put(store, twin, b"two")
                store.delete(ID)
                self.assert_unknown(store, ID)
                self.assertEqual(self.read(store, twin), b"two")

    def test_every_letter_of_an_id_is_taken(self) -> None:
        store = self.opened()
        for media_id in ("-" * 32, "_" * 32, "0" * 32, "-_" + "aZ09" * 7 + "_-"):
            self.put(store, media_id, media_id.encode())
            self.assertEqual(self.read(store, media_id), media_id.encode())

    def test_what_is_no_id_is_unknown(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        for wrong in ("", ".", "..", "/", f"../{ID}", f"./{ID}", f"{ID}/", ID[:-1], "A\0" * 16):
            with self.subTest(media_id=wrong):
                self.assert_unknown(store, wrong)

    # -- deleting --

    def test_deleting_what_is_not_there_is_no_matter(self) -> None:
        store = self.opened()
        self.put(store, ID, b"kept")
        store.delete(OTHER)
        self.assertEqual(self.read(store, ID), b"kept")

    def test_deleting_twice_is_no_matter(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        store.delete(ID)
        store.delete(ID)
        self.assert_unknown(store, ID)

    def test_a_deleted_blobs_id_is_free_again(self) -> None:
        store = self.opened()
        self.put(store, ID, b"first")
        store.delete(ID)
        self.put(store, ID, b"second")
        self.assertEqual(self.read(store, ID), b"second")

    # -- settling, restarting --

    def test_a_settled_blob_is_no_fragment(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        store.finalize(ID)
        self.assertEqual(store.fragments(), [])
        self.assertEqual(self.read(store, ID), b"x")

    def test_closing_is_idempotent(self) -> None:
        store = self.store()
        self.put(store, ID, b"x")
        store.close()
        store.close()
        if self.outlives_process:
            self.assertEqual(self.read(self.opened(), ID), b"x")
        else:
            self.assert_unknown(self.opened(), ID)

    def test_what_was_committed_outlives_a_restart_and_what_was_aborted_does_not(self) -> None:
        store = self.store()
        self.put(store, ID, b"kept")
        writer = store.create(OTHER, _NOTE)
        writer.write(b"given up")
        writer.abort()
        store.close()
        later = self.opened()
        self.assertEqual(later.fragments(), [])
        self.assert_unknown(later, OTHER)
        if self.outlives_process:
            self.assertEqual(self.read(later, ID), b"kept")
        else:
            self.assert_unknown(later, ID)

    def restarted_with_fragments(self) -> MediaStore:
        """The store after a restart, with the beginning of one blob and another not settled."""
        store = self.store()
        half, whole = store.create(ID, _NOTE), store.create(OTHER, "whole")
        half.write(b"12345")
        half.suspend()  # what the system does for a process that is killed
        whole.write(b"67")
        whole.commit()
        store.close()
        later = self.opened()
        self.assert_unknown(later, ID)
        return later

    def test_what_was_begun_is_known_after_a_restart_where_the_store_keeps_it(self) -> None:
        found = sorted(self.restarted_with_fragments().fragments(), key=lambda one: one.media_id)
        kept = [
            Fragment(ID, _NOTE, 5, is_whole=False),
            Fragment(OTHER, "whole", 2, is_whole=True),
        ]
        self.assertEqual(found, kept if self.keeps_fragments else [])

    def test_what_was_begun_is_taken_up_where_the_store_keeps_it(self) -> None:
        store = self.restarted_with_fragments()
        if not self.keeps_fragments:
            with self.assertRaises(OSError):
                store.reopen(ID)
            return
        writer, reader = store.reopen(ID)
        with reader:
            self.assertEqual(reader.read(), b"12345")
        writer.write(b"678")
        writer.truncate(6)
        writer.commit()
        store.finalize(ID)
        store.finalize(OTHER)
        self.assertEqual((self.read(store, ID), self.read(store, OTHER)), (b"123456", b"67"))
        self.assertEqual(store.fragments(), [])

    def test_what_was_begun_can_be_given_up_after_a_restart(self) -> None:
        store = self.restarted_with_fragments()
        if self.keeps_fragments:
            writer, reader = store.reopen(ID)
            reader.close()
            writer.abort()
        else:
            store.delete(ID)
        store.delete(OTHER)
        self.assertEqual(store.fragments(), [])
        self.assert_unknown(store, OTHER)

    def test_what_was_never_begun_is_not_taken_up(self) -> None:
        store = self.opened()
        with self.assertRaises(OSError):
            store.reopen(ID)

    # -- many at once --

    def test_many_threads_use_it_at_once(self) -> None:
        store = self.opened()
        ids = [f"{number:032}" for number in range(24)]

        def live(media_id: str) -> None:
            data = media_id.encode() * 5_000
            self.put(store, media_id, data)
            assert self.read(store, media_id) == data
            if media_id.endswith("0"):
                store.delete(media_id)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(live, ids))
        left = [one for one in ids if not one.endswith("0")]
        self.assertEqual(
            [self.read(store, one) for one in left], [one.encode() * 5_000 for one in left]
        )
        self.assert_unknown(store, ids[0])

    def test_many_threads_read_one_blob(self) -> None:
        store = self.opened()
        data = os.urandom(1_000_000)
        self.put(store, ID, data)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: _sha256(self.read(store, ID)), range(16)))
        self.assertEqual(set(found), {_sha256(data)})

    def test_the_largest_blob_passes_in_bounded_memory(self) -> None:
        store = self.opened()
        digest, sha256 = hashlib.sha256(), hashlib.sha256()
        with _python_memory() as peak:
            writer = store.create(ID, _NOTE)
            for chunk in _chunks(_BIG):
                digest.update(chunk)
                writer.write(chunk)
            writer.commit()
            store.finalize(ID)
            size = 0
            with store.open(ID) as file:
                while data := file.read(_CHUNK):
                    size += len(data)
                    sha256.update(data)
            used = peak()
        self.assertEqual((size, sha256.hexdigest()), (_BIG, digest.hexdigest()))
        if self.memory_limit is not None:
            self.assertLess(used, self.memory_limit)

    # -- failing --

    def test_a_place_that_fails_is_an_os_error(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        self.break_store()
        for call in (
            lambda: self.put(store, OTHER, b"x"),
            lambda: self.read(store, ID),
            lambda: store.delete(ID),
        ):
            with self.assertRaises(OSError) as caught:
                call()
            self.assertNotIsInstance(caught.exception, FileNotFoundError)
            self.assertTrue(str(caught.exception))

    def test_giving_up_never_raises_though_the_place_fails(self) -> None:
        store = self.opened()
        writers = [store.create(media_id, _NOTE) for media_id in (ID, OTHER)]
        for writer in writers:
            writer.write(bytes(6 * 1024 * 1024))
        self.break_store()
        writers[0].abort()
        writers[1].suspend()
        self.assertRaises(OSError, self.put, store, "C" * 32, b"x")

    # -- where else the bytes are --

    def test_a_location_gives_the_bytes_and_ranges_of_them_to_whoever_has_it(self) -> None:
        store = self.opened()
        data = os.urandom(10_000)
        self.put(store, ID, data)
        info = MediaInfo(ID, len(data), _sha256(data), 'naïve "cat".jpg', "image/jpeg", 0.0)
        url = store.location(info, 60)
        if url is None:
            self.skipTest("the store keeps its bytes to itself")
        self.assertRegex(url, "^https?://")
        with urllib.request.urlopen(url, timeout=_SECONDS) as whole:
            self.assertEqual(whole.read(), data)
            self.assertEqual(whole.headers["Content-Type"], "image/jpeg")
            self.assertIn("attachment", whole.headers["Content-Disposition"])
        ranged = urllib.request.Request(url, headers={"Range": "bytes=9000-"})
        with urllib.request.urlopen(ranged, timeout=_SECONDS) as rest:
            self.assertEqual((rest.status, rest.read()), (206, data[9_000:]))


@contextlib.contextmanager
def _python_memory() -> Iterator[Callable[[], int]]:
    """Gives what tells the peak of Python's memory over what it was at first."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _chunks(size: int) -> Iterator[bytes]:
    while size > 0:
        yield os.urandom(min(_CHUNK, size))
        size -= _CHUNK


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """`size` bytes, in as many reads as it takes."""
    found = b""
    while len(found) < size and (data := read(size - len(found))):
        found += data
    return found


def _in_threads(calls: list[Callable[[], object]]) -> None:
    """Run each call on a thread of its own; raises what one of them raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        for running in [threads.submit(call) for call in calls]:
            running.result(_SECONDS)
