"""A media store in memory, for tests and for embedded hubs without a data folder."""

from __future__ import annotations

import io
from typing import BinaryIO

from .store import MediaStore, MediaWriter


class MemoryMediaStore(MediaStore):
    """Keeps blobs in a dictionary. `close` forgets them."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}  # dict operations are atomic, so no lock is needed

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        return _MemoryWriter(self._blobs, media_id)

    def open(self, media_id: str) -> BinaryIO:
        blob = self._blobs.get(media_id)
        if blob is None:
            raise FileNotFoundError(media_id)
        return io.BytesIO(blob)

    def delete(self, media_id: str) -> None:
        self._blobs.pop(media_id, None)

    def close(self) -> None:
        self._blobs.clear()


class _MemoryWriter(MediaWriter):
    def __init__(self, blobs: dict[str, bytes], media_id: str) -> None:
        self._blobs = blobs
        self._media_id = media_id
        self._data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._data += data

    def truncate(self, size: int) -> None:
        del self._data[size:]

    def commit(self) -> None:
        self._blobs[self._media_id] = bytes(self._data)
        self._data = bytearray()

    def abort(self) -> None:
        self._data = bytearray()
