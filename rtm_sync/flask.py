"""RTM in Flask: one client for each process, handlers with the app's context, media as responses.

rtm = Rtm()

def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    rtm.init_app(app)
    return app
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import IO, Any, TypeVar, cast

import click
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from flask.cli import AppGroup
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.wsgi import FileWrapper

from .blob import CHUNK, Blob, Payload
from .client.channel import RtmChannel
from .client.client import RtmClient
from .client.events import EventEmitter, Handler
from .client.sender import RtmSender
from .errors import JoinChannelError, RtmError
from .event_relay import EventRelay
from .hub.tokens import Privileges, make_token
from .messages import MessageType, RtmFileMessage, RtmImageMessage
from .portable import after_fork_in_child
from .protocol import ConnectionState, id_problem
from .supervision import BackgroundThread, supervised_thread
from .visits import Visit

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

_EXTENSION = "rtm_sync"
_LOGIN_PATIENCE = 60.0  # seconds for another thread's login
_SWEEP_INTERVAL = 1.0
_SWEEP_PATIENCE = 5.0
_TURN = 1.0  # seconds that a stream may take of a server that serves one request at a time
_NOT_OF_UID = re.compile(r"[^A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,]")
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
        self._handlers: list[_Registered] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve an app, and give it `flask rtm` commands.

        Raises:
            RuntimeError: the app has an `Rtm` already.
        """
        if _EXTENSION in app.extensions:
            raise RuntimeError(f"{app.name} has an Rtm already; init_app it once.")
        for name, value in SETTINGS.items():
            app.config.setdefault(name, value)
        app.extensions[_EXTENSION] = _Process(app, self._handlers)
        app.cli.add_command(_commands(self))

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
            self._handlers.append(_Registered(name, channel, handler))
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
                content_type=_bare(file.mimetype),
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
            return transfer.result(timeout)

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
            visit = Visit(request.environ)
            lasting = seconds if many else min(seconds, _TURN)
            response = Response(
                session.stream(last, lasting, heartbeat, visit.is_over),
                content_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
            response.call_on_close(visit.close)
            return response

        return blueprint

    @property
    def _process(self) -> _Process:
        try:
            process: _Process = current_app.extensions[_EXTENSION]
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


@dataclass(frozen=True, slots=True)
class _Registered:
    event: str
    channel: str | None
    handler: Handler


class _Session:
    """One logged-in user in this process: client, relay, and the channels they share."""

    def __init__(self, client: RtmClient, relay: EventRelay) -> None:
        self.client = client
        self.relay = relay
        self._lock = threading.Lock()  # guards what follows
        self._channels: dict[str, RtmChannel] = {}
        self._streams = 0
        self._used_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has ended: a login elsewhere, a token that was not renewed, a logout."""
        return self.client.uid is None or self.client.connection_state is ConnectionState.ABORTED

    def touch(self) -> None:
        """It is used now."""
        with self._lock:
            self._used_at = time.monotonic()

    def idle(self) -> float:
        """Seconds since it was used; 0 while somebody listens."""
        with self._lock:
            return 0.0 if self._streams else time.monotonic() - self._used_at

    def join(self, channel_id: str) -> RtmChannel:
        with self._lock:
            known = self._channels.get(channel_id)
        if known is not None:
            return known
        channel = self.client.create_channel(channel_id)
        try:
            channel.join()
        except JoinChannelError as error:
            if error.reason != "ALREADY_JOINED":  # by another request, just now
                raise
        with self._lock:
            mine = self._channels.setdefault(channel_id, channel) is channel
        if mine:
            self.relay.watch(channel)
        return channel

    def leave(self, channel_id: str) -> None:
        with self._lock:
            channel = self._channels.pop(channel_id, None)
        if channel is not None:
            self.relay.unwatch(channel)
            channel.leave()

    def stream(
        self,
        last_event_id: str | None,
        seconds: float,
        heartbeat: float,
        is_over: Callable[[], bool],
    ) -> Iterator[bytes]:
        with self._lock:
            self._streams += 1
        try:
            yield from self.relay.stream(
                last_event_id, seconds=seconds, heartbeat=heartbeat, is_over=is_over
            )
        finally:
            with self._lock:
                self._streams -= 1
                self._used_at = time.monotonic()

    def close(self) -> None:
        self.relay.close()
        self.client.close()


class _Process:
    """What one app has in one process: sessions and a sender, made when they are needed.

    Owns a daemon thread that logs out users who are not used any more, while there are users.
    """

    def __init__(self, app: Flask, handlers: list[_Registered]) -> None:
        self._app = app
        self._handlers = handlers
        self.forget()
        _processes.add(self)

    def forget(self) -> None:
        """Begin anew, in the child of a fork: what there was is the parent's."""
        self._changed = threading.Condition()  # guards what follows; never held while logging in
        self._sessions: dict[str | None, Future[_Session]] = {}
        self._sender: RtmSender | None = None
        self._stopping = threading.Event()
        changed, sessions, stopping = self._changed, self._sessions, self._stopping
        self._sweeper = BackgroundThread(
            "rtm-sync-flask-sweeper",
            lambda: supervised_thread(
                "flask sweeper", lambda: self._sweep(changed, sessions), stopping
            ),
        )

    def setting(self, name: str) -> str:
        """A setting that must be there. Raises RuntimeError."""
        value = str(self._app.config[name])
        if not value:
            raise RuntimeError(f"app.config[{name!r}] is empty; the extension needs it for this.")
        return value

    @property
    def app_id(self) -> str:
        return self.setting("RTM_APP_ID")

    @property
    def uid(self) -> str:
        """The process's own uid."""
        host = _NOT_OF_UID.sub("-", socket.gethostname())[:40]
        template = self.setting("RTM_UID")
        try:
            uid = template.format(host=host, pid=os.getpid())
        except (LookupError, ValueError) as error:
            raise RuntimeError(
                f"RTM_UID is {template!r}; there are {{host}} and {{pid}} to fill in."
            ) from error
        problem = id_problem("RTM_UID", uid)
        if problem is not None:
            raise RuntimeError(problem)
        return uid

    def session(self, uid: str | None) -> _Session:
        """A user's session, or (None) the process's own. One thread logs in, others wait for it."""
        limit = int(self._app.config["RTM_USERS"])
        ended = None
        with self._changed:
            waiting = self._sessions.get(uid)
            if waiting is not None and waiting.done():
                known = waiting.result()
                known.touch()  # with the lock held: the sweeper is not to take it now
                if known.is_over:
                    ended, waiting = known, None
                    del self._sessions[uid]
            mine = waiting is None
            if waiting is None:
                users = len(self._sessions.keys() - {None})
                if uid is not None and users >= limit:
                    raise ServiceUnavailable(f"{limit} users are here, as many as RTM_USERS says.")
                if uid is not None:
                    try:
                        self._sweeper.start()
                    except RuntimeError as error:
                        raise ServiceUnavailable(f"A login needs a thread: {error}.") from error
                waiting = self._sessions[uid] = Future()
        if ended is not None:
            ended.close()
        if mine:
            self._log_in(uid, waiting)
        return waiting.result(_LOGIN_PATIENCE)

    def _sweep(
        self, changed: threading.Condition, sessions: dict[str | None, Future[_Session]]
    ) -> None:
        """Log out who has not been used for a while, until there are no users of these left."""
        while True:
            with changed:
                changed.wait(_SWEEP_INTERVAL)
                if self._sessions is not sessions:
                    return  # forgotten, and closed by who forgot them
                if not sessions.keys() - {None}:
                    self._sweeper.retire()
                    return
                linger = float(self._app.config["RTM_USER_LINGER"])
                unused = [
                    uid
                    for uid, waiting in sessions.items()
                    if uid is not None and waiting.done() and waiting.result().idle() > linger
                ]
                ended = [sessions.pop(uid).result() for uid in unused]
            for session in ended:
                session.close()

    def _log_in(self, uid: str | None, waiting: Future[_Session]) -> None:
        try:
            session = self._made(uid)
        except BaseException as error:
            with self._changed:
                if self._sessions.get(uid) is waiting:
                    del self._sessions[uid]  # the next use tries again
            waiting.set_exception(error)
        else:
            waiting.set_result(session)

    def _made(self, uid: str | None) -> _Session:
        config = self._app.config
        app_id, name = self.app_id, self.uid if uid is None else uid
        options: dict[str, Any] = {"auto_thumbnails": True, **config["RTM_CLIENT_OPTIONS"]}
        secret = config["RTM_SECRET"]
        if secret:
            ttl = float(config["RTM_TOKEN_TTL"])
            options.setdefault("token_provider", lambda: make_token(app_id, name, secret, ttl=ttl))
        client = RtmClient(app_id, url=self.setting("RTM_URL"), **options)
        session = _Session(client, EventRelay())
        try:
            session.relay.watch(client)
            if uid is None:
                self._handle(client, None)
            client.login(name, (config["RTM_TOKEN"] or None) if uid is None else None)
            if uid is None:
                for channel_id in dict.fromkeys(one.channel for one in self._handlers):
                    if channel_id is not None:
                        self._handle(client.create_channel(channel_id), channel_id)
                        session.join(channel_id)
        except BaseException:
            session.close()
            raise
        return session

    def _handle(self, emitter: EventEmitter, channel_id: str | None) -> None:
        for one in self._handlers:
            if one.channel == channel_id:
                EventEmitter.on(emitter, one.event, self._in_context(one.handler))

    def _in_context(self, handler: Handler) -> Handler:
        def run(*args: object) -> None:
            with self._app.app_context():
                handler(*args)

        return run

    def end(self, uid: str) -> None:
        """Log a user out, where the user is here and logged in."""
        with self._changed:
            waiting = self._sessions.get(uid)
            if waiting is None or not waiting.done():
                return
            del self._sessions[uid]
        waiting.result().close()

    def sender(self) -> RtmSender:
        url = self.setting("RTM_URL")
        if not url.startswith(("ws:", "wss:")):
            raise RuntimeError(
                f"RTM_URL is {url!r}; a sender needs a gateway (ws:// or wss://). Send with "
                "rtm.client."
            )
        config = self._app.config
        with self._changed:
            if self._sender is None:
                options = {
                    name: value
                    for name, value in config["RTM_CLIENT_OPTIONS"].items()
                    if name in ("proxy", "ca_file")
                }
                secret = config["RTM_SECRET"] or None
                self._sender = RtmSender(self.app_id, secret, url=url, uid=self.uid, **options)
            return self._sender

    def close(self) -> None:
        """Log out, and end what was made. The next use begins anew."""
        changed = self._changed
        with changed:
            sessions, sender = list(self._sessions.values()), self._sender
            sweeper, stopping = self._sweeper, self._stopping
            self.forget()
            changed.notify_all()
        if sender is not None:
            sender.close()
        for waiting in sessions:
            with contextlib.suppress(Exception):
                waiting.result(_LOGIN_PATIENCE).close()
        stopping.set()
        sweeper.join(_SWEEP_PATIENCE)


_processes: weakref.WeakSet[_Process] = weakref.WeakSet()


def _forget_all() -> None:
    for process in list(_processes):
        process.forget()


after_fork_in_child(_forget_all)


@contextlib.contextmanager
def running(app: Flask) -> Iterator[None]:
    """What the extension made for the app in this process ends with the block; for scripts."""
    try:
        yield
    finally:
        app.extensions[_EXTENSION].close()


def _bare(mimetype: str) -> str | None:
    """A type that says something."""
    return None if mimetype in ("", "application/octet-stream") else mimetype


def _refused(status: int, message: str) -> Response:
    response = jsonify(message=message)
    response.status_code = status
    return response


def _commands(rtm: Rtm) -> AppGroup:
    group = AppGroup("rtm", help="Real-time messages of this app.")

    @group.command("check")
    def check() -> None:
        """Log in as this app does, and tell where and as whom."""
        with running(current_app), _plainly():
            client = rtm.client
            click.echo(f"{client.uid} of {client.app_id} is logged in at {_setting('RTM_URL')}.")

    @group.command("token")
    @click.argument("uid")
    @click.option("--ttl", default=3600.0, show_default=True, help="Seconds it is valid.")
    def token(uid: str, ttl: float) -> None:
        """Print a token with which UID can log in."""
        with _plainly():
            process = rtm._process
            problem = id_problem("UID", uid)
            if problem is not None:
                raise ValueError(problem)
            click.echo(make_token(process.app_id, uid, process.setting("RTM_SECRET"), ttl=ttl))

    @group.command("send")
    @click.argument("peer_id")
    @click.argument("text")
    def send(peer_id: str, text: str) -> None:
        """Send TEXT to a user; kept where the user is away."""
        with running(current_app), _plainly():
            result = rtm.client.send_message_to_peer(text, peer_id, enable_offline_messaging=True)
            click.echo("received" if result.has_peer_received else "kept")

    return group


def _setting(name: str) -> str:
    return str(current_app.config[name])


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """What goes wrong is one line, and no traceback."""
    try:
        yield
    except (RtmError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
