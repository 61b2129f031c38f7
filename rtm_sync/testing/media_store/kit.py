"""Shared by the parts of the media store contract: a store, and helpers for blobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ...hub.media.store import MediaStore
from ..case import RtmTestCase

ID, OTHER = "A" * 32, "B" * 32
METADATA = '{"note": "naïve 你好"}'
CHUNK = 256 * 1024
"""Bytes that a hub hands over at once."""

SECONDS = 60.0

if TYPE_CHECKING:
    _Base = RtmTestCase
else:
    _Base = object


class MediaStoreKit(_Base):
    """The store of one test; `MediaStoreContract` says what it must do."""

    outlives_process: bool = True
    keeps_fragments: bool = False
    memory_limit: int | None = 16 * 1024 * 1024

    def store(self) -> MediaStore:
        """A store at this test's own place, which is empty at first.

        A second call, after the first store was closed, returns the store after a restart.
        """
        raise NotImplementedError

    def break_store(self) -> None:
        """Make the storage fail from now on; do not override where that is impossible."""
        self.skipTest("the store's place cannot be made to fail")

    def opened(self) -> MediaStore:
        """The store, closed after the test."""
        store = self.store()
        self.addCleanup(store.close)
        return store

    def put(self, store: MediaStore, media_id: str, data: bytes) -> None:
        """Store a blob as a hub does."""
        writer = store.create(media_id, METADATA)
        try:
            for start in range(0, len(data), CHUNK):
                writer.write(data[start : start + CHUNK])
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
        """Assert that the store has no such blob."""
        with self.assertRaises(FileNotFoundError):
            store.open(media_id).close()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """`size` bytes, in as many reads as it takes."""
    found = b""
    while len(found) < size and (data := read(size - len(found))):
        found += data
    return found


def in_threads(calls: list[Callable[[], object]]) -> None:
    """Run each call on a thread of its own; raises the first exception of a call."""
    with ThreadPoolExecutor(len(calls)) as threads:
        for running in [threads.submit(call) for call in calls]:
            running.result(SECONDS)
