"""Media records as retained messages. The broker keeps each one for seven days.

Anybody may record any media id under the own name. So the id tells whose record counts: it is a
digest of its owner's name and of a secret number, which the record has.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from rtm_sync import MediaInfo, RtmError
from rtm_sync.protocol import ProtocolError, decode_json, encode_json
from rtm_sync.rules.timing import Deadline
from rtm_sync.transfers import TransferControl

from .connection import Connection
from .contract import Refused, SessionOver, fail, resolve
from .names import Topics

_TIMEOUT = 30.0
_NUMBER = 24  # bytes before the JSON of a record
_MOST_NUMBERS = 100  # a client has nine uploads at once

T = TypeVar("T")


class BrokerRecords:
    """The `MediaRecords` of one session. Thread-safe.

    Args:
        fence: returns a future that is done when every retained message requested earlier has
            arrived.
    """

    def __init__(
        self, connection: Connection, topics: Topics, fence: Callable[[], Future[None]]
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._fence = fence
        self._lock = threading.Lock()  # guards _waiting
        self._waiting: dict[str, list[Future[bytes]]] = {}  # by media id
        self._numbers: dict[str, bytes] = {}  # of uploads that are not recorded yet

    # -- on a transfer's thread --

    def new_media_id(self) -> str:
        """An id that nobody else can record."""
        while True:
            number = secrets.token_bytes(_NUMBER)
            media_id = _media_id(self._topics.uid, number)
            if not media_id.startswith("-"):  # which marks an option of commands
                with self._lock:
                    self._numbers[media_id] = number
                    if len(self._numbers) > _MOST_NUMBERS:  # of uploads that have failed
                        del self._numbers[next(iter(self._numbers))]
                return media_id

    def keep(self, info: MediaInfo, control: TransferControl) -> None:
        topic = self._topics.medium(info.media_id)
        with self._lock:
            number = self._numbers[info.media_id]
        record = number + encode_json(info).encode()
        seconds = info.expires_at - time.time()
        publish = self._connection.publish
        self._requested(lambda: publish(topic, record, retain=True, expiry=seconds), control)

    def find(self, media_id: str, control: TransferControl) -> MediaInfo | None:
        record = self._requested(lambda: self._request(media_id), control)
        try:
            return decode_json(MediaInfo, record) if record else None
        except ProtocolError as error:
            raise control.kind.error(
                "FAILURE", f"The record of {media_id} is damaged: {error}", error
            ) from error

    def forget(self, media_id: str) -> None:
        """Remove the record of an upload that has failed."""
        self._connection.publish(self._topics.medium(media_id), retain=True)

    # -- on the reader thread --

    def take(self, owner: str, media_id: str, record: bytes) -> None:
        """Handle a record that arrived. One that another user has made does not count."""
        if _media_id(owner, record[:_NUMBER]) != media_id:
            return
        with self._lock:
            waiting = self._waiting.pop(media_id, [])
        for future in waiting:
            resolve(future, record[_NUMBER:])

    # -- inside --

    def _request(self, media_id: str) -> Future[bytes]:
        """Request the record of a medium. The future's result is empty when there is none."""
        topic = self._topics.media(media_id)
        found: Future[bytes] = Future()
        with self._lock:
            self._waiting.setdefault(media_id, []).append(found)

        def end(fence: Future[None]) -> None:
            with self._lock:
                waiting = self._waiting.get(media_id, [])
                if found in waiting:
                    waiting.remove(found)
                if not waiting:
                    self._waiting.pop(media_id, None)
            error = fence.exception()
            if isinstance(error, Exception):
                fail(found, error)
            else:
                resolve(found, b"")
            self._connection.unsubscribe([topic])

        subscribed = self._connection.subscribe([topic])
        subscribed.add_done_callback(lambda _: self._fence().add_done_callback(end))
        return found

    def _requested(self, request: Callable[[], Future[T]], control: TransferControl) -> T:
        """Wait for the broker's answer; repeat the request after a lost connection."""
        deadline = Deadline(_TIMEOUT)

        def attempt() -> T:
            control.check()
            future = request()
            with control.interruptible(future.cancel):
                return self._connection.wait(future, deadline)

        try:
            return self._connection.persist(attempt, deadline)
        except RtmError:  # first, because a transfer's cancellation is also a CancelledError
            raise
        except TimeoutError:
            raise control.kind.error(
                "TIMEOUT", f"The broker did not answer within {_TIMEOUT:g} seconds."
            ) from None
        except SessionOver as error:
            raise control.kind.error("NOT_LOGGED_IN", str(error), error) from error
        except Refused as error:
            raise control.kind.error("FAILURE", f"The broker refused: {error}.", error) from error
        except CancelledError:
            control.check()
            raise


def _media_id(owner: str, number: bytes) -> str:
    digest = hashlib.sha256(number + owner.encode()).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()
