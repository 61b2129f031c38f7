"""The hub's rules, without a network: the lifetime of media, and the error of each limit."""

from __future__ import annotations

import asyncio

from rtm_sync.errors import LoginError
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.hub.media.upload import UploadSpec
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.requests import JoinChannel, SendChannelMessage, SendMessageToPeer
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import Rate
from tests.hub.support import DAY, HubCase, User, chunks, eventually, spec, upload_whole


def text(body: str, to: str, message_id: str, *, offline: bool = False) -> SendMessageToPeer:
    message = RtmTextMessage(body)
    return SendMessageToPeer(to, message, message_id, enable_offline_messaging=offline)


class MediaTest(HubCase):
    async def test_media_live_seven_days_and_are_swept(self) -> None:
        store = MemoryMediaStore()
        hub = await self.hub(store=store)
        alice = await self.user(hub)
        media_id = (await upload_whole(hub, alice, b"photo")).media_id
        self.wall += 7 * DAY - 1
        self.assertEqual((await hub.media.stored_media(alice.session, media_id)).size, 5)
        self.assertEqual(await hub.sweep(), 0)
        self.wall += 2
        error = await self.refused(
            "DOWNLOAD_MEDIA_ERR_NOT_EXIST", hub.media.stored_media(alice.session, media_id)
        )
        self.assertIn("has expired", error.message)
        self.assertEqual(await hub.sweep(), 1)
        with self.assertRaises(FileNotFoundError):
            store.open(media_id)
        error = await self.refused(
            "DOWNLOAD_MEDIA_ERR_NOT_EXIST", hub.media.stored_media(alice.session, media_id)
        )
        self.assertIn("does not exist", error.message)

    async def test_another_apps_media_do_not_exist(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        media_id = (await upload_whole(hub, alice, b"photo")).media_id
        mallory = User(hub)
        await mallory.login("mallory", "other")
        await self.refused(
            "DOWNLOAD_MEDIA_ERR_NOT_EXIST", hub.media.stored_media(mallory.session, media_id)
        )
        for wrong in ("", "x", "../../etc/passwd", media_id + "A", "é" * 32):
            await self.refused(
                "DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT",
                hub.media.stored_media(alice.session, wrong),
            )

    async def test_sizes_are_enforced_whatever_the_client_checked(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        for size, name in (
            (0, "UPLOAD_MEDIA_ERR_INVALID_ARGUMENT"),
            (30 * 1024 * 1024 + 1, "UPLOAD_MEDIA_ERR_SIZE_OVERFLOW"),
        ):
            await self.refused(name, hub.media.begin_upload(alice.session, spec(size)))

    async def test_an_upload_goes_on_in_the_users_next_session_and_in_nobody_elses(self) -> None:
        hub = await self.hub()
        kept: UploadSpec = spec(6, key="mine", keep=True)
        first = await self.user(hub)
        upload = await hub.media.begin_upload(first.session, kept)
        await upload.append(0, chunks(b"123"), 3)
        hub.end(first.session)
        later = await self.user(hub)
        again = await hub.media.begin_upload(later.session, kept)
        self.assertIs(again, upload)
        bob = await self.user(hub, "bob")
        self.assertIsNone(hub.media.upload(bob.session, upload.media_id))
        self.assertIsNot(await hub.media.begin_upload(bob.session, kept), upload)
        await again.append(3, chunks(b"456"), 3)
        info = await hub.media.complete_upload(again)
        self.assertEqual(info.size, 6)

    async def test_completing_twice_at_once_publishes_once(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        upload = await hub.media.begin_upload(alice.session, spec(3))
        await upload.append(0, chunks(b"123"), 3)
        infos = await asyncio.gather(*(hub.media.complete_upload(upload) for _ in range(3)))
        self.assertEqual(len({info.media_id for info in infos}), 1)


class LimitTest(HubCase):
    async def test_of_two_hundred_and_five_offline_messages_the_newest_arrive_in_order(
        self,
    ) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        for number in range(205):
            await alice.call(text(str(number), "bob", f"m{number}", offline=True))
        bob = await self.user(hub, "bob")
        await eventually(lambda: len(bob.texts()) >= 200)
        self.assertEqual(bob.texts(), [str(number) for number in range(5, 205)])

    async def test_every_limit_of_a_session_has_its_error(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        await self.refused("PEER_MESSAGE_ERR_INVALID_USERID", alice.call(text("x", "a/b", "m")))
        await self.refused("PEER_MESSAGE_ERR_INVALID_MESSAGE", alice.call(text("x", "bob", "m m")))
        await self.refused(
            "CHANNEL_MESSAGE_ERR_NOT_IN_CHANNEL",
            alice.call(SendChannelMessage("room", RtmTextMessage("x"), "m1")),
        )
        for number in range(20):
            await alice.call(JoinChannel(f"room-{number}"))
        await self.refused("JOIN_CHANNEL_ERR_EXCEED_LIMIT", alice.call(JoinChannel("room-20")))
        await self.refused("JOIN_CHANNEL_ERR_ALREADY_JOINED", alice.call(JoinChannel("room-0")))
        await self.refused("JOIN_CHANNEL_ERR_INVALID_ARGUMENT", alice.call(JoinChannel("ä")))

    async def test_sending_joining_and_logging_in_have_their_rates(self) -> None:
        hub = await self.hub(
            limits=Limits(sends=Rate(3, 60.0), joins=Rate(2, 60.0), logins=Rate(2, 60.0))
        )
        alice = await self.user(hub)
        for number in range(3):
            await alice.call(text("x", "bob", f"m{number}"))
        error = await self.refused("PEER_MESSAGE_ERR_TOO_OFTEN", alice.call(text("x", "bob", "m3")))
        self.assertIn("3 in 60 s", error.message)
        for name in ("a", "b"):
            await alice.call(JoinChannel(name))
        await self.refused("JOIN_CHANNEL_ERR_TOO_OFTEN", alice.call(JoinChannel("c")))
        await self.user(hub)
        with self.assertRaises(LoginError) as caught:
            await self.user(hub)
        self.assertEqual(caught.exception.reason, "TOO_OFTEN")

    async def test_a_sender_whose_ids_cannot_be_remembered_is_refused(self) -> None:
        hub = await self.hub(limits=Limits(remembered_sends=3))
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        carol = await self.user(hub, "carol")
        for user in (alice, bob):
            await user.call(JoinChannel("room"))
        for number in range(2):
            await alice.call(text("x", "bob", f"m{number}"))
        await alice.call(text("nobody is there, so this is not remembered", "dave", "m2"))
        await alice.call(SendChannelMessage("room", RtmTextMessage("y"), "m0"))
        error = await self.refused("PEER_MESSAGE_ERR_TOO_OFTEN", alice.call(text("x", "bob", "m4")))
        self.assertIn("3 messages were sent within 120 s", error.message)
        again = SendChannelMessage("room", RtmTextMessage("y"), "m1")
        await self.refused("CHANNEL_MESSAGE_ERR_TOO_OFTEN", alice.call(again))
        await carol.call(text("z", "bob", "m0"))  # has a share of her own
        await alice.call(text("x", "bob", "m0"))  # a known one is answered
        self.assertEqual(bob.texts(), ["x", "x", "y", "z"])

    async def test_an_app_leaves_room_for_the_sessions_of_others(self) -> None:
        hub = await self.hub(limits=Limits(sessions=10, app_sessions=3))
        users = [await self.user(hub, uid) for uid in ("a", "b", "c")]
        with self.assertRaisesRegex(LoginError, "The app has 3 sessions; the limit is 3"):
            await self.user(hub, "d")
        other = User(hub)
        await other.login("d", app_id="other")
        hub.end(users[0].session)
        await self.user(hub, "d")

    async def test_a_full_hub_says_so(self) -> None:
        hub = await self.hub(limits=Limits(sessions=3))
        for uid in ("a", "b", "c"):
            await self.user(hub, uid)
        with self.assertRaisesRegex(LoginError, "has 3 sessions; the limit is 3"):
            await self.user(hub, "d")
