"""A media store on disk: each blob is a file named by its media id, in two-character folders.

A blob is written to `<id>.part`, made durable (`fsync`) and renamed, so a file without an ending is
always whole. The metadata file `<id>.note` stays beside it until the blob is recorded: after a
crash, the upload is resumed from it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ...errors import PluginError
from ...portable import folder_in_url, is_in_use, open_folder, open_private, sync_folder
from ..open_paths import OpenPaths
from .failures import log_failure
from .store import MEDIA_ID, Fragment, MediaStore, MediaWriter

_PART = ".part"
_METADATA = ".note"


class DiskMediaStore(MediaStore):
    """Keeps blobs under one folder, and creates the folder. One process uses a folder at a time."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        # Blobs that are deleted although their files still exist. Set operations are atomic.
        self._undeleted: set[Path] = set()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Without it, every path leads into a folder that another one has replaced.
        self._opened = OpenPaths("The media folder", [self._folder])
        self._release = _hold_open(self, self._folder)
        for part in self._folder.glob(f"*/*{_PART}"):
            if not part.with_suffix(_METADATA).exists():  # it cannot be resumed without metadata
                part.unlink(missing_ok=True)

    @classmethod
    def from_url(cls, url: str) -> DiskMediaStore:
        """The store of `disk:///absolute/folder` or `disk:relative/folder`.

        Raises:
            PluginError: the URL names no folder.
        """
        folder = ""
        with contextlib.suppress(ValueError):
            folder = folder_in_url(url)
        if not folder.strip("/"):
            raise PluginError(
                f"{url!r} names no folder; a media store on disk is disk:///absolute/folder or "
                "disk:relative/folder."
            )
        return cls(folder)

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        path = self._path(media_id)
        self._opened.require()
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
            sync_folder(self._folder)
        note = path.with_name(media_id + _METADATA)
        with open(note, "w", encoding="utf-8", opener=open_private) as file:
            file.write(metadata)
        return _DiskWriter(path, self._opened, is_new=True)

    def open(self, media_id: str) -> BinaryIO:
        path = self._path(media_id)
        if path in self._undeleted:
            raise FileNotFoundError(errno.ENOENT, "The blob is deleted", media_id)
        self._opened.require()
        return path.open("rb")

    def delete(self, media_id: str) -> None:
        path = self._path(media_id)
        self._opened.require()
        for ending in ("", _PART, _METADATA):
            self._remove(path.with_name(path.name + ending))
        self._retry_deletes()

    def problem(self) -> str | None:
        return self._opened.problem()

    def close(self) -> None:
        try:
            self._retry_deletes()
        finally:
            self._release()

    def fragments(self) -> list[Fragment]:
        found = []
        for metadata in self._folder.glob(f"*/*{_METADATA}"):
            whole = metadata.with_suffix("")
            part = metadata.with_suffix(_PART)
            file = whole if whole.exists() else part
            try:  # an unreadable file must not keep back the others
                if file.exists():
                    text = metadata.read_text("utf-8", "replace")
                    found.append(Fragment(whole.name, text, file.stat().st_size, file is whole))
                else:
                    metadata.unlink(missing_ok=True)
            except OSError as error:
                log_failure(f"resuming the fragment {whole.name}", error)
        return found

    def reopen(self, media_id: str) -> tuple[MediaWriter, BinaryIO]:
        path = self._path(media_id)
        self._opened.require()
        writer = _DiskWriter(path, self._opened, is_new=False)
        return writer, path.with_name(path.name + _PART).open("rb")

    def finalize(self, media_id: str) -> None:
        self._path(media_id).with_name(media_id + _METADATA).unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if not is_in_use(error):
                raise
            self._undeleted.add(path)  # Windows: a file that is being read cannot be removed

    def _retry_deletes(self) -> None:
        for path in tuple(self._undeleted):
            self._undeleted.discard(path)
            self._remove(path)

    def _path(self, media_id: str) -> Path:
        if not MEDIA_ID.fullmatch(media_id):  # the hub checks ids; a bug there must reach no file
            raise FileNotFoundError(errno.ENOENT, "Not a media id", media_id)
        return self._folder / media_id[:2] / media_id


def _hold_open(owner: object, folder: Path) -> Callable[[], object]:
    """Keep a folder open until its owner is gone; the returned function closes it before."""
    descriptor = open_folder(folder)
    return (lambda: None) if descriptor is None else weakref.finalize(owner, os.close, descriptor)


class _DiskWriter(MediaWriter):
    """Opens its file for each call: an unfinished upload holds no descriptor."""

    def __init__(self, path: Path, opened: OpenPaths, *, is_new: bool) -> None:
        self._path = path
        self._opened = opened
        self._part = path.with_name(path.name + _PART)
        with self._file(os.O_CREAT | os.O_EXCL if is_new else 0):
            pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._opened.require()
        view = memoryview(data)
        with self._file() as descriptor:
            while view:
                view = view[os.write(descriptor, view) :]

    def truncate(self, size: int) -> None:
        with self._file() as descriptor:
            os.ftruncate(descriptor, size)

    def commit(self) -> None:
        self._opened.require()
        with self._file() as descriptor:
            os.fsync(descriptor)
        self._part.replace(self._path)
        sync_folder(self._path.parent)

    def abort(self) -> None:
        for path in (self._part, self._path.with_name(self._path.name + _METADATA)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def suspend(self) -> None:
        """Its file is closed already."""

    @contextlib.contextmanager
    def _file(self, flags: int = 0) -> Iterator[int]:
        """The unfinished file, to append to."""
        binary = getattr(os, "O_BINARY", 0)  # on Windows
        flags |= os.O_WRONLY | os.O_APPEND | binary
        descriptor = open_private(os.fspath(self._part), flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
