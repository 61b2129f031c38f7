"""The history, in SQLite."""

from __future__ import annotations

import contextlib
import itertools
import math
import sqlite3
from typing import ClassVar, TypeAlias

from ...protocol.codec import encode_json
from ...protocol.values import HistoricalMessage
from ...rules.shares import Owner
from ..engine.archive import Archive, HistoryQuery
from ..engine.part import NO_QUOTAS, Quotas
from .message_use import counted, require_quotas
from .part import LocalPart

_Value: TypeAlias = str | int | float

# -1: the last message of a page has expired meanwhile, and with it all that are older.
_AFTER = "(ms, key) > (coalesce((SELECT ms FROM history WHERE key = ?), -1), ?)"
_BEFORE = "(ms, key) < (coalesce((SELECT ms FROM history WHERE key = ?), -1), ?)"


class LocalArchive(LocalPart, Archive):
    """The archive of one machine."""

    SCHEMA: ClassVar[str] = """
CREATE TABLE IF NOT EXISTS history (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL, source TEXT NOT NULL, destination TEXT NOT NULL,
    is_channel INTEGER NOT NULL, ms INTEGER NOT NULL, expires_at REAL NOT NULL,
    message_id TEXT NOT NULL, message TEXT NOT NULL,
    UNIQUE (app_id, source, destination, is_channel, message_id)
);
CREATE INDEX IF NOT EXISTS history_by_pair_and_time ON history
    (app_id, source, destination, is_channel, ms);
CREATE INDEX IF NOT EXISTS history_by_destination_and_time ON history
    (app_id, destination, is_channel, ms);
CREATE INDEX IF NOT EXISTS history_by_source_and_time ON history (app_id, source, ms);
CREATE INDEX IF NOT EXISTS history_by_end ON history (expires_at);
""" + counted("history", "source")

    async def store_history(
        self,
        app_id: str,
        message: HistoricalMessage,
        retention: float,
        quotas: Quotas = NO_QUOTAS,
    ) -> None:
        now = self._now()
        row = (
            app_id,
            message.source,
            message.destination,
            message.is_channel,
            message.message_props.server_received_ts,
            now + retention,
            message.message_id,
            encode_json(message),
        )

        def store(connection: sqlite3.Connection) -> None:
            self._clean_up(connection, "history", now)
            stored = connection.execute(
                "INSERT OR IGNORE INTO history (app_id, source, destination, is_channel, ms, "
                "expires_at, message_id, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            if stored.rowcount > 0:  # not for a copy; what does not fit is undone
                require_quotas(connection, app_id, message.source, quotas)

        await self._running_database.run(store)

    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        statement, values = _select("ms, key, CAST(message AS BLOB)", app_id, query, now)
        order = "DESC" if query.newest_first else "ASC"
        statement += f" ORDER BY ms {order}, key {order} LIMIT -1 OFFSET ?"

        def load(connection: sqlite3.Connection) -> list[tuple[int, HistoricalMessage]]:
            found: list[tuple[int, HistoricalMessage]] = []
            size = 0
            with contextlib.closing(connection.execute(statement, (*values, query.offset))) as rows:
                for _, key, body in rows:
                    message = self._decoded(HistoricalMessage, body, f"history {key}")
                    if message is not None:
                        found.append((key, message))
                        size += len(body)
                    if len(found) >= query.limit or size > (query.size or math.inf):
                        break
            return found

        return await self._running_database.search(Owner(app_id, query.asked_by), load)

    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        statement, values = _select("count(*)", app_id, query, now)

        def count(connection: sqlite3.Connection) -> int:
            return sum(number for (number,) in connection.execute(statement, values))

        return await self._running_database.search(Owner(app_id, query.asked_by), count)


def _select(
    columns: str, app_id: str, query: HistoryQuery, now: float
) -> tuple[str, tuple[_Value, ...]]:
    """A SELECT of constant text that uses one index for each of its parts, and its values.

    Each part names the columns of its index up to the time, so that SQLite finds the rows of a
    period in their order and reads no others. An OR would make it read and sort all of them.
    """
    conversations = {(query.source, query.destination): None}
    if query.both_ways and query.source is not None and query.destination is not None:
        conversations[query.destination, query.source] = None
    kinds: tuple[bool | None, ...] = (query.is_channel,)
    if query.is_channel is None and query.destination is not None:
        kinds = (False, True)
    parts: list[str] = []
    values: list[_Value] = []
    for (source, destination), is_channel in itertools.product(conversations, kinds):
        conditions: dict[str, tuple[_Value | None, ...]] = {
            "app_id = ?": (app_id,),
            "source = ?": (source,),
            "destination = ?": (destination,),
            "is_channel = ?": (is_channel,),
            "ms >= ?": (query.start,),
            "ms < ?": (query.end,),
            _BEFORE if query.newest_first else _AFTER: (query.after, query.after),
            "expires_at > ?": (now,),
        }
        given = {term: some for term, some in conditions.items() if None not in some}
        terms = " AND ".join(given)
        parts.append(f"SELECT {columns} FROM history WHERE {terms}")  # noqa: S608  only our words
        values += [value for some in given.values() for value in some if value is not None]
    return " UNION ALL ".join(parts), tuple(values)
