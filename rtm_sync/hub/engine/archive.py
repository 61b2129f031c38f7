"""The Archive contract: the history of messages."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from ...protocol.values import HistoricalMessage
from .part import NO_QUOTAS, EnginePart, Quotas


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Selects messages of the history. None sets no condition.

    Attributes:
        source, destination: the sender, and the receiving user or channel.
        is_channel: whether the destination is a channel.
        both_ways: also match messages with source and destination exchanged.
        start, end: milliseconds since the epoch; the end is excluded.
        newest_first: the order.
        after: skip the messages up to and including this key, in that order.
        offset, limit: skip `offset` of the remaining messages, and return at most `limit`.
        size: bytes of JSON after which an archive may stop: the caller needs the messages up to the
            first with which they have more, and no others.
        asked_by: the user who asks, or "" for the app's server: everybody gets a turn.
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
    size: int | None = None
    asked_by: str = ""


class Archive(EnginePart):
    """Stores the history: messages that users may read again."""

    @abstractmethod
    async def store_history(
        self,
        app_id: str,
        message: HistoricalMessage,
        retention: float,
        quotas: Quotas = NO_QUOTAS,
    ) -> None:
        """Store a message durably for `retention` seconds.

        Storing a message id again for the same source and destination changes nothing.

        Raises:
            QuotaExceeded: a quota of the message's source or app does not allow it.
        """

    @abstractmethod
    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        """The matching messages that have not expired, each with its key.

        They are in the order of time: of `server_received_ts`, or of storing, which differ only
        where a clock was changed. Keys are unique within an app and grow in the order of storing. A
        stored message that cannot be read is left out, and the others are returned.
        """

    @abstractmethod
    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        """The number of messages that a query matches, without regard to its offset and limit."""
