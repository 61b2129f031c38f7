"""The part of boto3 that the store uses: the calls, their timeouts, and their errors as OSError."""

# ruff: noqa: N803  boto3's arguments have the names of S3

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypedDict, cast

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from .address import S3Address

_CONNECT_TIMEOUT = 5.0  # seconds
_READ_TIMEOUT = 15.0  # seconds without a byte
_ATTEMPTS = 3
_POOL = 32  # connections that are kept open; further reads at once open more
_UNKNOWN = frozenset({"NoSuchKey", "NotFound", "404"})


class Body(Protocol):
    """The body of a response, as a stream."""

    def read(self, size: int) -> bytes: ...
    def close(self) -> None: ...


class Found(TypedDict, total=False):
    """The service's response about an object."""

    Body: Body
    ContentLength: int
    ETag: str
    ChecksumSHA256: str


class Begun(TypedDict):
    """A multipart upload."""

    UploadId: str


class Part(TypedDict):
    """One part of a multipart upload."""

    PartNumber: int
    ETag: str
    ChecksumSHA256: str


class Sent(TypedDict):
    """A part that the service has stored."""

    ETag: str


Rule = Mapping[str, object]


class Rules(TypedDict):
    """A bucket's lifecycle configuration."""

    Rules: Sequence[Rule]


class S3Client(Protocol):
    """The used methods of boto3's S3 client. Thread-safe."""

    def get_object(
        self, *, Bucket: str, Key: str, Range: str = ..., IfMatch: str = ...
    ) -> Found: ...
    def head_object(self, *, Bucket: str, Key: str, ChecksumMode: str) -> Found: ...
    def head_bucket(self, *, Bucket: str) -> object: ...
    def delete_object(self, *, Bucket: str, Key: str) -> object: ...
    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentType: str,
        ChecksumAlgorithm: str,
        ChecksumSHA256: str,
    ) -> object: ...
    def create_multipart_upload(
        self, *, Bucket: str, Key: str, ContentType: str, ChecksumAlgorithm: str
    ) -> Begun: ...
    def upload_part(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        PartNumber: int,
        Body: bytes,
        ChecksumAlgorithm: str,
        ChecksumSHA256: str,
    ) -> Sent: ...
    def complete_multipart_upload(
        self, *, Bucket: str, Key: str, UploadId: str, MultipartUpload: Mapping[str, Sequence[Part]]
    ) -> object: ...
    def abort_multipart_upload(self, *, Bucket: str, Key: str, UploadId: str) -> object: ...
    def generate_presigned_url(
        self, name: str, *, Params: Mapping[str, str], ExpiresIn: int
    ) -> str: ...
    def get_bucket_lifecycle_configuration(self, *, Bucket: str) -> Rules: ...
    def put_bucket_lifecycle_configuration(
        self, *, Bucket: str, LifecycleConfiguration: Rules
    ) -> object: ...
    def close(self) -> None: ...


def connected(address: S3Address) -> S3Client:
    """A client of the service, which has not sent a request yet. boto3 finds the credentials."""
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=_POOL,
        signature_version="s3v4",
        # The store sends its own checksums. Some services other than AWS refuse boto3's defaults.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if address.endpoint else "auto"},
    )
    session = boto3.session.Session()
    region = address.region or session.region_name
    if region is None and address.endpoint:
        region = "us-east-1"  # services without regions accept it
    with os_errors(f"connecting to the bucket {address.bucket!r}"):
        made = session.client(
            "s3", region_name=region, endpoint_url=address.endpoint, config=config
        )
    return cast(S3Client, made)


def error_code(error: ClientError) -> str:
    """The error code of the service."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def os_errors(doing: str) -> Iterator[None]:
    """Raise errors of boto3 in a block as OSError, which is the contract of stores.

    A missing object raises FileNotFoundError.

    Args:
        doing: the action for the message, such as "reading KEY".
    """
    try:
        yield
    except ClientError as error:
        if error_code(error) in _UNKNOWN:
            raise FileNotFoundError(errno.ENOENT, f"S3 has no such object ({doing})") from error
        raise OSError(f"S3 refused {doing}: {error}") from error
    except (BotoCoreError, HTTPError) as error:  # HTTPError: the body broke off
        raise OSError(f"S3 failed at {doing}: {error}") from error
