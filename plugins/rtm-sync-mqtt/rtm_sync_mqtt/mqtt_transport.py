"""MqttTransport: the transport's methods, implemented with a broker and a media store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

from rtm_sync import Blob, LoginError, MediaInfo, RenewTokenError
from rtm_sync.hub.media import MediaStore
from rtm_sync.protocol import Request
from rtm_sync.transfers import TransferControl
from rtm_sync.transfers.sink import PartSink, Sink
from rtm_sync.transports.base import Credentials, Listener, Transport, TransportOptions
from rtm_sync.transports.store_carrier import DirectAccess, StoreCarrier

from .names import Address
from .session import Session

R = TypeVar("R")


class MqttTransport(Transport):
    """Connects a client to others through an MQTT 5 broker. Thread-safe.

    Args:
        url: `mqtt://host:1883/prefix?media=disk:///folder`, or `mqtts://` for TLS.
        options: the client's options; `media` is used when the URL names no media store.

    Raises:
        ValueError: the URL does not have that form.
    """

    def __init__(self, url: str, options: TransportOptions) -> None:
        self._address = Address.of(url)
        self._options = options
        self._lock = threading.Lock()  # guards both below
        self._session: Session | None = None
        self._store: MediaStore | None = None

    def open(self, credentials: Credentials, listener: Listener) -> None:
        session = Session(self._address, self._options, credentials, listener)
        try:
            with self._lock:
                if self._session is not None:
                    raise LoginError.named("ALREADY_LOGIN", "This client is logged in already.")
                self._session = session
            store = self._make_store()
            with self._lock:
                self._store = store
            session.connection.start(session)
        except BaseException as error:
            session.connection.give_up(error)
            self._forget(session)
            raise

    def call(self, request: Request[R], timeout: float) -> R:
        session = self._session
        if session is None:
            raise request.ERROR.named("USER_NOT_LOGGED_IN", "Log in first.")
        return session.call(request, timeout)

    def renew_token(self, token: str, timeout: float) -> None:
        session = self._session
        if session is None:
            raise RenewTokenError.named("USER_NOT_LOGGED_IN", "Log in first.")
        session.connection.use_token(token)  # the broker checks a token only on a new connection

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        return self._carrier(control).upload(blob, control, resume_key)

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        return self._carrier(control).download(media_id, sink, control)

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        return self._carrier(control).media_info(media_id, control)

    def download_part(self, media_id: str, part: PartSink, control: TransferControl) -> MediaInfo:
        return self._carrier(control).download_part(media_id, part, control)

    def messages_handled(self, keys: Sequence[int]) -> None:
        session = self._session
        if session is not None:
            session.mail.handled(keys)

    def close(self) -> None:
        session = self._session
        if session is not None:
            session.connection.stop()
            self._forget(session)

    def _forget(self, session: Session) -> None:
        """Drop a session that has ended; before that, another `close` can finish ending it."""
        with self._lock:
            if self._session is not session:
                return
            store = self._store
        if store is not None:
            store.close()
        with self._lock:
            if self._session is session:
                self._session = self._store = None

    def _make_store(self) -> MediaStore | None:
        url = self._address.media or self._options.media
        if url is None:
            return None
        try:
            return self._options.make_media_store(url)
        except Exception as error:  # a plugin's media store may raise anything
            raise LoginError.named(
                "REJECTED", f"The media store cannot be made: {error}", error
            ) from error

    def _carrier(self, control: TransferControl) -> StoreCarrier:
        with self._lock:
            store, session = self._store, self._session
        if session is None:
            raise control.kind.error("NOT_LOGGED_IN", "Log in first.")
        if store is None:
            raise control.kind.error(
                "FAILURE",
                "This transport has no media store for uploads and downloads: add "
                "?media=disk:///folder or another store's URL to the client's URL.",
            )
        return StoreCarrier(DirectAccess(store, session.records))
