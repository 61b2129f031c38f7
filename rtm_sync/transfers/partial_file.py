"""Downloads on their way to a path: hidden files beside the target that outlive their process.

A part is named after its medium's id and digest, so a later download of that medium into the same
folder finds it and knows what to ask for: `.rtm-<id>-<digest>-<chance>.part`, the id as a digest
too. Whoever writes to one holds its lock, which the operating system takes back from the dead.
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

_LEFT = re.compile(r"-([0-9a-f]{64})-[0-9a-f]{8}\.part")


class PartialDownload(Sink):
    """The sink of a download to a path: what an earlier download of the medium left, or nothing.

    A context manager. A block that ends without `publish` leaves the part only where another
    download can go on with it: not after a cancellation, NOT_EXIST, or a file that cannot be
    written. Not thread-safe; each download has its own, in whichever process it runs.

    Args:
        folder: where the part is, and the file is to be.
        media_id: of the medium.
    """

    def __init__(self, folder: Path, media_id: str) -> None:
        super().__init__(io.BytesIO(), f"The file in {folder}")
        self._folder = folder
        self._prefix = f".rtm-{hashlib.sha256(media_id.encode()).hexdigest()[:16]}"
        self._path: Path | None = None  # None: no byte came yet, so there is no file
        self._failed = False

    def __enter__(self) -> PartialDownload:
        for name in os.listdir(self._folder):  # noqa: PTH208  names are enough, of many files
            left = name.startswith(self._prefix) and _LEFT.fullmatch(name, len(self._prefix))
            file = _taken(self._folder / name) if left else None
            if left and file is not None:
                self._path, self._file, self.whole = self._folder / name, file, left[1]
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
            elif whole != self.whole:  # another file: Windows gives an open one no other name
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
        """Make it the file `target`, whole, at once, in place of an older one. Raises OSError."""
        assert self._path is not None  # a medium has at least one byte
        try:
            self._path.replace(target)
        except OSError as error:
            if not is_in_use(error):
                raise
            # Windows moves no file that is open, and closed any other download could take it.
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
            _close(self._file, self._path, remove=not self._is_of_use_after(error))

    def _is_of_use_after(self, error: BaseException | None) -> bool:
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
            self._failed = True  # on a full disk, above all, it is not to stay
            raise


def _new(folder: Path, beginning: str) -> tuple[Path, BinaryIO]:
    """Make and lock a part whose name begins so. Raises OSError."""
    while True:
        path = folder / f"{beginning}-{secrets.token_hex(4)}.part"
        file = cast(BinaryIO, open(path, "x+b", buffering=0))  # noqa: PTH123, SIM115
        try:
            if lock_file(file.fileno()):
                return path, file
        except OSError:  # no locks here: then nobody can take it over, either
            return path, file
        file.close()  # another download found it at once, and has it


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """All of an unbuffered file to the end of another. Raises OSError."""
    source.seek(0)
    while data := memoryview(source.read(CHUNK)):
        while data:
            data = data[target.write(data) :]


def _close(file: BinaryIO, path: Path, *, remove: bool) -> None:
    """Give a part up. Raises OSError when it cannot be removed."""
    try:
        if remove:
            path.unlink(missing_ok=True)  # while it is locked, so that nobody takes it
            remove = False
    except OSError as error:
        if not is_in_use(error):
            raise
    finally:
        with contextlib.suppress(OSError):
            unlock_file(file.fileno())
        file.close()
    if remove:  # on Windows only now, unless another download was faster and has it
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)


def _taken(path: Path) -> BinaryIO | None:
    """Open and lock a part; None when another download has it, or it is somebody else's file."""
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
            # Meanwhile it may have been removed, or become a finished download.
            and os.path.samestat(opened, path.lstat())
        ):
            return file
    except OSError:
        pass
    file.close()
    return None
