"""Data folders of earlier versions are opened, and nobody's rows are lost."""

from __future__ import annotations

import contextlib
import sqlite3
import unittest
from pathlib import Path

from rtm_sync.hub.engine.archive import HistoryQuery
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.local.migrations import MIGRATIONS
from rtm_sync.testing.engine_kit import APP, NotingNode, medium, text_of
from tests.support import RtmTestCase

DATA = Path(__file__).parents[2] / "data"
WRITTEN = 4_000_000_000.0 - 7 * 24 * 3600  # when the rows of the dump were stored


class OlderDataTest(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.path: Path = self.folder() / "rtm.sqlite3"
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript((DATA / "data_folder_0.sql").read_text("utf-8"))
        self.engine = LocalEngine(self.path, now=lambda: WRITTEN)
        await self.engine.start(NotingNode())
        self.addAsyncCleanup(self.engine.stop)

    def column(self, statement: str) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return [value for (value,) in connection.execute(statement)]

    async def test_everything_that_was_stored_is_there(self) -> None:
        history = await self.engine.history(APP, HistoryQuery(), WRITTEN)
        self.assertEqual([text_of(item) for _, item in history], ["1", "héllo 🎉"])
        media_id = "m" * 32
        self.assertEqual(await self.engine.media(APP, media_id), medium(media_id, 4e9))
        self.assertEqual(await self.engine.banned_until(APP, "mallory"), 4e9)
        self.assertEqual(await self.engine.revoked_before(APP, "alice"), 1e9)
        waiting = self.column("SELECT message_id FROM offline ORDER BY key")
        self.assertEqual(waiting, ["id-1", "id-héllo 🎉"])

    async def test_what_was_stored_counts_for_its_senders_and_apps(self) -> None:
        size = "SUM(LENGTH(CAST(message AS BLOB)))"
        sent = " UNION ALL ".join(
            f"SELECT app_id, {sender} AS uid, message FROM {table}"
            for table, sender in (("offline", "sender"), ("history", "source"))
        )
        shown = "app_id || ' ' || uid || ' ' || bytes"
        expected = self.column(
            f"SELECT {shown} FROM (SELECT app_id, uid, {size} AS bytes FROM ({sent}) "
            f"GROUP BY app_id, uid UNION ALL SELECT app_id, '', {size} FROM ({sent}) "
            "GROUP BY app_id) ORDER BY 1"
        )
        self.assertGreater(len(expected), 1)
        self.assertEqual(self.column(f"SELECT {shown} FROM message_use ORDER BY 1"), expected)

    async def test_it_has_the_layout_of_a_new_one(self) -> None:
        new = self.folder() / "new.sqlite3"
        engine = LocalEngine(new)
        await engine.start(NotingNode())
        await engine.stop()
        await self.engine.stop()
        layouts = []
        for path in (self.path, new):
            self.path = path
            tables = self.column("SELECT name FROM sqlite_master WHERE type = 'table'")
            layout = {
                table: set(self.column(f"SELECT name FROM pragma_table_info('{table}')"))
                for table in tables
            }
            layout["indexes"] = set(
                self.column("SELECT name FROM sqlite_master WHERE type = 'index'")
            )
            layout["version"] = set(self.column("PRAGMA user_version"))
            layouts.append(layout)
        self.assertEqual(layouts[0], layouts[1])
        self.assertEqual(layouts[0]["version"], {len(MIGRATIONS)})
