"""The requests of the HTTP API: their bodies, the checks of their values, and messages as JSON."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from aiohttp import web

from ..errors import ChannelMessageError, PeerMessageError, RtmError
from ..hub.engine.archive import HistoryQuery
from ..messages import RtmMessage, RtmTextMessage
from ..protocol.codec import decode_json, encode_json
from ..protocol.errors import ProtocolError
from ..protocol.ids import id_problem
from ..protocol.values import HistoricalMessage
from .errors import BODY_ERRORS

BODY_LIMIT = 256 * 1024
"""The most bytes of a JSON body: the largest message, and room for the fields around it."""

MAX_PRESENCE = 256
"""The most users in one query of presence."""

PAGE_LIMITS = (20, 50, 100)
"""The numbers of messages that a page of the history may have (reference, REST)."""

MAX_OFFSET = 10**9
"""The most messages that a page of the history may leave out."""

_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class PeerMessageBody:
    destination: str
    payload: str | None = None
    message: RtmMessage | None = None
    message_id: str | None = None
    enable_offline_messaging: bool = False
    enable_historical_messaging: bool = False


@dataclass(frozen=True, slots=True)
class ChannelMessageBody:
    channel_name: str
    payload: str | None = None
    message: RtmMessage | None = None
    message_id: str | None = None
    enable_historical_messaging: bool = False


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    start_time: str
    end_time: str
    source: str | None = None
    destination: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryBody:
    filter: HistoryFilter
    offset: int = 0
    limit: int = 20
    order: str = "asc"


@dataclass(frozen=True, slots=True)
class PresenceBody:
    user_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KickBody:
    ban_seconds: float = 0.0
    revoke_tokens: bool = False


@dataclass(frozen=True, slots=True)
class EndSessionsBody:
    revoke_tokens: bool = False


class Refused(Exception):
    """An error answer with this HTTP status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


async def read_body(request: web.Request, kind: type[K]) -> K:
    """Read a request's body, a JSON object with the fields of `kind`.

    Raises:
        Refused: the body is too large, cut off, damaged, not JSON or no such object.
    """
    if request.content_type != "application/json":
        # A browser sends other content types to another site without a CORS preflight.
        raise Refused(400, "INVALID_ARGUMENT", "Content-Type must be application/json.")
    return decoded_body(kind, await _read(request))


async def read_no_body(request: web.Request) -> None:
    """Read the body of a request that needs none, and forget it.

    Raises:
        Refused: the body is too large, cut off or damaged.
    """
    await _read(request)


async def _read(request: web.Request) -> bytes:
    if (request.content_length or 0) > BODY_LIMIT:
        raise Refused(413, "SIZE_OVERFLOW", f"A body is at most {BODY_LIMIT:,} bytes.")
    text = bytearray()
    try:
        async for chunk in request.content.iter_any():
            text += chunk
            if len(text) > BODY_LIMIT:
                raise Refused(413, "SIZE_OVERFLOW", f"A body is at most {BODY_LIMIT:,} bytes.")
    except BODY_ERRORS as error:
        why = " ".join(str(error).split())
        raise Refused(400, "INVALID_ARGUMENT", f"The body cannot be read: {why}") from error
    return bytes(text)


def decoded_body(kind: type[K], text: str | bytes) -> K:
    """As `read_body`, of a body that was read before."""
    try:
        return decode_json(kind, text)
    except ProtocolError as error:
        raise Refused(400, "INVALID_ARGUMENT", error.message) from error


def check_id(name: str, value: str) -> None:
    """Raise for a user id or channel id that is not valid."""
    problem = id_problem(name, value)
    if problem is not None:
        raise Refused(400, "INVALID_ARGUMENT", problem)


def flag(request: web.Request, name: str) -> bool:
    """A parameter of the query that is `true`, `false` or absent."""
    value = request.query.get(name, "false")
    if value not in ("true", "false"):
        raise Refused(400, "INVALID_ARGUMENT", f"{name} is {value[:20]!r}; it is true or false.")
    return value == "true"


def message_of(body: PeerMessageBody | ChannelMessageBody) -> RtmMessage:
    """The message of a body: its `message`, or the text `payload`.

    Raises:
        RtmError: INVALID_MESSAGE, of the body's family.
    """
    family: type[RtmError] = (
        PeerMessageError if isinstance(body, PeerMessageBody) else ChannelMessageError
    )
    if (body.payload is None) == (body.message is None):
        raise family.named("INVALID_MESSAGE", "Give a payload (text) or a message, not both.")
    if body.message is not None:
        return body.message
    try:
        return RtmTextMessage(body.payload or "")
    except ValueError as error:
        raise family.named("INVALID_MESSAGE", str(error), error) from error


def history_query(body: HistoryBody) -> HistoryQuery:
    """The archive's query for a body. Raises `Refused` for a value that is not valid."""
    conditions = body.filter
    problem = None
    if body.limit not in PAGE_LIMITS:
        problem = f"limit is {body.limit}; it must be 20, 50 or 100."
    elif not 0 <= body.offset <= MAX_OFFSET:
        problem = f"offset is {body.offset}; it must be 0 to {MAX_OFFSET:,}."
    elif body.order not in ("asc", "desc"):
        problem = f"order is {body.order[:20]!r}; it must be asc or desc."
    elif conditions.source is None and conditions.destination is None:
        problem = "filter needs a source or a destination."
    if problem is not None:
        raise Refused(400, "INVALID_ARGUMENT", problem)
    for name, value in (("source", conditions.source), ("destination", conditions.destination)):
        if value is not None:
            check_id(name, value)
    return HistoryQuery(
        source=conditions.source,
        destination=conditions.destination,
        start=_moment("start_time", conditions.start_time),
        end=_moment("end_time", conditions.end_time),
        newest_first=body.order == "desc",
        offset=body.offset,
        limit=body.limit,
    )


def _moment(name: str, text: str) -> int:
    """Milliseconds since the epoch of `yyyy-mm-ddThh:mm:ssZ`, the reference's only format."""
    with contextlib.suppress(ValueError):
        if _UTC.fullmatch(text):
            moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
            return int(moment.timestamp() * 1000)
    raise Refused(400, "INVALID_ARGUMENT", f"{name} must be like 2026-01-31T12:00:00Z (UTC).")


def message_json(message: HistoricalMessage) -> dict[str, Any]:
    """A message of the history in the reference's format; `message` (ours) has it in full."""
    sent = message.message
    return {
        "src": message.source,
        "dst": message.destination,
        "message_type": "channel_message" if message.is_channel else "peer_message",
        "ms": message.message_props.server_received_ts,
        "message_id": message.message_id,
        "payload": sent.text if isinstance(sent, RtmTextMessage) else "",
        "message": json.loads(encode_json(message))["message"],
    }
