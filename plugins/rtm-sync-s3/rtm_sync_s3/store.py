"""The media store: blobs are objects, named by media id under a prefix.

A blob goes out in parts as it comes in; the parts become an object, whole and at once, with the
commit. What was sent is proved by SHA-256: the service's own of each part, or, where it has none,
by reading the object back.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import logging
import os
import tempfile
from typing import BinaryIO, cast

from rtm_sync.hub.media import MEDIA_ID, MediaStore, MediaWriter, content_disposition
from rtm_sync.protocol import MediaInfo

from .address import S3Address
from .lifecycle import ensure_rule
from .service import Body, Part, S3Client, connected, os_errors

PART_SIZE = 5 * 1024 * 1024
"""Bytes of a part but the last: the least that S3 takes, and the most a writer has in memory."""

_BUFFER = 256 * 1024
_LONGEST_LOCATION = 7 * 24 * 3600  # seconds; a presigned URL cannot hold longer
_CONTENT_TYPE = "application/octet-stream"
logger = logging.getLogger(__name__)


class S3MediaStore(MediaStore):
    """Keeps blobs in a bucket. Thread-safe; any number of gateways may share a prefix.

    What is on its way in is in a temporary file as well, which has no name: S3 does not give back
    the parts of an upload, and a chunk that fails its checksum may be cut off in the middle of one.

    Args:
        address: where in S3.

    Raises:
        OSError: the bucket does not exist or cannot be reached.
    """

    threads = 12  # each may have a part in memory

    def __init__(self, address: S3Address) -> None:
        self._address = address
        self._client = connected(address)
        try:
            ensure_rule(self._client, address)
        except BaseException:
            self._client.close()
            raise

    @classmethod
    def from_url(cls, url: str) -> S3MediaStore:
        """The store of `s3://bucket/prefix?endpoint=URL&region=NAME&days=7&redirect=1`.

        Raises:
            PluginError: the URL is of another form.
            OSError: the bucket does not exist or cannot be reached.
        """
        return cls(S3Address.parse(url))

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        return _S3Writer(self._object(media_id))

    def open(self, media_id: str) -> BinaryIO:
        raw = _S3Reader(self._object(media_id))
        return cast(BinaryIO, io.BufferedReader(raw, _BUFFER))

    def delete(self, media_id: str) -> None:
        self._object(media_id).delete()

    def location(self, info: MediaInfo, seconds: float) -> str | None:
        if not self._address.redirect:
            return None
        return self._object(info.media_id).location(info, seconds)

    def close(self) -> None:
        self._client.close()

    def _object(self, media_id: str) -> _S3Object:
        if not MEDIA_ID.fullmatch(media_id):  # a hub never asks for one; nor may it by mistake
            raise FileNotFoundError(errno.ENOENT, "No media id", media_id)
        return _S3Object(self._client, self._address.bucket, f"{self._address.prefix}/{media_id}")


class _S3Object:
    """One object of the bucket, there or not: what can be asked of the service about it."""

    def __init__(self, client: S3Client, bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key

    def get(self, start: int = 0, etag: str | None = None) -> tuple[Body, int, str]:
        """The bytes from `start` on, how many there are, and the object's ETag."""
        with os_errors(f"reading {self._key}"):
            if etag is None:
                found = self._client.get_object(Bucket=self._bucket, Key=self._key)
            else:
                found = self._client.get_object(
                    Bucket=self._bucket, Key=self._key, Range=f"bytes={start}-", IfMatch=etag
                )
        return found["Body"], found["ContentLength"], found["ETag"]

    def delete(self) -> None:
        with os_errors(f"deleting {self._key}"), contextlib.suppress(FileNotFoundError):
            self._client.delete_object(Bucket=self._bucket, Key=self._key)

    def location(self, info: MediaInfo, seconds: float) -> str:
        """A presigned URL of GET. Asks first: whoever follows it could not tell an object that is
        gone from a URL that is wrong."""
        self.state()
        with os_errors(f"signing a URL of {self._key}"):
            return self._client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": self._key,
                    "ResponseContentType": info.content_type,
                    "ResponseContentDisposition": content_disposition(info),
                },
                ExpiresIn=max(1, min(int(seconds), _LONGEST_LOCATION)),
            )

    def put(self, data: bytes) -> None:
        """Make the object of these bytes."""
        with os_errors(f"storing {self._key}"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._key,
                Body=data,
                ContentType=_CONTENT_TYPE,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_base64(hashlib.sha256(data).digest()),
            )

    def begin_parts(self) -> str:
        """Begin a multipart upload; returns its id."""
        with os_errors(f"storing {self._key}"):
            begun = self._client.create_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                ContentType=_CONTENT_TYPE,
                ChecksumAlgorithm="SHA256",
            )
        return begun["UploadId"]

    def put_part(self, upload_id: str, number: int, data: bytes) -> Part:
        """Send a part; one that was sent under its number is replaced."""
        checksum = _base64(hashlib.sha256(data).digest())
        with os_errors(f"storing {self._key}"):
            sent = self._client.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=upload_id,
                PartNumber=number,
                Body=data,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
            )
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

    def join_parts(self, upload_id: str, parts: list[Part]) -> None:
        """Make the object of the parts."""
        with os_errors(f"storing {self._key}"):
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )

    def drop_parts(self, upload_id: str) -> None:
        """Give a multipart upload up."""
        with os_errors(f"giving {self._key} up"):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=upload_id
            )

    def state(self) -> tuple[int, str]:
        """The object's size, and its SHA-256 in base64 ("" where the service has none).

        Of an object of parts, it is the digest of the parts' digests.
        """
        with os_errors(f"looking at {self._key}"):
            found = self._client.head_object(
                Bucket=self._bucket, Key=self._key, ChecksumMode="ENABLED"
            )
        # The number of parts may stand after the digest.
        return found["ContentLength"], found.get("ChecksumSHA256", "").partition("-")[0]


class _S3Reader(io.RawIOBase):
    """Reads an object; one request for each place it is read from. Begins with one for the whole,
    so that an object that is deleted meanwhile is still read to its end."""

    def __init__(self, source: _S3Object) -> None:
        super().__init__()
        self._source = source
        self._position = 0
        self._body: Body | None
        self._body, self._size, self._etag = source.get()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        if start + offset != self._position:
            self._drop_body()
            self._position = start + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._position >= self._size:
            return 0
        if self._body is None:
            self._body, _, _ = self._source.get(self._position, self._etag)
        with os_errors("reading on"):
            data = self._body.read(len(buffer))
        if not data:
            raise OSError(f"S3 ended after {self._position:,} of {self._size:,} bytes.")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._drop_body()
        super().close()

    def _drop_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()


class _S3Writer(MediaWriter):
    """A blob on its way out. Parts are sent as soon as they are full and something follows."""

    def __init__(self, target: _S3Object) -> None:
        self._target = target
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  until commit or abort
        self._size = 0
        self._upload_id: str | None = None
        self._parts: list[Part] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self._size += written
            view = view[written:]
        while self._size - self._sent > PART_SIZE:
            self._send()

    def truncate(self, size: int) -> None:
        self._file.truncate(size)
        self._file.seek(size)
        self._size = size
        del self._parts[size // PART_SIZE :]  # a part that is cut is sent again

    def commit(self) -> None:
        if self._upload_id is None:
            data = self._read(0)
            self._target.put(data)
            digests = hashlib.sha256(data).digest()
        else:
            if self._sent < self._size:
                self._send()
            self._target.join_parts(self._upload_id, self._parts)
            self._upload_id = None
            joined = b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in self._parts)
            digests = hashlib.sha256(joined).digest()
        self._prove(_base64(digests))
        self._file.close()

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        upload_id, self._upload_id = self._upload_id, None
        if upload_id is not None:
            try:
                self._target.drop_parts(upload_id)
            except OSError as error:
                logger.warning("parts stay until the bucket's rule removes them: %s", error)

    @property
    def _sent(self) -> int:
        return len(self._parts) * PART_SIZE

    def _send(self) -> None:
        """Send the next part."""
        if self._upload_id is None:
            self._upload_id = self._target.begin_parts()
        number = len(self._parts)
        data = self._read(number * PART_SIZE)
        self._parts.append(self._target.put_part(self._upload_id, number + 1, data))

    def _read(self, start: int) -> bytes:
        """The part of the file that begins there."""
        self._file.seek(start)
        data = self._file.read(PART_SIZE)
        self._file.seek(self._size)
        return data

    def _prove(self, expected: str) -> None:
        """Raises OSError, and removes the object, when it is not what was written."""
        size, found = self._target.state()
        same = found == expected if found else self._read_back() == self._sha256()
        if size != self._size or not same:
            self._target.delete()
            raise OSError("S3 stored other bytes than were sent; they have been removed.")

    def _read_back(self) -> bytes:
        with io.BufferedReader(_S3Reader(self._target), _BUFFER) as reader:
            return _digest(cast(BinaryIO, reader))

    def _sha256(self) -> bytes:
        self._file.seek(0)
        return _digest(cast(BinaryIO, self._file))


def _digest(file: BinaryIO) -> bytes:
    sha256 = hashlib.sha256()
    while data := file.read(_BUFFER):
        sha256.update(data)
    return sha256.digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
