"""The codec: converts values to JSON and back, by the annotations of their classes.

A new request needs no code here. Decoding is strict: JSON that does not match the annotations is an
error.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, TypeAlias, TypeVar

from ..messages import RtmFileMessage, RtmImageMessage, RtmMessage, RtmRawMessage, RtmTextMessage
from .errors import ProtocolError, RpcCode

R = TypeVar("R")
C = TypeVar("C")
MAX_INTEGER = 2**53 - 1
"""The largest integer of the protocol, and of a call's id: every JSON reader takes it exactly."""

dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_loads = json.JSONDecoder(parse_constant=_refuse_constant).decode


def encode_json(value: object) -> str:
    """Encode a dataclass as a JSON object (for HTTP bodies)."""
    return dumps(encoder_of(type(value))(value))


def decode_json(kind: type[R], text: str | bytes) -> R:
    """Decode a JSON object into a dataclass.

    Raises:
        ProtocolError: the text is not JSON, or does not match the class.
    """
    return decode_result(kind, parse_json(text))


def decode_result(kind: type[R], result: Any) -> R:
    """Convert a reply's JSON result to the request's `RESULT` type.

    Raises:
        ProtocolError: the result does not match the type.
    """
    try:
        return typing.cast(R, decoder_of(kind)(result))
    except (TypeError, ValueError) as error:
        raise ProtocolError(RpcCode.INVALID_REQUEST, str(error)) from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in UTF-8, without NaN and Infinity. Raises ProtocolError."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return _loads(text)
    except RecursionError:
        raise ProtocolError(RpcCode.PARSE_ERROR, "JSON is nested too deeply.") from None
    except ValueError as error:
        raise ProtocolError(RpcCode.PARSE_ERROR, f"Not JSON in UTF-8: {error}.") from None


_Encode: TypeAlias = Callable[[Any], Any]
_Decode: TypeAlias = Callable[[Any], Any]

_MESSAGE_KINDS: dict[str, type[Any]] = {
    "TEXT": RtmTextMessage,
    "RAW": RtmRawMessage,
    "FILE": RtmFileMessage,
    "IMAGE": RtmImageMessage,
}
_PLAIN = (str, int, float, bool)


def _identity(value: Any) -> Any:
    return value


def _cached_by_type(make: Callable[[Any], C]) -> Callable[[Any], C]:
    return cache(make)


@_cached_by_type
def encoder_of(kind: Any) -> _Encode:
    """A function that converts a value of this type for the JSON encoder."""
    if kind is bytes:
        return lambda value: base64.b64encode(value).decode("ascii")
    if kind == RtmMessage:
        return lambda value: encoder_of(type(value))(value)
    if dataclasses.is_dataclass(kind):
        return _dataclass_encoder(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda value: value.value
    return _generic_encoder(typing.get_origin(kind), typing.get_args(kind))


def _without_none(arguments: tuple[Any, ...]) -> Any:
    """The `X` of `X | None`, which may be a union itself."""
    return typing.Union[tuple(item for item in arguments if item is not type(None))]  # noqa: UP007


def _generic_encoder(origin: Any, arguments: tuple[Any, ...]) -> _Encode:
    """The encoder of `X | None`, `tuple[X, ...]` and `dict[str, X]`; others are not converted."""
    if origin in (types.UnionType, typing.Union):
        inner = encoder_of(_without_none(arguments))
        return inner if inner is _identity else lambda v: None if v is None else inner(v)
    if origin is tuple:
        inner = encoder_of(arguments[0])
        return _identity if inner is _identity else lambda values: [inner(item) for item in values]
    if origin is dict:
        inner = encoder_of(arguments[1])
        if inner is not _identity:
            return lambda values: {name: inner(item) for name, item in values.items()}
    return _identity


def _dataclass_encoder(kind: Any) -> _Encode:
    hints = typing.get_type_hints(kind)
    plain = []
    converted = []
    for item in dataclasses.fields(kind):
        encode = encoder_of(hints[item.name])
        if encode is _identity:
            plain.append(item.name)
        else:
            converted.append((item.name, encode))
    tag = next((name for name, message in _MESSAGE_KINDS.items() if message is kind), None)

    def encode_fields(value: Any) -> dict[str, Any]:
        encoded: dict[str, Any] = {} if tag is None else {"type": tag}
        for name in plain:
            encoded[name] = getattr(value, name)
        for name, encode in converted:
            encoded[name] = encode(getattr(value, name))
        return encoded

    return encode_fields


@_cached_by_type
def decoder_of(kind: Any) -> _Decode:
    """A function that converts JSON to a value of this type, and raises ValueError otherwise."""
    if kind == RtmMessage:
        return _decode_message
    if dataclasses.is_dataclass(kind):
        return _dataclass_decoder(kind)
    if kind is bytes:
        return _decode_bytes
    if kind in _PLAIN:
        return _plain_decoder(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum_decoder(kind)
    return _generic_decoder(kind, typing.get_origin(kind), typing.get_args(kind))


def _generic_decoder(kind: Any, origin: Any, arguments: tuple[Any, ...]) -> _Decode:
    if origin in (types.UnionType, typing.Union):
        inner = decoder_of(_without_none(arguments))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return _array_decoder(decoder_of(arguments[0]))
    if origin is dict:
        return _object_decoder(decoder_of(arguments[1]))
    raise TypeError(f"The protocol has no encoding of {kind!r}.")


def _array_decoder(decode_item: _Decode) -> _Decode:
    def decode_array(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise ValueError("must be an array.")
        return tuple(map(decode_item, value))

    return decode_array


def _object_decoder(decode_item: _Decode) -> _Decode:
    decode_name = _plain_decoder(str)

    def decode_object(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError("must be an object.")
        return {decode_name(name): decode_item(item) for name, item in value.items()}

    return decode_object


def _plain_decoder(kind: type) -> _Decode:
    def decode_plain(value: Any) -> Any:
        if kind is float and type(value) in (int, float):
            return _finite(value)
        if kind is int and type(value) is int and abs(value) > MAX_INTEGER:
            raise ValueError("must be an integer of at most 2^53 - 1.")
        if type(value) is not kind:
            raise ValueError(f"must be {kind.__name__}, not {type(value).__name__}.")
        if isinstance(value, str) and not value.isascii():
            value.encode()  # raises for a lone surrogate, which cannot be encoded again
        return value

    return decode_plain


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be a finite number.")
    return number


def _enum_decoder(kind: type[Enum]) -> _Decode:
    members = {(type(member.value), member.value): member for member in kind}

    def decode_enum(value: Any) -> Enum:
        # The type is part of the key, because true and 1.0 equal 1. Lists are not hashable.
        member = members.get((type(value), value)) if type(value) in (int, str) else None
        if member is None:
            raise ValueError(f"is not a {kind.__name__}.")
        return member

    return decode_enum


def _decode_bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise ValueError("must be base64 text.")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64.") from None


def _decode_message(value: Any) -> Any:
    if type(value) is not dict:
        raise ValueError("must be an object.")
    tag = value.get("type")
    kind = _MESSAGE_KINDS.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise ValueError("type must be TEXT, RAW, FILE or IMAGE.")
    return decoder_of(kind)(value)


def _dataclass_decoder(kind: Any) -> _Decode:
    hints = typing.get_type_hints(kind)
    decoders = {item.name: decoder_of(hints[item.name]) for item in dataclasses.fields(kind)}
    required = frozenset(
        item.name for item in dataclasses.fields(kind) if item.default is dataclasses.MISSING
    )

    def decode_fields(value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError("must be an object.")
        decoded = {}
        for name, item in value.items():
            decode_item = decoders.get(name)
            # Unknown names are ignored, so that an older end understands a newer one.
            if decode_item is not None:
                try:
                    decoded[name] = decode_item(item)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        if not required <= decoded.keys():
            missing = ", ".join(sorted(required - decoded.keys()))
            raise ValueError(f"missing: {missing}.")
        return kind(**decoded)

    return decode_fields
