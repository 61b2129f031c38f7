"""Uploads on their way in: bytes hashed and stored off the event loop, in order, resumable."""

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
"""Bytes handed to a storage thread at once. Measured: a hand-over costs 60 µs, so small ones are
dear; half a megabyte is no faster and takes 6 MB more for nine uploads."""

CHECKSUM_ALGORITHMS = ("sha1", "sha256")
logger = logging.getLogger(__name__)


class ChecksumMismatch(Exception):
    """A chunk's bytes do not have the digest that was sent with it; none of them were kept."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """The digest a client announced for one chunk (tus checksum extension)."""

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
    """What a client says of a medium before it sends it.

    Attributes:
        key: the client's own name for the upload.
        keep: the upload outlives a logout.
    """

    size: int
    file_name: str
    content_type: str
    key: str | None = None
    keep: bool = False


class Upload:
    """One medium on its way in. Lives on the hub's loop; its bytes are dealt with on `threads`.

    A new `append` takes over from one that hangs on a dead connection: the old one's next bytes
    are refused.

    Args:
        owner: app id and uid of whose it is.
        metadata: what the store keeps beside the fragment.
        stored: bytes that the store has already, from before a restart.
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
        self.completing = asyncio.Lock()  # who publishes it; a second asks for the first's outcome
        self._store = store
        self._threads = threads
        self._metadata = metadata
        self._is_fragment = stored > 0  # its bytes are to be read once more, for the digest
        self._sha256 = hashlib.sha256()
        self._writer: MediaWriter | None = None
        self._turn = 0
        self._aborted = False
        self._lock = asyncio.Lock()  # one storage operation at a time, and orderly take-overs

    @property
    def complete(self) -> bool:
        """Whether every byte is here (not yet that the medium is visible)."""
        return self.offset == self.spec.size

    async def current_offset(self) -> int:
        """The offset to go on from; whoever was appending has lost its turn."""
        self._turn += 1
        async with self._lock:
            return self.offset

    async def append(
        self,
        read: Callable[[], Awaitable[bytes]],
        expected: int,
        checksum: Checksum | None = None,
        on_bytes: Callable[[], object] = lambda: None,
    ) -> None:
        """Take up to `expected` bytes from `read` (which gives b"" at the end).

        Bytes that arrived before `read` failed are kept, unless the chunk has a checksum.

        Raises:
            ChecksumMismatch: and nothing of this chunk was kept.
            UploadMediaError: more bytes than announced, the upload is gone, or storing failed.
        """
        start = await self.current_offset()
        turn = self._turn
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
                        storing = asyncio.ensure_future(self._keep(turn, buffer, digest))
                        buffer = bytearray()
            finally:
                if storing is not None:
                    await storing
                if buffer and left >= 0:
                    await self._keep(turn, buffer, digest)
        except BaseException:
            if before is not None:
                await self._undo(turn, start, before)
            raise
        wrong = checksum is not None and digest is not None and digest.digest() != checksum.digest
        if wrong and before is not None:
            await self._undo(turn, start, before)
            raise ChecksumMismatch

    async def finish(self) -> str:
        """Make the medium durable and visible; returns its SHA-256 in hexadecimal."""
        await self._open_fragment()
        async with self._lock:
            self._refuse_if_aborted()
            await self._in_thread(self._commit)
            return self._sha256.hexdigest()

    async def abort(self) -> None:
        """Forget the upload and its bytes. Idempotent."""
        await self._end(lambda writer: writer.abort())
        if self._is_fragment:
            await self._threads.run(self._store.delete, self.media_id)

    async def suspend(self) -> None:
        """Let go of the bytes where they are: the process ends."""
        await self._end(lambda writer: writer.suspend())

    async def _end(self, how: Callable[[MediaWriter], object]) -> None:
        self._aborted = True
        self._turn += 1
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

    async def _keep(self, turn: int, data: bytearray, digest: hashlib._Hash | None) -> None:
        async with self._lock:
            self._refuse_if_aborted()
            if turn != self._turn:
                raise self._error("FAILURE", "The upload goes on over another connection.")
            await self._in_thread(lambda: self._store_bytes(data, digest))
            self.offset += len(data)

    def _store_bytes(self, data: bytearray, digest: hashlib._Hash | None) -> None:
        if self._writer is None:
            self._writer = self._store.create(self.media_id, self._metadata)
        try:
            self._writer.write(data)
        except OSError:
            self._writer.truncate(self.offset)  # a full disk may have taken some of them
            raise
        self._sha256.update(data)
        if digest is not None:
            digest.update(data)

    def _commit(self) -> None:
        assert self._writer is not None  # there is at least one byte
        self._writer.commit()
        self._writer = None

    async def _undo(self, turn: int, offset: int, sha256: hashlib._Hash) -> None:
        async with self._lock:
            if turn != self._turn or self._aborted:
                return
            if self._writer is not None:
                writer = self._writer
                await self._in_thread(lambda: writer.truncate(offset))
            self.offset = offset
            self._sha256 = sha256

    async def _in_thread(self, run: Callable[[], T]) -> T:
        # Shielded: a cancelled request must not leave its thread writing behind the lock's back.
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
            raise self._error("FAILURE", "The upload was given up.")

    def _error(self, reason: str, message: str, cause: BaseException | None = None) -> RtmError:
        return UploadMediaError.named(reason, message, cause)
