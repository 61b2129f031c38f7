"""Downloads on their way to a path: hidden files beside the target that outlive their process.

A part is named after its medium's id and digest, so a later download of that medium into the same
folder finds it and knows what to ask for: `.rtm-<id>-<digest>-<chance>.part`, the id as a digest
too. Whoever writes to one holds its lock, which the operating system takes back from the dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from .blob import CHUNK
from .errors import RtmError, TransferCancelled
from .protocol import MediaInfo
from .transports.base import Sink

_LEFT = re.compile(r"-([0-9a-f]{64})-[0-9a-f]{8}\.part")


class Part(Sink):
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

    def __enter__(self) -> Part:
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
                # Locked before it has a name that others look for.
                path = self._folder / f".rtm-{secrets.token_hex(16)}.part"
                self._path, self._file = path, _new(path)
            if whole != self.whole:
                name = f"{self._prefix}-{whole}-{secrets.token_hex(4)}.part"
                self._path = self._path.rename(self._folder / name)

    def write(self, data: bytes) -> None:
        if self._path is None:
            self._begin("")
        super().write(data)

    def publish(self, target: Path) -> Path:
        """Make it the file `target`, whole, at once, in place of an older one. Raises OSError."""
        assert self._path is not None  # a medium has at least one byte
        self._path.replace(target)
        self._path = None
        return target

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._path is not None and not self._is_of_use_after(error):
            self._path.unlink(missing_ok=True)
        self._file.close()  # not before: the lock goes with it

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


def _new(path: Path) -> BinaryIO:
    """Make and lock a file. Raises OSError."""
    file = cast(BinaryIO, open(path, "xb", buffering=0))  # noqa: PTH123, SIM115
    with contextlib.suppress(OSError):  # no locks here: then nobody can take it over, either
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _taken(path: Path) -> BinaryIO | None:
    """Open and lock a part; None when another download has it, or it is somebody else's file."""
    try:
        file = cast(BinaryIO, open(path, "r+b", buffering=0, opener=_no_links))  # noqa: SIM115
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        opened = os.fstat(file.fileno())
        if (
            stat.S_ISREG(opened.st_mode)
            and opened.st_uid == os.geteuid()
            and opened.st_nlink == 1
            # Meanwhile it may have been removed, or become a finished download.
            and os.path.samestat(opened, path.lstat())
        ):
            return file
    except OSError:
        pass
    file.close()
    return None


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
