"""The media store contract: blobs on their way in."""

from __future__ import annotations

import hashlib
import os
import threading

from .kit import (
    CHUNK,
    ID,
    METADATA,
    OTHER,
    MediaStoreKit,
    in_threads,
    sha256_of,
)


class WritingTests(MediaStoreKit):
    """Writing, cutting off and giving up; no partial blob is ever seen."""

    def test_what_was_committed_is_read_as_it_was_written(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        for part in (b"bytes ", bytearray(b"array "), memoryview(b"a view")[2:]):
            writer.write(part)
        writer.commit()
        store.finalize(ID)
        self.assertEqual(self.read(store, ID), b"bytes array view")

    def test_blobs_of_all_sizes_keep_every_byte(self) -> None:
        store = self.opened()
        mebi = 1024 * 1024
        for size in (1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * mebi - 1, 5 * mebi, 5 * mebi + 1):
            with self.subTest(size=size):
                data = os.urandom(size)
                media_id = f"{size:032}"
                self.put(store, media_id, data)
                # Digests, because a failure would print megabytes.
                self.assertEqual(sha256_of(self.read(store, media_id)), sha256_of(data))

    def test_the_callers_buffer_can_be_used_again(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        buffer = bytearray(b"first")
        writer.write(buffer)
        buffer[:] = b"second"
        writer.commit()
        self.assertEqual(self.read(store, ID), b"first")

    def test_writing_nothing_adds_nothing(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        for part in (b"", b"x", b""):
            writer.write(part)
        writer.commit()
        self.assertEqual(self.read(store, ID), b"x")

    def test_a_writer_may_change_threads(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        for part in (b"one ", b"two"):
            in_threads([lambda part=part: writer.write(part)])  # type: ignore[misc]
        in_threads([writer.commit])
        self.assertEqual(self.read(store, ID), b"one two")

    def test_blobs_that_come_at_the_same_time_are_apart(self) -> None:
        store = self.opened()
        one, two = store.create(ID, METADATA), store.create(OTHER, METADATA)
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
        writer = store.create(ID, METADATA)
        self.assert_unknown(store, ID)
        writer.write(b"half")
        self.assert_unknown(store, ID)
        writer.abort()
        self.assert_unknown(store, ID)

    def test_a_large_partial_blob_is_never_seen(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        for _ in range(28):  # seven megabytes
            writer.write(bytes(CHUNK))
        self.assert_unknown(store, ID)
        writer.abort()
        self.assert_unknown(store, ID)

    def test_a_suspended_blob_is_not_seen(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        writer.write(b"half")
        writer.suspend()
        self.assert_unknown(store, ID)
        store.delete(ID)
        self.assertEqual(store.fragments(), [])

    def test_whoever_looks_during_a_commit_sees_all_or_nothing(self) -> None:
        store = self.opened()
        data = os.urandom(6 * 1024 * 1024)
        writer = store.create(ID, METADATA)
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
                for start in range(0, len(data), CHUNK):
                    writer.write(data[start : start + CHUNK])
                writer.commit()
            finally:
                committed.set()

        in_threads([look, look, commit])
        seen.append(hashlib.sha256(self.read(store, ID)).digest())
        self.assertEqual(set(seen), {hashlib.sha256(data).digest()})

    # -- cutting off --

    def test_what_was_cut_off_is_not_in_the_blob(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        writer.write(b"good bad")
        writer.truncate(5)
        writer.write(b"end")
        writer.commit()
        self.assertEqual(self.read(store, ID), b"good end")

    def test_everything_may_be_cut_off_and_nothing_too(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        writer.write(b"bad")
        writer.truncate(0)
        writer.write(b"good")
        writer.truncate(4)
        writer.commit()
        self.assertEqual(self.read(store, ID), b"good")

    def test_megabytes_may_be_cut_off_more_than_once(self) -> None:
        store = self.opened()
        good = os.urandom(12_345_678)
        writer = store.create(ID, METADATA)
        kept = 0
        for size in (100, 3_000_000, 5 * 1024 * 1024, 7_777_777, len(good)):
            writer.write(good[kept:size])
            kept = size
            for _ in range(40):  # ten megabytes that failed their checksum
                writer.write(bytes(CHUNK))
            writer.truncate(kept)
        writer.commit()
        self.assertEqual(sha256_of(self.read(store, ID)), sha256_of(good))

    # -- giving up --

    def test_aborting_is_idempotent_and_harmless_after_a_commit(self) -> None:
        store = self.opened()
        writer = store.create(ID, METADATA)
        writer.write(b"x")
        writer.commit()
        writer.abort()
        writer.abort()
        self.assertEqual(self.read(store, ID), b"x")

    def test_an_aborted_blobs_id_is_free_again(self) -> None:
        store = self.opened()
        for data in (b"", b"x", bytes(6 * 1024 * 1024)):
            writer = store.create(ID, METADATA)
            writer.write(data)
            writer.abort()
            writer.abort()
            self.assertEqual(store.fragments(), [])
        self.put(store, ID, b"again")
        self.assertEqual(self.read(store, ID), b"again")
