"""Partial downloads: hidden files beside the target, which can outlive their process.

The name of a partial file has digests of the media id and of the medium:
`.rtm-<digest of the id>-<digest of the medium>-<random>.part`. So a later download of the medium
into the same folder finds the file and knows which bytes to request. The process that writes to the
file holds a lock on it. The operating system frees the lock when the process dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from ..blob import CHUNK, atomic_write
from ..errors import RtmError, TransferCancelled
from ..portable import is_in_use, is_own, lock_file, open_unlinked, unlock_file
from ..protocol.values import MediaInfo
from .sink import Sink

_LEFTOVER = re.compile(r"-([0-9a-f]{64})-[0-9a-f]{8}\.part")


class PartialDownload(Sink):
    """The sink of a download to a path. It starts with the bytes that an earlier download left.

    A context manager. A block that ends without `publish` keeps the partial file only if another
    download can resume it: not after a cancellation or NOT_EXIST, nor after the file could not be
    written. Not thread-safe; each download has its own object.

    Args:
        folder: the folder of the partial file and of the target.
        media_id: the medium.
    """

    def __init__(self, folder: Path, media_id: str) -> None:
        super().__init__(io.BytesIO(), f"The file in {folder}")
        self._folder = folder
        self._prefix = f".rtm-{hashlib.sha256(media_id.encode()).hexdigest()[:16]}"
        self._path: Path | None = None  # None until the first byte arrives: there is no file yet
        self._failed = False

    def __enter__(self) -> PartialDownload:
        for name in os.listdir(self._folder):  # noqa: PTH208  faster: there may be many files
            match = name.startswith(self._prefix) and _LEFTOVER.fullmatch(name, len(self._prefix))
            file = _open_and_lock(self._folder / name) if match else None
            if match and file is not None:
                self._path, self._file, self.whole = self._folder / name, file, match[1]
                while data := file.read(CHUNK):
                    self._sha256.update(data)
                    self.size += len(data)
                break
        return self

    def begin(self, info: MediaInfo) -> None:
        self._begin(info.sha256)
        super().begin(info)

    def _begin(self, whole: str) -> None:
        with self._writing():
            if self._path is None:
                self._path, self._file = _new(self._folder, f"{self._prefix}-{whole}")
            elif whole != self.whole:  # a new file: Windows cannot rename an open one
                old, old_path = self._file, self._path
                self._path, self._file = _new(self._folder, f"{self._prefix}-{whole}")
                try:
                    _copy(old, self._file)
                finally:
                    _close(old, old_path, remove=True)

    def write(self, data: bytes) -> None:
        if self._path is None:
            self._begin("")
        super().write(data)

    def publish(self, target: Path) -> Path:
        """Rename the partial file to `target` atomically, and replace an older file there.

        Raises:
            OSError: the target cannot be written.
        """
        assert self._path is not None  # a medium has at least one byte
        try:
            self._path.replace(target)
        except OSError as error:
            if not is_in_use(error):
                raise
            # Windows cannot rename an open file. Closed, another download could lock it: so copy.
            self._file.seek(0)
            with atomic_write(target) as copy:
                shutil.copyfileobj(self._file, copy)
        else:
            self._path = None
        return target

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._path is None:
            self._file.close()
        else:
            _close(self._file, self._path, remove=not self._can_be_resumed_after(error))

    def _can_be_resumed_after(self, error: BaseException | None) -> bool:
        return (
            self.size > 0
            and self.whole != ""
            and not self._failed
            and isinstance(error, RtmError)
            and not isinstance(error, TransferCancelled)
            and error.reason != "NOT_EXIST"
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with super()._writing():
                yield
        except RtmError:
            self._failed = True  # a partial file must not stay on a full disk
            raise


def _new(folder: Path, beginning: str) -> tuple[Path, BinaryIO]:
    """Create and lock a partial file whose name begins with `beginning`. Raises OSError."""
    while True:
        path = folder / f"{beginning}-{secrets.token_hex(4)}.part"
        file = cast(BinaryIO, open(path, "x+b", buffering=0))  # noqa: PTH123, SIM115
        try:
            if lock_file(file.fileno()):
                return path, file
        except OSError:  # this file system has no locks, so no other download can lock it either
            return path, file
        file.close()  # another download found the file and locked it first


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """Append all bytes of an unbuffered file to another. Raises OSError."""
    source.seek(0)
    while data := memoryview(source.read(CHUNK)):
        while data:
            data = data[target.write(data) :]


def _close(file: BinaryIO, path: Path, *, remove: bool) -> None:
    """Unlock and close a partial file, and remove it on request. Raises OSError."""
    try:
        if remove:
            path.unlink(missing_ok=True)  # while it is locked: no other download can resume it
            remove = False
    except OSError as error:
        if not is_in_use(error):
            raise
    finally:
        with contextlib.suppress(OSError):
            unlock_file(file.fileno())
        file.close()
    if remove:  # Windows removes only closed files. Another download may have opened it by now.
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)


def _open_and_lock(path: Path) -> BinaryIO | None:
    """Open and lock a partial file; None when another download or another user owns it."""
    try:
        file = cast(BinaryIO, open(path, "r+b", buffering=0, opener=open_unlinked))  # noqa: SIM115
    except OSError:
        return None
    try:
        opened = os.fstat(file.fileno())
        if (
            lock_file(file.fileno())
            and stat.S_ISREG(opened.st_mode)
            and is_own(opened)
            and opened.st_nlink == 1
            # Another download may have removed or published the file meanwhile.
            and os.path.samestat(opened, path.lstat())
        ):
            return file
    except OSError:
        pass
    file.close()
    return None
