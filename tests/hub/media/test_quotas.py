"""Quotas: the stored bytes and the upload rates of a user and an app."""

from __future__ import annotations

import asyncio

from rtm_sync.errors import UploadMediaError
from rtm_sync.hub.node import Hub
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import Rate

from ..support import DAY, HubCase, User, spec, upload_whole


class QuotaTest(HubCase):
    async def begins(self, hub: Hub, user: User, size: int) -> bool:
        try:
            await hub.media.begin_upload(user.session, spec(size))
        except UploadMediaError as error:
            self.assertEqual(error.code.name, "UPLOAD_MEDIA_ERR_FAILURE")
            return False
        return True

    async def test_a_user_keeps_so_many_bytes_and_others_do_not_count(self) -> None:
        hub = await self.hub(limits=Limits(user_bytes=100))
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        await upload_whole(hub, alice, b"x" * 60)
        refusal = await self.refused(
            "UPLOAD_MEDIA_ERR_FAILURE", hub.media.begin_upload(alice.session, spec(41))
        )
        self.assertIn("would keep 101; the quota is 100", refusal.message)
        self.assertTrue(await self.begins(hub, alice, 40))
        self.assertTrue(await self.begins(hub, bob, 100))

    async def test_what_has_ended_makes_room(self) -> None:
        hub = await self.hub(limits=Limits(user_bytes=100))
        alice = await self.user(hub)
        await upload_whole(hub, alice, b"x" * 60)
        given_up = await hub.media.begin_upload(alice.session, spec(40))
        self.assertFalse(await self.begins(hub, alice, 1))
        await hub.media.drop_upload(given_up)
        self.wall += 8 * DAY
        self.assertEqual(await hub.media.sweep_media(), 1)
        self.assertTrue(await self.begins(hub, alice, 100))

    async def test_an_app_keeps_so_many_bytes_whoever_puts_them(self) -> None:
        hub = await self.hub(limits=Limits(app_bytes=100))
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        await upload_whole(hub, alice, b"x" * 60)
        self.assertFalse(await self.begins(hub, bob, 41))
        stranger = User(hub)
        await stranger.login("bob", app_id="other")
        self.assertTrue(await self.begins(hub, stranger, 100))

    async def test_uploads_that_begin_at_once_do_not_pass_together(self) -> None:
        hub = await self.hub(limits=Limits(user_bytes=100))
        alice = await self.user(hub)
        begun = await asyncio.gather(*(self.begins(hub, alice, 60) for _ in range(5)))
        self.assertLessEqual(sum(begun), 1)
        self.assertLessEqual(hub.media.unfinished_count, 1)

    async def test_uploads_in_a_time_are_counted_for_users_and_apps(self) -> None:
        hub = await self.hub(limits=Limits(user_uploads=Rate(2, 3600), app_uploads=Rate(3, 3600)))
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        self.assertEqual([await self.begins(hub, alice, 1) for _ in range(3)], [True, True, False])
        self.assertTrue(await self.begins(hub, bob, 1))
        refusal = await self.refused(
            "UPLOAD_MEDIA_ERR_FAILURE", hub.media.begin_upload(bob.session, spec(1))
        )
        self.assertIn("'app' may upload no more than 3 in 3600 s", refusal.message)
        await self.skip(3601)
        self.assertTrue(await self.begins(hub, bob, 1))
