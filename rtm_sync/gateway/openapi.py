"""The description of the HTTP API, as OpenAPI 3.1."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..blob import MEDIA_LIMIT
from ..version import __version__

_PREFIX = "/dev/v2/project/{app_id}"
_Schema = dict[str, Any]


def _object(required: list[str] | None = None, **properties: _Schema) -> _Schema:
    schema: _Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: _Schema) -> _Schema:
    return {"type": "array", "items": of}


_TEXT: _Schema = {"type": "string"}
_FLAG: _Schema = {"type": "boolean", "default": False}
_NUMBER: _Schema = {"type": "integer"}
_MOMENT: _Schema = {
    "type": "string",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$",
    "examples": ["2026-01-31T12:00:00Z"],
}
_ID: _Schema = {"type": "string", "minLength": 1, "maxLength": 64}
_MESSAGE_ID: _Schema = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9_.:\-]{1,64}$",
    "description": "Names the message: a message that is sent again with it is delivered once.",
}

_SCHEMAS: dict[str, _Schema] = {
    "Message": {
        "description": "A message of any type; `payload` is the short form of a text.",
        **_object(
            ["type"],
            type={"enum": ["TEXT", "RAW", "FILE", "IMAGE"]},
            text=_TEXT,
            raw_message={**_TEXT, "contentEncoding": "base64"},
            media_id=_TEXT,
            file_name=_TEXT,
            description=_TEXT,
            size=_NUMBER,
            thumbnail={**_TEXT, "contentEncoding": "base64"},
            expires_at={"type": "number"},
            width=_NUMBER,
            height=_NUMBER,
            thumbnail_width=_NUMBER,
            thumbnail_height=_NUMBER,
        ),
    },
    "PeerMessage": _object(
        ["destination"],
        destination=_ID,
        payload=_TEXT,
        message=_ref("Message"),
        message_id=_MESSAGE_ID,
        enable_offline_messaging=_FLAG,
        enable_historical_messaging=_FLAG,
    ),
    "ChannelMessage": _object(
        ["channel_name"],
        channel_name=_ID,
        payload=_TEXT,
        message=_ref("Message"),
        message_id=_MESSAGE_ID,
        enable_historical_messaging=_FLAG,
    ),
    "Media": _object(
        ["media_id", "size", "sha256", "expires_at"],
        media_id=_TEXT,
        size=_NUMBER,
        sha256=_TEXT,
        file_name=_TEXT,
        content_type=_TEXT,
        expires_at={"type": "number"},
    ),
    "HistoryQuery": _object(
        ["filter"],
        filter=_object(
            ["start_time", "end_time"],
            source=_ID,
            destination=_ID,
            start_time=_MOMENT,
            end_time=_MOMENT,
        ),
        offset={"type": "integer", "minimum": 0, "default": 0},
        limit={"enum": [20, 50, 100], "default": 20},
        order={"enum": ["asc", "desc"], "default": "asc"},
    ),
    "HistoricalMessage": _object(
        src=_TEXT,
        dst=_TEXT,
        message_type={"enum": ["peer_message", "channel_message"]},
        ms=_NUMBER,
        message_id=_MESSAGE_ID,
        payload=_TEXT,
        message=_ref("Message"),
    ),
    "Kick": _object(
        ban_seconds={"type": "number", "minimum": 0, "default": 0},
        revoke_tokens={"type": "boolean", "default": False},
    ),
    "Success": _object(
        ["result", "request_id"], result={"const": "success"}, request_id=_TEXT, code=_TEXT
    ),
    "Failure": _object(
        ["result", "request_id", "code", "message"],
        result={"const": "failed"},
        request_id=_TEXT,
        code=_TEXT,
        message=_TEXT,
    ),
}


def _parameter(name: str, where: str, schema: _Schema) -> _Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


_APP = _parameter("app_id", "path", _ID)
_UID = _parameter("uid", "path", _ID)


def _operation(
    name: str,
    summary: str,
    *,
    body: _Schema | None = None,
    answer: _Schema | None = None,
    query: dict[str, _Schema] | None = None,
) -> _Schema:
    success = _ref("Success")
    if answer is not None:
        success = {"allOf": [_ref("Success"), answer]}
    operation: _Schema = {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": success}}},
            "default": {
                "description": "Refused: 400, 401, 403, 408, 413 or 429, or failed: 500.",
                "content": {"application/json": {"schema": _ref("Failure")}},
            },
        },
    }
    if query is not None:
        operation["parameters"] = [_parameter(key, "query", item) for key, item in query.items()]
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": body}}
    return operation


def _json(name: str) -> _Schema:
    return {"schema": _ref(name)}


def _paths() -> _Schema:
    events = _object(events=_list({"type": "object"}))
    upload = _operation("upload_media", "Upload a medium in one request.", answer=_ref("Media"))
    upload["parameters"] = [_parameter("file_name", "query", _TEXT)]
    upload["requestBody"] = {
        "required": True,
        "description": f"The bytes: 1 to {MEDIA_LIMIT:,}, with Content-Length.",
        "content": {"*/*": {}},
    }
    count_query = {"source": _ID, "destination": _ID, "start_time": _MOMENT, "end_time": _MOMENT}
    user: dict[str, _Schema] = {
        "/peer_messages": _operation(
            "send_peer_message",
            "Send a message to a user. `code` is message_sent, or with wait_for_ack "
            "message_delivered or message_offline.",
            body=_json("PeerMessage"),
            answer=_object(message_id=_TEXT, cached_by_server={"type": "boolean"}),
            query={"wait_for_ack": _FLAG},
        ),
        "/channel_messages": _operation(
            "send_channel_message",
            "Send a message to a channel; the sender need not be a member.",
            body=_json("ChannelMessage"),
            answer=_object(message_id=_TEXT),
        ),
        "/media": upload,
        "/media_session": _operation(
            "open_media_session",
            "A bearer token for /v1/media (tus, downloads); it expires after 15 idle minutes.",
            answer=_object(["token"], token=_TEXT),
        ),
        "/kick": _operation(
            "kick_user",
            "End a user's session (BANNED_BY_SERVER), refuse logins for ban_seconds, and with "
            "revoke_tokens revoke all tokens issued until now.",
            body=_json("Kick"),
            answer=_object(was_online={"type": "boolean"}),
        ),
    }
    paths: _Schema = {
        f"{_PREFIX}/rtm/users/{{uid}}{path}": {"parameters": [_APP, _UID], "post": operation}
        for path, operation in user.items()
    }
    readings: dict[str, _Schema] = {
        "/rtm/presence": _operation(
            "query_presence",
            "The state of up to 256 users: ONLINE, UNREACHABLE or OFFLINE.",
            answer=_object(states={"type": "object", "additionalProperties": _TEXT}),
            query={"user_id": _list(_ID)},
        ),
        "/rtm/bans": _operation(
            "list_bans",
            "The banned users, each with the end of the ban, seconds since the epoch.",
            answer=_object(bans={"type": "object", "additionalProperties": {"type": "number"}}),
        ),
        "/rtm/vendor/user_events": _operation(
            "take_user_events", "Logins and logouts; reading removes them.", answer=events
        ),
        "/rtm/vendor/channel_events": _operation(
            "take_channel_events", "Joins and leaves; reading removes them.", answer=events
        ),
        "/rtm/message/history/count": _operation(
            "count_history",
            "Count the matching messages of the history.",
            answer=_object(count=_NUMBER),
            query=count_query,
        ),
    }
    for path, operation in readings.items():
        paths[_PREFIX + path] = {"parameters": [_APP], "get": operation}
    paths[_PREFIX + "/rtm/message/history/query"] = {
        "parameters": [_APP],
        "post": _operation(
            "ask_history",
            "Query the history; the messages can be read at `location`.",
            body=_json("HistoryQuery"),
            answer=_object(location=_TEXT, offset=_NUMBER, limit=_NUMBER, order=_TEXT),
        ),
    }
    paths[_PREFIX + "/rtm/message/history/query/{handle}"] = {
        "parameters": [_APP, _parameter("handle", "path", _TEXT)],
        "get": _operation(
            "read_history",
            "Read the messages of a history query.",
            answer=_object(messages=_list(_ref("HistoricalMessage"))),
        ),
    }
    return paths


@cache
def document() -> _Schema:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rtm_sync gateway",
            "version": __version__,
            "description": "For server processes: messages, media, presence, history.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"customer": []}, {"token": [], "uid": []}],
        "paths": _paths(),
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "customer": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The app's id and secret; may act as any user.",
                },
                "token": {"type": "apiKey", "in": "header", "name": "x-agora-token"},
                "uid": {"type": "apiKey", "in": "header", "name": "x-agora-uid"},
            },
        },
    }
