"""The description of the HTTP API, as OpenAPI 3.1. A test compares it with real requests."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..blob import MEDIA_LIMIT
from ..messages import MEDIA_ID_LIMIT
from ..protocol.codec import MAX_INTEGER
from ..protocol.ids import ID_LIMIT, ID_PATTERN, MESSAGE_ID_PATTERN
from ..version import __version__
from .api_requests import MAX_OFFSET, MAX_PRESENCE, PAGE_LIMITS

_PREFIX = "/dev/v2/project/{app_id}"
_Schema = dict[str, Any]


def _object(required: list[str] | None = None, **properties: _Schema) -> _Schema:
    schema: _Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _ref(name: str, kind: str = "schemas") -> _Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _list(of: _Schema, *, least: int = 0, most: int | None = None) -> _Schema:
    schema: _Schema = {"type": "array", "items": of}
    if least:
        schema["minItems"] = least
    if most is not None:
        schema["maxItems"] = most
    return schema


def _map(of: _Schema) -> _Schema:
    return {"type": "object", "additionalProperties": of}


_TEXT: _Schema = {"type": "string"}
_BOOLEAN: _Schema = {"type": "boolean"}
_FLAG: _Schema = {"type": "boolean", "default": False}
_NUMBER: _Schema = {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}
_SECONDS: _Schema = {"type": "number", "description": "Seconds since the epoch."}
_MILLISECONDS: _Schema = {"type": "integer", "description": "Milliseconds since the epoch."}
_BASE64: _Schema = {"type": "string", "contentEncoding": "base64"}
_MOMENT: _Schema = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
    "examples": ["2026-01-31T12:00:00Z"],
}
_APP_ID: _Schema = {"type": "string", "minLength": 1, "maxLength": ID_LIMIT}
_ID: _Schema = {"type": "string", "pattern": f"^{ID_PATTERN}$", "not": {"const": "null"}}
_MESSAGE_ID: _Schema = {
    "type": "string",
    "pattern": f"^{MESSAGE_ID_PATTERN}$",
    "description": "Names the message: a message that is sent again with it is delivered once.",
}
_MEDIA_ID: _Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{32}$"}
_FILE_FIELDS: _Schema = {
    "media_id": {"type": "string", "minLength": 1, "maxLength": MEDIA_ID_LIMIT},
    "file_name": _TEXT,
    "description": _TEXT,
    "size": _NUMBER,
    "thumbnail": _BASE64,
    "expires_at": _SECONDS,
}


_NEXT_PAGE = "The `after` of the request for the next page; null at the end."


def _message(kind: str, required: str, **properties: _Schema) -> _Schema:
    return _object(["type", required], type={"const": kind}, **properties)


def _event(names: list[str], subject: dict[str, _Schema]) -> _Schema:
    return _object([*subject, "type", "ms"], **subject, type={"enum": names}, ms=_MILLISECONDS)


_ONE_MESSAGE: _Schema = {"oneOf": [{"required": ["payload"]}, {"required": ["message"]}]}
_PAYLOAD: _Schema = {"type": "string", "minLength": 1, "description": "The text of a message."}

_SCHEMAS: dict[str, _Schema] = {
    "Message": {
        "description": "A message of any type, of at most 32,768 bytes as the protocol counts "
        "them; `payload` is the short form of a text.",
        "oneOf": [
            _message("TEXT", "text", text={"type": "string", "minLength": 1}, description=_TEXT),
            _message("RAW", "raw_message", raw_message=_BASE64, description=_TEXT),
            _message("FILE", "media_id", **_FILE_FIELDS),
            _message(
                "IMAGE",
                "media_id",
                **_FILE_FIELDS,
                width=_NUMBER,
                height=_NUMBER,
                thumbnail_width=_NUMBER,
                thumbnail_height=_NUMBER,
            ),
        ],
    },
    "PeerMessage": _object(
        ["destination"],
        destination=_ID,
        payload=_PAYLOAD,
        message=_ref("Message"),
        message_id=_MESSAGE_ID,
        enable_offline_messaging=_FLAG,
        enable_historical_messaging=_FLAG,
    )
    | _ONE_MESSAGE,
    "ChannelMessage": _object(
        ["channel_name"],
        channel_name=_ID,
        payload=_PAYLOAD,
        message=_ref("Message"),
        message_id=_MESSAGE_ID,
        enable_historical_messaging=_FLAG,
    )
    | _ONE_MESSAGE,
    "Media": _object(
        ["media_id", "size", "sha256", "file_name", "content_type", "expires_at"],
        media_id=_MEDIA_ID,
        size={"type": "integer", "minimum": 1, "maximum": MEDIA_LIMIT},
        sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        file_name=_TEXT,
        content_type=_TEXT,
        expires_at=_SECONDS,
    ),
    "HistoryQuery": _object(
        ["filter"],
        filter=_object(
            ["start_time", "end_time"],
            source=_ID,
            destination=_ID,
            start_time=_MOMENT,
            end_time=_MOMENT,
        )
        | {"anyOf": [{"required": ["source"]}, {"required": ["destination"]}]},
        offset={"type": "integer", "minimum": 0, "maximum": MAX_OFFSET, "default": 0},
        limit={"enum": list(PAGE_LIMITS), "default": PAGE_LIMITS[0]},
        order={"enum": ["asc", "desc"], "default": "asc", "description": "By time."},
    ),
    "HistoricalMessage": _object(
        ["src", "dst", "message_type", "ms", "message_id", "payload", "message"],
        src=_ID,
        dst=_ID,
        message_type={"enum": ["peer_message", "channel_message"]},
        ms=_MILLISECONDS,
        message_id=_MESSAGE_ID,
        payload={"type": "string", "description": "The text of a text message, or empty."},
        message=_ref("Message"),
    ),
    "Presence": _object(["user_ids"], user_ids=_list(_ID, least=1, most=MAX_PRESENCE)),
    "Kick": _object(
        ban_seconds={
            "type": "number",
            "minimum": 0,
            "default": 0,
            "description": "How long logins are refused; 0 ends a ban.",
        },
        revoke_tokens=_FLAG,
    ),
    "EndSessions": _object(revoke_tokens=_FLAG),
    "UserEvent": _event(["Login", "Logout"], {"user_id": _ID}),
    "ChannelEvent": _event(["Join", "Leave"], {"group_id": _ID, "user_id": _ID}),
    "Success": _object(
        ["result", "request_id"], result={"const": "success"}, request_id=_TEXT, code=_TEXT
    ),
    "Failure": _object(
        ["result", "request_id", "code", "message"],
        result={"const": "failed"},
        request_id=_TEXT,
        code={"type": "string", "pattern": "^[A-Z][A-Z_]*$"},
        message=_TEXT,
    ),
}

_FAILURES = {
    "400": "An argument, a header or the body is not valid.",
    "401": "No secret or token, or a wrong one.",
    "403": "The token does not allow it, or the page's origin may not use the gateway.",
    "408": "The user did not confirm the message in time; it may still arrive.",
    "413": "The body is too large.",
    "429": "Too often; `Retry-After` has the seconds to wait.",
    "500": "The gateway failed.",
    "default": "Refused or failed.",
}
_ALWAYS = ("400", "401", "403", "429", "500", "default")


def _parameter(name: str, where: str, schema: _Schema, *, required: bool = False) -> _Schema:
    return {
        "name": name,
        "in": where,
        "required": required or where == "path",
        "schema": schema,
    }


def _query(name: str, schema: _Schema, *, required: bool = False) -> _Schema:
    return _parameter(name, "query", schema, required=required)


_APP = _parameter("app_id", "path", _APP_ID)
_UID = _parameter("uid", "path", _ID)
_SECRET: list[_Schema] = [{"customer": []}]
_SECRET_OR_TOKEN: list[_Schema] = [*_SECRET, {"token": [], "uid": []}]


def _operation(
    name: str,
    summary: str,
    security: list[_Schema],
    *,
    answer: _Schema,
    body: str | None = None,
    query: list[_Schema] | None = None,
    failures: tuple[str, ...] = (),
) -> _Schema:
    success = {"allOf": [_ref("Success"), answer]}
    if body is not None:
        failures = (*failures, "413")
    operation: _Schema = {
        "operationId": name,
        "summary": summary,
        "security": security,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": success}}}
        }
        | {status: _ref(f"Failure-{status}", "responses") for status in (*_ALWAYS, *failures)},
    }
    if query is not None:
        operation["parameters"] = query
    if body is not None:
        content = {"application/json": {"schema": _ref(body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _user_paths() -> _Schema:
    """The paths of requests as one user."""
    upload = _operation(
        "upload_media",
        "Upload a medium in one request.",
        _SECRET_OR_TOKEN,
        answer=_ref("Media"),
        query=[_query("file_name", _TEXT)],
        failures=("413",),
    )
    upload["requestBody"] = {
        "required": True,
        "description": f"The bytes: 1 to {MEDIA_LIMIT:,}, with Content-Length and without "
        "Content-Encoding. Content-Type becomes that of the medium.",
        "content": {"*/*": {}},
    }
    user: dict[str, _Schema] = {
        "/peer_messages": _operation(
            "send_peer_message",
            "Send a message to a user. `code` is message_sent, or with wait_for_ack "
            "message_delivered or message_offline.",
            _SECRET_OR_TOKEN,
            body="PeerMessage",
            answer=_object(
                ["code", "message_id", "cached_by_server"],
                code={"enum": ["message_sent", "message_delivered", "message_offline"]},
                message_id=_MESSAGE_ID,
                cached_by_server={
                    "type": "boolean",
                    "description": "Kept for the user's next login.",
                },
            ),
            query=[_query("wait_for_ack", _FLAG)],
            failures=("408",),
        ),
        "/channel_messages": _operation(
            "send_channel_message",
            "Send a message to a channel; the sender need not be a member.",
            _SECRET_OR_TOKEN,
            body="ChannelMessage",
            answer=_object(
                ["code", "message_id"], code={"const": "message_sent"}, message_id=_MESSAGE_ID
            ),
        ),
        "/media": upload,
        "/media_session": _operation(
            "open_media_session",
            "A bearer token for /v1/media (tus, downloads). It expires after 15 idle minutes, and "
            "with the user's token.",
            _SECRET_OR_TOKEN,
            answer=_object(["token"], token={"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}),
        ),
        "/kick": _operation(
            "kick_user",
            "End a user's sessions (BANNED_BY_SERVER), refuse logins for ban_seconds, and with "
            "revoke_tokens revoke all tokens issued until now.",
            _SECRET,
            body="Kick",
            answer=_object(["was_online"], was_online=_BOOLEAN),
        ),
    }
    return {
        f"{_PREFIX}/rtm/users/{{uid}}{path}": {"parameters": [_APP, _UID], "post": operation}
        for path, operation in user.items()
    }


def _app_paths() -> _Schema:
    """The paths of requests that concern the whole app."""
    states = _object(["states"], states=_map({"enum": ["ONLINE", "UNREACHABLE", "OFFLINE"]}))
    conditions = [
        _query("source", _ID),
        _query("destination", _ID),
        _query("start_time", _MOMENT, required=True),
        _query("end_time", _MOMENT, required=True),
    ]
    operations: dict[str, dict[str, _Schema]] = {
        "/rtm/presence": {
            "get": _operation(
                "query_presence",
                "The states of users: as many as fit into a URL of 8,190 bytes.",
                _SECRET_OR_TOKEN,
                answer=states,
                query=[_query("user_id", _list(_ID, least=1, most=MAX_PRESENCE), required=True)],
            ),
            "post": _operation(
                "query_presence_of_many",
                f"The states of 1 to {MAX_PRESENCE} users.",
                _SECRET_OR_TOKEN,
                body="Presence",
                answer=states,
            ),
        },
        "/rtm/bans": {
            "get": _operation(
                "list_bans",
                "The banned users, each with the end of the ban, in the order of their ids: at "
                "most 1,000, from the first one behind `after`.",
                _SECRET,
                answer=_object(
                    ["bans", "after"],
                    bans=_map(_SECONDS) | {"maxProperties": 1000},
                    after=_ID | {"type": ["string", "null"], "description": _NEXT_PAGE},
                ),
                query=[_query("after", _ID)],
            )
        },
        "/rtm/sessions/end": {
            "post": _operation(
                "end_sessions",
                "End all sessions of the app (BANNED_BY_SERVER) and what they transfer, and with "
                "revoke_tokens revoke all tokens issued until now.",
                _SECRET,
                body="EndSessions",
                answer=_object(["ended"], ended={"type": "integer", "minimum": 0}),
            )
        },
        "/rtm/vendor/user_events": {
            "get": _operation(
                "take_user_events",
                "Logins and logouts, the oldest first: at most 1,000 of the newest 2,000 since the "
                "gateway started. Reading removes them.",
                _SECRET,
                answer=_object(["events"], events=_list(_ref("UserEvent"), most=1000)),
            )
        },
        "/rtm/vendor/channel_events": {
            "get": _operation(
                "take_channel_events",
                "Joins and leaves, the oldest first: at most 1,000 of the newest 2,000 since the "
                "gateway started. Reading removes them.",
                _SECRET,
                answer=_object(["events"], events=_list(_ref("ChannelEvent"), most=1000)),
            )
        },
        "/rtm/message/history/count": {
            "get": _operation(
                "count_history",
                "Count the messages of the history; `source` or `destination` is required.",
                _SECRET,
                answer=_object(
                    ["code", "count"], code={"const": "ok"}, count={"type": "integer", "minimum": 0}
                ),
                query=conditions,
            )
        },
        "/rtm/message/history/query": {
            "post": _operation(
                "ask_history",
                "Query the history; the messages can be read at `location`.",
                _SECRET,
                body="HistoryQuery",
                answer=_object(
                    ["location", "offset", "limit", "order"],
                    location={
                        "type": "string",
                        "pattern": "^~/rtm/message/history/query/[A-Za-z0-9_-]+$",
                        "description": "`~` stands for the address of the project.",
                    },
                    offset=_NUMBER,
                    limit={"enum": list(PAGE_LIMITS)},
                    order={"enum": ["asc", "desc"]},
                ),
            )
        },
    }
    paths = {_PREFIX + path: {"parameters": [_APP], **item} for path, item in operations.items()}
    paths[_PREFIX + "/rtm/message/history/query/{handle}"] = {
        "parameters": [_APP, _parameter("handle", "path", _TEXT)],
        "get": _operation(
            "read_history",
            "Read the messages of a history query, in its order, at most its limit.",
            _SECRET,
            answer=_object(
                ["code", "messages"],
                code={"const": "ok"},
                messages=_list(_ref("HistoricalMessage"), most=PAGE_LIMITS[-1]),
            ),
        ),
    }
    return paths


def _failure(status: str, description: str) -> _Schema:
    response: _Schema = {
        "description": description,
        "content": {"application/json": {"schema": _ref("Failure")}},
    }
    header = {"401": "WWW-Authenticate", "429": "Retry-After"}.get(status)
    if header is not None:
        response["headers"] = {header: {"schema": _TEXT}}
    return response


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
        "security": _SECRET,
        "paths": _user_paths() | _app_paths(),
        "components": {
            "schemas": _SCHEMAS,
            "responses": {
                f"Failure-{status}": _failure(status, text) for status, text in _FAILURES.items()
            },
            "securitySchemes": {
                "customer": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The app's id and secret; may act as any user.",
                },
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-agora-token",
                    "description": "A user's token; may act as that user.",
                },
                "uid": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-agora-uid",
                    "description": "The user of the token.",
                },
            },
        },
    }
