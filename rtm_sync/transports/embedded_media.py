"""Access to the media of an embedded hub: a transfer's thread asks the hub's loop for each step."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, BinaryIO, TypeVar

from ..blob import Blob
from ..errors import DownloadMediaError, RtmError, UploadMediaError
from ..hub.media.store import MediaStore
from ..hub.media.upload import Upload, UploadSpec
from ..hub.session import Session
from ..protocol.values import MediaInfo
from ..transfers.control import TransferControl, TransferKind
from .embedded_hub import STOP_TIMEOUT, EmbeddedHub, HubStopped
from .store_carrier import MediaReader, UploadWriter

T = TypeVar("T")
logger = logging.getLogger(__name__)


class HubAccess:
    """The `StoreAccess` of one session of an embedded hub. Thread-safe."""

    def __init__(self, home: EmbeddedHub, session: Session) -> None:
        self._home = home
        self._session = session

    @contextlib.contextmanager
    def uploading(self, blob: Blob, control: TransferControl) -> Iterator[UploadWriter]:
        media = self._home.hub.media
        # The key finds the upload even if a cancellation lost the answer of `begin_upload`.
        spec = UploadSpec(blob.size, blob.name, blob.content_type, secrets.token_urlsafe(24))
        try:
            upload = self._run(media.begin_upload(self._session, spec), control)
            with self._slot(control):
                yield _HubWriter(self, upload, control)
        except BaseException:
            assert spec.key is not None
            self._finally(media.cancel_upload(self._session, spec.key))
            raise

    def find(self, media_id: str, control: TransferControl) -> MediaInfo:
        return self._run(self._home.hub.media.stored_media(self._session, media_id), control)

    @contextlib.contextmanager
    def reading(
        self, info: MediaInfo, offset: int, control: TransferControl
    ) -> Iterator[MediaReader]:
        with self._slot(control) as store:
            reader = _HubReader(self, store, info, offset, control)
            try:
                yield reader
            finally:
                reader.close()

    def append(self, upload: Upload, data: bytes, control: TransferControl) -> None:
        self._run(upload.append(upload.offset, _reading_once(data), len(data)), control)

    def complete(self, upload: Upload, control: TransferControl) -> MediaInfo:
        return self._run(self._home.hub.media.complete_upload(upload), control)

    def on_storage_thread(self, function: Callable[[], T], control: TransferControl) -> T:
        return self._run(self._home.hub.media.storage.run(function), control)

    def start_on_storage_thread(self, function: Callable[[], object]) -> None:
        """Call a function on a storage thread without waiting; skip it if the hub has stopped."""
        self._home.start(self._home.hub.media.storage.run(function))

    @contextlib.contextmanager
    def _slot(self, control: TransferControl) -> Iterator[MediaStore]:
        """Count the transfer among the session's while the block runs."""
        is_upload = control.kind is TransferKind.UPLOAD
        family = UploadMediaError if is_upload else DownloadMediaError
        slot = self._home.hub.media.slot(self._session, family)
        store = self._run(slot.__aenter__(), control)
        try:
            yield store
        finally:
            self._finally(_exit(slot))

    def _run(self, work: Coroutine[Any, Any, T], control: TransferControl) -> T:
        """Run a coroutine on the hub's loop; a cancelled transfer cancels it."""
        try:
            return self._home.interruptibly(work, control)
        except RtmError:  # first: a transfer's cancellation is also a CancelledError
            raise
        except (HubStopped, FutureCancelled) as error:
            raise control.kind.error(
                "NOT_LOGGED_IN", "The session has ended; log in again.", error
            ) from error

    def _finally(self, work: Coroutine[Any, Any, object]) -> None:
        """Clean up on the hub's loop, unless the hub has stopped."""
        try:
            self._home.run(work, STOP_TIMEOUT)
        except (HubStopped, FutureCancelled):
            pass
        except FutureTimeout:
            logger.warning("the embedded hub did not clean up within %g s", STOP_TIMEOUT)


class _HubWriter:
    """The `UploadWriter` of one upload to the hub."""

    def __init__(self, access: HubAccess, upload: Upload, control: TransferControl) -> None:
        self._access = access
        self._upload = upload
        self._control = control

    def write(self, data: bytes) -> None:
        self._access.append(self._upload, data, self._control)

    def commit(self) -> MediaInfo:
        return self._access.complete(self._upload, self._control)


class _HubReader:
    """Reads a blob on the hub's storage threads.

    The lock is needed because a cancelled transfer's read may still run during `close`.
    """

    def __init__(
        self,
        access: HubAccess,
        store: MediaStore,
        info: MediaInfo,
        offset: int,
        control: TransferControl,
    ) -> None:
        self._access = access
        self._store = store
        self._info = info
        self._offset = offset
        self._control = control
        self._lock = threading.Lock()  # guards both below, which storage threads use alone
        self._file: BinaryIO | None = None
        self._is_closed = False

    def read(self, size: int) -> bytes:
        return self._access.on_storage_thread(lambda: self._read(size), self._control)

    def close(self) -> None:
        self._access.start_on_storage_thread(self._close)

    def _read(self, size: int) -> bytes:
        with self._lock:
            if self._is_closed:
                return b""
            if self._file is None:
                self._file = self._store.open(self._info.media_id)
                self._file.seek(self._offset)
            return self._file.read(size)

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            file, self._file = self._file, None
            if file is not None:
                file.close()


def _reading_once(data: bytes) -> Callable[[], Awaitable[bytes]]:
    """An async reader that returns the bytes once, then b""."""
    parts = [data]

    async def read() -> bytes:
        return parts.pop() if parts else b""

    return read


async def _exit(slot: contextlib.AbstractAsyncContextManager[object]) -> None:
    await slot.__aexit__(None, None, None)
