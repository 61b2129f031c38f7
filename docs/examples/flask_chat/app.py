"""A photo chat: `python docs/examples/flask_chat/app.py`, then open the address it prints.

Channels and people, texts, photos and files. The hub is in this process and ends with it;
`FLASK_RTM_URL=ws://…` names a gateway instead. Anyone may sign in with any name: put your
own accounts where `sign_in` is, and a database where `Conversations` is.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request, session
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

from rtm_sync import (
    HistoricalMessage,
    LoginError,
    RtmClient,
    RtmError,
    RtmMessage,
    UploadMediaError,
)
from rtm_sync.flask import Rtm, protect, running, status_of
from rtm_sync.protocol import encode_json

LOBBY = "lobby"
"""The channel of all users: its members are online."""

PAGE = 50  # messages on one page of a history
CONVERSATIONS = 100  # the most that are kept for each user
USERS = 10_000  # the most whose conversations are kept
SIGNALS = 1_000  # the most uploads that can be cancelled
MEDIA_BYTES = 30 * 1024 * 1024
FORM_BYTES = 64 * 1024  # of a form without its file; a thumbnail is a part of it
UPLOAD_TIMEOUT = 120.0

CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; form-action 'self'"
)

K = TypeVar("K")
V = TypeVar("V")

rtm = Rtm()
chat = Blueprint("chat", __name__)


def create_app(**settings: Any) -> Flask:
    """Make the app. `FLASK_…` environment variables and `settings` change its configuration."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=os.urandom(32),  # a restart signs all users out; the hub forgets them, too
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=MEDIA_BYTES + FORM_BYTES,
        RTM_APP_ID="flask-chat",
        RTM_USER_LINGER=5,
    )
    app.config.from_prefixed_env()
    app.config.update(settings)
    protect(app, hosts=str(app.config.get("CHAT_HOSTS", "")).split())
    rtm.init_app(app)
    app.extensions["signed_in"] = SignedIn()
    app.extensions["conversations"] = Conversations()
    app.extensions["uploads"] = Uploads()
    app.register_blueprint(chat)
    app.register_blueprint(rtm.events_blueprint(signed_in_user, url="/api/events"))
    return app


# -- state that a real app keeps in its database --


@dataclass(frozen=True, slots=True)
class Place:
    """The receiver of messages: a channel, or a user."""

    kind: Literal["channel", "peer"]
    id: str


class SignedIn:
    """Who is signed in, by the secret id in the cookie. Thread-safe.

    The cookie alone would be good until it expires, also for who copied it before a sign-out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _users
        self._users: OrderedDict[str, str] = OrderedDict()

    def begin(self, uid: str) -> str:
        """Sign a user in, and return the id of the session."""
        session_id = secrets.token_urlsafe(32)
        with self._lock:
            _kept(self._users, session_id, uid, USERS)
        return session_id

    def user(self, session_id: str) -> str | None:
        """The user of a session, or None when there is no such session."""
        with self._lock:
            return self._users.get(session_id)

    def end(self, session_id: str) -> str | None:
        """End a session. Returns its user if that was the user's last session."""
        with self._lock:
            uid = self._users.pop(session_id, None)
            return None if uid in self._users.values() else uid


class Conversations:
    """The conversations of each user, with the time of their last message in ms. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both
        self._of: OrderedDict[str, OrderedDict[Place, int]] = OrderedDict()
        self._channels: OrderedDict[str, int] = OrderedDict()

    def note(self, uid: str, place: Place, moment: int = 0) -> None:
        """Add a conversation of a user, with a message at `moment`."""
        with self._lock:
            mine = _kept(self._of, uid, OrderedDict(), USERS)
            mine[place] = max(moment, _kept(mine, place, 0, CONVERSATIONS))
            if place.kind == "channel":
                last = _kept(self._channels, place.id, 0, USERS)
                self._channels[place.id] = max(moment, last)

    def of(self, uid: str) -> list[tuple[Place, int]]:
        """The user's conversations with the time of their last message, the newest last."""
        with self._lock:
            return [
                (place, self._channels.get(place.id, 0) if place.kind == "channel" else last)
                for place, last in self._of.get(uid, {}).items()
            ]


class Uploads:
    """The signals that cancel running uploads. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _signals
        self._signals: OrderedDict[tuple[str, str], threading.Event] = OrderedDict()

    def signal(self, uid: str, upload_id: str) -> threading.Event:
        """The signal of an upload. An upload can be cancelled before it starts."""
        with self._lock:
            return _kept(self._signals, (uid, upload_id), threading.Event(), SIGNALS)

    def over(self, uid: str, upload_id: str) -> None:
        """Forget the signal of an upload that has ended."""
        with self._lock:
            self._signals.pop((uid, upload_id), None)


def _kept(table: OrderedDict[K, V], key: K, default: V, limit: int) -> V:
    """The value of a key, which becomes the newest. The oldest key is dropped to make room."""
    value = table.setdefault(key, default)
    table.move_to_end(key)
    if len(table) > limit:
        table.popitem(last=False)
    return value


# -- users --


def signed_in_user() -> str | None:
    """The user whose session the request's cookie names, or None."""
    return signed_in().user(session.get("id", ""))


def signed_in() -> SignedIn:
    return cast(SignedIn, current_app.extensions["signed_in"])


def me() -> RtmClient:
    """The client of the request's user; status 401 when no user is signed in."""
    uid = signed_in_user()
    if uid is None:
        abort(401, "No user is signed in.")
    # An embedded hub ends with its last client. The app's own client keeps it, and its histories.
    rtm.start(current_app)
    return rtm.client_for(uid)


@chat.get("/")
def page() -> Response:
    response = current_app.send_static_file("index.html")
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    return response


@chat.post("/api/sign-in")
def sign_in() -> Response:
    uid = request.form["uid"]
    sign_out()  # who was signed in here before
    session["id"] = signed_in().begin(uid)
    try:
        me()
    except LoginError:
        sign_out()
        raise
    return jsonify(uid=uid)


@chat.post("/api/sign-out")
def sign_out() -> Response:
    """End the session, here and not only in the browser's cookie."""
    uid = signed_in().end(session.get("id", ""))
    session.clear()
    if uid is not None:
        rtm.logout(uid)
    return jsonify()


# -- conversations --


@chat.get("/api/me")
def start() -> Response:
    """The data with which a page starts. The user joins all of their channels."""
    if signed_in_user() is None:
        return jsonify(uid=None)
    client = me()
    uid = cast(str, client.uid)
    last_event_id = rtm.relay_for(uid).last_event_id
    conversations().note(uid, Place("channel", LOBBY))
    mine = conversations().of(uid)
    for place, _ in mine:
        if place.kind == "channel":
            rtm.join(place.id, uid=uid)
    people = [place.id for place, _ in mine if place.kind == "peer"]
    if people:
        client.subscribe_peers_online_status(people)
    return jsonify(
        uid=uid,
        lobby=LOBBY,
        media_bytes=MEDIA_BYTES,
        last_event_id=last_event_id,
        online=rtm.join(LOBBY, uid=uid).get_members(),
        conversations=[{"kind": place.kind, "id": place.id, "last": last} for place, last in mine],
    )


@chat.post("/api/open")
def open_conversation() -> Response:
    """Start a conversation with a channel or a user."""
    client, place = me(), asked_place()
    uid = cast(str, client.uid)
    if place.kind == "channel":
        rtm.join(place.id, uid=uid)
    else:
        client.subscribe_peers_online_status([place.id])
    conversations().note(uid, place)
    if place.kind == "channel":
        return jsonify(members=rtm.join(place.id, uid=uid).get_members())
    return jsonify(online=client.query_peers_online_status([place.id])[place.id])


def asked_place() -> Place:
    """The receiver that the request names."""
    kind, place_id = request.values["kind"], request.values["id"]
    if kind not in ("channel", "peer"):
        abort(400, f"kind is {kind!r}; it must be channel or peer.")
    return Place(cast(Literal["channel", "peer"], kind), place_id)


def conversations() -> Conversations:
    return cast(Conversations, current_app.extensions["conversations"])


# -- messages --


@chat.get("/api/messages")
def messages() -> Response:
    """A page of the history, oldest first: the newest, or the newest up to `before` (in ms)."""
    client, place = me(), asked_place()
    before = request.args.get("before", type=int)
    # The range excludes its end, and several messages may have one timestamp. So the range ends 1
    # ms later, and the page skips the messages that it has.
    end = None if before is None else (before + 1) / 1000
    if place.kind == "channel":
        channel = rtm.join(place.id, uid=client.uid)
        found = channel.get_history(end=end, limit=PAGE, newest_first=True)
    else:
        found = client.get_peer_history(place.id, end=end, limit=PAGE, newest_first=True)
    return jsonify(
        messages=[_as_json(message) for message in reversed(found)], more=len(found) == PAGE
    )


@chat.post("/api/text")
def send_text() -> Response:
    client, place = me(), asked_place()
    return _send(client, place, client.create_message(text=request.form["text"]))


@chat.post("/api/media")
def send_media() -> Response:
    """Upload a file and send it. The upload can be cancelled until the message is sent."""
    client, place = me(), asked_place()
    uid, upload_id = cast(str, client.uid), request.form["message_id"]
    cancelled = uploads().signal(uid, upload_id)
    try:
        message = rtm.upload(
            request.files["file"],
            description=request.form.get("description", ""),
            thumbnail=request.files.get("thumbnail"),
            cancel_signal=cancelled,
            timeout=UPLOAD_TIMEOUT,
            client=client,
        )
        if cancelled.is_set():
            raise UploadMediaError.named("INTERRUPTED", "The upload was cancelled.")
    finally:
        uploads().over(uid, upload_id)
    return _send(client, place, message)


@chat.post("/api/cancel")
def cancel() -> Response:
    """Cancel an upload. The upload's own request returns its result."""
    uploads().signal(cast(str, me().uid), request.form["message_id"]).set()
    return jsonify()


@chat.get("/media/<media_id>")
def media(media_id: str) -> Response:
    """A medium, for every signed-in user that has its id."""
    return rtm.send_media(media_id, as_attachment="download" in request.args, client=me())


def uploads() -> Uploads:
    return cast(Uploads, current_app.extensions["uploads"])


def _send(client: RtmClient, place: Place, message: RtmMessage) -> Response:
    """Send a message, and publish it to all pages of its sender."""
    uid, message_id = cast(str, client.uid), request.form["message_id"]
    received = None
    if place.kind == "channel":
        rtm.join(place.id, uid=uid).send_message(
            message, enable_historical_messaging=True, message_id=message_id
        )
    else:
        received = client.send_message_to_peer(
            message,
            place.id,
            enable_historical_messaging=True,
            enable_offline_messaging=True,
            message_id=message_id,
        ).has_peer_received
    now = int(time.time() * 1000)
    conversations().note(uid, place, now)
    if place.kind == "peer":
        conversations().note(place.id, Place("peer", uid), now)
    sent = {
        "message": json.loads(encode_json(message)),
        "message_id": message_id,
        "kind": place.kind,
        "id": place.id,
        "sent_at": now,
        "received": received,
    }
    rtm.relay_for(uid).publish("Sent", sent)
    return jsonify(sent)


def _as_json(message: HistoricalMessage) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(encode_json(message)))


# -- errors --


@chat.app_errorhandler(RtmError)
def rtm_failed(error: RtmError) -> Response:
    return _failed(status_of(error), error.reason, error.message)


@chat.app_errorhandler(HTTPException)
def http_failed(error: HTTPException) -> Response:
    status = error.code or 500
    reasons = {401: "USER_NOT_LOGGED_IN", 413: "SIZE_OVERFLOW"}
    return _failed(status, reasons.get(status, "FAILURE"), error.description or "")


def _failed(status: int, reason: str, message: str) -> Response:
    response = jsonify(reason=reason, message=message)
    response.status_code = status
    return response


def main() -> None:
    """Serve until Ctrl-C, with a thread for each request."""
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "5000"))
    app = create_app()
    with running(app), make_server(host, port, app, threaded=True) as server:
        print(f"Open http://{host}:{server.port} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
