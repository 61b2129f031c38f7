"""The format of AccessToken 006 and 007. The content is not verified here: the caller must do it.

All numbers are little-endian. A string is its length in two bytes and its bytes. A map is its
length in two bytes, and pairs of a two-byte key and a four-byte value.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass

MAX_CHARACTERS = 4 * 1024  # the published builders' tokens have 140 to 400
_MAX_UNPACKED = 16 * 1024
_APP_ID = 32

_RTC, RTM = 1, 2  # services, in their order in a token


class BadToken(ValueError):
    """The token is not valid. The message says why, but not what would be valid."""


@dataclass(frozen=True, slots=True)
class Token006:
    """The content of a token of version 006, which does not contain the user.

    Attributes:
        app_id: the app.
        signature: of app id, user and `message`.
        account_checksum: CRC-32 of the user.
        message: the signed bytes of the token.
        ends_at: the end of the token, one day after it was made, in seconds since the epoch.
        privileges: number → end of the privilege in seconds since the epoch; 0 for no end.
    """

    app_id: str
    signature: bytes
    account_checksum: int
    message: bytes
    ends_at: int
    privileges: dict[int, int]


@dataclass(frozen=True, slots=True)
class Token007:
    """The content of a token of version 007.

    Attributes:
        app_id: the app.
        signature: of `message`.
        message: the signed bytes of the token.
        issued_at: seconds since the epoch.
        lifetime: seconds from `issued_at`.
        salt: part of the key.
        user: the user of the RTM service; None when the token does not have that service.
        privileges: of the RTM service: number → seconds from `issued_at`.
    """

    app_id: str
    signature: bytes
    message: bytes
    issued_at: int
    lifetime: int
    salt: int
    user: bytes | None
    privileges: dict[int, int]


def parse(token: str) -> Token006 | Token007:
    """Read a token of either version. Raises BadToken."""
    if len(token) > MAX_CHARACTERS:
        raise BadToken(f"it has {len(token):,} characters; at most {MAX_CHARACTERS:,}")
    version, rest = token[:3], token[3:]
    if version == "006":
        return _parse_006(rest[:_APP_ID], _Reader(_decoded(rest[_APP_ID:])))
    if version == "007":
        return _parse_007(_Reader(_unpacked(_decoded(rest))))
    raise BadToken("it begins with neither 006 nor 007")


class _Reader:
    """Reads numbers and strings from bytes. Raises BadToken when too few bytes are left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise BadToken("it is cut off")
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def string(self) -> bytes:
        return self.take(self.number(2))

    def map(self) -> dict[int, int]:
        return {self.number(2): self.number(4) for _ in range(self.number(2))}

    def rest(self) -> bytes:
        return self._data[self._at :]


def _parse_006(app_id: str, reader: _Reader) -> Token006:
    if len(app_id) < _APP_ID:
        raise BadToken("it is cut off")
    signature = reader.string()
    account_checksum = reader.number(4)
    if reader.number(4):  # the checksum of the slot that RTM leaves empty
        raise BadToken("it has a channel and a user, so it is not a token for RTM")
    message = reader.string()
    if reader.rest():
        raise BadToken("it has bytes after its end")
    inside = _Reader(message)
    inside.number(4)  # the salt
    ends_at = inside.number(4)
    return Token006(app_id, signature, account_checksum, message, ends_at, inside.map())


def _parse_007(reader: _Reader) -> Token007:
    signature = reader.string()
    message = reader.rest()
    app_id = reader.string()
    issued_at, lifetime, salt = reader.number(4), reader.number(4), reader.number(4)
    user: bytes | None = None
    privileges: dict[int, int] = {}
    for _ in range(reader.number(2)):
        service, granted = reader.number(2), reader.map()
        if service == RTM:
            user, privileges = reader.string(), granted
            break
        if service != _RTC:  # the format of other services is not known, and they come later
            break
        reader.string(), reader.string()  # a channel and its user
    return Token007(
        app_id.decode("ascii", "replace"),
        signature,
        message,
        issued_at,
        lifetime,
        salt,
        user,
        privileges,
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise BadToken("it is not base64") from None


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, _MAX_UNPACKED)
    except zlib.error:
        raise BadToken("it cannot be unpacked") from None
    if not unpacker.eof or unpacker.unused_data:
        raise BadToken("it is cut off, or too large, or it has bytes after its end")
    return unpacked
