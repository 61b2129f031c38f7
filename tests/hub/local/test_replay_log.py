"""The file of the channels' log: what it has at any moment, and what a start makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
import unittest
from pathlib import Path

from rtm_sync.hub.local.replay import ReplayLimits
from rtm_sync.hub.local.replay_log import ReplayLog
from rtm_sync.protocol.events import ChannelMessage
from rtm_sync.protocol.values import ChannelPosition
from rtm_sync.testing.engine_kit import APP, channel_message
from tests.support import RtmTestCase


class ReplayLogTest(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.path = self.folder() / "data" / "rtm-channels.sqlite3"
        self.wall = time.time()
        self.delivered: list[str] = []

    def log(self, path: Path | None = None, **limits: int) -> ReplayLog:
        log = ReplayLog(path or self.path, ReplayLimits(**limits), lambda: self.wall, self.deliver)
        self.addAsyncCleanup(log.close)
        return log

    def deliver(self, app_id: str, message: ChannelMessage) -> None:
        self.delivered.append(message.message_id)

    def killed(self) -> Path:
        """A copy of the files as a killed process leaves them."""
        copy = self.folder() / self.path.name
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        return copy

    def changed(self, path: Path, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    def rows(self, table: str = "messages") -> int:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)

    def ids(
        self, log: ReplayLog, since: ChannelPosition | None, channel: str = "room"
    ) -> tuple[list[str], bool]:
        found = log.since(APP, channel, since)
        return [message.message_id for message in found.messages], found.complete

    async def test_each_message_is_in_the_file_when_it_is_delivered(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        copies: list[Path] = []

        def deliver(app_id: str, message: ChannelMessage) -> None:
            copies.append(self.killed())

        log._deliver = deliver
        for number in range(5):
            await log.publish(APP, channel_message(f"{number}"))
        for number, copy in enumerate(copies):
            expected = [f"id-{n}" for n in range(number + 1)]
            self.assertEqual(self.ids(self.log(copy), start), (expected, True))

    async def test_many_at_once_are_in_order_and_each_sender_is_answered(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        texts = [f"{number}" for number in range(1000)]
        sends = [log.publish(APP, channel_message(text)) for text in texts]
        await asyncio.gather(*sends)
        expected = [f"id-{text}" for text in texts]
        self.assertEqual(self.delivered, expected)
        self.assertEqual(self.ids(self.log(self.killed()), start), (expected, True))

    async def test_the_count_goes_on_after_a_kill_and_after_a_stop(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        await log.publish(APP, channel_message("1"))
        killed = self.killed()
        await log.close()
        for path in (killed, self.path):
            log = self.log(path)
            await log.publish(APP, channel_message("2"))
            await log.publish(APP, channel_message("1", channel_id="hall"))
            self.assertEqual(self.ids(log, start), (["id-1", "id-2"], True))

    async def test_after_a_power_cut_members_are_given_what_is_left_and_told(self) -> None:
        log = self.log()
        await log.publish(APP, channel_message("1"))
        place = log.since(APP, "room", None).position
        killed = self.killed()
        await log.close()
        for path in (killed, self.path):
            self.changed(path, "UPDATE log SET boot = 'another'")
        self.assertEqual(self.ids(self.log(killed), place), (["id-1"], False))
        # After an orderly stop, the machine may have been switched off.
        self.assertEqual(self.ids(self.log(), place), ([], True))

    async def test_a_refused_message_is_told_to_nobody_and_later_ones_go_on(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        await log.publish(APP, channel_message("1"))
        database = log._database
        assert database is not None
        await database.run(lambda connection: connection.execute("PRAGMA max_page_count = 1"))
        refused = 0
        for number in range(100):
            try:
                await log.publish(APP, channel_message(f"{number}" + "x" * 4000))
            except OSError as error:
                self.assertIn("full", str(error))
                refused += 1
        self.assertGreater(refused, 90)
        self.assertEqual(len(self.delivered), 101 - refused)
        await database.run(lambda connection: connection.execute("PRAGMA max_page_count = 10000"))
        await log.publish(APP, channel_message("2"))
        self.assertEqual(self.delivered[-1], "id-2")
        self.assertEqual(self.ids(log, start), (self.delivered, True))
        self.assertEqual(self.ids(self.log(self.killed()), start), (self.delivered, True))

    async def test_a_row_that_cannot_be_read_keeps_back_no_other(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        for text in ("1", "2", "3"):
            await log.publish(APP, channel_message(text))
        await log.close()
        self.changed(self.path, "UPDATE messages SET message = '{' WHERE sequence = 2")
        log = self.log()
        with self.assertLogs("rtm_sync", "WARNING"):
            self.assertEqual(self.ids(log, start), (["id-1", "id-3"], False))

    async def test_a_row_that_is_gone_is_a_gap(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        for text in ("1", "2", "3"):
            await log.publish(APP, channel_message(text))
        await log.close()
        self.changed(self.path, "DELETE FROM messages WHERE sequence = 2")
        self.assertEqual(self.ids(self.log(), start), (["id-3"], False))

    async def test_the_bounds_hold_in_the_file_too(self) -> None:
        log = self.log(messages=10)
        for number in range(1000):
            await log.publish(APP, channel_message(f"{number}"))
        self.assertLess(self.rows(), 250)  # it is cleared now and then
        await log.expire()
        self.assertEqual(self.rows(), 10)
        self.wall += 601
        await log.expire()
        self.assertEqual(self.rows(), 1)  # the place of the newest
        self.assertEqual(self.rows("removed"), 0)
        newest = log.since(APP, "room", None).position
        await log.close()
        self.assertEqual(self.ids(self.log(), newest), ([], True))

    async def test_what_an_app_has_lost_is_known_after_a_restart_and_touches_no_other(self) -> None:
        log = self.log(total_size=5000)
        own, others = (log.since(app_id, "quiet", None).position for app_id in (APP, "other"))
        await log.publish(APP, channel_message("1", channel_id="quiet"))
        for number in range(20):
            await log.publish(APP, channel_message("x" * 1000, channel_id=f"room-{number}"))
        for restarted in (False, True):
            if restarted:
                await log.close()
                log = self.log(total_size=5000)
            self.assertFalse(log.since(APP, "quiet", own).complete)
            self.assertTrue(log.since("other", "quiet", others).complete)

    async def test_ids_are_remembered_for_two_minutes_however_many_came_since(self) -> None:
        log = self.log(messages=1)
        for number in range(300):
            await log.publish(APP, channel_message(f"{number}"))
        await log.close()
        log = self.log(messages=1)
        self.delivered.clear()
        await log.publish(APP, channel_message("0"))
        await log.publish(APP, channel_message("299"))
        self.assertEqual(self.delivered, [])
        self.wall += 121
        await log.expire()
        await log.publish(APP, channel_message("0"))
        self.assertEqual(self.delivered, ["id-0"])

    async def test_a_delivery_that_fails_is_no_refusal(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        log._deliver = lambda *_: 1 / 0
        with self.assertLogs("rtm_sync", "ERROR"):
            await log.publish(APP, channel_message("1"))
        self.assertEqual(self.ids(log, start), (["id-1"], True))

    async def test_closing_finishes_what_was_asked_before(self) -> None:
        log = self.log()
        start = log.since(APP, "room", None).position
        sends = [
            asyncio.ensure_future(log.publish(APP, channel_message(f"{number}")))
            for number in range(500)
        ]
        await asyncio.sleep(0)
        await log.close()
        await asyncio.gather(*sends)
        expected = [f"id-{number}" for number in range(500)]
        self.assertEqual(self.ids(self.log(), start), (expected, True))

    async def test_a_file_that_is_no_database_is_named(self) -> None:
        self.path.parent.mkdir()
        self.path.write_bytes(b"not a database" * 1000)
        with self.assertRaisesRegex(OSError, self.path.name):
            self.log()
