"""The local engine: it passes the contract kits, and tests of its own behaviour."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import unittest
from dataclasses import replace
from pathlib import Path

from rtm_sync.hub.engine.mailbox import MailboxFull, StoredMessages
from rtm_sync.hub.local.archive import LocalArchive
from rtm_sync.hub.local.bus import LocalBus
from rtm_sync.hub.local.directory import LocalDirectory
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.local.mailbox import LocalMailbox
from rtm_sync.hub.local.media_index import LocalMediaIndex
from rtm_sync.protocol.events import MemberJoined, MemberLeft
from rtm_sync.protocol.values import ChannelAttribute, PeerOnlineState
from rtm_sync.testing import (
    ArchiveContract,
    BusContract,
    DirectoryContract,
    EngineContract,
    MailboxContract,
    MediaIndexContract,
)
from rtm_sync.testing.engine_kit import APP, NotingNode, historical, medium, peer_message
from rtm_sync.testing.mailbox_contract import LIMITS
from tests.support import PATIENCE, RtmTestCase

from ..support import DAY

WEEK = 7 * DAY


class LocalEngineTest(EngineContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
    engine: LocalEngine

    async def asyncSetUp(self) -> None:
        self.path: Path = self.folder() / "data" / "rtm.sqlite3"
        await super().asyncSetUp()

    def make_engine(self) -> LocalEngine:
        return LocalEngine(self.path, now=lambda: self.wall)

    async def test_empty_channels_take_no_memory(self) -> None:
        await self.engine.join(APP, "room", "alice", "session")
        await self.engine.leave(APP, "room", "alice", "session")
        self.assertEqual(self.engine._members, {})

    async def test_the_count_is_told_before_who_joined_or_left(self) -> None:
        await self.engine.join(APP, "room", "alice", "session")
        await self.engine.leave(APP, "room", "alice", "session")
        self.assertEqual(
            self.node.told,
            [
                ("count_changed", APP, "room", 1),
                ("deliver_to_channel", APP, MemberJoined("room", "alice")),
                ("count_changed", APP, "room", 0),
                ("deliver_to_channel", APP, MemberLeft("room", "alice")),
            ],
        )

    async def test_stopping_ends_the_timers_of_channels_and_forgets_who_was_there(self) -> None:
        topic = {"topic": ChannelAttribute("cats", "alice", 1)}
        await self.engine.claim(APP, "alice", "session")
        await self.engine.join(APP, "hall", "alice", "session")
        await self.engine.change_channel_attributes(APP, "room", lambda _: topic)
        (timer,) = self.engine._attribute_timers.values()
        await self.engine.stop()
        self.assertTrue(timer.cancelled())
        await self.engine.start(self.node)
        self.assertEqual(await self.engine.channel_attributes(APP, "room"), {})
        self.assertEqual(await self.engine.members(APP, "hall"), [])
        found = await self.engine.presence(APP, ["alice"])
        self.assertEqual(found, {"alice": PeerOnlineState.OFFLINE})

    async def test_a_key_is_never_given_twice_though_it_restarts(self) -> None:
        await self.store("1")
        (old,) = await self.stored()
        await self.discard([old.key])
        await self.restart()
        await self.store("2")
        (new,) = await self.stored()
        self.assertGreater(new.key, old.key)

    async def test_messages_end_to_the_second_and_are_removed_then(self) -> None:
        await self.store("1")
        self.wall += WEEK - 1
        self.assertEqual(await self.waiting(), ["1"])
        self.wall += 1
        self.assertEqual(await self.waiting(), [])
        await self.store("2")
        self.assertEqual((await self.rows())["offline"], 1)  # removed, not hidden

    async def test_messages_that_have_ended_take_no_room(self) -> None:
        limits = replace(LIMITS, messages=2, retention=60.0)
        await self.store("1", "2", limits=limits, is_offered=True)
        self.wall += 61
        await self.store("3", "4", limits=limits, is_offered=True)
        self.assertEqual(await self.waiting(), ["3", "4"])

    async def test_those_stored_at_once_are_no_more_than_there_is_room_for(self) -> None:
        for limits in (replace(LIMITS, messages=3), replace(LIMITS, bytes=900)):
            with self.subTest(limits):
                texts = [f"{number} of {limits.messages}" for number in range(200)]
                go = threading.Event()
                others = self.engine._running_database.run(lambda _, go=go: go.wait(PATIENCE))
                stores = (self.store(text, limits=limits, is_offered=True) for text in texts)
                asyncio.get_running_loop().call_soon(go.set)
                _, *outcomes = await asyncio.gather(others, *stores, return_exceptions=True)
                refused = [outcome for outcome in outcomes if isinstance(outcome, MailboxFull)]
                stored = [key for keys in outcomes if isinstance(keys, list) for key in keys]
                self.assertEqual((len(stored), len(refused)), (3, 197))
                self.assertEqual([item.key for item in await self.stored()], stored)
                await self.discard(stored)

    async def test_a_damaged_message_keeps_back_no_other_and_is_named_once(self) -> None:
        await self.store("1", "2", "3", "4", "5")
        _, second, third, fourth, _ = await self.stored()

        def damage(connection: sqlite3.Connection) -> None:
            change = "UPDATE offline SET message = CAST(? AS TEXT) WHERE key = ?"
            connection.execute(change, ('{"peer_id": "ali', second.key))  # not JSON
            connection.execute(change, ('{"peer_id": 7}', third.key))  # another version's fields
            connection.execute(change, (b'{"peer_id": "\xff"}', fourth.key))  # not UTF-8

        await self.engine._running_database.run(damage)
        with self.assertLogs("rtm_sync", "ERROR") as logs:
            self.assertEqual(await self.waiting(), ["1", "5"])
            self.assertEqual(await self.waiting(), ["1", "5"])
        self.assertEqual(len(logs.output), 3)
        for key, line in zip((second.key, third.key, fourth.key), logs.output, strict=True):
            self.assertIn(f"{key} of 'bob'", line)
        self.assertEqual((await self.rows())["offline"], 5)  # kept until they expire

    async def test_expired_media_come_in_batches_of_five_hundred(self) -> None:
        for number in range(510):
            await self.engine.put_media(APP, "alice", medium(f"{number:032}", self.wall + WEEK))
        batches = []
        while batch := await self.engine.expired_media(self.wall + WEEK):
            batches.append(len(batch))
            for media_id in batch:
                await self.engine.delete_media(media_id)
        self.assertEqual(batches, [500, 10])

    async def rows(self) -> dict[str, int]:
        """The number of rows of each table."""

        def count(connection: sqlite3.Connection, table: str) -> int:
            number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            return number

        tables = ("offline", "history", "bans")
        return {
            name: await self.engine._running_database.run(lambda c, name=name: count(c, name))
            for name in tables
        }

    async def test_old_rows_of_users_who_never_come_are_removed_beside_a_later_write(self) -> None:
        async def write(name: str) -> None:
            await self.store(name, uid=name)
            await self.engine.store_history(APP, historical(name, "alice", name, ms=1), WEEK)
            await self.engine.ban(APP, name, self.wall + WEEK)

        await write("bob")
        self.wall += WEEK
        await write("carol")
        self.assertEqual(await self.rows(), {"offline": 1, "history": 1, "bans": 1})

    async def test_old_rows_are_looked_for_once_an_hour(self) -> None:
        await self.store("1", limits=replace(LIMITS, retention=60.0))
        for minutes, rows in ((59, 2), (1, 2)):
            self.wall += minutes * 60
            await self.store(f"after {minutes}", uid="carol")
            self.assertEqual((await self.rows())["offline"], rows)

    async def test_it_says_whether_it_has_been_started_or_stopped(self) -> None:
        new = LocalEngine(self.path)
        with self.assertRaisesRegex(OSError, "was not started"):
            await new.claim(APP, "bob", "a")
        await self.engine.stop()
        with self.assertRaisesRegex(OSError, "was stopped"):
            await self.waiting()


class PartCase(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    """Each part also works alone, as in an engine that mixes several back ends."""

    def setUp(self) -> None:
        self.path = self.folder() / "part.sqlite3"


class LocalDirectoryTest(DirectoryContract, PartCase):
    def make_directory(self) -> LocalDirectory:
        return LocalDirectory(self.path)


class LocalBusTest(BusContract, PartCase):
    def make_bus(self) -> LocalBus:
        return LocalBus(self.path)

    async def test_it_makes_no_file(self) -> None:
        self.assertFalse(self.path.exists())


class LocalMailboxTest(MailboxContract, PartCase):
    def make_mailbox(self) -> LocalMailbox:
        return LocalMailbox(self.path, lambda: self.wall)


class LocalArchiveTest(ArchiveContract, PartCase):
    def make_archive(self) -> LocalArchive:
        return LocalArchive(self.path, lambda: self.wall)


class LocalMediaIndexTest(MediaIndexContract, PartCase):
    def make_media_index(self) -> LocalMediaIndex:
        return LocalMediaIndex(self.path)


class UrlTest(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    async def test_without_a_path_nothing_outlives_it(self) -> None:
        engine = LocalEngine.from_url("local:")
        await engine.start(NotingNode())
        self.addAsyncCleanup(engine.stop)
        key = await engine.store(APP, "bob", peer_message("1"), LIMITS, is_offered=False)
        self.assertEqual((await engine.waiting(APP, "bob", 0, 10)).last_key, key)
        await engine.stop()
        await engine.start(NotingNode())
        self.assertEqual(await engine.waiting(APP, "bob", 0, 10), StoredMessages((), None))

    async def test_a_url_names_its_folder(self) -> None:
        folder = self.folder() / "with space"
        engine = LocalEngine.from_url(f"local://{str(folder).replace(' ', '%20')}")
        await engine.start(NotingNode())
        await engine.stop()
        self.assertTrue((folder / "rtm.sqlite3").exists())
