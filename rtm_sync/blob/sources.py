"""The sources of blobs: files that are read in place, and others that are copied first."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from ..portable import open_without_waiting, wait_until_readable
from ..rules.timing import Deadline

MEDIA_LIMIT = 30 * 1024 * 1024
"""Bytes in one medium, inclusive. Reference 1.3: 30 MB; 30 × 1024² here."""

CHUNK = 256 * 1024
"""Bytes that are read or written at once. Measured: 64 KB to 1 MB have the same speed."""

_SPOOL = 1024 * 1024  # bytes of an unseekable source in memory; a larger one is a temporary file
_SILENCE = 30.0  # seconds that a non-blocking source may give nothing


class BlobTooLarge(ValueError):
    """A source holds more bytes than the limit."""


class SourceChanged(OSError):
    """A file has another size or another time of modification than when its blob was made."""


Opener = Callable[[], BinaryIO]
"""Opens a seekable binary reader at the source's first byte."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a blob: how to open them, and how many there are."""

    open: Opener
    size: int


def too_large(what: str, max_bytes: int) -> BlobTooLarge:
    """The error of a source that exceeds the limit."""
    return BlobTooLarge(f"{what}; the limit is {max_bytes:,} bytes.")


# -- paths --


@dataclass(frozen=True, slots=True)
class _Version:
    """The size in bytes and the time of the last change of a file, in nanoseconds."""

    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Version:
        return cls(status.st_size, status.st_mtime_ns)

    def check(self, status: os.stat_result, name: object) -> None:
        """Raise SourceChanged unless a file with this status has this version."""
        if status.st_size != self.size:
            raise SourceChanged(
                f"{name} had {self.size:,} bytes when its blob was made, and has "
                f"{status.st_size:,} now"
            )
        if status.st_mtime_ns != self.modified:
            raise SourceChanged(f"{name} was written to after its blob was made")


class _UnchangedFile(io.FileIO):
    """A file that raises SourceChanged when it is not the version wanted, at the latest at its end.

    So no reader gets all bytes of a file that was modified meanwhile.
    """

    def __init__(self, path: Path, version: _Version) -> None:
        version.check(path.stat(), path)  # before it is opened: a FIFO could block that
        super().__init__(path)
        self._version = version

    def readinto(self, buffer: object, /) -> int | None:
        count = super().readinto(cast(bytearray, buffer))
        if not count or self.tell() >= self._version.size:
            self._check()
        return count

    def readall(self) -> bytes:
        data = super().readall()
        self._check()
        return data

    def _check(self) -> None:
        self._version.check(os.fstat(self.fileno()), self.name)


def _open_unchanged(path: Path, version: _Version) -> BinaryIO:
    return io.BufferedReader(_UnchangedFile(path, version))


def path_source(path: Path, max_bytes: int, timeout: float) -> Source:
    """The source of a path. A file with no size of its own, such as a FIFO, is copied now.

    Args:
        path: a file, a FIFO, or a file of /proc.
        max_bytes: the limit for a file that is copied.
        timeout: seconds for copying.

    Raises:
        OSError: the file is missing, not readable, a folder, a device or a socket.
        TimeoutError: the copy was not complete in time.
        BlobTooLarge: the file that is copied has more bytes.
    """
    status = path.stat()
    _refuse_folders_and_devices(path, status.st_mode)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        with path.open("rb", buffering=0) as file:
            version = _Version.of(os.fstat(file.fileno()))
            file.seek(max(0, version.size - 1))
            if file.read(1):
                return Source(
                    lambda: io.BufferedReader(_UnchangedFile(path, version)), version.size
                )
    # What has no bytes at its stated end may have others: /proc says 0, and /sys 4,096.
    with open(path, "rb", buffering=0, opener=open_without_waiting) as special:
        mode = os.fstat(special.fileno()).st_mode
        _refuse_folders_and_devices(path, mode)  # the path may name another file by now
        pieces = _special_pieces(path, special, timeout, is_fifo=stat.S_ISFIFO(mode))
        return spooled(pieces, max_bytes)


def _refuse_folders_and_devices(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder; a blob is made of one file.")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        kind = "socket" if stat.S_ISSOCK(mode) else "device"
        raise OSError(
            f"{path} is a {kind}, which has no end. Read the bytes that you want, and pass them."
        )


def _special_pieces(
    path: Path, file: io.FileIO, timeout: float, *, is_fifo: bool
) -> Iterator[bytes]:
    """The bytes of a file that was opened without waiting, until its end or the time-out."""
    deadline = Deadline(timeout)
    # A FIFO without a writer looks like one at its end, so wait for the writer first.
    has_bytes = not is_fifo
    while True:
        if deadline.has_passed or (
            not has_bytes and not wait_until_readable(file.fileno(), deadline.left)
        ):
            raise TimeoutError(
                f"{path} did not come to its end within {timeout:g} seconds. Write its bytes to a "
                "file first, or open it and pass the file object, which is read without a limit "
                "of time."
            )
        data = file.read(CHUNK)
        if data == b"":
            return
        has_bytes = data is not None and not is_fifo
        if data is not None:
            yield data


# -- file objects --


def file_source(file: IO[bytes], max_bytes: int) -> Source:
    """The source of a file object, from its position. See `Blob.from_file`."""
    _refuse_text_and_writers(file)
    try:
        start = file.tell()
        file.seek(0, io.SEEK_END)  # returns None for Python 3.10's spooled file
        end = file.tell()
        file.seek(start)
    except (AttributeError, OSError):
        return spooled(_pieces(file), max_bytes)
    if end == start == 0 and (first := file.read(1)):  # a file of /proc has no size
        return spooled(_pieces(file, first), max_bytes)
    if start >= end > 0 or start > end:
        raise ValueError(
            f"The file has {end:,} bytes and its position is {start:,}, so no bytes are left to "
            "read. Call its seek(0) first."
        )
    return window_source(file, start, end - start)


def window_source(file: IO[bytes], start: int, size: int) -> Source:
    """The source of `size` bytes of a seekable file from the position `start`."""
    lock = threading.Lock()
    raw = getattr(file, "raw", file)  # not the fileno of any file: a spooled one would roll over
    version = _Version.of(os.fstat(raw.fileno())) if isinstance(raw, io.FileIO) else None

    def check() -> None:
        if version is not None:
            name = raw.name if isinstance(raw.name, (str, Path)) else "The file"
            version.check(os.fstat(raw.fileno()), name)

    return Source(
        lambda: io.BufferedReader(_Window(file, lock, start, size, check), CHUNK),
        size,
    )


def _refuse_text_and_writers(file: IO[bytes]) -> None:
    # The wrapper of a temporary file is not a TextIOBase, so read nothing and test the type.
    try:
        is_text = isinstance(cast(object, file), io.TextIOBase) or isinstance(file.read(0), str)
    except io.UnsupportedOperation as error:
        raise TypeError(
            'The file is open for writing only; open it with mode "rb" (or "w+b", to write first).'
        ) from error
    if is_text:
        raise TypeError('The file is open in text mode; open it with mode "rb".')


class _Window(io.RawIOBase):
    """An independent reader of a part of a shared seekable file."""

    def __init__(
        self,
        file: IO[bytes],
        lock: threading.Lock,
        start: int,
        size: int,
        check: Callable[[], object],
    ) -> None:
        self._file = file
        self._lock = lock  # guards the file's position; all windows of the file share it
        self._start = start
        self._size = size
        self._check = check  # raises SourceChanged
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        with self._lock:
            self._file.seek(self._start + self._position)
            data = self._file.read(wanted)
            if cast(object, data) is None:
                raise BlockingIOError("The file is non-blocking and has no bytes now.")
            if not data or self._position + len(data) >= self._size:
                self._check()
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _pieces(file: IO[bytes], first: bytes = b"") -> Iterator[bytes]:
    """The bytes of a source until its end; a non-blocking one is waited for.

    Raises:
        TypeError: the source gives something else than bytes.
        TimeoutError: a non-blocking source gave nothing for too long.
    """
    if first:
        yield first
    while True:
        chunk = cast(object, file.read(CHUNK))
        if chunk is None:
            _wait_for(file)
            continue
        if not isinstance(chunk, bytes):
            raise TypeError(f"The file gave {type(chunk).__name__}; open it in binary mode.")
        if not chunk:
            return
        yield chunk


def _wait_for(file: IO[bytes]) -> None:
    """Wait until a non-blocking source has bytes or is at its end."""
    try:
        ready = wait_until_readable(file.fileno(), _SILENCE)
    except (AttributeError, OSError, ValueError) as error:
        raise BlockingIOError(
            "The file is non-blocking, has no bytes now, and cannot be waited for. Make it a "
            "blocking one, or pass its bytes."
        ) from error
    if not ready:
        raise TimeoutError(f"The non-blocking file gave no byte for {_SILENCE:g} seconds.")


# -- copies --


class _Spool(tempfile.SpooledTemporaryFile[bytes]):
    """A spooled file that the blob and its readers share.

    The collector closes it after the last of them, on purpose and without a ResourceWarning.
    """

    def __del__(self) -> None:
        self.close()  # the standard library would warn otherwise


def spooled(chunks: Iterable[bytes], max_bytes: int) -> Source:
    """Copy bytes into memory, or into an anonymous temporary file when they are over 1 MB.

    Raises:
        BlobTooLarge: there are more than `max_bytes`.
        Exception: as the chunks.
    """
    spool = _Spool(max_size=_SPOOL)
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise too_large(f"The source has more than {size - 1:,} bytes", max_bytes)
            spool.write(chunk)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return window_source(cast(BinaryIO, spool), 0, size)
