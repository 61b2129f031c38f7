"""The gateway transport: WebSocket for calls and events, HTTP for media."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from ...blob import Blob
from ...errors import LoginError, RenewTokenError
from ...protocol.events import CancelUpload
from ...protocol.requests import RenewToken, Request
from ...protocol.values import MediaInfo
from ...transfers.control import TransferControl
from ...transfers.sink import PartSink, Sink
from ..base import Credentials, Listener, Transport, TransportOptions
from .connection import Connection
from .proxy_settings import find_proxy_settings, gateway_url_problem

SIGNALLING_PATH = "/v1/signalling"
MEDIA_PATH = "/v1/media"
_ACKNOWLEDGE_HANDLED = 32
R = TypeVar("R")


class GatewayTransport(Transport):
    """Talks to a gateway at `ws://host:port` or `wss://…`. Thread-safe.

    Owns one reader thread, from `open` to `close` (or until the hub ends the session). The reader
    connects, logs in, reads frames, sends pings and reconnects. Calls are sent on their callers'
    threads.
    """

    def __init__(self, url: str, options: TransportOptions) -> None:
        problem = gateway_url_problem(url)
        if problem is not None:
            raise ValueError(problem)
        parts = urlsplit(url)
        secure = parts.scheme in ("wss", "https")
        base = parts.netloc + parts.path.rstrip("/")
        self._signalling = f"{'wss' if secure else 'ws'}://{base}{SIGNALLING_PATH}"
        self._media_url = f"{'https' if secure else 'http'}://{base}{MEDIA_PATH}"
        self._options = options
        self._proxy_settings = find_proxy_settings(self._media_url, options.proxy, options.ca_file)
        self._lock = threading.Lock()  # guards _connection and _listens
        self._connection: Connection | None = None
        self._listens = True

    def open(self, credentials: Credentials, listener: Listener) -> None:
        connection = Connection(
            self._signalling,
            self._media_url,
            self._proxy_settings,
            self._options,
            credentials,
            listener,
        )
        try:
            with self._lock:
                if self._connection is not None:
                    raise LoginError.named("ALREADY_LOGIN", "This client is logged in already.")
                self._connection = connection
                connection.session.set_listening(self._listens)
            connection.start()
        except BaseException as error:
            connection.give_up(error)
            self._forget(connection)
            raise

    def call(self, request: Request[R], timeout: float) -> R:
        with self._lock:
            connection = self._connection
        if connection is None:
            raise request.ERROR.named("USER_NOT_LOGGED_IN", "Log in first.")
        return connection.call(request, timeout)

    def renew_token(self, token: str, timeout: float) -> None:
        with self._lock:
            connection = self._connection
        if connection is None:
            raise RenewTokenError.named("USER_NOT_LOGGED_IN", "Log in first.")
        if connection.session.is_attached:
            connection.session.call(RenewToken(token.strip()), timeout)
        connection.use_token(token.strip())

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        connection = self._connected(control)
        key = resume_key or secrets.token_urlsafe(24)

        def give_up(key: str) -> None:
            # The signalling connection may still work when the upload's does not. Do not wait.
            connection.session.notify(CancelUpload(key))

        try:
            return connection.http.upload(blob, control, key, give_up, keep=resume_key is not None)
        except BaseException:
            if resume_key is None or control.given_up:
                give_up(key)
            raise

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        return self._connected(control).http.download(media_id, sink, control)

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        return self._connected(control).http.media_info(media_id, control)

    def download_part(self, media_id: str, part: PartSink, control: TransferControl) -> MediaInfo:
        return self._connected(control).http.download(media_id, part, control)

    def close(self) -> None:
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.stop()
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        """Drop a connection that has ended; before that, another `close` can finish ending it."""
        with self._lock:
            if self._connection is connection:
                self._connection = None

    def set_listening(self, listens: bool) -> None:
        with self._lock:
            self._listens = listens
            connection = self._connection
        if connection is not None:
            connection.session.set_listening(listens)

    def messages_handled(self, keys: Sequence[int]) -> None:
        connection = self._connection
        if connection is not None:
            connection.session.messages_handled(keys)

    def event_handled(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.session.acknowledge(_ACKNOWLEDGE_HANDLED)

    def _connected(self, control: TransferControl) -> Connection:
        with self._lock:
            connection = self._connection
        if connection is None:
            raise control.kind.error("NOT_LOGGED_IN", "Log in first.")
        return connection
