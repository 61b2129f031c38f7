"""A medium that can be read while it is still being downloaded."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, BinaryIO, cast

from ..protocol.values import MediaInfo
from .sink import PartSink
from .transfer import Transfer

_SPOOL = 1024 * 1024  # bytes kept in memory before a temporary file takes over
_LOOK_INTERVAL = 1.0  # seconds; a safety net, because the end of a transfer wakes the reader


class MediaStream(io.RawIOBase):
    """A download as a binary file: bytes can be read as they arrive; a read of later bytes waits.

    The download writes into memory, and above 1 MB into an anonymous temporary file. It does not
    wait for the reader, so a slow reader neither delays the download nor costs memory. The stream
    can be sought forwards and backwards. Bytes are returned before the digest of the whole medium
    is checked: a medium is intact only when it was read to its end without an error. Closing the
    stream ends the download. One thread at a time may read.

    `RtmClient.open_media` makes it; use it in a `with` statement. A stream of a part of the medium
    begins at its start, and is at its end where the part ends.
    """

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self._start = start
        self._changed = threading.Condition()  # guards what follows
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL)  # noqa: SIM115  see close
        self._info: MediaInfo | None = None
        self._arrived = start  # the position after the last byte that has arrived
        self._transfer: Transfer[None] | None = None
        self._position = start

    @property
    def info(self) -> MediaInfo:
        """The medium's size, content type, file name and digest. Waits until they arrive.

        Raises:
            DownloadMediaError: the medium does not exist, or cannot be downloaded.
        """
        with self._changed:
            self._wait_until(lambda: self._info is not None)
            assert self._info is not None
            return self._info

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in the medium, in bytes.

        A position from the end waits until the size is known.

        Raises:
            UnsupportedOperation: the position is before the stream's start.
        """
        base = 0
        if whence == os.SEEK_CUR:
            base = self._position
        elif whence == os.SEEK_END:
            base = self.info.size
        position = max(0, base + offset)
        if position < self._start:
            raise io.UnsupportedOperation(
                f"The stream begins at byte {self._start:,}, after {position:,}. Open another one."
            )
        self._position = position
        return position

    def readinto(self, buffer: object) -> int:
        """Read the next bytes that have arrived; waits for at least one byte.

        Raises:
            DownloadMediaError: the download failed.
            ValueError: the stream is closed.
        """
        view = memoryview(cast(bytearray, buffer)).cast("B")
        with self._changed:
            self._wait_until(lambda: self._arrived > self._position)
            self._file.seek(self._position - self._start)
            data = self._file.read(max(0, min(len(view), self._arrived - self._position)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """End the download if it still runs, and free its memory and file. Idempotent."""
        with self._changed:
            if self.closed:
                return
            super().close()
            transfer = self._transfer
            self._file.close()
            self._changed.notify_all()
        if transfer is not None:
            transfer.cancel()

    # -- the download's side --

    def follow(self, transfer: Transfer[None]) -> None:
        """Set the download that fills this stream."""
        with self._changed:
            self._transfer = transfer
        transfer.add_done_callback(self._ended)

    def _ended(self, transfer: Future[None]) -> None:
        with self._changed:
            self._changed.notify_all()

    def begin(self, info: MediaInfo) -> None:
        """Set the medium's description."""
        with self._changed:
            self._info = info
            self._changed.notify_all()

    def append(self, data: bytes) -> int:
        """Append the next bytes. Raises OSError, or ValueError once the stream is closed."""
        with self._changed:
            self._file.seek(self._arrived - self._start)
            self._file.write(data)
            self._arrived += len(data)
            self._changed.notify_all()
        return len(data)

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` is true or the download has succeeded; the caller holds the lock."""
        while True:
            if self.closed:
                raise ValueError("The stream is closed.")
            if ready():
                return
            transfer = self._transfer
            if transfer is not None and transfer.done():
                error = transfer.exception()
                if error is not None:
                    raise error
                return
            self._changed.wait(_LOOK_INTERVAL)


class StreamSink(PartSink):
    """The sink of a stream's download. It cannot restart, because bytes may have been read."""

    def __init__(self, stream: MediaStream, start: int = 0, stop: int | None = None) -> None:
        writer = cast(BinaryIO, _StreamWriter(stream))
        super().__init__(writer, start, stop, "The temporary file")
        self._stream = stream

    def begin(self, info: MediaInfo) -> None:
        super().begin(info)
        self._stream.begin(info)


class _StreamWriter(io.RawIOBase):
    """The writing end of a stream."""

    def __init__(self, stream: MediaStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._stream.append(cast(bytes, data))
