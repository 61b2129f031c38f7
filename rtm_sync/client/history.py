"""Reading a conversation's history page by page."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

from ..errors import HistoryError
from ..protocol.requests import GetHistory
from ..protocol.values import HistoricalMessage
from ..rules.timing import Deadline
from .calls import Caller

PAGE = 100
"""Messages asked for at once; a hub gives fewer when they are large."""

MAX_MESSAGES = 100_000

Moment: TypeAlias = datetime | float
"""A point in time: a `datetime` (one without a zone is local time) or seconds since the epoch."""


def read_history(
    call: Caller,
    conversation: GetHistory,
    *,
    start: Moment | None,
    end: Moment | None,
    limit: int,
    newest_first: bool,
    timeout: float,
) -> list[HistoricalMessage]:
    """All messages of the conversation in a time, up to `limit`.

    Raises:
        HistoryError: an argument is not valid, or what the hub said.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_MESSAGES:
        raise HistoryError.named(
            "INVALID_ARGUMENT", f"limit is {limit!r}; it must be 1 to {MAX_MESSAGES:,}."
        )
    request = replace(
        conversation,
        start=_milliseconds("start", start),
        end=_milliseconds("end", end),
        newest_first=newest_first,
    )
    deadline = Deadline(timeout)
    messages: list[HistoricalMessage] = []
    while True:
        left = deadline.left
        if not left:
            raise HistoryError.named(
                "TIMEOUT", f"{len(messages):,} messages came within {timeout:g} seconds, not all."
            )
        page = call(replace(request, limit=min(PAGE, limit - len(messages))), left)
        messages += page.messages
        if page.after is None or len(messages) >= limit:
            return messages
        request = replace(request, after=page.after)


def _milliseconds(name: str, moment: Moment | None) -> int | None:
    if moment is None:
        return None
    try:
        seconds = moment.timestamp() if isinstance(moment, datetime) else float(moment)
        return int(seconds * 1000)
    except (TypeError, ValueError, OverflowError) as error:
        raise HistoryError.named(
            "INVALID_ARGUMENT",
            f"{name} is {moment!r}; it must be a datetime or seconds since the epoch.",
            error,
        ) from error
