"""The validation of ids, and the constants of the protocol."""

from __future__ import annotations

import re

PROTOCOL_VERSION = 1
FRAME_LIMIT = 256 * 1024
"""The most bytes of a frame: the largest message (32 KB of control characters, which take six bytes
each when escaped), and room for its envelope."""

LOGIN_LIMIT = 16 * 1024
"""The most bytes that a client sends before the answer to its login."""

ID_LIMIT = 64
"""The most bytes of a user or channel id (reference 1.3: 1 to 64)."""

RETENTION_SECONDS = 7 * 24 * 3600
"""Seconds for which media and offline messages are kept (reference 1.3: seven days)."""

ID_PATTERN = r"[a-zA-Z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,]{1,64}"
"""The form of a user or channel id, as a regular expression of Python and of JSON Schema. The text
`null` has this form and is no id."""

MESSAGE_ID_PATTERN = r"[A-Za-z0-9_.:\-]{1,64}"
"""The form of a message id, likewise."""

UPLOAD_KEY_PATTERN = r"[\x21-\x7e]{1,128}"
"""The form of an upload's key (its `Idempotency-Key`), likewise."""

_ID = re.compile(ID_PATTERN)
_MESSAGE_ID = re.compile(MESSAGE_ID_PATTERN)
_UPLOAD_KEY = re.compile(UPLOAD_KEY_PATTERN)


def id_problem(kind: str, value: object) -> str | None:
    """The sentence that describes an invalid user or channel id, or None for a valid one.

    Args:
        kind: the argument's name, for the sentence.
        value: the id (reference 1.3: character set and length).
    """
    if not isinstance(value, str):
        return f"{kind} must be a str, not {type(value).__name__}."
    if not value:
        return f"{kind} is empty; it needs 1 to {ID_LIMIT} characters."
    if len(value) > ID_LIMIT:
        return f"{kind} has {len(value):,} characters; the limit is {ID_LIMIT}."
    if value == "null":
        return f'{kind} must not be the string "null".'
    if not _ID.fullmatch(value):
        bad = next(char for char in value if not _ID.fullmatch(char))
        return (
            f"{kind} {value!r} contains {bad!r}; allowed are ASCII letters, digits, space and "
            "! # $ % & ( ) + - : ; < = . > ? @ [ ] ^ _ { } | ~ ,"
        )
    return None


def app_id_problem(value: object) -> str | None:
    """The sentence that describes an invalid app id, or None. Any text of 1 to 64 characters is
    valid."""
    if not isinstance(value, str):
        return f"app_id must be a str, not {type(value).__name__}."
    if not 1 <= len(value) <= ID_LIMIT:
        return f"app_id has {len(value):,} characters; it needs 1 to {ID_LIMIT}."
    return None


def message_id_problem(value: object) -> str | None:
    """The sentence that describes an invalid message id, or None.

    Valid are 1 to 64 ASCII letters, digits, `_`, `.`, `:` and `-`.
    """
    if isinstance(value, str) and _MESSAGE_ID.fullmatch(value):
        return None
    return "message_id must be 1 to 64 ASCII letters, digits or _ . : -"


def upload_key_problem(name: str, value: str) -> str | None:
    """The sentence that describes an invalid key of an upload, or None.

    Args:
        name: the key's name, for the sentence.
        value: the key.
    """
    if _UPLOAD_KEY.fullmatch(value):
        return None
    return f"{name} must be 1 to 128 visible ASCII characters."
