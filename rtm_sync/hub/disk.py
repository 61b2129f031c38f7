"""Blobs as files, named by media id under two-character folders.

A blob is written to `<id>.part`, made durable (`fsync`) and renamed, so a file without that ending
is always whole. Parts left by a killed process are removed when the store opens.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from .media import MediaStore, MediaWriter

_PART = ".part"


class DiskMediaStore(MediaStore):
    """Keeps blobs under one folder, which it makes. One process may use a folder at a time."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in self._folder.glob(f"*/*{_PART}"):
            part.unlink(missing_ok=True)

    @classmethod
    def from_url(cls, url: str) -> DiskMediaStore:
        """The store of `disk:///absolute/folder` or `disk:relative/folder`."""
        return cls(unquote(urlsplit(url).path))

    def create(self, media_id: str) -> MediaWriter:
        path = self._path(media_id)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        return _DiskWriter(path)

    def open(self, media_id: str) -> BinaryIO:
        return self._path(media_id).open("rb")

    def delete(self, media_id: str) -> None:
        self._path(media_id).unlink(missing_ok=True)

    def local_path(self, media_id: str) -> Path | None:
        return self._path(media_id)

    def _path(self, media_id: str) -> Path:
        return self._folder / media_id[:2] / media_id


class _DiskWriter(MediaWriter):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + _PART)
        self._file = self._part.open("xb", buffering=0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def truncate(self, size: int) -> None:
        self._file.truncate(size)
        self._file.seek(size)

    def commit(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself must outlive a power cut
        finally:
            os.close(folder)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
