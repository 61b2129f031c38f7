"""The Archive contract: the history of messages."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from ...protocol.values import HistoricalMessage
from .part import EnginePart


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which messages of the history; None sets no condition.

    Attributes:
        source, destination: the sender, and the receiving user or channel.
        is_channel: whether the destination is a channel.
        both_ways: source and destination may also be the other way round.
        start, end: milliseconds since the epoch; the end is not included.
        newest_first: the order.
        after: leave out everything up to this key, in that order.
        offset, limit: which part of the rest.
    """

    source: str | None = None
    destination: str | None = None
    is_channel: bool | None = None
    both_ways: bool = False
    start: int | None = None
    end: int | None = None
    newest_first: bool = False
    after: int | None = None
    offset: int = 0
    limit: int = 100


class Archive(EnginePart):
    """The history: messages that users may read again."""

    @abstractmethod
    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        """Store durably for `retention` seconds.

        Storing a message id again for the same source and destination changes nothing.
        """

    @abstractmethod
    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        """The matching messages that have not expired, each with its key.

        Keys are unique within an app and grow in the order of storing.
        """

    @abstractmethod
    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        """How many messages a query matches, whatever its offset and limit."""
