"""The clients of a web process: the process's own client, and one for each logged-in user."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from flask import Flask
from werkzeug.exceptions import ServiceUnavailable

from ..client.channel import RtmChannel
from ..client.client import RtmClient
from ..client.events import EventEmitter
from ..client.listeners import Handler
from ..client.sender import RtmSender
from ..errors import JoinChannelError
from ..hub.auth.tokens import make_token
from ..portable import after_fork_in_child
from ..protocol.ids import id_problem
from ..protocol.values import ConnectionState
from ..supervision import BackgroundThread, supervised_thread
from ..transports.gateway.proxy_settings import without_credentials
from .relay import EventRelay

EXTENSION = "rtm_sync"
_LOGIN_TIMEOUT = 60.0  # seconds to wait for another thread's login
_SWEEP_INTERVAL = 1.0
_SWEEPER_JOIN_TIMEOUT = 5.0
_NOT_IN_UID = re.compile(r"[^A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,]")


@dataclass(frozen=True, slots=True)
class RegisteredHandler:
    """A decorated handler of one event; `channel` is None for events of the client."""

    event: str
    channel: str | None
    handler: Handler


class _Session:
    """One logged-in user in this process: the client, its relay and its joined channels."""

    def __init__(self, client: RtmClient, relay: EventRelay) -> None:
        self.client = client
        self.relay = relay
        self._lock = threading.Lock()  # guards what follows
        self._channels: dict[str, RtmChannel] = {}
        self._streams = 0
        self._used_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the session ended, by a login elsewhere, an expired token or a logout."""
        return self.client.uid is None or self.client.connection_state is ConnectionState.ABORTED

    def touch(self) -> None:
        """Record a use of the session."""
        with self._lock:
            self._used_at = time.monotonic()

    def idle(self) -> float:
        """Seconds since the last use; 0 while an event stream is open."""
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
            if error.reason != "ALREADY_JOINED":  # another request has just joined it
                raise
        with self._lock:
            is_first = self._channels.setdefault(channel_id, channel) is channel
        if is_first:
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


class Process:
    """The sessions and the sender of one app in one process, made when they are first used.

    Owns a daemon thread, the sweeper, that logs out unused users. It runs while users are logged
    in. Thread-safe.
    """

    def __init__(self, app: Flask, handlers: list[RegisteredHandler]) -> None:
        self._app = app
        self._handlers = handlers
        self.forget()
        _processes.add(self)

    def forget(self) -> None:
        """Start without sessions. In the child of a fork the sessions belong to the parent."""
        self._changed = threading.Condition()  # guards what follows; not held during a login
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
        """A required setting. Raises RuntimeError when it is empty."""
        value = str(self._app.config[name])
        if not value:
            raise RuntimeError(f"app.config[{name!r}] is empty, but required here; set it.")
        return value

    @property
    def app_id(self) -> str:
        """The app's id. Raises RuntimeError when it is not set."""
        return self.setting("RTM_APP_ID")

    @property
    def uid(self) -> str:
        """The process's own uid. Raises RuntimeError when its template is not valid."""
        host = _NOT_IN_UID.sub("-", socket.gethostname())[:40]
        template = self.setting("RTM_UID")
        try:
            uid = template.format(host=host, pid=os.getpid())
        except (LookupError, ValueError) as error:
            raise RuntimeError(
                f"RTM_UID is {template!r}; its placeholders may be {{host}} and {{pid}} only."
            ) from error
        problem = id_problem("RTM_UID", uid)
        if problem is not None:
            raise RuntimeError(problem)
        return uid

    def session(self, uid: str | None) -> _Session:
        """The session of a user, or the process's own for None.

        One thread logs in; other threads wait for it, up to 60 seconds.

        Raises:
            LoginError: the login was refused, or the hub is unreachable.
            ServiceUnavailable: `RTM_USERS` users are logged in, or the system allows no thread.
            TimeoutError: another thread's login was not done in time.
        """
        limit = int(self._app.config["RTM_USERS"])
        ended = None
        with self._changed:
            login = self._sessions.get(uid)
            if login is not None and login.done():
                known = login.result()
                known.touch()  # with the lock held, so that the sweeper does not end it now
                if known.is_over:
                    ended, login = known, None
                    del self._sessions[uid]
            is_first = login is None
            if login is None:
                users = len(self._sessions.keys() - {None})
                if uid is not None and users >= limit:
                    raise ServiceUnavailable(
                        f"{users} users are logged in; the limit RTM_USERS is {limit}. Try later."
                    )
                if uid is not None:
                    try:
                        self._sweeper.start()
                    except RuntimeError as error:
                        raise ServiceUnavailable(f"A login needs a thread: {error}.") from error
                login = self._sessions[uid] = Future()
        if ended is not None:
            ended.close()
        if is_first:
            self._log_in(uid, login)
        return login.result(_LOGIN_TIMEOUT)

    def _sweep(
        self, changed: threading.Condition, sessions: dict[str | None, Future[_Session]]
    ) -> None:
        """Log out unused users, until none of these sessions is left."""
        while True:
            with changed:
                changed.wait(_SWEEP_INTERVAL)
                if self._sessions is not sessions:
                    return  # `close` has replaced these sessions, and closes them
                if not sessions.keys() - {None}:
                    self._sweeper.retire()
                    return
                linger = float(self._app.config["RTM_USER_LINGER"])
                unused = [
                    uid
                    for uid, login in sessions.items()
                    if uid is not None and login.done() and login.result().idle() > linger
                ]
                ended = [sessions.pop(uid).result() for uid in unused]
            for session in ended:
                session.close()

    def _log_in(self, uid: str | None, login: Future[_Session]) -> None:
        try:
            session = self._new_session(uid)
        except BaseException as error:
            with self._changed:
                if self._sessions.get(uid) is login:
                    del self._sessions[uid]  # the next use tries again
            login.set_exception(error)
        else:
            login.set_result(session)

    def _new_session(self, uid: str | None) -> _Session:
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
        """Log a user out. A user who is not logged in here is ignored."""
        with self._changed:
            login = self._sessions.get(uid)
            if login is None or not login.done():
                return
            del self._sessions[uid]
        login.result().close()

    def sender(self) -> RtmSender:
        """The app's sender. Raises RuntimeError when the hub has no HTTP API."""
        url = self.setting("RTM_URL")
        if not url.startswith(("ws:", "wss:")):
            raise RuntimeError(
                f"RTM_URL is {without_credentials(url)!r}; a sender needs a "
                "gateway (ws:// or wss://). Send with rtm.client."
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
        """Log all users out, and close the sender. The next use logs in again."""
        changed = self._changed
        with changed:
            sessions, sender = list(self._sessions.values()), self._sender
            sweeper, stopping = self._sweeper, self._stopping
            self.forget()
            changed.notify_all()
        if sender is not None:
            sender.close()
        for login in sessions:
            with contextlib.suppress(Exception):
                login.result(_LOGIN_TIMEOUT).close()
        stopping.set()
        sweeper.join(_SWEEPER_JOIN_TIMEOUT)


_processes: weakref.WeakSet[Process] = weakref.WeakSet()


def _forget_all() -> None:
    for process in list(_processes):
        process.forget()


after_fork_in_child(_forget_all)


@contextlib.contextmanager
def running(app: Flask) -> Iterator[None]:
    """Log the app's clients in this process out at the end of the block. For scripts."""
    try:
        yield
    finally:
        app.extensions[EXTENSION].close()


def bare_type(mimetype: str) -> str | None:
    """A MIME type; None for an unknown one, so that the type is guessed."""
    return None if mimetype in ("", "application/octet-stream") else mimetype
