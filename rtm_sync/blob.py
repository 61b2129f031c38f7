"""Blob: bytes with a name and a content type, from wherever bytes come, and back.

A blob remembers how to open its bytes, it does not hold them (unless they were given as bytes), so
a 30 MB file costs no memory. It knows its size without reading.
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
"""Bytes moved at once. Measured: from 64 KB to 1 MB the speed is the same, memory is not."""

_SPOOL = (
    1024 * 1024
)  # bytes of an unseekable source kept in memory before a temporary file takes over
_DATA_URL = re.compile(r"data:(?P<type>[^,;]*(?:;[^,;=]+=[^,;]*)*)(?P<base64>;base64)?,", re.I)

Payload: TypeAlias = "Blob | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
"""What can be uploaded: a blob, a path (`str` or path-like), bytes-like, or a binary file."""


class BlobTooLarge(ValueError):
    """A source holds more bytes than the limit."""


class Blob:
    """Bytes with a name and a content type.

    Made by the `from_…` constructors. Immutable; any number of readers may `open()` it at once
    and from any thread, as long as its source stays (the file is not deleted or changed, the file
    object not closed or read by others).

    Attributes:
        size: bytes.
        name: a file name, possibly empty.
        content_type: a MIME type; `application/octet-stream` when unknown.
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

    __hash__ = None  # type: ignore[assignment]  # equal by content, which is too dear to hash

    # -- from --

    @classmethod
    def of(cls, payload: Payload) -> Blob:
        """Take any payload: a blob as it is, a `str` or path-like as a path, bytes, a binary file.

        Raises:
            TypeError: something else.
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
        """A local file. Opened now to see that it can be read, and again by each reader.

        Raises:
            OSError: missing, a folder, or not readable.
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
        """Bytes in memory; `bytes` are not copied, other bytes-likes once."""
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
        """A binary file object, from its present position to its end.

        A seekable one is read in place: leave it open and alone until the transfer is done. Any
        other (a pipe, a socket, an HTTP body) is read now, the part over 1 MB into an anonymous
        temporary file.

        Raises:
            TypeError: a text file.
            BlobTooLarge: an unseekable source gave more than `max_bytes`.
        """
        # A temporary file's wrapper is no TextIOBase, so ask what it reads.
        if isinstance(cast(object, file), io.TextIOBase) or isinstance(file.read(0), str):
            raise TypeError('The file is open in text mode; open it with mode "rb".')
        if name is None:
            given = getattr(file, "name", "")
            name = Path(given).name if isinstance(given, str) else ""
        try:
            start = file.tell()
            file.seek(0, io.SEEK_END)  # whose own answer Python 3.10's spooled file lacks
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
        """The body of an HTTP GET (the reference guide's "network image"), fetched now.

        Only fetch addresses you trust: the request leaves from this machine.

        Args:
            url: http:// or https://; redirects are followed.
            max_bytes: refuse more than this.
            timeout: seconds for the whole fetch.

        Raises:
            ValueError: another scheme.
            BlobTooLarge: the body is larger than `max_bytes`.
            TimeoutError: not done in `timeout` seconds.
            OSError: the fetch failed (`requests` errors are `OSError`).
        """
        import requests
        import urllib3

        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"url must be http:// or https://, not {url[:80]!r}.")
        deadline = time.monotonic() + timeout

        late = TimeoutError(f"{url[:200]} did not arrive within {timeout:g} seconds.")

        def body(response: requests.Response) -> Iterator[bytes]:
            # One receive at a time: a full-sized read would wait, however slowly its bytes drip in.
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
        except urllib3.exceptions.HTTPError as error:  # no OSError, as those of requests are
            raise requests.ConnectionError(error) from error

    @classmethod
    def from_data_url(cls, url: str, *, name: str = "", max_bytes: int = MEDIA_LIMIT) -> Blob:
        """The bytes in a `data:` URL (RFC 2397), base64 or percent-encoded.

        Raises:
            ValueError: not a data URL, or its base64 is damaged.
            BlobTooLarge: it holds more than `max_bytes`.
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
        if not content_type or content_type.startswith(";"):  # RFC 2397: the type may be left out
            content_type = f"text/plain{content_type}"
        return cls.from_bytes(data, name=name, content_type=content_type)

    # -- to --

    def open(self) -> BinaryIO:
        """A new seekable binary reader at the beginning; the caller closes it."""
        return self._open()

    def to_bytes(self) -> bytes:
        """All bytes, in memory."""
        with self.open() as file:
            return file.read()

    def to_data_url(self) -> str:
        """The blob as a base64 `data:` URL (a third larger than the bytes)."""
        return f"data:{self.content_type};base64,{base64.b64encode(self.to_bytes()).decode()}"

    def to_image(self) -> Image:
        """The picture, by Pillow (`pip install rtm-sync[thumbnails]`).

        Raises:
            ImportError: Pillow is not installed.
            OSError: not a picture that Pillow knows.
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
        """Write the bytes to `path`, which appears whole or not at all. Returns the path.

        Raises:
            OSError: the folder is missing, not writable or full; nothing is left behind.
        """
        with self.open() as source, atomic_write(Path(path)) as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
        return Path(path)

    def dimensions(self) -> tuple[int, int] | None:
        """Width and height in pixels as the header of a JPEG, PNG, BMP, GIF or WebP says."""
        with self.open() as file:
            return image_dimensions(file)

    def _guess_content_type(self) -> str:
        guessed = mimetypes.guess_type(self.name)[0] if self.name else None
        if guessed is None and self.size:
            with self.open() as file:
                guessed = sniff_content_type(file.read(16))
        return guessed or "application/octet-stream"


class _Window(io.RawIOBase):
    """One independent reader of a part of a shared seekable file."""

    def __init__(self, file: IO[bytes], lock: threading.Lock, start: int, size: int) -> None:
        self._file = file
        self._lock = lock  # guards the file's one position; every window of the file shares it
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
    """Kept by the blob and its readers; ends with the last of them, which is no negligence."""

    def __del__(self) -> None:
        self.close()  # without the standard library's ResourceWarning


def _spooled(chunks: Iterable[bytes], max_bytes: int, name: str, content_type: str | None) -> Blob:
    spool = _Spool(max_size=_SPOOL)
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise BlobTooLarge(
                    f"The source gives more than {size - 1:,} bytes; {_limit(max_bytes)}"
                )
            spool.write(chunk)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return Blob.from_file(cast(BinaryIO, spool), name=name, content_type=content_type)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under `path` whole or not at all.

    Yields a binary file beside the target (same folder, so that the final rename is atomic). When
    the block raises, the file is removed and an old file at `path` stays as it was.
    """
    # 50 characters are at most 200 bytes, which leaves room in the 255 of a file name.
    part = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
