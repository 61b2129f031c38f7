"""The limits of attributes, and the application of a change. Pure; both ends use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..protocol.values import AttributeChange

MAX_KEYS = 32
"""The most attributes of one user or channel (reference 1.3)."""

KEY_LIMIT = 32
"""The most bytes of a key (reference 1.3: 1 to 32 visible characters)."""

VALUE_LIMIT = 8 * 1024
"""The most bytes of a value (reference 1.3: 8 KB, never empty)."""

USER_LIMIT = 16 * 1024
"""The most bytes of all keys and values of a user (reference 1.3)."""

CHANNEL_LIMIT = 32 * 1024
"""The most bytes of all keys and values of a channel (reference 1.3)."""

V = TypeVar("V")


def key_problem(key: object) -> str | None:
    """The sentence that describes an invalid attribute key, or None for a valid one."""
    if not isinstance(key, str):
        return f"An attribute's key must be a str, not {type(key).__name__}."
    if not key or not key.isprintable() or not key.strip():
        return f"The attribute key {key[:KEY_LIMIT]!r} must be visible characters."
    size = len(key.encode())
    if size > KEY_LIMIT:
        return f"The attribute key {key[:KEY_LIMIT]!r}… has {size:,} bytes; the limit is 32."
    return None


def keys_problem(keys: object) -> str | None:
    """The sentence that describes an invalid collection of keys, or None for a valid one."""
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        return f"keys must be a list of str, not {type(keys).__name__}."
    listed = list(keys)
    if not listed:
        return "keys is empty; name at least one attribute."
    return next(filter(None, map(key_problem, listed)), None)


def attributes_problem(attributes: object) -> str | None:
    """The sentence that describes invalid attributes to write, or None for valid ones.

    `size_problem` checks the sizes.
    """
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
    """The sentence that names the size limit that attributes exceed, or None.

    Args:
        attributes: all attributes of the user or channel.
        limit: the most bytes of all keys and values.
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
        present: the attributes before it.
        change: the kind of change; CLEAR removes all attributes.
        attributes: for SET (replaces all) and UPDATE (adds or replaces).
        keys: for DELETE; unknown keys are ignored.
    """
    if change is AttributeChange.SET:
        return dict(attributes)
    if change is AttributeChange.UPDATE:
        return {**present, **attributes}
    if change is AttributeChange.DELETE:
        deleted = set(keys)
        return {key: value for key, value in present.items() if key not in deleted}
    return {}
