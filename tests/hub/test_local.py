"""The engine of one machine: it passes the contract, and what is its own."""

from __future__ import annotations

import unittest
from pathlib import Path

from rtm_sync.hub.local import LocalEngine
from rtm_sync.testing import EngineContract
from rtm_sync.testing.engine_contract import APP, NotingNode, historical, medium, peer_message
from tests.support import RtmTestCase

from .support import DAY

WEEK = 7 * DAY


class LocalEngineTest(EngineContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
    engine: LocalEngine

    async def asyncSetUp(self) -> None:
        self.path: Path = self.folder() / "data" / "rtm.sqlite3"
        await super().asyncSetUp()

    def make_engine(self) -> LocalEngine:
        return LocalEngine(self.path, now=lambda: self.wall)

    async def test_empty_channels_take_no_memory(self) -> None:
        await self.engine.join(APP, "room", "alice")
        await self.engine.leave(APP, "room", "alice")
        self.assertEqual(self.engine._members, {})

    async def test_a_key_is_never_given_twice_though_it_restarts(self) -> None:
        await self.store("1")
        (old,) = await self.engine.offline(APP, "bob", self.wall)
        await self.engine.discard_offline(APP, "bob", [old.key])
        await self.restart()
        await self.store("2")
        (new,) = await self.engine.offline(APP, "bob", self.wall)
        self.assertGreater(new.key, old.key)

    async def test_messages_end_to_the_second_and_are_removed_then(self) -> None:
        await self.store("1")
        self.wall += WEEK - 1
        self.assertEqual(await self.waiting(), ["1"])
        self.wall += 1
        self.assertEqual(await self.waiting(), [])
        self.wall -= 1
        self.assertEqual(await self.waiting(), [])  # removed, not hidden

    async def test_expired_media_come_in_batches_of_five_hundred(self) -> None:
        for number in range(510):
            await self.engine.put_media(APP, "alice", medium(f"{number:032}", self.wall + WEEK))
        batches = []
        while batch := await self.engine.expired_media(self.wall + WEEK):
            batches.append(len(batch))
            for media_id in batch:
                await self.engine.delete_media(media_id)
        self.assertEqual(batches, [500, 10])

    async def test_sweeping_removes_old_messages_of_users_who_never_come(self) -> None:
        await self.store("1")
        await self.engine.store_history(APP, historical("1", "alice", "bob", ms=1), WEEK)
        await self.engine.expired_media(self.wall + WEEK)
        left = await self.engine._disk.run(
            lambda c: c.execute(
                "SELECT (SELECT count(*) FROM offline) + (SELECT count(*) FROM history)"
            ).fetchone()
        )
        self.assertEqual(left, (0,))

    async def test_it_says_whether_it_has_been_started_or_stopped(self) -> None:
        new = LocalEngine(self.path)
        with self.assertRaisesRegex(OSError, "not been started"):
            await new.claim(APP, "bob", "a")
        await self.engine.stop()
        with self.assertRaisesRegex(OSError, "stopped"):
            await self.waiting()


class UrlTest(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    async def test_without_a_path_nothing_outlives_it(self) -> None:
        engine = LocalEngine.from_url("local:")
        await engine.start(NotingNode())
        self.addAsyncCleanup(engine.stop)
        await engine.store_offline(APP, "bob", peer_message("1"), 200, WEEK)
        self.assertEqual(len(await engine.offline(APP, "bob", 0)), 1)
        await engine.stop()
        await engine.start(NotingNode())
        self.assertEqual(await engine.offline(APP, "bob", 0), [])

    async def test_a_url_names_its_folder(self) -> None:
        folder = self.folder() / "with space"
        engine = LocalEngine.from_url(f"local://{str(folder).replace(' ', '%20')}")
        await engine.start(NotingNode())
        await engine.stop()
        self.assertTrue((folder / "rtm.sqlite3").exists())
