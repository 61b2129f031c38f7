"""The gateway transport: WebSocket for calls and events, HTTP for media."""

from __future__ import annotations

import secrets
from typing import TypeVar
from urllib.parse import urlsplit

from ...blob import Blob
from ...errors import RenewTokenError
from ...protocol.events import CancelUpload
from ...protocol.requests import RenewToken, Request
from ...protocol.values import MediaInfo
from ...transfers.control import TransferControl
from ...transfers.sink import PartSink, Sink
from ..base import Credentials, Listener, TransportOptions
from ..session_transport import SessionTransport
from .connection import Connection
from .proxy_settings import find_proxy_settings, gateway_url_problem

SIGNALLING_PATH = "/v1/signalling"
MEDIA_PATH = "/v1/media"
R = TypeVar("R")


class GatewayTransport(SessionTransport[Connection]):
    """Talks to a gateway at `ws://host:port` or `wss://…`. Thread-safe.

    Owns one reader thread, from `open` to `close` (or until the hub ends the session). The reader
    connects, logs in, reads frames, sends pings and reconnects. Calls are sent on their callers'
    threads.
    """

    def __init__(self, url: str, options: TransportOptions) -> None:
        super().__init__()
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

    def open(self, credentials: Credentials, listener: Listener) -> None:
        connection = Connection(
            self._signalling,
            self._media_url,
            self._proxy_settings,
            self._options,
            credentials,
            listener,
        )
        self._log_in(connection, connection.start)

    def call(self, request: Request[R], timeout: float) -> R:
        return self._logged_in(request.ERROR).call(request, timeout)

    def renew_token(self, token: str, timeout: float) -> None:
        token = token.strip()
        connection = self._logged_in(RenewTokenError)
        if connection.session.is_attached:
            connection.session.call(RenewToken(token), timeout)
        connection.use_token(token)

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
