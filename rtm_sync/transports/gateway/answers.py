"""Headers and bodies of HTTP answers, read within limits: what answers may be hostile."""

from __future__ import annotations

import base64
import re

import requests

from ...blob.file_names import file_name_in
from ...protocol.values import MediaInfo

ERROR_LIMIT = 256 * 1024
"""The most bytes of an error's body, and of an answer that only has headers to read."""

_PIECE = 64 * 1024
_REPR_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


class BodyRefused(Exception):
    """A body is too large, or encoded although that was not asked for. The text is a sentence."""


def read_body(response: requests.Response, limit: int = ERROR_LIMIT) -> bytes:
    """Read the whole body of an answer that was requested with `stream=True`.

    Every request says `Accept-Encoding: identity`. A body with an encoding is refused and not
    unpacked: 600 KB can become 600 MB.

    Args:
        response: the answer. It is closed when its body is refused.
        limit: the most bytes.

    Raises:
        BodyRefused: see above.
        urllib3.exceptions.HTTPError: the connection is lost.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    try:
        if encoding.lower() != "identity":
            raise BodyRefused(
                f"The answer has the Content-Encoding {encoding[:40]!r}, which was not asked for."
            )
        body = bytearray()
        while piece := response.raw.read(min(_PIECE, limit + 1 - len(body)), decode_content=False):
            body += piece
            if len(body) > limit:
                raise BodyRefused(f"The answer has more than {limit:,} bytes, which is the limit.")
    except BaseException:
        response.close()
        raise
    return bytes(body)


def digest_in(response: requests.Response) -> str:
    """The SHA-256 in the answer's headers, in hexadecimal; "" for none."""
    match = _REPR_DIGEST.search(response.headers.get("Repr-Digest", ""))
    if match is None:
        return ""
    try:
        return base64.b64decode(match[1]).hex()
    except ValueError:
        return ""


def info_in(media_id: str, size: int, answer: requests.Response) -> MediaInfo:
    """The medium's metadata in the gateway's answer to a download."""
    return MediaInfo(
        media_id,
        size,
        digest_in(answer),
        file_name_in(answer.headers.get("Content-Disposition", "")),
        answer.headers.get("Content-Type", "application/octet-stream"),
        float(answer.headers.get("Rtm-Expires-At", "0")),
    )
