"""The media store: blobs are objects whose keys are a prefix and the media id.

A blob is sent in parts while it is written. The commit makes an object of the parts, atomically.
SHA-256 proves that the stored bytes are right: the service's digests of the parts, or, where the
service has none, the digest of the object when it is read back.
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
"""Bytes of each part but the last: S3's minimum, and the most that a writer holds in memory."""

_BUFFER = 256 * 1024
_LONGEST_LOCATION = 7 * 24 * 3600  # seconds; the longest validity of a presigned URL
_CONTENT_TYPE = "application/octet-stream"
logger = logging.getLogger(__name__)


class S3MediaStore(MediaStore):
    """Keeps blobs in a bucket. Thread-safe; any number of gateways may share a prefix.

    A blob that is being written is also in an anonymous temporary file. S3 does not return the
    parts of an unfinished upload, and a chunk with a wrong checksum may end in the middle of a
    part, which must then be sent again.

    Args:
        address: the bucket and the prefix.

    Raises:
        OSError: the bucket does not exist, or cannot be reached.
    """

    threads = 12  # each may hold a part in memory

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
            PluginError: the URL has another form.
            OSError: the bucket does not exist, or cannot be reached.
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
        if not MEDIA_ID.fullmatch(media_id):  # never a key outside the prefix
            raise FileNotFoundError(errno.ENOENT, "No media id", media_id)
        return _S3Object(self._client, self._address.bucket, f"{self._address.prefix}/{media_id}")


class _S3Object:
    """One object of the bucket, which may not exist, and the requests about it."""

    def __init__(self, client: S3Client, bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key

    def get(self, start: int = 0, etag: str | None = None) -> tuple[Body, int, str]:
        """The bytes from `start` on, their number, and the object's ETag."""
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
        """A presigned URL for GET.

        The object is checked first, because a client that follows the URL cannot tell a missing
        object from a wrong URL.
        """
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
        """Begin a multipart upload. Returns its id."""
        with os_errors(f"storing {self._key}"):
            begun = self._client.create_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                ContentType=_CONTENT_TYPE,
                ChecksumAlgorithm="SHA256",
            )
        return begun["UploadId"]

    def put_part(self, upload_id: str, number: int, data: bytes) -> Part:
        """Send a part. It replaces an earlier part of the same number."""
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
        """Abort a multipart upload."""
        with os_errors(f"aborting the upload of {self._key}"):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=upload_id
            )

    def state(self) -> tuple[int, str]:
        """The object's size, and its SHA-256 in base64, which is "" where the service has none.

        The SHA-256 of an object of parts is the digest of the digests of its parts.
        """
        with os_errors(f"looking at {self._key}"):
            found = self._client.head_object(
                Bucket=self._bucket, Key=self._key, ChecksumMode="ENABLED"
            )
        # Some services add the number of parts after a hyphen.
        return found["ContentLength"], found.get("ChecksumSHA256", "").partition("-")[0]


class _S3Reader(io.RawIOBase):
    """Reads an object, with a new request after each seek.

    The first request is for the whole object, so that an object that is deleted meanwhile can still
    be read to its end.
    """

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
    """Writes a blob. A full part is sent when a byte follows it."""

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
        del self._parts[size // PART_SIZE :]  # a truncated part is sent again

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
                logger.warning("parts stay until the lifecycle rule removes them: %s", error)

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
        """The part of the file that begins at `start`."""
        self._file.seek(start)
        data = self._file.read(PART_SIZE)
        self._file.seek(self._size)
        return data

    def _prove(self, expected: str) -> None:
        """Check the stored object. Raises OSError, and removes it, when its bytes are wrong."""
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
