"""The media store contract: reading whole blobs."""

from __future__ import annotations

import os
import random
import urllib.request

from ...protocol.values import MediaInfo
from .kit import (
    CHUNK,
    ID,
    SECONDS,
    MediaStoreKit,
    read_exactly,
    sha256_of,
)


class ReadingTests(MediaStoreKit):
    """Readers, ranges, ids and the URLs of blobs."""

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
                size = chance.randrange(CHUNK)
                file.seek(start)
                self.assertEqual(
                    sha256_of(read_exactly(file.read, min(size, len(data) - start))),
                    sha256_of(data[start : start + size]),
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
            self.assertEqual(len(read_exactly(file.read, 100_000)), 100_000)
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

    # -- where else the bytes are --

    def test_a_location_gives_the_bytes_and_ranges_of_them_to_whoever_has_it(self) -> None:
        store = self.opened()
        data = os.urandom(10_000)
        self.put(store, ID, data)
        info = MediaInfo(ID, len(data), sha256_of(data), 'naïve "cat".jpg', "image/jpeg", 0.0)
        url = store.location(info, 60)
        if url is None:
            self.skipTest("the store keeps its bytes to itself")
        self.assertRegex(url, "^https?://")
        with urllib.request.urlopen(url, timeout=SECONDS) as whole:
            self.assertEqual(whole.read(), data)
            self.assertEqual(whole.headers["Content-Type"], "image/jpeg")
            self.assertIn("attachment", whole.headers["Content-Disposition"])
        ranged = urllib.request.Request(url, headers={"Range": "bytes=9000-"})
        with urllib.request.urlopen(ranged, timeout=SECONDS) as rest:
            self.assertEqual((rest.status, rest.read()), (206, data[9_000:]))
