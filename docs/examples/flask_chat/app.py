"""A photo chat in Flask: channels, people, text, photos and files with progress.

    python docs/examples/flask_chat/app.py

It needs no other server: the hub is in this process, and what was said ends with it. Where there
is a gateway, FLASK_RTM_URL and FLASK_RTM_APP_ID name it. Anybody may sign in as anybody: it is an
example.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import uuid
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    jsonify,
    render_template,
    request,
    session,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from rtm_sync import RtmClient, RtmError, RtmMessage, RtmTextMessage
from rtm_sync.flask import Rtm, status_of
from rtm_sync.protocol import encode_json, id_problem

CHANNELS = ("lobby", "photos")
HISTORY = 100  # messages that a conversation begins with
TEXT_LIMIT = 4000  # characters
PEOPLE_LIMIT = 256  # that one question about presence may name

rtm = Rtm()
chat = Blueprint("chat", __name__)


class People:
    """The names that were ever signed in here, the latest last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _names
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        with self._lock:
            self._names.pop(name, None)
            self._names[name] = None
            while len(self._names) > PEOPLE_LIMIT:
                del self._names[next(iter(self._names))]

    def all(self) -> list[str]:
        with self._lock:
            return list(self._names)


def create_app(**settings: Any) -> Flask:
    """The app; `settings` are Flask's and the extension's."""
    app = Flask(__name__)
    app.config.update(
        RTM_APP_ID="flask-chat",
        RTM_USER_LINGER=120,
        SECRET_KEY=secrets.token_hex(),  # who is signed in is so until the app ends
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=32 * 1024 * 1024,
    )
    app.config.from_prefixed_env()
    app.config.update(settings)
    app.extensions["people"] = People()
    rtm.init_app(app)
    app.register_blueprint(chat)
    app.register_blueprint(rtm.events_blueprint(lambda: session.get("name"), url="/events"))
    return app


@chat.before_app_request
def refuse_other_sites() -> None:
    """A page of another site cannot set this header without asking first."""
    if request.method not in ("GET", "HEAD") and "X-Chat" not in request.headers:
        abort(400, "The header X-Chat is missing.")


@chat.after_app_request
def protect(response: Response) -> Response:
    """Let the page load nothing from elsewhere; media have a stricter rule of their own."""
    policy = "default-src 'self'; img-src 'self' data: blob:"
    response.headers.setdefault("Content-Security-Policy", policy)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response


@chat.get("/")
def page() -> str:
    return render_template("chat.html", name=session.get("name", ""))


# -- who --


@chat.post("/session")
def sign_in() -> ResponseReturnValue:
    name = str(body().get("name", "")).strip()
    problem = id_problem("name", name)
    if problem is not None:
        abort(400, problem)
    session["name"] = name
    mine()
    people().add(name)
    for channel_id in CHANNELS:
        rtm.join(channel_id, uid=name)
    return {"name": name}


@chat.delete("/session")
def sign_out() -> ResponseReturnValue:
    session.clear()
    return "", 204


@chat.get("/people")
def list_people() -> ResponseReturnValue:
    client, me = mine()
    people().add(me)
    names = people().all()
    online = client.query_peers_online_status(names)
    return {"people": [{"name": one, "online": online[one]} for one in names if one != me]}


# -- conversations --


@chat.get("/talks/<kind>/<name>")
def history(kind: str, name: str) -> ResponseReturnValue:
    client, me = mine()
    # First, so that nothing falls between the history and the events.
    last_event_id = rtm.relay_for(me).last_event_id
    members: list[str] = []
    if kind == "channel":
        channel = rtm.join(name, uid=me)
        found = channel.get_history(limit=HISTORY, newest_first=True)
        members = sorted(channel.get_members())
    else:
        found = client.get_peer_history(name, limit=HISTORY, newest_first=True)
    messages = [json.loads(encode_json(message)) for message in reversed(found)]
    return {"messages": messages, "members": members, "last_event_id": last_event_id}


@chat.post("/talks/<kind>/<name>/text")
def say(kind: str, name: str) -> ResponseReturnValue:
    text = str(body().get("text", "")).strip()
    if not 1 <= len(text) <= TEXT_LIMIT:
        abort(400, f"A text has 1 to {TEXT_LIMIT} characters; this one has {len(text)}.")
    return send(kind, name, RtmTextMessage(text))


@chat.post("/talks/<kind>/<name>/files")
def send_file(kind: str, name: str) -> ResponseReturnValue:
    client, _ = mine()
    file = request.files.get("file")
    if file is None:
        abort(400, "The field file is missing.")
    return send(kind, name, rtm.upload(file, client=client))


@chat.get("/media/<media_id>")
def media(media_id: str) -> ResponseReturnValue:
    client, _ = mine()
    return rtm.send_media(media_id, client=client, as_attachment="save" in request.args)


@chat.app_errorhandler(RtmError)
def failed(error: RtmError) -> ResponseReturnValue:
    return jsonify(error=error.message, reason=error.reason), status_of(error)


@chat.app_errorhandler(HTTPException)
def refused(error: HTTPException) -> ResponseReturnValue:
    return jsonify(error=error.description, reason=error.name), error.code or 500


# -- inside --


def people() -> People:
    found: People = current_app.extensions["people"]
    return found


def mine() -> tuple[RtmClient, str]:
    """The signed-in user's client and name."""
    name = session.get("name")
    if not name:
        abort(401, "Sign in first.")
    # An embedded hub ends with its last client, and the history with it: the app's own keeps it.
    rtm.start(current_app)
    return rtm.client_for(name), name


def send(kind: str, name: str, message: RtmMessage) -> ResponseReturnValue:
    """Send, keep in the history, and tell the user's other pages."""
    client, me = mine()
    message_id = uuid.uuid4().hex
    if kind == "channel":
        rtm.join(name, uid=me).send_message(
            message, enable_historical_messaging=True, message_id=message_id
        )
    else:
        client.send_message_to_peer(
            message,
            name,
            enable_offline_messaging=True,
            enable_historical_messaging=True,
            message_id=message_id,
        )
    told = {
        "message": json.loads(encode_json(message)),
        "source": me,
        "destination": name,
        "is_channel": kind == "channel",
        "message_id": message_id,
        "message_props": {"server_received_ts": int(time.time() * 1000)},
    }
    rtm.relay_for(me).publish("Sent", told)
    return told


def body() -> dict[str, Any]:
    given = request.get_json(silent=True)
    if not isinstance(given, dict):
        abort(400, "The body must be a JSON object.")
    return given


if __name__ == "__main__":
    create_app().run(port=int(os.environ.get("PORT", "8000")), threaded=True)
