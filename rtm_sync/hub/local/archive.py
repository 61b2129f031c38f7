"""The history, in SQLite."""

from __future__ import annotations

import sqlite3
from typing import ClassVar

from ...protocol.codec import decode_json, encode_json
from ...protocol.values import HistoricalMessage
from ..engine.archive import Archive, HistoryQuery
from .part import LocalPart


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
CREATE INDEX IF NOT EXISTS history_by_destination ON history (app_id, destination, key);
CREATE INDEX IF NOT EXISTS history_by_source ON history (app_id, source, key);
CREATE INDEX IF NOT EXISTS history_by_end ON history (expires_at);
"""

    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        now = self._now()
        clean_up = self._should_clean_up("history")
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
            if clean_up:
                connection.execute("DELETE FROM history WHERE expires_at <= ?", (now,))
            connection.execute(
                "INSERT OR IGNORE INTO history (app_id, source, destination, is_channel, ms, "
                "expires_at, message_id, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

        await self._running_database.run(store)

    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        where, values = _history_conditions(app_id, query, now)
        order = "DESC" if query.newest_first else "ASC"

        def load(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            return connection.execute(
                f"SELECT key, message FROM history WHERE {where} "  # noqa: S608  only our words
                f"ORDER BY key {order} LIMIT ? OFFSET ?",
                (*values, query.limit, query.offset),
            ).fetchall()

        rows = await self._running_database.run(load)
        return [(key, decode_json(HistoricalMessage, body)) for key, body in rows]

    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        where, values = _history_conditions(app_id, query, now)

        def count(connection: sqlite3.Connection) -> int:
            row: tuple[int] = connection.execute(
                f"SELECT count(*) FROM history WHERE {where}",  # noqa: S608  only our words
                values,
            ).fetchone()
            return row[0]

        return await self._running_database.run(count)


def _history_conditions(
    app_id: str, query: HistoryQuery, now: float
) -> tuple[str, tuple[str | int | float, ...]]:
    """A WHERE clause of constant text, and the values of its placeholders."""
    terms = ["app_id = ?", "expires_at > ?"]
    values: list[str | int | float] = [app_id, now]

    def require(term: str, *given: str | int | None) -> None:
        if None not in given:
            terms.append(term)
            values.extend(item for item in given if item is not None)

    if query.both_ways and query.source is not None and query.destination is not None:
        pair = (query.source, query.destination)
        require(
            "((source = ? AND destination = ?) OR (destination = ? AND source = ?))", *pair, *pair
        )
    else:
        require("source = ?", query.source)
        require("destination = ?", query.destination)
    require("is_channel = ?", query.is_channel)
    require("ms >= ?", query.start)
    require("ms < ?", query.end)
    require("key < ?" if query.newest_first else "key > ?", query.after)
    return " AND ".join(terms), tuple(values)
