"""Frames: calls, replies, failures and notices, and their encoding in JSON-RPC 2.0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import ERROR_FAMILIES, RtmError
from .codec import MAX_INTEGER, decoder_of, dumps, encoder_of, parse_json
from .errors import ProtocolError, RpcCode
from .events import EVENTS, Event
from .ids import FRAME_LIMIT
from .requests import REQUESTS, Request

_LONGEST_ID = str(MAX_INTEGER)


@dataclass(frozen=True, slots=True)
class Call:
    """A request with the caller's id. The ids of one direction grow."""

    id: int
    request: Request[Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A result in JSON form. The caller knows its type and decodes it (`decode_result`)."""

    id: int
    result: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """A call's error; `id` is None when the other end could not read the call's id."""

    id: int | None
    error: RtmError | ProtocolError


@dataclass(frozen=True, slots=True)
class Notice:
    """An event without an answer."""

    event: Event


Frame: TypeAlias = Call | Reply | Failure | Notice


def encode_call(call_id: int, request: Request[Any]) -> str:
    """Encode a request with the caller's id."""
    return dumps(
        {
            "jsonrpc": "2.0",
            "id": call_id,
            "method": request.METHOD,
            "params": encoder_of(type(request))(request),
        }
    )


def call_size_problem(frame: str, call: Call) -> str | None:
    """The sentence that describes an encoded call that is too large, or None.

    A call is measured with the longest id, because a client may repeat it under another one.
    """
    if len(frame) * 4 + len(_LONGEST_ID) <= FRAME_LIMIT:  # a character has at most four bytes
        return None
    size = len(frame.encode()) - len(str(call.id)) + len(_LONGEST_ID)
    if size <= FRAME_LIMIT:
        return None
    return (
        f"{call.request.METHOD} would be a frame of {size:,} bytes; the limit is {FRAME_LIMIT:,}. "
        "Pass less in one call."
    )


def encode_reply(call_id: int, result: object) -> str:
    """Encode the result of a call."""
    return dumps({"jsonrpc": "2.0", "id": call_id, "result": encoder_of(type(result))(result)})


def encode_failure(call_id: int | None, error: RtmError | ProtocolError) -> str:
    """Encode the error of a call.

    The reference's number is the JSON-RPC code; the error's family and name are its data.
    """
    body: dict[str, Any] = {"code": int(error.code), "message": error.message}
    if isinstance(error, RtmError):
        body["data"] = {"family": _family_name(error), "name": error.code.name}
    return dumps({"jsonrpc": "2.0", "id": call_id, "error": body})


def encode_notice(event: Event) -> str:
    """Encode an event."""
    return dumps(
        {"jsonrpc": "2.0", "method": event.METHOD, "params": encoder_of(type(event))(event)}
    )


def decode(text: str | bytes) -> Frame:
    """Decode one frame.

    Raises:
        ProtocolError: the text is not JSON-RPC 2.0, or has an unknown method or invalid parameters.
    """
    frame = parse_json(text)
    if not isinstance(frame, dict) or frame.get("jsonrpc") != "2.0":
        raise ProtocolError(
            RpcCode.INVALID_REQUEST, 'A frame must be a JSON object with "jsonrpc": "2.0".'
        )
    call_id = frame.get("id")
    if call_id is not None and (type(call_id) is not int or not 0 <= call_id <= MAX_INTEGER):
        raise ProtocolError(RpcCode.INVALID_REQUEST, "id must be an integer from 0 to 2^53 - 1.")
    if "method" in frame:
        return _decode_method(frame, call_id)
    if "error" in frame:
        return Failure(call_id, _decode_error(frame["error"], call_id))
    if "result" in frame and call_id is not None:
        return Reply(call_id, frame["result"])
    raise ProtocolError(RpcCode.INVALID_REQUEST, "A frame needs method, result or error.", call_id)


def _decode_method(frame: dict[str, Any], call_id: int | None) -> Call | Notice:
    method = frame["method"]
    if not isinstance(method, str):
        raise ProtocolError(RpcCode.INVALID_REQUEST, "method must be a string.", call_id)
    kind: type[Any] | None = (EVENTS if call_id is None else REQUESTS).get(method)
    if kind is None:
        known = "notification" if call_id is None else "method"
        raise ProtocolError(
            RpcCode.METHOD_NOT_FOUND, f"There is no {known} {method[:64]!r}.", call_id
        )
    try:
        value = decoder_of(kind)(frame.get("params", {}))
    except (TypeError, ValueError) as error:
        request = None if call_id is None else kind
        raise ProtocolError(RpcCode.INVALID_PARAMS, str(error), call_id, request) from error
    return Notice(value) if call_id is None else Call(call_id, value)


def _decode_error(body: Any, call_id: int | None) -> RtmError | ProtocolError:
    if not isinstance(body, dict):
        raise ProtocolError(RpcCode.INVALID_REQUEST, "error must be an object.", call_id)
    message = body.get("message", "")
    if type(message) is not str:
        message = ""
    data = body.get("data")
    if isinstance(data, dict):
        family = ERROR_FAMILIES.get(str(data.get("family")))
        member = family.Code.__members__.get(str(data.get("name"))) if family else None
        if family is not None and member is not None:
            return family(member, message)
    number = body.get("code")
    code = next((code for code in RpcCode if code == number), RpcCode.INVALID_REQUEST)
    return ProtocolError(code, message, call_id)


def _family_name(error: RtmError) -> str:
    return next(
        (kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERROR_FAMILIES),
        type(error).__name__,
    )
