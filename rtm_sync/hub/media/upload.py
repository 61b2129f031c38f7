"""One resumable upload: its bytes are hashed and stored in order, off the event loop."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ...errors import RtmError, UploadMediaError
from ...protocol.values import MediaInfo
from .failures import log_failure, store_failure, without_path
from .storage import StorageThreads
from .store import MediaStore, MediaWriter

T = TypeVar("T")
_BUFFER = 256 * 1024
"""Bytes in one call of a storage thread. Measured: a call costs 60 µs, so small buffers are slow;
half a megabyte is no faster and takes 6 MB more for nine uploads."""

CHECKSUM_ALGORITHMS = ("sha1", "sha256")


class ChecksumMismatch(Exception):
    """The bytes of a chunk do not match its checksum. None of them were kept."""


class UploadConflict(Exception):
    """The cause of an error: another request sends bytes, or the offset is a different one."""


class UploadCancelled(Exception):
    """The cause of an error: the upload was cancelled."""


class UploadSuspended(Exception):
    """The cause of an error: the hub is stopping. The upload can be resumed after its restart."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """The digest that a client sent for one chunk (tus checksum extension)."""

    algorithm: str
    digest: bytes

    @classmethod
    def parse(cls, header: str) -> Checksum:
        """Read `Upload-Checksum: sha1 BASE64`. Raises ValueError."""
        algorithm, _, encoded = header.partition(" ")
        if algorithm not in CHECKSUM_ALGORITHMS:
            raise ValueError(
                f"The checksum algorithm {algorithm[:20]!r} is not one of "
                f"{', '.join(CHECKSUM_ALGORITHMS)}."
            )
        return cls(algorithm, base64.b64decode(encoded, validate=True))


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """A client's description of a medium, sent before its bytes.

    Attributes:
        size: the number of bytes.
        file_name, content_type: as sent to downloaders.
        key: the client's own name for the upload (idempotency key).
        keep: the upload outlives a logout.
        tus_metadata: the `Upload-Metadata` of a tus client, which is returned to it.
    """

    size: int
    file_name: str
    content_type: str
    key: str | None = None
    keep: bool = False
    tus_metadata: str = ""


class Upload:
    """One medium that is being uploaded. Used on the hub's loop; `threads` hash and store bytes.

    One `append` runs at a time. `current_offset` ends a running one, which may hang on a dead
    connection: it stores no more bytes and is refused.

    Args:
        owner: (app_id, uid) of the uploader.
        metadata: the text that the store keeps beside the fragment.
        stored: the number of bytes of the fragment that the store has from before a restart; None
            for a new upload.
    """

    def __init__(
        self,
        media_id: str,
        owner: tuple[str, str],
        spec: UploadSpec,
        store: MediaStore,
        threads: StorageThreads,
        metadata: str = "",
        *,
        stored: int | None = None,
    ) -> None:
        self.media_id = media_id
        self.owner = owner
        self.spec = spec
        self.offset = stored or 0
        self.touched_at = 0.0
        self.info: MediaInfo | None = None
        self.publishing: asyncio.Task[MediaInfo] | None = None  # repeats wait for its result
        self._store = store
        self._threads = threads
        self._metadata = metadata
        self._is_fragment = stored is not None  # its bytes still have to be read for the digest
        self._sha256 = hashlib.sha256()
        self._writer: MediaWriter | None = None
        self._is_torn = False  # the store may have bytes beyond `offset`
        # Where a chunk with a checksum began, and the digest of the bytes before it.
        self._unverified: tuple[int, hashlib._Hash] | None = None
        self._generation = 0  # of the newest `append`; earlier ones may store no more
        self._receiving: asyncio.Task[int] | None = None  # the running `append`
        self._on_abort: Callable[[], object] = _nothing
        self._end_reason: tuple[str, Exception] | None = None
        self._lock = asyncio.Lock()  # held during each storage operation

    @property
    def complete(self) -> bool:
        """Whether all bytes have been received. The medium may not be visible yet."""
        return self.offset == self.spec.size

    @property
    def is_suspended(self) -> bool:
        """Whether the upload was suspended: its bytes stay in the store."""
        return self._end_reason is not None and isinstance(self._end_reason[1], UploadSuspended)

    async def current_offset(self) -> int:
        """The offset at which to resume. A running `append` ends and is refused.

        Raises:
            UploadMediaError: FAILURE, the upload was cancelled.
        """
        self._supersede()  # at once, so that it stores no more than it is storing
        async with self._lock:
            self._supersede()  # one that has begun meanwhile
            self._refuse_if_ended()
            self._roll_back()
            return self.offset

    async def append(
        self,
        offset: int,
        read: Callable[[], Awaitable[bytes]],
        expected: int,
        checksum: Checksum | None = None,
        on_bytes: Callable[[], object] = lambda: None,
        on_abort: Callable[[], object] = lambda: None,
    ) -> int:
        """Store up to `expected` bytes from `read`, which returns b"" at the end.

        Bytes that arrived before `read` failed are kept, unless the chunk has a checksum.

        Args:
            offset: the offset of the first byte, which must be that of the upload.
            read: returns the next bytes.
            expected: the most bytes that may come.
            checksum: of the whole chunk; None when the client sent none.
            on_bytes: called each time bytes arrive.
            on_abort: called when the upload is cancelled or suspended meanwhile.

        Returns:
            The offset after the last byte.

        Raises:
            ChecksumMismatch: the checksum is wrong; no byte of this chunk was kept.
            UploadMediaError: INVALID_ARGUMENT when more bytes came than announced. FAILURE when
                the upload was cancelled, or the store failed; or with the cause `UploadConflict`
                when the upload is at another offset, or is another request's.
        """
        async with self._lock:  # lock, then compare: the offset may move while the lock is awaited
            await self._open_fragment()
            self._refuse_if_ended()
            if self._receiving is not None:
                raise self._conflict(
                    "Another request is sending bytes of this upload; ask for its offset first."
                )
            self._roll_back()
            if offset != self.offset:
                raise self._conflict(f"The upload is at the offset {self.offset}, not {offset}.")
            self._generation += 1
            if checksum is not None:
                self._unverified = (offset, self._sha256.copy())
            receiving = self._receiving = asyncio.ensure_future(
                self._receive(self._generation, read, expected, checksum, on_bytes)
            )
            self._on_abort = on_abort
        try:
            await asyncio.wait([receiving])
        except asyncio.CancelledError:
            receiving.cancel()
            await asyncio.wait([receiving])
            raise
        finally:
            if self._receiving is receiving:
                self._receiving, self._on_abort = None, _nothing
        if receiving.cancelled():
            raise self._superseded()
        return offset + receiving.result()

    async def finish(self) -> str:
        """Make the medium durable and visible, and return its SHA-256 in hexadecimal."""
        async with self._lock:
            await self._open_fragment()
            self._refuse_if_ended()
            if not self.complete:
                raise self._conflict("Bytes of the upload were taken back; ask for its offset.")
            await self._in_thread(self._commit)
            return self._sha256.hexdigest()

    async def abort(self) -> None:
        """Discard the upload and its bytes. Idempotent.

        Raises:
            Exception: of the store.
        """
        await self._end("The upload was cancelled.", UploadCancelled(), _abort)
        if self._is_fragment:
            await self._threads.finish(self._store.delete, self.media_id)

    async def suspend(self) -> None:
        """Stop, and leave the bytes in the store for a later process.

        Raises:
            Exception: of the store.
        """
        await self._end(
            "The hub is stopping; go on when it is back.", UploadSuspended(), self._leave
        )

    async def _end(
        self, message: str, cause: Exception, how: Callable[[MediaWriter], object]
    ) -> None:
        if self._end_reason is None:
            self._end_reason = (message, cause)
        self._on_abort()
        self._supersede()
        async with self._lock:
            writer, self._writer = self._writer, None
            if writer is not None:
                await self._threads.finish(how, writer)

    # -- one request's bytes --

    async def _receive(
        self,
        generation: int,
        read: Callable[[], Awaitable[bytes]],
        expected: int,
        checksum: Checksum | None,
        on_bytes: Callable[[], object],
    ) -> int:
        """Do the work of one `append`. Returns the number of stored bytes."""
        digest = hashlib.new(checksum.algorithm) if checksum is not None else None
        storing: asyncio.Task[None] | None = None
        buffer = bytearray()
        left = expected
        try:
            while left > 0:
                data = await read()
                if not data:
                    break
                on_bytes()
                left -= len(data)
                buffer += data
                if left < 0:
                    raise UploadMediaError.named(
                        "INVALID_ARGUMENT", "More bytes came than announced."
                    )
                if len(buffer) >= _BUFFER:
                    if storing is not None:
                        await storing
                    storing = asyncio.ensure_future(self._store_chunk(generation, buffer, digest))
                    buffer = bytearray()
        finally:
            if storing is not None:
                await storing
            if buffer and left >= 0:
                await self._store_chunk(generation, buffer, digest)
        if checksum is not None and digest is not None:
            async with self._lock:
                self._refuse_if_superseded(generation)
                if digest.digest() != checksum.digest:
                    self._roll_back()
                    raise ChecksumMismatch
                self._unverified = None
        return expected - left

    async def _store_chunk(
        self, generation: int, data: bytearray, digest: hashlib._Hash | None
    ) -> None:
        async with self._lock:
            self._refuse_if_superseded(generation)
            await self._in_thread(lambda: self._store_bytes(data, digest))

    def _supersede(self) -> None:
        """Let the running `append` store no more bytes, and wake it up."""
        self._generation += 1
        receiving, self._receiving = self._receiving, None
        self._on_abort = _nothing
        if receiving is not None:
            receiving.cancel()

    def _roll_back(self) -> None:
        """Take back the bytes of a chunk whose checksum was not verified. Needs the lock."""
        if self._unverified is not None:
            self.offset, self._sha256 = self._unverified
            self._unverified = None
            self._is_torn = True

    # -- on a storage thread; the caller holds the lock --

    def _store_bytes(self, data: bytearray, digest: hashlib._Hash | None) -> None:
        if self._writer is None:
            self._writer = self._store.create(self.media_id, self._metadata)
        self._mend(self._writer)
        try:
            self._writer.write(data)
        except BaseException as error:
            self._is_torn = True  # a full disk may have stored some of the bytes
            try:
                self._mend(self._writer)
            except Exception as another:  # the next write tries again
                log_failure(f"cutting off {self.media_id} after {without_path(error)}", another)
            raise
        # Here, because the caller of a cancelled request does not go on after the write.
        self.offset += len(data)
        self._sha256.update(data)
        if digest is not None:
            digest.update(data)

    def _mend(self, writer: MediaWriter) -> None:
        """Cut off the bytes beyond the offset, if there may be any."""
        if self._is_torn:
            writer.truncate(self.offset)
            self._is_torn = False

    def _leave(self, writer: MediaWriter) -> None:
        """Leave the bytes for a later process, without those that do not count."""
        try:
            if self._unverified is not None:
                self._roll_back()
            self._mend(writer)
        finally:
            writer.suspend()

    def _commit(self) -> None:
        assert self._writer is not None  # there is at least one byte
        self._writer.commit()
        self._writer = None

    def _read_fragment(self) -> None:
        sha256 = hashlib.sha256()
        size = 0
        writer, reader = self._store.reopen(self.media_id)
        try:
            with reader:
                while data := reader.read(_BUFFER):
                    sha256.update(data)
                    size += len(data)
            if size != self.offset:
                raise OSError(f"The fragment has {size:,} bytes instead of {self.offset:,}.")
        except BaseException:
            writer.suspend()
            raise
        self._writer, self._sha256, self._is_fragment = writer, sha256, False

    # -- inside --

    async def _open_fragment(self) -> None:
        """Read what a former process stored. Needs the lock."""
        if self._is_fragment and self._end_reason is None:
            await self._in_thread(self._read_fragment)

    async def _in_thread(self, run: Callable[[], T]) -> T:
        # The lock must not be released while the thread of a cancelled request writes.
        work = asyncio.ensure_future(self._threads.run(run))
        is_cancelled = False
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                is_cancelled = True
        error = work.exception()
        if is_cancelled:
            raise asyncio.CancelledError
        if isinstance(error, Exception):
            raise store_failure(UploadMediaError, f"storing {self.media_id}", error) from error
        return work.result()

    def _refuse_if_ended(self) -> None:
        if self._end_reason is not None:
            raise self._error(*self._end_reason)

    def _refuse_if_superseded(self, generation: int) -> None:
        self._refuse_if_ended()
        if generation != self._generation:
            raise self._superseded()

    def _superseded(self) -> RtmError:
        if self._end_reason is not None:
            return self._error(*self._end_reason)
        return self._conflict("Another request has taken over the upload.")

    def _conflict(self, message: str) -> RtmError:
        return self._error(message, UploadConflict())

    def _error(self, message: str, cause: BaseException) -> RtmError:
        return UploadMediaError.named("FAILURE", message, cause)


def _abort(writer: MediaWriter) -> None:
    writer.abort()


def _nothing() -> None:
    """No request would have to be told of an abort."""
