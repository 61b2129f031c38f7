"""Blob: bytes with a name and a content type, and conversions from and to other forms.

A blob opens its source for each reader and does not hold the bytes (unless they were given as
bytes), so a 30 MB file costs no memory. The size is known without reading.
"""

from __future__ import annotations

import base64
import contextlib
import io
import mimetypes
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, TypeAlias

from ..image_header import image_dimensions, sniff_content_type
from .file_names import plain_name, reserved_path
from .sources import CHUNK, MEDIA_LIMIT, BlobTooLarge, Opener, Source, file_source, path_source

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CHUNK", "MEDIA_LIMIT", "Blob", "BlobTooLarge", "Payload", "atomic_write"]

Payload: TypeAlias = "Blob | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
"""A source for an upload: a blob, a path (`str` or path-like), bytes-like, or a binary file."""


class Blob:
    """Bytes with a name and a content type.

    The `from_…` constructors make blobs. A blob is immutable. Any number of readers on any threads
    may `open()` it at once, as long as its source is unchanged: the file is not deleted, and the
    file object is not closed or read by other code. A reader of a file whose size or time of
    modification has changed raises OSError, at the file's end at the latest.

    Attributes:
        size: the number of bytes.
        name: a file name, possibly empty. It is never a path: only the last part of a given name
            is kept, control characters become underscores, and names that Windows reserves get one
            in front. So `folder / blob.name` stays inside the folder.
        content_type: a MIME type; `application/octet-stream` when it is unknown.
    """

    __slots__ = ("_open", "content_type", "name", "size")

    def __init__(self, opener: Opener, size: int, name: str, content_type: str | None) -> None:
        self._open = opener
        self.size = size
        self.name = plain_name(name)
        self.content_type = content_type or self._guess_content_type()

    def __repr__(self) -> str:
        return f"<Blob {self.name!r} {self.content_type} {self.size:,} bytes>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Blob):
            return NotImplemented
        return self.size == other.size and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # equal by content, which costs too much to hash

    # -- from --

    @classmethod
    def of(cls, payload: Payload) -> Blob:
        """A blob of any payload: a blob, a path (`str` or path-like), bytes, or a binary file.

        Raises:
            TypeError: the payload is of another type.
            OSError: as `from_path`.
        """
        if isinstance(payload, Blob):
            return payload
        if isinstance(payload, (str, os.PathLike)):
            return cls.from_path(payload)
        if isinstance(payload, (bytes, bytearray, memoryview)):
            return cls.from_bytes(payload)
        if hasattr(payload, "read"):
            return cls.from_file(payload)
        raise TypeError(
            f"payload must be a path, bytes, a binary file or a Blob, not {type(payload).__name__}."
        )

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        content_type: str | None = None,
        max_bytes: int = MEDIA_LIMIT,
        timeout: float = 10.0,
    ) -> Blob:
        """A blob of a local file. The file is opened now, as a check, and again by each reader.

        A FIFO, a process substitution of the shell, or a file of /proc has no size; it is read now,
        as `from_file` reads an unseekable file.

        Args:
            path: the file; no folder, device or socket.
            name: the blob's name; None for the path's last part.
            content_type: the MIME type; None to guess it.
            max_bytes, timeout: the limits in bytes and seconds for a file that is read now.

        Raises:
            OSError: the file is missing, not readable, a folder, a device or a socket.
            TimeoutError: the file that is read now did not end within `timeout` seconds.
            BlobTooLarge: the file that is read now has more than `max_bytes` bytes.
        """
        path = Path(path)
        source = path_source(path, max_bytes, timeout)
        return cls._of_source(source, path.name if name is None else name, content_type)

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        name: str = "",
        content_type: str | None = None,
    ) -> Blob:
        """A blob of bytes in memory. `bytes` are not copied; other bytes-like objects are."""
        data = bytes(data)
        return cls(lambda: io.BytesIO(data), len(data), name, content_type)

    @classmethod
    def from_file(
        cls,
        file: IO[bytes],
        *,
        name: str | None = None,
        content_type: str | None = None,
        max_bytes: int = MEDIA_LIMIT,
    ) -> Blob:
        """A blob of a binary file object, from its present position to its end.

        A seekable file is read in place: do not close or read it until the transfer is done. Any
        other file (a pipe, a socket, an HTTP body) is read now, to its end. If it has more than 1
        MB, it is copied to an anonymous temporary file. A non-blocking file is waited for.

        Raises:
            TypeError: the file is open in text mode, or for writing only.
            ValueError: the file's position is at its end or beyond, and the file is not empty.
            BlobTooLarge: an unseekable file has more than `max_bytes` bytes.
            TimeoutError: a non-blocking file gave nothing for 30 seconds.
        """
        source = file_source(file, max_bytes)
        if name is None:
            given = getattr(file, "name", "")
            name = given if isinstance(given, str) else ""
        return cls._of_source(source, name, content_type)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        name: str | None = None,
        max_bytes: int = MEDIA_LIMIT,
        timeout: float = 30.0,
    ) -> Blob:
        """A blob of the body of an HTTP GET, fetched now (the reference guide's "network image").

        Fetch only addresses that you trust: this machine sends the request.

        Args:
            url: an http:// or https:// URL; redirects are followed.
            name: the blob's name; None for the file name in the Content-Disposition header, or else
                the last part of the URL's path.
            max_bytes: the limit for the body, in bytes.
            timeout: seconds for the whole fetch: name resolution, redirects, headers and body.

        Raises:
            ValueError: the URL has another scheme.
            BlobTooLarge: the body is larger than `max_bytes`.
            TimeoutError: the body did not arrive within `timeout` seconds.
            OSError: the fetch failed (the errors of `requests` are `OSError`).
        """
        from .fetch import fetch

        fetched = fetch(url, max_bytes, timeout)
        return cls._of_source(
            fetched.source, fetched.name if name is None else name, fetched.content_type or None
        )

    @classmethod
    def from_data_url(cls, url: str, *, name: str = "", max_bytes: int = MEDIA_LIMIT) -> Blob:
        """A blob of the bytes in a `data:` URL, in base64 or percent-encoded.

        The URL is read as `fetch()` of browsers reads it: line breaks and a fragment do not count,
        and base64 may lack its padding.

        Raises:
            ValueError: it is not a data URL, or its base64 is damaged.
            BlobTooLarge: it holds more than `max_bytes` bytes.
        """
        from .data_url import read_data_url

        data, content_type = read_data_url(url, max_bytes)
        return cls.from_bytes(data, name=name, content_type=content_type)

    @classmethod
    def _of_source(cls, source: Source, name: str, content_type: str | None) -> Blob:
        return cls(source.open, source.size, name, content_type)

    # -- to --

    def open(self) -> BinaryIO:
        """Open a seekable binary reader at the first byte. The caller closes it."""
        return self._open()

    def to_bytes(self) -> bytes:
        """All bytes, in memory."""
        with self.open() as file:
            return file.read()

    def to_data_url(self) -> str:
        """The blob as a base64 `data:` URL, which is a third larger than the bytes."""
        return f"data:{self.content_type};base64,{base64.b64encode(self.to_bytes()).decode()}"

    def to_image(self) -> Image:
        """Decode the blob as a Pillow picture (`pip install rtm-sync[thumbnails]`).

        Raises:
            ImportError: Pillow is not installed.
            OSError: Pillow does not know the format.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise ImportError(
                "Blob.to_image() needs Pillow: pip install rtm-sync[thumbnails]"
            ) from error
        with self.open() as file:
            image = Image.open(file)
            image.load()
        return image

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the bytes to a file, which appears whole or not at all.

        Args:
            path: an existing folder, for a file with the blob's name (made safe, and never over
                another file); or the path of a file, which replaces an older one.

        Returns:
            The path of the file.

        Raises:
            OSError: the folder is missing, not writable or full, or the blob's file was changed. No
                partial file remains.
        """
        path = Path(path)
        if path.is_dir():
            with reserved_path(path, self.name) as reserved:
                self._write(reserved)
            return reserved
        self._write(path)
        return path

    def _write(self, path: Path) -> None:
        with self.open() as source, atomic_write(path) as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)

    def dimensions(self) -> tuple[int, int] | None:
        """Width and height in pixels, from the header of a JPEG, PNG, BMP, GIF or WebP.

        Returns:
            None for other content.
        """
        with self.open() as file:
            return image_dimensions(file)

    def _guess_content_type(self) -> str:
        guessed = mimetypes.guess_type(self.name)[0] if self.name else None
        if guessed is None and self.size:
            with self.open() as file:
                guessed = sniff_content_type(file.read(16))
        return guessed or "application/octet-stream"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write the file `path` atomically.

    Yields a binary file in the same folder, so that the final rename is atomic. When the block
    raises an exception, that file is removed and an old file at `path` is unchanged.
    """
    # 50 characters are at most 200 bytes; a file name may have 255.
    part = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
