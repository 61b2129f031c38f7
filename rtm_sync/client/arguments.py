"""Checks of the arguments of API calls. Pure; raises nothing but each call's own error."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import AttributeOperationError, RtmError
from ..protocol.ids import id_problem, message_id_problem
from ..rules.attributes import attributes_problem, keys_problem


def as_list(name: str, ids: Sequence[str], family: type[RtmError]) -> tuple[str, ...]:
    """A sequence of user or channel ids, checked; how many there may be is the hub's to say."""
    problem = None
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        problem = f"{name} must be a list of str, not {type(ids).__name__}."
    listed = () if problem else tuple(ids)
    if not listed:
        problem = problem or f"{name} is empty; give at least one."
    for item in listed:
        problem = problem or id_problem(name, item)
    if problem is not None:
        raise family.named("INVALID_ARGUMENT", problem)
    return listed


def checked_id(name: str, value: str) -> None:
    problem = id_problem(name, value)
    if problem is not None:
        raise AttributeOperationError.named("INVALID_ARGUMENT", problem)


def checked_keys(keys: Sequence[str]) -> tuple[str, ...]:
    problem = keys_problem(keys)
    if problem is not None:
        raise AttributeOperationError.named("INVALID_ARGUMENT", problem)
    return tuple(keys)


def checked_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    problem = attributes_problem(attributes)
    if problem is not None:
        raise AttributeOperationError.named("INVALID_ARGUMENT", problem)
    return dict(attributes)


def seconds_problem(name: str, seconds: object) -> str | None:
    """Say what is wrong with a time to wait, or None."""
    if isinstance(seconds, (int, float)) and 0 < seconds <= threading.TIMEOUT_MAX:
        return None
    limit = f"{threading.TIMEOUT_MAX:,.0f}"
    return f"{name} is {seconds!r}; it must be a number of seconds, over 0 and up to {limit}."


def chosen_message_id(given: str | None, error: Callable[[str], Exception]) -> str:
    """The caller's message id, checked, or a fresh one of 128 random bits."""
    if given is None:
        return secrets.token_hex(16)
    problem = message_id_problem(given)
    if problem is not None:
        raise error(problem)
    return given
