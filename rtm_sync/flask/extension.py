"""RTM in Flask: one client for each process, handlers in the app's context, media as responses.

rtm = Rtm()

def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    rtm.init_app(app)
    return app
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from werkzeug.datastructures import FileStorage
from werkzeug.wsgi import FileWrapper

from ..blob import CHUNK, Blob, Payload
from ..client.channel import RtmChannel
from ..client.client import RtmClient
from ..client.listeners import Handler
from ..client.sender import RtmSender
from ..errors import RtmError
from ..hub.auth.tokens import Privileges, make_token
from ..messages import MessageType, RtmFileMessage, RtmImageMessage
from ..thumbnails.contract import ThumbnailSource
from ..transfers.upload import checked_blob
from .commands import rtm_commands
from .disconnect import ClientDisconnectProbe
from .relay import EventRelay
from .sessions import EXTENSION, Process, RegisteredHandler, bare_type

H = TypeVar("H", bound=Handler)

SETTINGS: Mapping[str, object] = {
    "RTM_URL": "memory://",
    "RTM_APP_ID": "",
    "RTM_UID": "web-{host}-{pid}",
    "RTM_TOKEN": "",
    "RTM_SECRET": "",
    "RTM_TOKEN_TTL": 3600,
    "RTM_CLIENT_OPTIONS": {},
    "RTM_USERS": 500,
    "RTM_USER_LINGER": 60,
}
"""The extension's settings in `app.config`, with their defaults."""

_TURN = 1.0  # seconds for a stream of a server that serves one request at a time

# Content types that a browser shows without running scripts.
_SHOWN = re.compile(
    r"(image/(jpeg|png|gif|webp|avif|bmp)|audio/[\w.+-]+|video/[\w.+-]+|text/plain)"
)
_HEADER = re.compile(r"[\x20-\x7e]{1,255}")


class Rtm:
    """The extension. One object serves any number of apps, each with its own client.

    The client is made and logged in at its first use in a process, which is after a fork. It is
    closed with the process. Thread-safe.

    Args:
        app: an app for which `init_app` is called at once.

    Configuration (`app.config`):

    - `RTM_URL`: the hub's URL (`memory://`).
    - `RTM_APP_ID`: the app; required.
    - `RTM_UID`: a template for the process's user, with `{host}` and `{pid}`.
    - `RTM_TOKEN`: the process's token; or `RTM_SECRET`: the app's secret, which signs tokens that
      are valid for `RTM_TOKEN_TTL` seconds.
    - `RTM_CLIENT_OPTIONS`: a dict of arguments for `RtmClient`.
    - `RTM_USERS`: the largest number of users that `client_for` keeps logged in, for each process.
    - `RTM_USER_LINGER`: seconds after which an unused user is logged out.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._handlers: list[RegisteredHandler] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve an app, and add the `flask rtm` commands to it.

        Raises:
            RuntimeError: the app has an `Rtm` already.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError(f"{app.name} has an Rtm already; call init_app once for each app.")
        for name, value in SETTINGS.items():
            app.config.setdefault(name, value)
        app.extensions[EXTENSION] = Process(app, self._handlers)
        app.cli.add_command(rtm_commands(lambda: self.client))

    # -- sessions --

    @property
    def client(self) -> RtmClient:
        """The logged-in client of the current app in this process.

        After the hub has ended its session, the next use logs in again with a new client.

        Raises:
            LoginError: the login was refused, or the hub is unreachable. The next use tries again.
            RuntimeError: there is no app context, or a setting is missing.
        """
        return self._process.session(None).client

    def client_for(self, uid: str) -> RtmClient:
        """A client that is logged in as one of the app's users, in this process.

        The client stays logged in while an event stream of the user is open, and until
        `RTM_USER_LINGER` seconds after its last use. A login of the same user in another process
        ends its session, so requests of one user should go to one worker process.

        Args:
            uid: the user. A hub that checks tokens needs the setting `RTM_SECRET`.

        Raises:
            LoginError: the login was refused, or the hub is unreachable.
            ServiceUnavailable: `RTM_USERS` users are logged in already; a 503 for the browser.
        """
        return self._process.session(uid).client

    @property
    def relay(self) -> EventRelay:
        """The relay of this process's client: its events, and those of its channels."""
        return self._process.session(None).relay

    def relay_for(self, uid: str) -> EventRelay:
        """The relay of one of the app's users: the user's events, and those of joined channels."""
        return self._process.session(uid).relay

    def join(self, channel_id: str, *, uid: str | None = None) -> RtmChannel:
        """A joined channel. The first call joins the channel and relays its events.

        Args:
            channel_id: the channel.
            uid: one of the app's users; None for this process's client.

        Raises:
            JoinChannelError: the join was refused.
            LoginError: the login was refused, or the hub is unreachable.
        """
        return self._process.session(uid).join(channel_id)

    def leave(self, channel_id: str, *, uid: str | None = None) -> None:
        """Leave a channel that `join` has joined. Other channels are ignored.

        Raises:
            LeaveChannelError: the hub did not answer in time.
            LoginError: the login was refused, or the hub is unreachable.
        """
        self._process.session(uid).leave(channel_id)

    def logout(self, uid: str) -> None:
        """Log one of the app's users out of this process, for example at sign-out.

        Open event streams of the user end. A user who is not logged in here is ignored.
        """
        self._process.end(uid)

    @property
    def sender(self) -> RtmSender:
        """The sender of the current app, which sends over HTTP as any user, without a session.

        Raises:
            RuntimeError: the hub has no HTTP API (`memory://`), or a setting is missing.
        """
        return self._process.sender()

    def on(self, event: str, *, channel: str | None = None) -> Callable[[H], H]:
        """Decorate a handler of the client's events, or of a channel's events.

        The handler runs in an app context, on the client's dispatcher thread, one event at a time.
        A process receives events once its client is logged in: from the first use of `client` or
        `relay`, or from `start`. A handler that is decorated later serves only later clients.

        Args:
            event: as for `RtmClient.on` and `RtmChannel.on`.
            channel: a channel's id. The client joins the channel after its login.

        Raises:
            ValueError: there is no such event.
        """
        kind = RtmClient if channel is None else RtmChannel
        name = kind.event_name(event)

        def register(handler: H) -> H:
            self._handlers.append(RegisteredHandler(name, channel, handler))
            return handler

        return register

    def start(self, app: Flask) -> None:
        """Log in now, for processes that only receive events. Call it after the fork.

        Raises:
            LoginError: the login was refused, or the hub is unreachable.
        """
        with app.app_context():
            self._process.session(None)

    # -- media --

    def upload(
        self,
        file: FileStorage | Payload,
        *,
        message_type: MessageType | str | None = None,
        file_name: str | None = None,
        thumbnail: FileStorage | ThumbnailSource | None = None,
        timeout: float | None = 120.0,
        client: RtmClient | None = None,
        **options: Any,
    ) -> RtmFileMessage | RtmImageMessage:
        """Upload a file of a form, and make the media message for it.

        The file is read from werkzeug's memory or disk, without a copy. The call blocks, because
        the request's files end with the request.

        Args:
            file: `request.files["photo"]`, or any payload that `RtmClient` uploads.
            message_type: FILE or IMAGE; None for IMAGE for pictures, and FILE otherwise.
            file_name: the name that receivers see; None for the browser's name.
            thumbnail: `request.files["thumbnail"]`, or as for `RtmClient`.
            timeout: seconds for the whole upload.
            client: the client that uploads; None for this process's client.
            options: as for `RtmClient.create_media_message_by_uploading`.

        Raises:
            UploadMediaError: SIZE_OVERFLOW above 30 MB, INVALID_ARGUMENT for an empty file, or
                another reason.
            TimeoutError: the upload was not done in time, and is cancelled.
        """
        blob = checked_blob(_form_file(file) if isinstance(file, FileStorage) else file)
        if isinstance(thumbnail, FileStorage):
            thumbnail = _form_file(thumbnail)
        if message_type is None:
            picture = blob.content_type.startswith("image/")
            message_type = MessageType.IMAGE if picture else MessageType.FILE
        uploader = self.client if client is None else client
        with uploader.create_media_message_by_uploading(
            blob,
            message_type=message_type,
            file_name=file_name,
            thumbnail=thumbnail,
            **options,
        ) as transfer:
            try:
                return transfer.result(timeout)
            except FutureTimeout as error:  # no TimeoutError before Python 3.11
                raise TimeoutError(f"The upload was not done within {timeout} seconds.") from error

    def send_media(
        self,
        media_id: str,
        *,
        as_attachment: bool = False,
        client: RtmClient | None = None,
    ) -> Response:
        """A response with a medium, streamed while it arrives, with Range, ETag and HEAD.

        Only the bytes that are sent are downloaded.

        The browser shows pictures, sound, video and plain text. Other content is a download,
        because HTML from another user must not run as a page of your site. The view decides which
        users may see the medium.

        Args:
            media_id: the media id of a message.
            as_attachment: whether the response is always a download.
            client: the client that downloads; None for this process's client.

        Raises:
            DownloadMediaError: NOT_EXIST for an unknown or expired medium, or another reason.
        """
        downloader = self.client if client is None else client
        info = downloader.get_media_info(media_id)
        shown = not as_attachment and _SHOWN.fullmatch(info.content_type)
        is_header = _HEADER.fullmatch(info.content_type)  # transports may hand on any text
        response = Response(
            content_type=info.content_type if is_header else "application/octet-stream"
        )
        name = quote(info.file_name or info.media_id, safe="", errors="replace")
        disposition = f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{name}"
        response.headers["Content-Disposition"] = disposition
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        response.headers["Cache-Control"] = "private, max-age=3600, immutable"
        response.content_length = info.size
        response.set_etag(info.sha256)
        response.make_conditional(request, accept_ranges=True, complete_length=info.size)
        if request.method == "HEAD" or response.status_code == 304:
            return response
        part = response.content_range
        if response.status_code == 206 and part.start is not None:
            stream = downloader.open_media(media_id, start=part.start, stop=part.stop)
        else:
            stream = downloader.open_media(media_id)
        try:
            _ = stream.info  # waits for the first byte: before it, an error can have a status
        except BaseException:
            stream.close()
            raise
        response.response = FileWrapper(cast("IO[bytes]", stream), CHUNK)
        response.direct_passthrough = True
        response.call_on_close(stream.close)
        return response

    # -- for browsers --

    def token_blueprint(
        self,
        uid_of: Callable[[], str | None],
        *,
        ttl: float = 3600.0,
        privileges_of: Callable[[str], Privileges | None] | None = None,
        name: str = "rtm_token",
        url: str = "/rtm/token",
    ) -> Blueprint:
        """A blueprint that gives the logged-in user a token: `{app_id, uid, token, expires_at}`.

        Args:
            uid_of: returns the uid of the request's user, or None for status 401.
            ttl: seconds that a token is valid.
            privileges_of: returns the privileges of a user; None grants all privileges.
            name: the blueprint's name.
            url: the path of its GET route.
        """
        blueprint = Blueprint(name, __name__)

        @blueprint.get(url)
        def token() -> Response:
            uid = uid_of()
            if uid is None:
                return _refused(401, "No user is logged in.")
            process = self._process
            allowed = None if privileges_of is None else privileges_of(uid)
            made = make_token(
                process.app_id, uid, process.setting("RTM_SECRET"), ttl=ttl, privileges=allowed
            )
            response = jsonify(
                app_id=process.app_id, uid=uid, token=made, expires_at=int(time.time() + ttl)
            )
            response.headers["Cache-Control"] = "no-store"
            return response

        return blueprint

    def events_blueprint(
        self,
        uid_of: Callable[[], str | None] | None = None,
        *,
        seconds: float = 600.0,
        heartbeat: float = 15.0,
        name: str = "rtm_events",
        url: str = "/rtm/events",
    ) -> Blueprint:
        """A blueprint that streams events to browsers as Server-Sent Events.

        A browser that reconnects (`Last-Event-ID`, or `last_event_id` in the query) gets the events
        that it missed. The first event of each stream, `ready`, tells whether they could be
        recovered. Each stream occupies a thread or greenlet of the server. On a server with a
        single thread each stream ends after one second.

        Args:
            uid_of: returns the uid of the request's user, whose events are streamed, or None for
                status 401. Without `uid_of`, every browser gets the events of this process's
                client.
            seconds: the length of a stream, after which the browser reconnects.
            heartbeat: seconds between comments that keep an idle stream alive.
            name: the blueprint's name.
            url: the path of its GET route.
        """
        blueprint = Blueprint(name, __name__)

        @blueprint.get(url)
        def events() -> Response:
            uid = None if uid_of is None else uid_of()
            if uid is None and uid_of is not None:
                return _refused(401, "No user is logged in.")
            last = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
            environ = request.environ
            session = self._process.session(uid)
            lasting = seconds if environ.get("wsgi.multithread", True) else min(seconds, _TURN)

            def stream() -> Iterator[bytes]:
                # The probe is the generator's, because servers do not close every response:
                # Werkzeug drops the one whose connection was reset.
                with ClientDisconnectProbe(environ) as probe:
                    yield from session.stream(last, lasting, heartbeat, probe.is_over)

            return Response(
                stream(),
                content_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )

        return blueprint

    @property
    def _process(self) -> Process:
        try:
            process: Process = current_app.extensions[EXTENSION]
        except KeyError:
            raise RuntimeError(f"{current_app.name} has no Rtm; call rtm.init_app(app).") from None
        return process


def status_of(error: RtmError) -> int:
    """The HTTP status that fits an error best, for an `errorhandler(RtmError)`."""
    return {
        "INVALID_ARGUMENT": 400,
        "INVALID_MESSAGE": 400,
        "INVALID_USERID": 400,
        "USER_NOT_LOGGED_IN": 503,
        "NOT_LOGGED_IN": 503,
        "REJECTED": 403,
        "NOT_EXIST": 404,
        "USER_NOT_FOUND": 404,
        "SIZE_OVERFLOW": 413,
        "TOO_OFTEN": 429,
        "CONCURRENCY_LIMIT_EXCEEDED": 429,
        "TIMEOUT": 504,
    }.get(error.reason, 502)


def _form_file(file: FileStorage) -> Blob:
    """A blob of a form's file, which is read in place."""
    file.stream.seek(0)  # the view may have read a part
    return Blob.from_file(
        file.stream, name=file.filename or "", content_type=bare_type(file.mimetype)
    )


def _refused(status: int, message: str) -> Response:
    response = jsonify(message=message)
    response.status_code = status
    return response
