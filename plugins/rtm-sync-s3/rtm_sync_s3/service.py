"""boto3 as far as the store uses it: the calls, their time-outs, and their errors as OSError."""

# ruff: noqa: N803  boto3 names its arguments as S3 does

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
_POOL = 32  # kept-alive connections; more are opened where more is read at once
_UNKNOWN = frozenset({"NoSuchKey", "NotFound", "404"})


class Body(Protocol):
    """The bytes of an answer, as they come."""

    def read(self, size: int) -> bytes: ...
    def close(self) -> None: ...


class Found(TypedDict, total=False):
    """What the service says of an object."""

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
    """A part that was taken."""

    ETag: str


Rule = Mapping[str, object]


class Rules(TypedDict):
    """A bucket's lifecycle configuration."""

    Rules: Sequence[Rule]


class S3Client(Protocol):
    """The calls of boto3's S3 client that are used. Thread-safe."""

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
    """A client of the service; nothing is sent yet. Credentials are found as boto3 does."""
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=_POOL,
        signature_version="s3v4",
        # The checksums are ours; services that are not AWS stumble over the default ones.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if address.endpoint else "auto"},
    )
    session = boto3.session.Session()
    region = address.region or session.region_name
    if region is None and address.endpoint:
        region = "us-east-1"  # what services without regions take
    with os_errors(f"connecting to the bucket {address.bucket!r}"):
        made = session.client(
            "s3", region_name=region, endpoint_url=address.endpoint, config=config
        )
    return cast(S3Client, made)


def error_code(error: ClientError) -> str:
    """The service's own name of an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def os_errors(doing: str) -> Iterator[None]:
    """Errors of boto3 within are raised as OSError, as stores promise; FileNotFoundError for an
    object that is not there.

    Args:
        doing: what is tried, for the message.
    """
    try:
        yield
    except ClientError as error:
        if error_code(error) in _UNKNOWN:
            raise FileNotFoundError(errno.ENOENT, f"S3 has no such object ({doing})") from error
        raise OSError(f"S3 refused {doing}: {error}") from error
    except (BotoCoreError, HTTPError) as error:  # the latter from a body that breaks off
        raise OSError(f"S3 failed at {doing}: {error}") from error
