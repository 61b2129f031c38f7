"""The HTTP API for server processes: the reference's REST API, extended by media.

Paths, bodies and result codes are those of the reference (RTM 1.x, `/dev/v2/project/<app_id>`), so
that back-end code works after a change of the base URL. `openapi.py` describes every operation,
including our own.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import hdrs, web

from ..errors import (
    LoginError,
    PeerMessageError,
    QueryPeersOnlineStatusError,
    RtmError,
)
from ..hub.node import Hub
from ..hub.session import Session
from ..protocol.codec import decode_json, encode_json
from ..protocol.errors import ProtocolError
from ..protocol.requests import SendChannelMessage, SendMessageToPeer
from .api_requests import (
    MAX_PRESENCE,
    ChannelMessageBody,
    EndSessionsBody,
    HistoryBody,
    KickBody,
    PeerMessageBody,
    PresenceBody,
    Refused,
    check_id,
    decoded_body,
    flag,
    history_query,
    message_json,
    message_of,
    read_body,
    read_no_body,
)
from .app_secrets import AppSecrets
from .errors import api_failure
from .guard.auth_failures import AUTH_FAILURES
from .guard.request_context import TooManyGuesses, guessing, note_user
from .media_http import is_forbidden
from .openapi import document
from .tus import Uploads

BASE = "/dev/v2/project/{app_id}"
_TOKEN, _TOKEN_UID = "x-agora-token", "x-agora-uid"
_STATUS = {
    "TOO_OFTEN": 429,
    "CONCURRENCY_LIMIT_EXCEEDED": 429,
    "TIMEOUT": 408,
    "SIZE_OVERFLOW": 413,
    "FAILURE": 500,
}
Handler = Callable[[web.Request], Awaitable[web.Response]]


class EventLog:
    """The events of each app, for `user_events` and `channel_events`.

    The newest 2,000 events of each kind are kept. Reading removes events, 1,000 at a time. Both
    rules are the reference's (REST).
    """

    KEPT = 2000
    GIVEN = 1000

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], deque[dict[str, Any]]] = {}

    def add(self, app_id: str, kind: str, event: dict[str, Any]) -> None:
        """Record an event. `kind` is "user" or "channel"."""
        self._events.setdefault((app_id, kind), deque(maxlen=self.KEPT)).append(event)

    def take(self, app_id: str, kind: str) -> list[dict[str, Any]]:
        """Remove the oldest events, at most 1,000, and return them."""
        waiting = self._events.get((app_id, kind), deque())
        return [waiting.popleft() for _ in range(min(self.GIVEN, len(waiting)))]


class Rest:
    """The handlers under `/dev/v2/project/<app_id>`.

    Args:
        hub: performs the requests.
        uploads: stores a request's body as a medium.
        events: the recorded events.
        app_secrets: authenticates server processes.
    """

    def __init__(
        self, hub: Hub, uploads: Uploads, events: EventLog, app_secrets: AppSecrets
    ) -> None:
        self._hub = hub
        self._uploads = uploads
        self._events = events
        self._app_secrets = app_secrets

    def routes(self) -> list[web.AbstractRouteDef]:
        user, vendor = BASE + "/rtm/users/{uid}", BASE + "/rtm/vendor"
        history = BASE + "/rtm/message/history"
        return [
            web.post(user + "/peer_messages", self._handler(self._peer_message)),
            web.post(user + "/channel_messages", self._handler(self._channel_message)),
            web.post(user + "/media", self._handler(self._upload)),
            web.post(user + "/media_session", self._handler(self._media_session)),
            web.post(user + "/kick", self._handler(self._kick)),
            web.get(BASE + "/rtm/presence", self._handler(self._presence)),
            web.post(BASE + "/rtm/presence", self._handler(self._presence)),
            web.get(BASE + "/rtm/bans", self._handler(self._bans)),
            web.post(BASE + "/rtm/sessions/end", self._handler(self._end_sessions)),
            web.get(vendor + "/user_events", self._handler(self._user_events)),
            web.get(vendor + "/channel_events", self._handler(self._channel_events)),
            web.post(history + "/query", self._handler(self._start_history_query)),
            web.get(history + "/query/{handle}", self._handler(self._history)),
            web.get(history + "/count", self._handler(self._count_history)),
            web.get("/openapi.json", self._openapi),
        ]

    def _handler(self, handler: Callable[[web.Request], Awaitable[dict[str, Any]]]) -> Handler:
        """A handler that answers in the reference's format, including errors."""

        async def handle(request: web.Request) -> web.Response:
            request_id = uuid.uuid4().hex
            try:
                body = await handler(request)
            except Refused as error:
                return _failed(request_id, error.status, error.code, str(error))
            except TooManyGuesses as error:
                response = _failed(request_id, 429, "TOO_OFTEN", str(error))
                response.headers["Retry-After"] = f"{AUTH_FAILURES.seconds:.0f}"
                return response
            except RtmError as error:
                status = 403 if is_forbidden(error) else _STATUS.get(error.reason, 400)
                return _failed(request_id, status, error.code.name, error.message)
            except OSError as error:
                return _failed(request_id, 500, "FAILURE", str(error))
            return web.json_response({"result": "success", "request_id": request_id, **body})

        return handle

    # -- authentication --

    async def _service_session(self, request: web.Request) -> Session:
        """The service session of the user in the path, after authentication.

        The request has a secret of the app, or a token of the user.
        """
        app_id, uid = request.match_info["app_id"], request.match_info["uid"]
        check_id("uid", uid)
        if _TOKEN not in request.headers:
            key = await self._key_of(request)
            session = self._hub.administration.service_session(app_id, uid, key)
            note_user(app_id, uid)
            return session
        if request.headers.get(_TOKEN_UID) != uid:
            raise Refused(401, "UNAUTHORIZED", f"{_TOKEN_UID} is not the user in the path.")
        return await self._session_by_token(request)

    async def _session_by_token(self, request: web.Request) -> Session:
        """The service session of the user whose token the request has."""
        app_id, uid = request.match_info["app_id"], request.headers.get(_TOKEN_UID, "")
        check_id(_TOKEN_UID, uid)
        async with guessing() as guess:
            try:
                session = await self._hub.administration.service_session_by_token(
                    app_id, uid, request.headers[_TOKEN]
                )
            except LoginError as error:
                guess.is_wrong = True
                raise Refused(401, error.code.name, error.message) from error
        note_user(app_id, uid)
        return session

    async def _check_app_secret(self, request: web.Request) -> str:
        """Authenticate by a secret of the app. Returns the app id."""
        await self._key_of(request)
        return request.match_info["app_id"]

    async def _key_of(self, request: web.Request) -> str:
        """Authenticate by a secret of the app. Returns the secret's name.

        A request without one is no guess: a browser sends it for any page that shows an image.
        """
        app_id = request.match_info["app_id"]
        authorization = request.headers.get("Authorization")
        user, password = _basic(authorization or "")
        async with guessing() as guess:
            key = self._app_secrets.accept(app_id, password)
            if key is None or not (user == app_id or self._app_secrets.is_open):
                guess.is_wrong = authorization is not None
                raise Refused(
                    401,
                    "UNAUTHORIZED",
                    "Authorization must be Basic with the app id and a secret of the app.",
                )
        note_user(app_id)
        return key

    # -- messages --

    async def _peer_message(self, request: web.Request) -> dict[str, Any]:
        session = await self._service_session(request)
        body = await read_body(request, PeerMessageBody)
        wait = flag(request, "wait_for_ack")
        message_id = uuid.uuid4().hex if body.message_id is None else body.message_id
        try:
            result = await self._hub.perform(
                session,
                SendMessageToPeer(
                    body.destination,
                    message_of(body),
                    message_id,
                    body.enable_offline_messaging,
                    body.enable_historical_messaging,
                ),
            )
        except PeerMessageError as error:
            if error.reason == "TIMEOUT" and not wait:
                return {"code": "message_sent", "message_id": message_id}
            raise
        code = "message_delivered" if result.has_peer_received else "message_offline"
        return {
            "code": code if wait else "message_sent",
            "message_id": message_id,
            "cached_by_server": result.cached_by_server,
        }

    async def _channel_message(self, request: web.Request) -> dict[str, Any]:
        session = await self._service_session(request)
        body = await read_body(request, ChannelMessageBody)
        message_id = uuid.uuid4().hex if body.message_id is None else body.message_id
        await self._hub.channels.send_as_non_member(
            session,
            SendChannelMessage(
                body.channel_name, message_of(body), message_id, body.enable_historical_messaging
            ),
        )
        return {"code": "message_sent", "message_id": message_id}

    # -- media --

    async def _upload(self, request: web.Request) -> dict[str, Any]:
        session = await self._service_session(request)
        info = await self._uploads.store_body(request, session)
        return asdict(info)

    async def _media_session(self, request: web.Request) -> dict[str, Any]:
        session = await self._service_session(request)
        await read_no_body(request)
        return {"token": session.id}

    # -- users --

    async def _presence(self, request: web.Request) -> dict[str, Any]:
        if _TOKEN in request.headers:
            session = await self._session_by_token(request)
            session.check_rate("presence_queries", QueryPeersOnlineStatusError)
            app_id = session.app_id
        else:
            app_id = await self._check_app_secret(request)
        uids: Sequence[str] = request.query.getall("user_id", [])
        if request.method == hdrs.METH_POST:
            uids = (await read_body(request, PresenceBody)).user_ids
        if not 1 <= len(uids) <= MAX_PRESENCE:
            problem = f"The request has {len(uids)} users; it must have 1 to {MAX_PRESENCE}."
            raise Refused(400, "INVALID_ARGUMENT", problem)
        for uid in uids:
            check_id("user_id", uid)
        states = await self._hub.presence.states(app_id, uids)
        return {"states": {uid: state.value for uid, state in states.items()}}

    async def _bans(self, request: web.Request) -> dict[str, Any]:
        app_id = await self._check_app_secret(request)
        after = request.query.get("after")
        if after is not None:
            check_id("after", after)
        bans, following = await self._hub.administration.bans(app_id, after or "")
        return {"bans": bans, "after": following}

    async def _kick(self, request: web.Request) -> dict[str, Any]:
        app_id, uid = await self._check_app_secret(request), request.match_info["uid"]
        body = await read_body(request, KickBody)
        check_id("uid", uid)
        if body.ban_seconds < 0:
            problem = f"ban_seconds is {body.ban_seconds:g}; it must be 0 or more."
            raise Refused(400, "INVALID_ARGUMENT", problem)
        was_online = await self._hub.administration.kick(
            app_id, uid, body.ban_seconds, revoke_tokens=body.revoke_tokens
        )
        return {"was_online": was_online}

    async def _end_sessions(self, request: web.Request) -> dict[str, Any]:
        app_id = await self._check_app_secret(request)
        body = await read_body(request, EndSessionsBody)
        ended = await self._hub.administration.end_all(app_id, revoke_tokens=body.revoke_tokens)
        return {"ended": ended}

    async def _user_events(self, request: web.Request) -> dict[str, Any]:
        return {"events": self._events.take(await self._check_app_secret(request), "user")}

    async def _channel_events(self, request: web.Request) -> dict[str, Any]:
        return {"events": self._events.take(await self._check_app_secret(request), "channel")}

    # -- history --

    async def _start_history_query(self, request: web.Request) -> dict[str, Any]:
        await self._check_app_secret(request)
        body = await read_body(request, HistoryBody)
        history_query(body)
        # The handle contains the query: any gateway can answer it, and none has to store it.
        handle = base64.urlsafe_b64encode(encode_json(body).encode()).decode().rstrip("=")
        return {
            "offset": body.offset,
            "limit": body.limit,
            "order": body.order,
            "location": f"~/rtm/message/history/query/{handle}",
        }

    async def _history(self, request: web.Request) -> dict[str, Any]:
        app_id = await self._check_app_secret(request)
        handle = request.match_info["handle"]
        try:
            text = base64.urlsafe_b64decode(handle + "=" * (-len(handle) % 4))
            body = decode_json(HistoryBody, text)
        except (ValueError, ProtocolError) as error:
            raise Refused(400, "INVALID_ARGUMENT", "The handle is not valid.") from error
        found = await self._hub.history.find(app_id, history_query(body))
        return {"code": "ok", "messages": [message_json(message) for message in found]}

    async def _count_history(self, request: web.Request) -> dict[str, Any]:
        app_id = await self._check_app_secret(request)
        names = ("source", "destination", "start_time", "end_time")
        given = {name: request.query[name] for name in names if request.query.get(name)}
        body = decoded_body(HistoryBody, json.dumps({"filter": given}))
        count = await self._hub.history.count(app_id, history_query(body))
        return {"code": "ok", "count": count}

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(document())


def _failed(request_id: str, status: int, code: str, message: str) -> web.Response:
    response = api_failure(request_id, status, code, message)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="rtm_sync"'
    if status == 429:
        response.headers["Retry-After"] = "1"
    return response


def _basic(header: str) -> tuple[str, str]:
    """The user and password of a Basic authorization; empty for another header."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    with contextlib.suppress(binascii.Error, ValueError):
        user, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        return user, password
    return "", ""


__all__ = ["BASE", "EventLog", "Rest"]
