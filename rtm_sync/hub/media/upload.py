"""One resumable upload: its bytes are hashed and stored in order, off the event loop."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ...errors import RtmError, UploadMediaError
from ...protocol.values import MediaInfo
from .storage import StorageThreads
from .store import MediaStore, MediaWriter

T = TypeVar("T")
_BUFFER = 256 * 1024
"""Bytes in one call of a storage thread. Measured: a call costs 60 µs, so small buffers are slow;
half a megabyte is no faster and takes 6 MB more for nine uploads."""

CHECKSUM_ALGORITHMS = ("sha1", "sha256")
logger = logging.getLogger(__name__)


class ChecksumMismatch(Exception):
    """The bytes of a chunk do not match its checksum. None of them were kept."""


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
    """

    size: int
    file_name: str
    content_type: str
    key: str | None = None
    keep: bool = False


class Upload:
    """One medium that is being uploaded. Used on the hub's loop; `threads` hash and store bytes.

    A new `append` supersedes an earlier one that hangs on a dead connection: the next bytes of the
    earlier one are refused.

    Args:
        owner: (app_id, uid) of the uploader.
        metadata: the text that the store keeps beside the fragment.
        stored: the number of bytes that the store has from before a restart.
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
        stored: int = 0,
    ) -> None:
        self.media_id = media_id
        self.owner = owner
        self.spec = spec
        self.offset = stored
        self.touched_at = 0.0
        self.info: MediaInfo | None = None
        self.on_abort: Callable[[], object] = lambda: None
        self.completing = asyncio.Lock()  # held by the first publisher; repeats wait for its result
        self._store = store
        self._threads = threads
        self._metadata = metadata
        self._is_fragment = stored > 0  # the stored bytes still have to be read for the digest
        self._sha256 = hashlib.sha256()
        self._writer: MediaWriter | None = None
        self._generation = 0  # of the newest `append`; earlier ones may store no more
        self._aborted = False
        self._lock = asyncio.Lock()  # held during each storage operation

    @property
    def complete(self) -> bool:
        """Whether all bytes have been received. The medium may not be visible yet."""
        return self.offset == self.spec.size

    async def current_offset(self) -> int:
        """The offset at which to resume. Supersedes a running `append`."""
        self._generation += 1
        async with self._lock:
            return self.offset

    async def append(
        self,
        read: Callable[[], Awaitable[bytes]],
        expected: int,
        checksum: Checksum | None = None,
        on_bytes: Callable[[], object] = lambda: None,
    ) -> None:
        """Store up to `expected` bytes from `read`, which returns b"" at the end.

        Bytes that arrived before `read` failed are kept, unless the chunk has a checksum.

        Args:
            read: returns the next bytes.
            expected: the most bytes that may come.
            checksum: of the whole chunk; None when the client sent none.
            on_bytes: called each time bytes arrive.

        Raises:
            ChecksumMismatch: the checksum is wrong; no byte of this chunk was kept.
            UploadMediaError: INVALID_ARGUMENT when more bytes came than announced; FAILURE when
                the upload was cancelled or superseded, or the store failed.
        """
        start = await self.current_offset()
        generation = self._generation
        await self._open_fragment()
        before = self._sha256.copy() if checksum is not None else None
        digest = hashlib.new(checksum.algorithm) if checksum is not None else None
        storing: asyncio.Task[None] | None = None
        buffer = bytearray()
        left = expected
        try:
            try:
                while left > 0:
                    data = await read()
                    if not data:
                        break
                    on_bytes()
                    left -= len(data)
                    buffer += data
                    if left < 0:
                        raise self._error("INVALID_ARGUMENT", "More bytes came than announced.")
                    if len(buffer) >= _BUFFER:
                        if storing is not None:
                            await storing
                        storing = asyncio.ensure_future(
                            self._store_chunk(generation, buffer, digest)
                        )
                        buffer = bytearray()
            finally:
                if storing is not None:
                    await storing
                if buffer and left >= 0:
                    await self._store_chunk(generation, buffer, digest)
        except BaseException:
            if before is not None:
                await self._undo(generation, start, before)
            raise
        wrong = checksum is not None and digest is not None and digest.digest() != checksum.digest
        if wrong and before is not None:
            await self._undo(generation, start, before)
            raise ChecksumMismatch

    async def finish(self) -> str:
        """Make the medium durable and visible, and return its SHA-256 in hexadecimal."""
        await self._open_fragment()
        async with self._lock:
            self._refuse_if_aborted()
            await self._in_thread(self._commit)
            return self._sha256.hexdigest()

    async def abort(self) -> None:
        """Discard the upload and its bytes. Idempotent."""
        await self._end(lambda writer: writer.abort())
        if self._is_fragment:
            await self._threads.run(self._store.delete, self.media_id)

    async def suspend(self) -> None:
        """Stop, and leave the bytes in the store for a later process."""
        await self._end(lambda writer: writer.suspend())

    async def _end(self, how: Callable[[MediaWriter], object]) -> None:
        self._aborted = True
        self._generation += 1
        self.on_abort()
        async with self._lock:
            writer, self._writer = self._writer, None
            if writer is not None:
                await self._threads.run(how, writer)

    async def _open_fragment(self) -> None:
        async with self._lock:
            if self._is_fragment:
                self._refuse_if_aborted()
                await self._in_thread(self._read_fragment)
                self._is_fragment = False

    def _read_fragment(self) -> None:
        self._writer, reader = self._store.reopen(self.media_id)
        with reader:
            while data := reader.read(_BUFFER):
                self._sha256.update(data)

    async def _store_chunk(
        self, generation: int, data: bytearray, digest: hashlib._Hash | None
    ) -> None:
        async with self._lock:
            self._refuse_if_aborted()
            if generation != self._generation:
                raise self._error("FAILURE", "Another connection has resumed the upload.")
            await self._in_thread(lambda: self._store_bytes(data, digest))
            self.offset += len(data)

    def _store_bytes(self, data: bytearray, digest: hashlib._Hash | None) -> None:
        if self._writer is None:
            self._writer = self._store.create(self.media_id, self._metadata)
        try:
            self._writer.write(data)
        except OSError:
            self._writer.truncate(self.offset)  # a full disk may have stored some of the bytes
            raise
        self._sha256.update(data)
        if digest is not None:
            digest.update(data)

    def _commit(self) -> None:
        assert self._writer is not None  # there is at least one byte
        self._writer.commit()
        self._writer = None

    async def _undo(self, generation: int, offset: int, sha256: hashlib._Hash) -> None:
        async with self._lock:
            if generation != self._generation or self._aborted:
                return
            if self._writer is not None:
                writer = self._writer
                await self._in_thread(lambda: writer.truncate(offset))
            self.offset = offset
            self._sha256 = sha256

    async def _in_thread(self, run: Callable[[], T]) -> T:
        # Shielded: the lock must not be released while the thread of a cancelled request writes.
        work = asyncio.ensure_future(self._threads.run(run))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        except OSError as error:
            logger.warning("storing an upload failed: %s", error)
            raise self._error("FAILURE", f"The media store failed: {error}.", error) from error

    def _refuse_if_aborted(self) -> None:
        if self._aborted:
            raise self._error("FAILURE", "The upload was cancelled.")

    def _error(self, reason: str, message: str, cause: BaseException | None = None) -> RtmError:
        return UploadMediaError.named(reason, message, cause)
