"""The destination of a download's bytes, with their count and digest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

from ..blob import Blob
from ..errors import DownloadMediaError
from ..protocol.values import MediaInfo
from .control import TransferControl


class Sink:
    """The destination of a download's bytes, with their count and digest.

    Args:
        file: a writable binary file; bytes are appended from its present position.
        name: the destination's name in error messages.

    Attributes:
        size: the number of bytes that the sink has.
        whole: the SHA-256 of the whole medium, in hexadecimal; "" until it is known.
        first, stop: the bytes that the sink wants, from `first` up to but not including `stop`, or
            to the medium's end. A sink for a whole medium wants all.
    """

    first = 0
    stop: int | None = None

    def __init__(self, file: BinaryIO, name: str = "The destination") -> None:
        self._file = file
        self._name = name
        self._start = file.tell() if file.seekable() else None
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.whole = ""

    @property
    def position(self) -> int:
        """The position in the medium of the next byte that the sink wants."""
        return self.first + self.size

    def end(self, info: MediaInfo) -> int:
        """The position in the medium after the last byte that the sink wants."""
        return info.size if self.stop is None else min(self.stop, info.size)

    @property
    def is_part(self) -> bool:
        """Whether the sink wants a part only, which cannot be checked by the digest."""
        return self.first > 0 or self.stop is not None

    def matches(self, info: MediaInfo) -> bool:
        """Whether the sink's bytes have the medium's digest. Always True for a part."""
        return self.is_part or self.sha256() == info.sha256

    def begin(self, info: MediaInfo) -> None:
        """Record the medium whose bytes will follow. Raises like `write`."""
        self.whole = info.sha256

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            DownloadMediaError: FAILURE, the file cannot be written.
        """
        with self._writing():
            left = data
            while left:
                taken = self._file.write(left)
                if taken is None and not isinstance(self._file, io.RawIOBase):
                    break  # a writer of the application that takes all bytes and returns None
                if not taken:
                    raise BlockingIOError(errno.EAGAIN, "It takes no more bytes without waiting")
                left = left[taken:]  # an unbuffered file may take only a part
        self._sha256.update(data)
        self.size += len(data)

    def sha256(self) -> str:
        """The digest of all bytes so far, in hexadecimal."""
        return self._sha256.hexdigest()

    def restart(self) -> bool:
        """Discard the bytes and start again. Returns False when the file cannot seek."""
        if self._start is None and self.size:
            return False
        if self._start is not None:
            with self._writing():
                self._file.seek(self._start)
                self._file.truncate()
        self._sha256 = hashlib.sha256()
        self.size = 0
        return True

    def start_over(self) -> None:
        """As `restart`, for bytes that must go.

        Raises:
            DownloadMediaError: FAILURE, the file cannot go back; or as `write`.
        """
        if not self.restart():
            raise DownloadMediaError.named(
                "FAILURE",
                f"{self._name} has {self.size:,} bytes of an attempt that failed and cannot go "
                "back to its beginning. Download to a path or to a seekable file.",
            )

    def resume(self, info: MediaInfo) -> bool:
        """Prepare for a medium's bytes from `size` on; returns whether there are some already.

        Bytes are kept only where they are the beginning of this very medium.

        Raises:
            DownloadMediaError: as `start_over`.
        """
        if self.size and self.whole != info.sha256:
            self.start_over()
        self.begin(info)
        return self.size > 0

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an error of the operating system into the download's error."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise DownloadMediaError.named(
                "FAILURE",
                f"{self._name} cannot be written after {self.size:,} bytes: "
                f"{error.strerror or error}." + (" Make room, or download elsewhere." * full),
                error,
            ) from error


class PartSink(Sink):
    """The destination of a part of a medium. A download resumes, and never starts over.

    Args:
        file: a writable binary file.
        first: the position of the first byte.
        stop: the position after the last byte; None for the medium's end.
        name: the destination's name in error messages.
    """

    def __init__(self, file: BinaryIO, first: int, stop: int | None, name: str) -> None:
        super().__init__(file, name)
        self.first = first
        self.stop = stop

    def begin(self, info: MediaInfo) -> None:
        """Record the medium.

        Raises:
            DownloadMediaError: INVALID_ARGUMENT, the part begins beyond the medium's end.
        """
        if self.first > info.size:
            raise DownloadMediaError.named(
                "INVALID_ARGUMENT",
                f"start is {self.first:,}; the medium has {info.size:,} bytes.",
            )
        super().begin(info)

    def write(self, data: bytes) -> None:
        left = len(data) if self.stop is None else max(0, self.stop - self.position)
        super().write(data[:left])

    def of_whole(self) -> Sink:
        """A sink for the whole medium that passes the wanted part on, and drops the rest."""
        return _CuttingSink(self)


class _CuttingSink(Sink):
    def __init__(self, part: PartSink) -> None:
        super().__init__(cast(BinaryIO, _NoFile()))
        self._part = part

    def begin(self, info: MediaInfo) -> None:
        super().begin(info)
        self._part.begin(info)

    def write(self, data: bytes) -> None:
        self._part.write(data[max(0, self._part.position - self.size) :])
        super().write(data)


class _NoFile(io.RawIOBase):
    """A file that drops what is written to it. It cannot seek."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return len(cast(bytes, data))


class MediaCarrier(Protocol):
    """Moves the bytes of media. `Transport` documents the methods."""

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo: ...

    def download_part(
        self, media_id: str, part: PartSink, control: TransferControl
    ) -> MediaInfo: ...

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo: ...

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo: ...
