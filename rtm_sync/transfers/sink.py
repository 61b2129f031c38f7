"""The destination of a download's bytes, with their count and digest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO, Protocol

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
    """

    def __init__(self, file: BinaryIO, name: str = "The destination") -> None:
        self._file = file
        self._name = name
        self._start = file.tell() if file.seekable() else None
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.whole = ""

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


class MediaCarrier(Protocol):
    """Moves the bytes of media. `Transport` documents the methods."""

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo: ...

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo: ...
