"""What may be an attribute, and how a change is applied. Pure; both ends use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..protocol.values import AttributeChange

MAX_KEYS = 32
"""Attributes of one user or channel (reference 1.3)."""

KEY_LIMIT = 32
"""Bytes in a key (reference 1.3: 1 to 32 visible characters)."""

VALUE_LIMIT = 8 * 1024
"""Bytes in a value (reference 1.3: 8 KB, never empty)."""

USER_LIMIT = 16 * 1024
"""Bytes of a user's keys and values together (reference 1.3)."""

CHANNEL_LIMIT = 32 * 1024
"""Bytes of a channel's keys and values together (reference 1.3)."""

V = TypeVar("V")


def key_problem(key: object) -> str | None:
    """Say what is wrong with an attribute's key, or None."""
    if not isinstance(key, str):
        return f"An attribute's key must be a str, not {type(key).__name__}."
    if not key or not key.isprintable() or not key.strip():
        return f"The attribute key {key[:KEY_LIMIT]!r} must be visible characters."
    size = len(key.encode())
    if size > KEY_LIMIT:
        return f"The attribute key {key[:KEY_LIMIT]!r}… has {size:,} bytes; the limit is 32."
    return None


def keys_problem(keys: object) -> str | None:
    """Say what is wrong with a collection of keys, or None."""
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        return f"keys must be a list of str, not {type(keys).__name__}."
    listed = list(keys)
    if not listed:
        return "keys is empty; name at least one attribute."
    return next(filter(None, map(key_problem, listed)), None)


def attributes_problem(attributes: object) -> str | None:
    """Say what is wrong with attributes to be written, or None. Sizes are another matter."""
    if not isinstance(attributes, Mapping):
        return f"attributes must be a dict, not {type(attributes).__name__}."
    if not attributes:
        return "attributes is empty; give at least one, or clear them."
    for key, value in attributes.items():
        problem = key_problem(key)
        if problem is not None:
            return problem
        if not isinstance(value, str) or not value:
            return f"The attribute {key!r} must be a str that is not empty."
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"The attribute {key!r} is not valid Unicode text: {error}."
    return None


def size_problem(attributes: Mapping[str, str], limit: int) -> str | None:
    """Say which size limit attributes exceed, or None.

    Args:
        limit: bytes of all keys and values together.
    """
    if len(attributes) > MAX_KEYS:
        return f"{len(attributes)} attributes are too many; the limit is {MAX_KEYS}."
    total = 0
    for key, value in attributes.items():
        size = len(value.encode())
        if size > VALUE_LIMIT:
            return f"The attribute {key!r} has {size:,} bytes; the limit is {VALUE_LIMIT:,}."
        total += len(key.encode()) + size
    if total > limit:
        return f"The attributes are {total:,} bytes together; the limit is {limit:,}."
    return None


def changed(
    present: Mapping[str, V],
    change: AttributeChange,
    attributes: Mapping[str, V],
    keys: Iterable[str],
) -> dict[str, V]:
    """The attributes after a change.

    Args:
        attributes: for SET (replaces all) and UPDATE (adds or replaces).
        keys: for DELETE; unknown ones are ignored.
    """
    if change is AttributeChange.SET:
        return dict(attributes)
    if change is AttributeChange.UPDATE:
        return {**present, **attributes}
    if change is AttributeChange.DELETE:
        gone = set(keys)
        return {key: value for key, value in present.items() if key not in gone}
    return {}
