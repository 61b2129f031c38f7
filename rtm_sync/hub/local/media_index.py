"""The records of stored media, in SQLite."""

from __future__ import annotations

import sqlite3
from typing import ClassVar

from ...protocol.codec import encode_json
from ...protocol.values import MediaInfo
from ..engine.media_index import MediaIndex, MediaUsage
from .part import LocalPart

_BATCH = 500


class LocalMediaIndex(LocalPart, MediaIndex):
    """The media index of one machine."""

    SCHEMA: ClassVar[str] = """
CREATE TABLE IF NOT EXISTS media (
    media_id TEXT PRIMARY KEY, app_id TEXT NOT NULL, uid TEXT NOT NULL,
    size INTEGER NOT NULL, expires_at REAL NOT NULL, info TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS media_by_end ON media (expires_at);
CREATE INDEX IF NOT EXISTS media_by_user ON media (app_id, uid, size);
"""

    async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
        row = (info.media_id, app_id, uid, info.size, info.expires_at, encode_json(info))

        def store(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO media (media_id, app_id, uid, size, expires_at, info) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )

        await self._running_database.run(store)

    async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
        def load(connection: sqlite3.Connection) -> tuple[str] | None:
            row: tuple[str] | None = connection.execute(
                "SELECT info FROM media WHERE media_id = ? AND app_id = ?", (media_id, app_id)
            ).fetchone()
            return row

        row = await self._running_database.run(load)
        if row is None:
            return None
        info = self._decoded(MediaInfo, row[0], f"media {media_id}")
        if info is None:  # not as if it were not recorded: its bytes would be removed
            raise OSError("The record of this medium cannot be read; the gateway's log says more.")
        return info

    async def delete_media(self, media_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM media WHERE media_id = ?", (media_id,))

        await self._running_database.run(delete)

    async def media_usage(self, app_id: str, uid: str) -> MediaUsage:
        def load(connection: sqlite3.Connection) -> tuple[int, int]:
            row: tuple[int, int] = connection.execute(
                "SELECT total(size) FILTER (WHERE uid = ?), total(size) FROM media "
                "WHERE app_id = ?",
                (uid, app_id),
            ).fetchone()
            return row

        user, app = await self._running_database.read(load)  # it reads the rows of all users
        return MediaUsage(int(user), int(app))

    async def expired_media(self, now: float) -> list[str]:
        def load(connection: sqlite3.Connection) -> list[tuple[str]]:
            return connection.execute(
                "SELECT media_id FROM media WHERE expires_at <= ? LIMIT ?", (now, _BATCH)
            ).fetchall()

        return [media_id for (media_id,) in await self._running_database.run(load)]
