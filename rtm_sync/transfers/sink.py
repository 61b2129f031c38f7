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
        name: of the destination, for messages.

    Attributes:
        size: the bytes written so far.
        whole: the SHA-256 of the whole medium, of which these bytes are the beginning, in
            hexadecimal; "" before it is known.
    """

    def __init__(self, file: BinaryIO, name: str = "The destination") -> None:
        self._file = file
        self._name = name
        self._start = file.tell() if file.seekable() else None
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.whole = ""

    def begin(self, info: MediaInfo) -> None:
        """Note the medium whose bytes come next. Raises as `write`."""
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
                    break  # the application's own writer, which returns no count
                if not taken:
                    raise BlockingIOError(errno.EAGAIN, "It takes no more bytes without waiting")
                left = left[taken:]  # an unbuffered file may take a part
        self._sha256.update(data)
        self.size += len(data)

    def sha256(self) -> str:
        """Hexadecimal digest of all bytes so far."""
        return self._sha256.hexdigest()

    def restart(self) -> bool:
        """Go back to the beginning; False when the file cannot."""
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
    """Moves media; `Transport` has the contract of each method."""

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo: ...

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo: ...
