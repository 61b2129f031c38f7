"""Media records as retained messages. The broker keeps each one for seven days."""

from __future__ import annotations

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
        self._waiting: dict[str, list[Future[bytes]]] = {}  # by topic

    # -- on a transfer's thread --

    def keep(self, info: MediaInfo, control: TransferControl) -> None:
        topic = self._topics.medium(info.media_id)
        record = encode_json(info).encode()
        seconds = info.expires_at - time.time()
        publish = self._connection.publish
        self._requested(lambda: publish(topic, record, retain=True, expiry=seconds), control)

    def find(self, media_id: str, control: TransferControl) -> MediaInfo | None:
        record = self._requested(lambda: self._request(self._topics.medium(media_id)), control)
        try:
            return decode_json(MediaInfo, record) if record else None
        except ProtocolError as error:
            raise control.kind.error(
                "FAILURE", f"The record of {media_id} is damaged: {error}", error
            ) from error

    def forget(self, media_id: str) -> None:
        self._connection.publish(self._topics.medium(media_id), retain=True)

    # -- on the reader thread --

    def take(self, topic: str, record: bytes) -> None:
        """Handle a record that arrived."""
        with self._lock:
            waiting = self._waiting.pop(topic, [])
        for future in waiting:
            resolve(future, record)

    # -- inside --

    def _request(self, topic: str) -> Future[bytes]:
        """Request the record under a topic. The future's result is empty when there is none."""
        found: Future[bytes] = Future()
        with self._lock:
            self._waiting.setdefault(topic, []).append(found)

        def end(fence: Future[None]) -> None:
            with self._lock:
                waiting = self._waiting.get(topic, [])
                if found in waiting:
                    waiting.remove(found)
                if not waiting:
                    self._waiting.pop(topic, None)
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
