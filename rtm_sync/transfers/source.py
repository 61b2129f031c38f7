"""The bytes of an upload, read from the application's blob."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from ..blob import CHUNK, Blob
from ..blob.sources import SourceChanged
from .control import TransferControl

_CHANGED = (
    "; it was changed while it was uploaded. Upload it when nothing writes to it, or upload a copy."
)


class Source:
    """Reads exactly as many bytes as the upload announced. Not thread-safe.

    Args:
        file: a readable binary file at its first byte.
        size: the announced number of bytes.
        control: the transfer's control.

    Attributes:
        position: the number of bytes read so far.
        size: the announced number of bytes.
    """

    def __init__(self, file: BinaryIO, size: int, control: TransferControl) -> None:
        self._file = file
        self._control = control
        self.size = size
        self.position = 0

    def read(self, most: int = CHUNK) -> bytes:
        """The next bytes; b"" after the last one.

        Raises:
            UploadMediaError: FAILURE, the file has fewer bytes than announced, was modified since
                its blob was made, or cannot be read.
        """
        left = self.size - self.position
        if left <= 0:
            return b""
        with _readable(self._control):
            data = self._file.read(min(most, left))
        if not data:
            ended = f"The source ended after {self.position:,} of {self.size:,} bytes"
            raise self._control.kind.error("FAILURE", ended + _CHANGED)
        self.position += len(data)
        return data


@contextlib.contextmanager
def opened_source(blob: Blob, control: TransferControl) -> Iterator[Source]:
    """Open a blob as a `Source` for the duration of the block.

    Raises:
        UploadMediaError: FAILURE, the blob cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        with _readable(control):
            file = stack.enter_context(blob.open())
        yield Source(file, blob.size, control)


@contextlib.contextmanager
def _readable(control: TransferControl) -> Iterator[None]:
    try:
        yield
    except SourceChanged as error:
        raise control.kind.error("FAILURE", f"{error}{_CHANGED}", error) from error
    except OSError as error:
        raise control.kind.error("FAILURE", f"The source cannot be read: {error}", error) from error
