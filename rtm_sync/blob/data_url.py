"""Data URLs, as `fetch()` of browsers takes them (Fetch standard, "data: URL processor")."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse

from .sources import too_large

_SPACE = "\t\n\f\r "
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  no password
_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})[ \t\r\n]*(?:;|\Z)")
_PARAMETER = re.compile(
    rf"""[ \t\r\n]* ({_TOKEN}) = (?: "((?:[^"\\]|\\.)*) (?:"[^;]*|\Z) | ([^;]*) ) (?:;|\Z)""",
    re.X | re.S,
)
_VALUE = re.compile(r"[\t\x20-\x7e]+")
_BASE64 = re.compile(r" *base64\Z", re.I)


def read_data_url(url: str, max_bytes: int) -> tuple[bytes, str]:
    """The bytes of a `data:` URL, and their content type.

    Raises:
        ValueError: it is not a data URL, or its base64 is damaged.
        BlobTooLarge: it holds more than `max_bytes` bytes.
    """
    # As a URL parser: no spaces around it, no tabs or line breaks in it, and no fragment.
    start = url[:40]
    url = url.strip("".join(map(chr, range(0x21)))).translate({9: None, 10: None, 13: None})
    scheme, colon, rest = url.partition("#")[0].partition(":")
    header, comma, body = rest.partition(",")
    if not colon or scheme.lower() != "data" or not comma:
        raise ValueError(f"Not a data URL: {start!r}.")
    if len(body) > 4 * max_bytes:
        raise too_large(f"The data URL has {len(body):,} characters", max_bytes)
    data = urllib.parse.unquote_to_bytes(body)
    header = header.strip(_SPACE)
    before, semicolon, last = header.rpartition(";")
    if semicolon and _BASE64.fullmatch(last):
        header = before
        data = _forgiving_base64(data)
    if len(data) > max_bytes:
        raise too_large(f"The data URL holds {len(data):,} bytes", max_bytes)
    if header.startswith(";"):  # RFC 2397: the type is optional
        header = f"text/plain{header}"
    return data, content_type_in(header) or "text/plain"


def _forgiving_base64(text: bytes) -> bytes:
    """Decode base64 that may have white space and may lack its padding (Infra standard)."""
    text = text.translate(None, _SPACE.encode())
    if len(text) % 4 == 0:
        text = re.sub(rb"={1,2}\Z", b"", text)
    try:
        if b"=" in text:
            raise ValueError("a = stands where none can be")
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"The data URL's base64 is damaged: {error}.") from error


def content_type_in(header: str) -> str:
    """The MIME type of a header with its parameters, in its normal form; "" when it has none."""
    match = _TYPE.match(header.strip(_SPACE))
    if match is None:
        return ""
    parameters: dict[str, str] = {}
    position, header = match.end(), header.strip(_SPACE)
    while position < len(header):
        found = _PARAMETER.match(header, position)
        if found is None:  # not a parameter: continue after the next semicolon
            position = header.find(";", position) + 1 or len(header)
            continue
        position = found.end()
        name, quoted, plain = found[1].lower(), found[2], found[3]
        value = re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain.rstrip(" \t\r\n")
        if _VALUE.fullmatch(value):
            parameters.setdefault(name, value)
    return f"{match[1]}/{match[2]}".lower() + "".join(
        f";{name}={_quoted(value)}" for name, value in parameters.items()
    )


def _quoted(value: str) -> str:
    if re.fullmatch(_TOKEN, value):
        return value
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'"{escaped}"'
