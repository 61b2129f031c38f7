"""Uploads to and downloads from a media store, for transports that reach one without HTTP.

`StoreCarrier` has the rules that all such transports share: progress, cancellation, errors,
digests, and the reuse of bytes that a destination already has. A `StoreAccess` connects it to the
store. `DirectAccess` is the access of a process that opens the store itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from ..blob import CHUNK, Blob
from ..errors import RtmError
from ..hub.media.store import MEDIA_ID, MediaStore, MediaWriter, new_media_id
from ..protocol.ids import RETENTION_SECONDS
from ..protocol.values import MediaInfo
from ..transfers.control import TransferControl, TransferKind
from ..transfers.sink import PartSink, Sink
from ..transfers.source import opened_source

T = TypeVar("T")
logger = logging.getLogger(__name__)


class UploadWriter(Protocol):
    """One upload into a store."""

    def write(self, data: bytes) -> object:
        """Append bytes."""

    def commit(self) -> MediaInfo:
        """Publish the medium: any peer can download it when this returns."""


class MediaReader(Protocol):
    """A reader of one medium's bytes; a binary file is one."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, `size` at the most; b"" after the last one."""


class StoreAccess(Protocol):
    """How a transport reaches its media store. Thread-safe.

    Every method is called on a transfer's thread and may block. A method that blocks for long wraps
    the wait in `control.interruptible`. It may raise `RtmError`, which ends the transfer,
    `FileNotFoundError` for a missing medium, or any other exception for a failed store.
    """

    def uploading(
        self, blob: Blob, control: TransferControl
    ) -> AbstractContextManager[UploadWriter]:
        """Begin an upload of `blob.size` bytes.

        If the block raises, the upload is removed completely, even after `commit` has begun.
        """

    def find(self, media_id: str, control: TransferControl) -> MediaInfo:
        """The record of a medium. Raises DownloadMediaError: NOT_EXIST, there is none."""

    def reading(
        self, info: MediaInfo, offset: int, control: TransferControl
    ) -> AbstractContextManager[MediaReader]:
        """Open a medium's bytes from an offset."""


class StoreCarrier:
    """A `MediaCarrier` over a media store. Thread-safe.

    Args:
        access: the access to the store.
    """

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        """See `Transport.upload`. A `resume_key` is not used: an upload always starts over."""
        with (
            _entered(lambda: self._access.uploading(blob, control), control) as writer,
            opened_source(blob, control) as source,
        ):
            while data := source.read():
                with _store_errors(control):
                    writer.write(data)
                control.advance(source.position, source.size)
            control.check()  # the last point at which a cancellation is simple
            with _store_errors(control):
                return writer.commit()

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        """See `Transport.download`."""
        info = self.media_info(media_id, control)
        goes_on = sink.resume(info)
        self._read(info, sink, control)
        if goes_on and not sink.matches(info):  # the sink's old bytes may be the damaged ones
            sink.start_over()
            self._read(info, sink, control)
        if not sink.matches(info):
            sink.restart()
            raise control.kind.error("FAILURE", "The stored bytes are damaged.")
        return info

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        """See `Transport.media_info`."""
        if not MEDIA_ID.fullmatch(media_id):
            raise control.kind.error("INVALID_ARGUMENT", f"{media_id[:40]!r} is not a media id.")
        with _store_errors(control):
            return self._access.find(media_id, control)

    def download_part(self, media_id: str, part: PartSink, control: TransferControl) -> MediaInfo:
        """See `Transport.download_part`."""
        info = self.download(media_id, part, control)
        if part.position < part.end(info):
            raise control.kind.error("FAILURE", "The stored bytes are cut off.")
        return info

    def _read(self, info: MediaInfo, sink: Sink, control: TransferControl) -> None:
        """Copy the bytes that the sink lacks."""
        end = sink.end(info)
        if sink.position >= end:
            return
        opening = _entered(lambda: self._access.reading(info, sink.position, control), control)
        with opening as reader:
            while sink.position < end:
                with _store_errors(control):
                    # More than a whole medium is read on purpose: a longer one is damaged.
                    data = reader.read(min(CHUNK, end - sink.position) if sink.is_part else CHUNK)
                if not data:
                    return
                sink.write(data)
                control.advance(sink.size, end - sink.first)


class MediaRecords(Protocol):
    """Stores the records of media, apart from their bytes. Thread-safe.

    `keep` and `find` are called on a transfer's thread and may block, as `StoreAccess` says.

    It may have a method `new_media_id() -> str`, which makes the ids of media that are recorded
    here; they match `MEDIA_ID`, and nobody can guess them.
    """

    def keep(self, info: MediaInfo, control: TransferControl) -> object:
        """Store a record until `info.expires_at`. When this returns, every peer finds it."""

    def find(self, media_id: str, control: TransferControl) -> MediaInfo | None:
        """The record of a medium; None when there is none."""

    def forget(self, media_id: str) -> object:
        """Remove the record of an upload that failed, if `keep` stored it. Does not wait."""


class DirectAccess:
    """A `StoreAccess` for a store that this process reaches itself. Thread-safe.

    Args:
        store: keeps the bytes; the caller closes it.
        records: keeps the records.
        retention: the life of a medium, in seconds.
        now: the wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        store: MediaStore,
        records: MediaRecords,
        retention: float = RETENTION_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._records = records
        self._retention = retention
        self._now = now

    @contextlib.contextmanager
    def uploading(self, blob: Blob, control: TransferControl) -> Iterator[UploadWriter]:
        upload = _DirectUpload(self._store, self._records, blob, control)
        try:
            upload.create()
            upload.expires_at = self._now() + self._retention
            yield upload
        except BaseException:
            upload.remove()
            raise

    def find(self, media_id: str, control: TransferControl) -> MediaInfo:
        info = self._records.find(media_id, control)
        if info is None or info.media_id != media_id or info.expires_at <= self._now():
            what = "does not exist" if info is None else "has expired"
            raise control.kind.error("NOT_EXIST", f"The medium {media_id} {what}.")
        return info

    @contextlib.contextmanager
    def reading(
        self, info: MediaInfo, offset: int, control: TransferControl
    ) -> Iterator[MediaReader]:
        with self._store.open(info.media_id) as file:
            file.seek(offset)
            yield file


class _DirectUpload:
    """One upload into a store of this process, and its removal."""

    def __init__(
        self, store: MediaStore, records: MediaRecords, blob: Blob, control: TransferControl
    ) -> None:
        self._store = store
        self._records = records
        self._blob = blob
        self._control = control
        self._media_id = getattr(records, "new_media_id", new_media_id)()
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._writer: MediaWriter | None = None
        self._may_be_recorded = False
        self.expires_at = 0.0

    def create(self) -> None:
        self._writer = self._store.create(self._media_id, "")

    def write(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)
        self._sha256.update(data)
        self._size += len(data)

    def commit(self) -> MediaInfo:
        assert self._writer is not None
        self._writer.commit()
        info = MediaInfo(
            self._media_id,
            self._size,
            self._sha256.hexdigest(),
            self._blob.name,
            self._blob.content_type,
            self.expires_at,
        )
        self._may_be_recorded = True
        self._records.keep(info, self._control)
        self._store.finalize(self._media_id)
        return info

    def remove(self) -> None:
        """Remove everything that was stored. A failed step does not stop the later ones."""
        if self._may_be_recorded:
            _attempt(lambda: self._records.forget(self._media_id))
        if self._writer is not None:
            _attempt(self._writer.abort)
        _attempt(lambda: self._store.delete(self._media_id))  # also what a failed `create` left


def _attempt(clean_up: Callable[[], object]) -> None:
    """Clean up. A failure is only logged, because the original error is more useful."""
    try:
        clean_up()
    except Exception:
        logger.warning("an upload that failed may have left something behind", exc_info=True)


@contextlib.contextmanager
def _entered(
    make: Callable[[], AbstractContextManager[T]], control: TransferControl
) -> Iterator[T]:
    """Enter a context manager of the access for the duration of the block.

    An error of its exit is only logged. It neither replaces an error of the block nor fails a
    complete transfer.
    """
    with _store_errors(control):
        manager = make()
        entered = manager.__enter__()
    try:
        yield entered
    except BaseException as error:
        _leave(manager, error)
        raise
    else:
        _leave(manager, None)


def _leave(manager: AbstractContextManager[object], error: BaseException | None) -> None:
    try:
        if error is None:
            manager.__exit__(None, None, None)
        else:
            manager.__exit__(type(error), error, error.__traceback__)
    except Exception as another:
        if another is not error:
            logger.warning("leaving a media store failed", exc_info=True)


@contextlib.contextmanager
def _store_errors(control: TransferControl) -> Iterator[None]:
    """Convert an exception of a store or its plugin into an error of the transfer's family."""
    try:
        yield
    except RtmError:
        raise
    except Exception as error:
        control.check()  # a store that was interrupted may raise anything
        if isinstance(error, FileNotFoundError) and control.kind is TransferKind.DOWNLOAD:
            message = "The media store has no such medium; it may have just expired."
            raise control.kind.error("NOT_EXIST", message, error) from error
        message = f"The media store failed: {error or repr(error)}."
        raise control.kind.error("FAILURE", message, error) from error
