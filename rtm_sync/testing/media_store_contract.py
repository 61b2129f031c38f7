"""The contract of every media store, as a test case to mix in."""

from __future__ import annotations

from .media_store.lifetime import LifetimeTests
from .media_store.load import LoadTests
from .media_store.reading import ReadingTests
from .media_store.writing import WritingTests


class MediaStoreContract(WritingTests, ReadingTests, LifetimeTests, LoadTests):
    """Mix into a `RtmTestCase` and say where the store is:

        class MyStoreTest(MediaStoreContract, RtmTestCase):
            def store(self) -> MediaStore:
                return MyStore(…)

    Attributes:
        outlives_process: committed blobs are kept over a restart.
        keeps_fragments: a blob that was begun is there after a restart, as `MediaStore.fragments`
            says.
        memory_limit: bytes of Python's memory that a blob of 30 MB may take on its way in or out;
            None for a store that keeps its blobs in memory.
    """
