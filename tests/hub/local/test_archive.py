"""The local archive beside the contract: what it reads, and what it does with rows it cannot."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import unittest
from dataclasses import replace
from pathlib import Path

from rtm_sync.hub.engine.archive import HistoryQuery
from rtm_sync.hub.local.archive import LocalArchive
from rtm_sync.protocol.codec import encode_json
from rtm_sync.rules.shares import Owner
from rtm_sync.testing.engine_kit import APP, NotingNode, historical
from tests.support import RtmTestCase

from ..support import DAY

WEEK = 7 * DAY
UNREADABLE = (
    "'not JSON'",
    "'{}'",
    "'{\"source\": 1}'",
    "CAST(x'ff' AS TEXT)",  # not UTF-8
    "x'ffd8'",  # not even text
    "17",
)


class ArchiveCase(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.path: Path = self.folder() / "rtm.sqlite3"
        self.wall = 1_000_000.0
        self.archive = LocalArchive(self.path, lambda: self.wall)
        await self.archive.start(NotingNode())
        self.addAsyncCleanup(self.archive.stop)

    async def store(self, text: str, ms: int, retention: float = WEEK) -> None:
        message = historical(text, "alice", "bob", ms=ms)
        await self.archive.store_history(APP, message, retention)

    async def change(self, statement: str) -> None:
        def change(connection: sqlite3.Connection) -> None:
            connection.execute(statement)

        await self.archive._running_database.run(change)

    async def found(self, query: HistoryQuery) -> list[str]:
        found = await self.archive.history(APP, query, self.wall)
        return [item.message_id.removeprefix("m") for _, item in found]

    async def read_in_pages(self, query: HistoryQuery) -> list[list[str]]:
        """The pages of a query, as a client asks for them."""
        pages: list[list[str]] = []
        after = None
        while True:
            page = await self.archive.history(APP, replace(query, after=after), self.wall)
            if not page:
                return pages
            pages.append([item.message_id.removeprefix("m") for _, item in page])
            after = page[-1][0]


class PlanTest(ArchiveCase):
    """How many rows a query reads does not depend on how many there are."""

    async def plan(self, query: HistoryQuery, *, count: bool = False) -> list[str]:
        """How SQLite answers the statement that the archive really executes."""
        database = self.archive._running_database
        statements: list[str] = []
        owner = Owner(APP)
        await database.search(owner, lambda c: c.set_trace_callback(statements.append))
        if count:
            await self.archive.history_count(APP, query, self.wall)
        else:
            await self.archive.history(APP, query, self.wall)
        await database.search(owner, lambda c: c.set_trace_callback(None))
        selects = [text for text in statements if text.startswith("SELECT")]
        return await database.read(
            lambda c: [row[3] for row in c.execute(f"EXPLAIN QUERY PLAN {selects[0]}")]
        )

    async def test_every_query_finds_a_period_in_an_index_and_sorts_nothing(self) -> None:
        pair = {"source": "alice", "destination": "bob"}
        for index, queries in {
            "by_pair_and_time (app_id=? AND source=? AND destination=? AND is_channel=?": (
                HistoryQuery(**pair, is_channel=False),
                HistoryQuery(**pair, is_channel=False, both_ways=True),
                HistoryQuery(**pair),
            ),
            "by_destination_and_time (app_id=? AND destination=? AND is_channel=?": (
                HistoryQuery(destination="room", is_channel=True),
                HistoryQuery(destination="bob"),
            ),
            "by_source_and_time (app_id=? AND source=?": (HistoryQuery(source="alice"),),
        }.items():
            for query, newest_first in itertools.product(queries, (False, True)):
                ordered = replace(query, newest_first=newest_first)
                for asked in (
                    replace(ordered, start=5),
                    replace(ordered, end=9),
                    replace(ordered, after=7),
                    replace(ordered, start=5, end=9, after=7),
                ):
                    with self.subTest(asked):
                        self.check_plan(await self.plan(asked), index, period=True)
                self.check_plan(await self.plan(ordered), index, period=False)

    def check_plan(self, plan: list[str], index: str, *, period: bool) -> None:
        text = "\n".join(plan)
        searches = [step for step in plan if "history_by" in step]
        self.assertTrue(searches, text)
        for step in searches:
            self.assertIn(f"SEARCH history USING INDEX history_{index}", step)
            self.assertEqual("ms" in step, period, text)
        self.assertNotIn("TEMP B-TREE", text)
        self.assertNotIn("SCAN history", text)

    async def test_counting_a_period_reads_no_other_rows(self) -> None:
        query = HistoryQuery(destination="room", is_channel=True, start=5, end=9)
        (step,) = await self.plan(query, count=True)
        self.assertIn("history_by_destination_and_time", step)
        self.assertIn("ms>? AND ms<?", step)


class UnreadableTest(ArchiveCase):
    async def test_a_row_that_cannot_be_read_does_not_keep_back_the_others(self) -> None:
        for number, damage in enumerate(UNREADABLE):
            for place in ("before", "at", "after"):
                await self.store(f"{number} {place}", 10 * number)
            await self.change(
                f"UPDATE history SET message = {damage} WHERE message_id = 'm{number} at'"
            )
        with self.assertLogs("rtm_sync.hub.local.part", "ERROR") as logs:
            found = await self.found(HistoryQuery())
            self.assertEqual(
                found, [f"{n} {place}" for n in range(6) for place in ("before", "after")]
            )
            self.assertEqual(
                await self.found(HistoryQuery(newest_first=True, limit=3)),
                ["5 after", "5 before", "4 after"],
            )
        self.assertEqual(len(logs.output), len(UNREADABLE))  # each once
        self.assertRegex(logs.output[0], "history 2 cannot be read and is left out: .*JSON")

    async def test_a_page_is_filled_though_rows_in_it_cannot_be_read(self) -> None:
        for number in range(10):
            await self.store(f"{number}", number)
        await self.change("UPDATE history SET message = '{}' WHERE ms BETWEEN 1 AND 5")
        with self.assertLogs("rtm_sync.hub.local.part", "ERROR"):
            self.assertEqual(
                await self.read_in_pages(HistoryQuery(limit=2)), [["0", "6"], ["7", "8"], ["9"]]
            )


class TimeTest(ArchiveCase):
    async def test_the_order_is_that_of_time_and_pages_meet(self) -> None:
        for text, ms in (("c", 30), ("a", 10), ("b1", 20), ("b2", 20), ("b3", 20)):
            await self.store(text, ms)
        self.assertEqual(
            await self.read_in_pages(HistoryQuery(limit=2)), [["a", "b1"], ["b2", "b3"], ["c"]]
        )
        self.assertEqual(
            await self.read_in_pages(HistoryQuery(newest_first=True, limit=2)),
            [["c", "b3"], ["b2", "b1"], ["a"]],
        )

    async def test_pages_go_on_after_their_last_message_has_expired(self) -> None:
        for number in range(6):
            await self.store(f"{number}", number, 60.0 + number)
        page = await self.archive.history(APP, HistoryQuery(limit=2), self.wall)
        self.wall += 3600 + 63
        await self.archive.store_history(APP, historical("new", "alice", "bob", ms=9), WEEK)
        after = HistoryQuery(after=page[-1][0])
        self.assertEqual(await self.found(after), ["new"])  # 4 and 5 have expired as well
        before = HistoryQuery(after=page[-1][0], newest_first=True)
        self.assertEqual(await self.found(before), [])

    async def test_expired_rows_are_removed_in_batches_beside_writes(self) -> None:
        await asyncio.gather(*(self.store(f"{n}", n, 60.0) for n in range(1_200)))
        self.wall += 3_600
        left = []
        for number in range(4):
            await self.store(f"new {number}", number)
            left.append(
                await self.archive._running_database.run(
                    lambda c: c.execute(
                        "SELECT count(*) FROM history WHERE message_id NOT LIKE 'mnew%'"
                    ).fetchone()[0]
                )
            )
        self.assertEqual(left, [700, 200, 0, 0])


class SizeTest(ArchiveCase):
    async def test_it_stops_after_the_message_with_which_the_size_is_exceeded(self) -> None:
        for number in range(9):
            await self.store(f"{number} " + "ü" * 1_000, number)
        ((_, message),) = await self.archive.history(APP, HistoryQuery(limit=1), self.wall)
        size = len(encode_json(message).encode())
        self.assertGreater(size, 2_000)
        for room, count in ((1, 1), (size - 1, 1), (size, 2), (3 * size, 4), (20 * size, 9)):
            with self.subTest(room=room):
                self.assertEqual(len(await self.found(HistoryQuery(size=room))), count)
