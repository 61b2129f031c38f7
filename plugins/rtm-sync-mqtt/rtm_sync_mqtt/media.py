"""Media beside a broker: the bytes in a media store, their names in retained messages."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from rtm_sync import Blob, MediaInfo, RtmError
from rtm_sync.hub.media import MEDIA_ID, MediaStore
from rtm_sync.protocol import RETENTION_SECONDS, ProtocolError, decode_json, encode_json
from rtm_sync.rules.timing import Deadline
from rtm_sync.transfers import TransferControl
from rtm_sync.transfers.sink import Sink

from .contract import Refused, SessionOver
from .session import Session

_CHUNK = 256 * 1024
_RECORD_TIMEOUT = 30.0

T = TypeVar("T")


class Media:
    """Uploads to and downloads from a media store that all clients reach. Thread-safe."""

    def __init__(self, store: MediaStore, session: Session) -> None:
        self._store = store
        self._session = session

    def upload(self, blob: Blob, control: TransferControl) -> MediaInfo:
        """Store a blob, and have the broker keep what it is called. Raises RtmError."""
        media_id = secrets.token_urlsafe(24)
        digest = hashlib.sha256()
        size = 0
        with _stored(control):
            writer = self._store.create(media_id, "")
        try:
            with blob.open() as file, _stored(control):
                while data := file.read(_CHUNK):
                    writer.write(data)
                    digest.update(data)
                    size += len(data)
                    control.advance(size, blob.size)
                if size != blob.size:
                    raise control.kind.error(
                        "FAILURE",
                        f"The source ended after {size:,} of {blob.size:,} bytes; it was changed "
                        "while it was uploaded.",
                    )
                control.check()
                writer.commit()
        except BaseException:
            writer.abort()
            raise
        try:
            info = MediaInfo(
                media_id,
                size,
                digest.hexdigest(),
                blob.name,
                blob.content_type,
                time.time() + RETENTION_SECONDS,
            )
            record = encode_json(info).encode()
            self._asked(
                lambda: self._session.keep_record(media_id, record, RETENTION_SECONDS), control
            )
            with _stored(control):
                self._store.finalize(media_id)
        except BaseException:
            with contextlib.suppress(Exception):  # what ended the upload says more
                self._store.delete(media_id)
            raise
        return info

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        """Copy a medium's bytes into the sink, checked by digest. Raises RtmError."""
        if not MEDIA_ID.fullmatch(media_id):
            raise control.kind.error("INVALID_ARGUMENT", f"{media_id[:40]!r} is not a media id.")
        record = self._asked(lambda: self._session.find_record(media_id), control)
        info = _info(record, media_id, control)
        if sink.size and sink.whole != info.sha256:
            sink.restart()
        sink.begin(info)
        went_on = sink.size > 0
        self._read(info, sink, control)
        if went_on and sink.sha256() != info.sha256:  # what was there is to blame, perhaps
            sink.restart()
            self._read(info, sink, control)
        if sink.sha256() != info.sha256:
            sink.restart()
            raise control.kind.error("FAILURE", "The stored bytes are damaged.")
        return info

    def close(self) -> None:
        self._store.close()

    def _read(self, info: MediaInfo, sink: Sink, control: TransferControl) -> None:
        with _stored(control), self._store.open(info.media_id) as file:
            file.seek(sink.size)
            while data := file.read(_CHUNK):
                sink.write(data)
                control.advance(sink.size, info.size)

    def _asked(self, ask: Callable[[], Future[T]], control: TransferControl) -> T:
        """The broker's answer, asked for again after a lost connection."""
        deadline = Deadline(_RECORD_TIMEOUT)

        def attempt() -> T:
            control.check()
            future = ask()
            with control.interruptible(future.cancel):
                return self._session.connection.wait(future, deadline)

        try:
            return self._session.connection.persist(attempt, deadline)
        except TimeoutError:
            raise control.kind.error(
                "TIMEOUT", f"The broker did not answer within {_RECORD_TIMEOUT:g} seconds."
            ) from None
        except SessionOver as error:
            raise control.kind.error("NOT_LOGGED_IN", str(error), error) from error
        except Refused as error:
            raise control.kind.error("FAILURE", f"The broker refused: {error}.", error) from error
        except CancelledError:
            control.check()
            raise


def _info(record: bytes, media_id: str, control: TransferControl) -> MediaInfo:
    try:
        info = decode_json(MediaInfo, record) if record else None
    except ProtocolError as error:
        raise control.kind.error(
            "FAILURE", f"The record of {media_id} is damaged: {error}", error
        ) from error
    if info is None or info.media_id != media_id or info.expires_at <= time.time():
        raise control.kind.error(
            "NOT_EXIST", f"There is no medium {media_id}, or its seven days are over."
        )
    return info


@contextlib.contextmanager
def _stored(control: TransferControl) -> Iterator[None]:
    """Turn what a media store raises, a plugin's perhaps, into the transfer's error."""
    try:
        yield
    except RtmError:
        raise
    except FileNotFoundError as error:
        raise control.kind.error(
            "NOT_EXIST", "The media store has no such medium.", error
        ) from error
    except Exception as error:
        raise control.kind.error("FAILURE", f"The media store failed: {error}", error) from error
