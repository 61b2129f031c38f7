"""The media store contract: many threads, large blobs, and a place that fails."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .kit import (
    CHUNK,
    ID,
    METADATA,
    OTHER,
    MediaStoreKit,
    sha256_of,
)

_LARGEST = 30 * 1024 * 1024  # bytes of the largest medium


class LoadTests(MediaStoreKit):
    """Threads, memory and failures."""

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
            found = list(threads.map(lambda _: sha256_of(self.read(store, ID)), range(16)))
        self.assertEqual(set(found), {sha256_of(data)})

    def test_the_largest_blob_passes_in_bounded_memory(self) -> None:
        store = self.opened()
        digest, sha256 = hashlib.sha256(), hashlib.sha256()
        with _python_memory() as peak:
            writer = store.create(ID, METADATA)
            for chunk in _chunks(_LARGEST):
                digest.update(chunk)
                writer.write(chunk)
            writer.commit()
            store.finalize(ID)
            size = 0
            with store.open(ID) as file:
                while data := file.read(CHUNK):
                    size += len(data)
                    sha256.update(data)
            used = peak()
        self.assertEqual((size, sha256.hexdigest()), (_LARGEST, digest.hexdigest()))
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
        writers = [store.create(media_id, METADATA) for media_id in (ID, OTHER)]
        for writer in writers:
            writer.write(bytes(6 * 1024 * 1024))
        self.break_store()
        writers[0].abort()
        writers[1].suspend()
        self.assertRaises(OSError, self.put, store, "C" * 32, b"x")


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
        yield os.urandom(min(CHUNK, size))
        size -= CHUNK
