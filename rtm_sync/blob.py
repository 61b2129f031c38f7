"""Blob: bytes with a name and a content type, and conversions from and to other forms.

A blob opens its source for each reader and does not hold the bytes (unless they were given as
bytes), so a 30 MB file costs no memory. The size is known without reading.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import mimetypes
import os
import re
import secrets
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, TypeAlias, cast

from .image_header import image_dimensions, sniff_content_type

if TYPE_CHECKING:
    from PIL.Image import Image

MEDIA_LIMIT = 30 * 1024 * 1024
"""Bytes in one medium, inclusive. Reference 1.3: 30 MB; 30 × 1024² here."""

CHUNK = 256 * 1024
"""Bytes that are read or written at once. Measured: 64 KB to 1 MB have the same speed."""

_SPOOL = 1024 * 1024  # bytes of an unseekable source in memory; a larger one is a temporary file
_DATA_URL = re.compile(r"data:(?P<type>[^,;]*(?:;[^,;=]+=[^,;]*)*)(?P<base64>;base64)?,", re.I)

Payload: TypeAlias = "Blob | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
"""A source for an upload: a blob, a path (`str` or path-like), bytes-like, or a binary file."""


class BlobTooLarge(ValueError):
    """A source holds more bytes than the limit."""


class Blob:
    """Bytes with a name and a content type.

    The `from_…` constructors make blobs. A blob is immutable. Any number of readers on any threads
    may `open()` it at once, as long as its source is unchanged: the file is not deleted or
    modified, and the file object is not closed or read by other code.

    Attributes:
        size: the number of bytes.
        name: a file name, possibly empty.
        content_type: a MIME type; `application/octet-stream` when it is unknown.
    """

    __slots__ = ("_open", "content_type", "name", "size")

    def __init__(
        self, opener: Callable[[], BinaryIO], size: int, name: str, content_type: str | None
    ) -> None:
        self._open = opener
        self.size = size
        self.name = name
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
    ) -> Blob:
        """A blob of a local file. The file is opened now, as a check, and again by each reader.

        Raises:
            OSError: the file is missing, not readable, or a folder.
        """
        path = Path(path)
        with path.open("rb") as file:  # a folder raises IsADirectoryError here
            size = os.fstat(file.fileno()).st_size
        return cls(lambda: path.open("rb"), size, path.name if name is None else name, content_type)

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
        other file (a pipe, a socket, an HTTP body) is read now. If it has more than 1 MB, it is
        copied to an anonymous temporary file.

        Raises:
            TypeError: the file is open in text mode.
            BlobTooLarge: an unseekable file has more than `max_bytes` bytes.
        """
        # The wrapper of a temporary file is not a TextIOBase, so read nothing and test the type.
        if isinstance(cast(object, file), io.TextIOBase) or isinstance(file.read(0), str):
            raise TypeError('The file is open in text mode; open it with mode "rb".')
        if name is None:
            given = getattr(file, "name", "")
            name = Path(given).name if isinstance(given, str) else ""
        try:
            start = file.tell()
            file.seek(0, io.SEEK_END)  # returns None for Python 3.10's spooled file
            size = file.tell() - start
            file.seek(start)
        except (AttributeError, OSError):
            return _spooled(_chunks(file), max_bytes, name, content_type)
        lock = threading.Lock()
        return cls(lambda: _buffered(_Window(file, lock, start, size)), size, name, content_type)

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
            name: the blob's name; None for the last part of the URL's path.
            max_bytes: the limit for the body, in bytes.
            timeout: seconds for the whole fetch.

        Raises:
            ValueError: the URL has another scheme.
            BlobTooLarge: the body is larger than `max_bytes`.
            TimeoutError: the body did not arrive within `timeout` seconds.
            OSError: the fetch failed (the errors of `requests` are `OSError`).
        """
        import requests
        import urllib3

        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"url must be http:// or https://, not {url[:80]!r}.")
        deadline = time.monotonic() + timeout

        late = TimeoutError(f"{url[:200]} did not arrive within {timeout:g} seconds.")

        def body(response: requests.Response) -> Iterator[bytes]:
            # read1 returns after one receive. A read of CHUNK bytes could outlast the deadline.
            read = getattr(response.raw, "read1", response.raw.read)
            while chunk := read(CHUNK, decode_content=True):
                if time.monotonic() > deadline:
                    raise late
                yield chunk

        try:
            with requests.get(url, stream=True, timeout=(min(10.0, timeout), timeout)) as response:
                response.raise_for_status()
                content_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
                if name is None:
                    path = urllib.parse.urlsplit(response.url).path
                    name = urllib.parse.unquote(path.rpartition("/")[2])
                return _spooled(body(response), max_bytes, name, content_type or None)
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise late from error
        except urllib3.exceptions.HTTPError as error:  # not an OSError, unlike requests errors
            raise requests.ConnectionError(error) from error

    @classmethod
    def from_data_url(cls, url: str, *, name: str = "", max_bytes: int = MEDIA_LIMIT) -> Blob:
        """A blob of the bytes in a `data:` URL (RFC 2397), in base64 or percent-encoded.

        Raises:
            ValueError: it is not a data URL, or its base64 is damaged.
            BlobTooLarge: it holds more than `max_bytes` bytes.
        """
        match = _DATA_URL.match(url)
        if match is None:
            raise ValueError(f"Not a data URL: {url[:40]!r}.")
        body = url[match.end() :]
        if len(body) > 4 * max_bytes:
            raise BlobTooLarge(f"The data URL has {len(body):,} characters; {_limit(max_bytes)}")
        data = urllib.parse.unquote_to_bytes(body)
        if match["base64"]:
            try:
                data = base64.b64decode(data, validate=True)
            except binascii.Error as error:
                raise ValueError(f"The data URL's base64 is damaged: {error}.") from error
        if len(data) > max_bytes:
            raise BlobTooLarge(f"The data URL holds {len(data):,} bytes; {_limit(max_bytes)}")
        content_type = match["type"]
        if not content_type or content_type.startswith(";"):  # RFC 2397: the type is optional
            content_type = f"text/plain{content_type}"
        return cls.from_bytes(data, name=name, content_type=content_type)

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
        """Write the bytes to `path` atomically. Returns the path.

        Raises:
            OSError: the folder is missing, not writable or full. No partial file remains.
        """
        with self.open() as source, atomic_write(Path(path)) as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
        return Path(path)

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


class _Window(io.RawIOBase):
    """An independent reader of a part of a shared seekable file."""

    def __init__(self, file: IO[bytes], lock: threading.Lock, start: int, size: int) -> None:
        self._file = file
        self._lock = lock  # guards the file's position; all windows of the file share it
        self._start = start
        self._size = size
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
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _buffered(window: _Window) -> BinaryIO:
    return io.BufferedReader(window, CHUNK)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        if not isinstance(chunk, bytes):
            raise TypeError(f"The file gave {type(chunk).__name__}; open it in binary mode.")
        yield chunk


def _limit(max_bytes: int) -> str:
    return f"the limit is {max_bytes:,} bytes."


class _Spool(tempfile.SpooledTemporaryFile[bytes]):
    """A spooled file that the blob and its readers share.

    The collector closes it after the last of them, on purpose and without a ResourceWarning.
    """

    def __del__(self) -> None:
        self.close()  # the standard library would warn otherwise


def _spooled(chunks: Iterable[bytes], max_bytes: int, name: str, content_type: str | None) -> Blob:
    spool = _Spool(max_size=_SPOOL)
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise BlobTooLarge(
                    f"The source has more than {size - 1:,} bytes; {_limit(max_bytes)}"
                )
            spool.write(chunk)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return Blob.from_file(cast(BinaryIO, spool), name=name, content_type=content_type)


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
