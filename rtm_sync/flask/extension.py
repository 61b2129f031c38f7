"""RTM in Flask: one client for each process, handlers with the app's context, media as responses.

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
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import IO, Any, TypeVar, cast

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from werkzeug.datastructures import FileStorage
from werkzeug.wsgi import FileWrapper

from ..blob import CHUNK, Blob, Payload
from ..client.channel import RtmChannel
from ..client.client import RtmClient
from ..client.events import Handler
from ..client.sender import RtmSender
from ..errors import RtmError
from ..hub.auth.tokens import Privileges, make_token
from ..messages import MessageType, RtmFileMessage, RtmImageMessage
from .commands import rtm_commands
from .disconnect import ClientDisconnectProbe
from .relay import EventRelay
from .sessions import EXTENSION, Process, Registered, bare_type

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
"""What the extension reads of `app.config`, and its defaults."""

_TURN = 1.0  # seconds that a stream may take of a server that serves one request at a time

# What a browser shows by itself and cannot run as a page of ours.
_SHOWN = re.compile(
    r"(image/(jpeg|png|gif|webp|avif|bmp)|audio/[\w.+-]+|video/[\w.+-]+|text/plain)"
)


class Rtm:
    """The extension. One object serves any number of apps, each with its own client.

    The client is made and logged in at its first use in a process, so after a fork, and closed with
    the process. Thread-safe.

    Args:
        app: an app to `init_app` at once.

    Configuration (`app.config`): `RTM_URL`, where the hub is (`memory://`); `RTM_APP_ID` (needed);
    `RTM_UID`, a template with `{host}` and `{pid}`; `RTM_TOKEN`, or `RTM_SECRET` to mint its own,
    valid for `RTM_TOKEN_TTL` seconds; `RTM_CLIENT_OPTIONS`, a dict of arguments for `RtmClient`;
    `RTM_USERS`, how many users `client_for` may have at once in a process, and `RTM_USER_LINGER`,
    seconds until one that is not used is logged out.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._handlers: list[Registered] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve an app, and give it `flask rtm` commands.

        Raises:
            RuntimeError: the app has an `Rtm` already.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError(f"{app.name} has an Rtm already; init_app it once.")
        for name, value in SETTINGS.items():
            app.config.setdefault(name, value)
        app.extensions[EXTENSION] = Process(app, self._handlers)
        app.cli.add_command(rtm_commands(self))

    # -- sessions --

    @property
    def client(self) -> RtmClient:
        """This process's client of the current app, logged in; anew where the hub had ended it.

        Raises:
            LoginError: refused, or unreachable; the next use tries again.
            RuntimeError: there is no app context, or a setting is missing.
        """
        return self._process.session(None).client

    def client_for(self, uid: str) -> RtmClient:
        """A client logged in as one of the app's users, in this process.

        Kept while an event stream of the user's is open, or it is asked for; `RTM_USER_LINGER`
        seconds later it is logged out. A login of the same user in another process ends it, so with
        several worker processes a user should stay with one of them.

        Args:
            uid: the user's. Where the hub checks tokens, `RTM_SECRET` is needed.

        Raises:
            LoginError: refused, or unreachable.
            ServiceUnavailable: `RTM_USERS` users are here already; a 503 for the browser.
        """
        return self._process.session(uid).client

    @property
    def relay(self) -> EventRelay:
        """The events of this process's client, and of its channels."""
        return self._process.session(None).relay

    def relay_for(self, uid: str) -> EventRelay:
        """The events of one of the app's users, and of the channels joined for the user."""
        return self._process.session(uid).relay

    def join(self, channel_id: str, *, uid: str | None = None) -> RtmChannel:
        """The joined channel; joins it at the first call, and relays its events.

        Args:
            channel_id: the channel's name.
            uid: one of the app's users; this process's client when not given.

        Raises:
            JoinChannelError: refused. LoginError: refused, or unreachable.
        """
        return self._process.session(uid).join(channel_id)

    def leave(self, channel_id: str, *, uid: str | None = None) -> None:
        """Leave a channel that was joined by `join`; another is ignored.

        Raises:
            LeaveChannelError: not done in time. LoginError: refused, or unreachable.
        """
        self._process.session(uid).leave(channel_id)

    def logout(self, uid: str) -> None:
        """Log one of the app's users out of this process, as when the user signs out of the app.

        Open event streams of the user's end. A user who is not here is ignored.
        """
        self._process.end(uid)

    @property
    def sender(self) -> RtmSender:
        """A sender of the current app: over HTTP, without a session, as any user.

        Raises:
            RuntimeError: the hub has no HTTP API, as `memory://` has none; or a setting is missing.
        """
        return self._process.sender()

    def on(self, event: str, *, channel: str | None = None) -> Callable[[H], H]:
        """Decorate a handler of the client's events, or of a channel's, which is joined then.

        It runs in an app context, on the client's dispatcher thread, one event after the other. A
        process hears of events once its client is there: from the first use of `client` or `relay`,
        or from `start`. Handlers that are decorated later are for later clients.

        Args:
            event: as `RtmClient.on` and `RtmChannel.on` take it.
            channel: the channel's id.

        Raises:
            ValueError: there is no such event.
        """
        kind = RtmClient if channel is None else RtmChannel
        name = kind.event_name(event)

        def register(handler: H) -> H:
            self._handlers.append(Registered(name, channel, handler))
            return handler

        return register

    def start(self, app: Flask) -> None:
        """Log in now, for processes that only listen: call it after the fork.

        Raises:
            LoginError: refused, or unreachable.
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
        timeout: float | None = 120.0,
        client: RtmClient | None = None,
        **options: Any,
    ) -> RtmFileMessage | RtmImageMessage:
        """Upload what a form brought, and make the message that points to it.

        Read from where werkzeug has put it, in memory or on disk, without a copy. Blocks, as the
        request's files end with the request.

        Args:
            file: `request.files["photo"]`, or anything that `RtmClient` uploads.
            message_type: IMAGE for pictures and FILE for the rest when not given.
            file_name: the browser's when not given.
            timeout: seconds.
            client: whose upload it is; this process's when not given.
            options: as `RtmClient.create_media_message_by_uploading` takes them.

        Raises:
            UploadMediaError: SIZE_OVERFLOW over 30 MB, INVALID_ARGUMENT for an empty file, or what
                else there is. TimeoutError: not done in time; it is given up.
        """
        if isinstance(file, FileStorage):
            file.stream.seek(0)  # the view may have looked into it
            blob = Blob.from_file(
                file.stream,
                name=re.split(r"[/\\]", file.filename or "")[-1],  # some send their whole path
                content_type=bare_type(file.mimetype),
            )
        else:
            blob = Blob.of(file)
        if message_type is None:
            picture = blob.content_type.startswith("image/")
            message_type = MessageType.IMAGE if picture else MessageType.FILE
        uploader = self.client if client is None else client
        with uploader.create_media_message_by_uploading(
            blob, message_type=message_type, file_name=file_name, **options
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
        """A medium as a response: streamed while it arrives, with Range, ETag and HEAD.

        Pictures, sound, film and plain text are shown by the browser; all else is a download, as
        a stranger's HTML must not run as a page of yours. Who may see it is for the view to say.

        Args:
            media_id: from a message.
            as_attachment: make it a download in any case.
            client: who downloads it; this process's when not given.

        Raises:
            DownloadMediaError: NOT_EXIST for an unknown or expired one, or what else there is.
        """
        stream = (self.client if client is None else client).open_media(media_id)
        try:
            info = stream.info
        except BaseException:
            stream.close()
            raise
        shown = not as_attachment and _SHOWN.fullmatch(info.content_type)
        response = Response(
            FileWrapper(cast("IO[bytes]", stream), CHUNK),
            content_type=info.content_type,
            direct_passthrough=True,
        )
        response.call_on_close(stream.close)
        response.headers.set(
            "Content-Disposition",
            "inline" if shown else "attachment",
            filename=info.file_name or info.media_id,
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        response.headers["Cache-Control"] = "private, max-age=3600, immutable"
        response.content_length = info.size
        response.set_etag(info.sha256)
        try:
            response.make_conditional(request, accept_ranges=True, complete_length=info.size)
        except BaseException:
            response.close()  # the range is not one of the medium's: nobody will read it
            raise
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
            uid_of: called in the request; the user's uid, or None for 401.
            ttl: seconds that a token is valid.
            privileges_of: what a user may do; everything when not given.
            name: the blueprint's.
            url: where it answers GET.
        """
        blueprint = Blueprint(name, __name__)

        @blueprint.get(url)
        def token() -> Response:
            uid = uid_of()
            if uid is None:
                return _refused(401, "Nobody is logged in.")
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

        A browser that comes back (`Last-Event-ID`, or `last_event_id` in the query) gets what it
        missed; the first event of each stream, `ready`, says whether it could. Each stream takes a
        thread or greenlet of the server; one that has a single thread ends streams after a second.

        Args:
            uid_of: called in the request; whose events, or None for 401. Without it everybody gets
                those of this process's client.
            seconds: until a stream ends and the browser comes back.
            heartbeat: seconds between signs of life.
            name: the blueprint's.
            url: where it answers GET.
        """
        blueprint = Blueprint(name, __name__)

        @blueprint.get(url)
        def events() -> Response:
            uid = None if uid_of is None else uid_of()
            if uid is None and uid_of is not None:
                return _refused(401, "Nobody is logged in.")
            last = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
            many = request.environ.get("wsgi.multithread", True)
            session = self._process.session(uid)
            probe = ClientDisconnectProbe(request.environ)
            lasting = seconds if many else min(seconds, _TURN)
            response = Response(
                session.stream(last, lasting, heartbeat, probe.is_over),
                content_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
            response.call_on_close(probe.close)
            return response

        return blueprint

    @property
    def _process(self) -> Process:
        try:
            process: Process = current_app.extensions[EXTENSION]
        except KeyError:
            raise RuntimeError(f"{current_app.name} has no Rtm; call rtm.init_app(app).") from None
        return process


def status_of(error: RtmError) -> int:
    """The HTTP status that says best what an error means, for an `errorhandler(RtmError)`."""
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


def _refused(status: int, message: str) -> Response:
    response = jsonify(message=message)
    response.status_code = status
    return response
