"""The contract of every `MediaIndex`, as a test case to mix in."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ..hub.engine.media_index import MediaIndex, MediaUsage
from .engine_kit import APP, OTHER_APP, WEEK, EnginePartContract, medium


class MediaIndexContract(EnginePartContract):
    """Mix into a `RtmTestCase` and an `IsolatedAsyncioTestCase` and make the media index:

        class MyMediaIndexTest(MediaIndexContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
            def make_media_index(self) -> MediaIndex:
                return MyMediaIndex(…)

    `EnginePartContract` has the attributes that a test may set or use.
    """

    def make_media_index(self) -> MediaIndex:
        """A media index of this test's world, not started.

        A second call, after the first index was stopped, returns the index after a restart.
        """
        raise NotImplementedError

    def make_part(self) -> MediaIndex:
        return self.make_media_index()

    @property
    def index(self) -> MediaIndex:
        """The media index under test, started."""
        assert isinstance(self.part, MediaIndex), f"{self.part!r} is not a MediaIndex."
        return self.part

    async def test_a_medium_is_known_to_its_app_until_it_is_deleted(self) -> None:
        info = medium("M" * 32, self.wall + WEEK)
        self.assertIsNone(await self.index.media(APP, info.media_id))
        await self.index.put_media(APP, "alice", info)
        self.assertEqual(await self.index.media(APP, info.media_id), info)
        self.assertIsNone(await self.index.media(OTHER_APP, info.media_id))
        for _ in range(2):
            await self.index.delete_media(info.media_id)
            self.assertIsNone(await self.index.media(APP, info.media_id))

    async def test_the_record_of_a_medium_outlives_a_restart(self) -> None:
        info = medium("M" * 32, self.wall + WEEK)
        await self.index.put_media(APP, "alice", info)
        await self.restart()
        kept = info if self.outlives_process else None
        self.assertEqual(await self.index.media(APP, info.media_id), kept)

    async def test_expired_media_come_until_all_are_deleted(self) -> None:
        ids = {f"{number:032}" for number in range(20)}
        for media_id in ids:
            await self.index.put_media(APP, "alice", medium(media_id, self.wall + WEEK))
        await self.index.put_media(APP, "alice", medium("L" * 32, self.wall + WEEK + 120))
        self.assertEqual(await self.index.expired_media(self.wall + WEEK - 60), [])
        seen: set[str] = set()
        while batch := await self.index.expired_media(self.wall + WEEK + 60):
            self.assertFalse(seen & set(batch))
            seen.update(batch)
            for media_id in batch:
                await self.index.delete_media(media_id)
        self.assertEqual(seen, ids)
        self.assertIsNotNone(await self.index.media(APP, "L" * 32))

    async def test_what_media_take_is_known_of_each_user_and_app(self) -> None:
        ends_at = self.wall + WEEK
        for app_id, uid, media_id, size in (
            (APP, "alice", "1" * 32, 100),
            (APP, "alice", "2" * 32, 20),
            (APP, "bob", "3" * 32, 3),
            (OTHER_APP, "alice", "4" * 32, 4_000),
        ):
            info = replace(medium(media_id, ends_at), size=size)
            await self.index.put_media(app_id, uid, info)
        for app_id, uid, usage in (
            (APP, "alice", MediaUsage(120, 123)),
            (APP, "carol", MediaUsage(0, 123)),
            ("nowhere", "alice", MediaUsage(0, 0)),
        ):
            self.assertEqual(await self.index.media_usage(app_id, uid), usage)
        await self.index.delete_media("1" * 32)
        self.assertEqual(await self.index.media_usage(APP, "alice"), MediaUsage(20, 23))

    async def test_recording_a_medium_again_changes_nothing(self) -> None:
        info = medium("M" * 32, self.wall + WEEK)
        for _ in range(2):
            await self.index.put_media(APP, "alice", info)
        self.assertEqual(await self.index.media(APP, info.media_id), info)
        self.assertEqual(await self.index.media_usage(APP, "alice"), MediaUsage(3, 3))

    async def test_an_expired_medium_is_known_and_counted_until_it_is_deleted(self) -> None:
        info = medium("M" * 32, self.wall + 60)
        await self.index.put_media(APP, "alice", info)
        self.wall += 120
        self.assertEqual(await self.index.expired_media(self.wall), [info.media_id])
        self.assertEqual(await self.index.expired_media(self.wall), [info.media_id])
        self.assertEqual(await self.index.media(APP, info.media_id), info)
        self.assertEqual(await self.index.media_usage(APP, "alice"), MediaUsage(3, 3))

    async def test_many_media_are_recorded_and_deleted_at_once(self) -> None:
        ids = [f"{number:032}" for number in range(50)]
        await asyncio.gather(
            *(
                self.index.put_media(APP, "alice", medium(media_id, self.wall + WEEK))
                for media_id in ids
            )
        )
        self.assertEqual(await self.index.media_usage(APP, "alice"), MediaUsage(150, 150))
        await asyncio.gather(*map(self.index.delete_media, ids[1:]))
        self.assertEqual(await self.index.media_usage(APP, "alice"), MediaUsage(3, 3))
        self.assertIsNotNone(await self.index.media(APP, ids[0]))

    async def test_a_media_index_that_is_not_running_refuses(self) -> None:
        info = medium("M" * 32, self.wall + WEEK)
        await self.assert_needs_running(
            lambda: self.index.put_media(APP, "alice", info),
            lambda: self.index.media(APP, info.media_id),
            lambda: self.index.delete_media(info.media_id),
            lambda: self.index.media_usage(APP, "alice"),
            lambda: self.index.expired_media(self.wall),
        )
