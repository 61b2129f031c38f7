"""The hub's rules, spoken to directly: time is an argument, the connection a list of frames."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rtm_sync.errors import DownloadMediaError, LoginError, RtmError, UploadMediaError
from rtm_sync.hub.hub import Hub
from rtm_sync.hub.limits import Limits, Rate
from rtm_sync.hub.local import LocalEngine
from rtm_sync.hub.memory import MemoryMediaStore
from rtm_sync.hub.session import Session
from rtm_sync.hub.uploads import Upload, UploadSpec
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol import (
    Acknowledge,
    Call,
    ConnectionChangeReason,
    Done,
    Failure,
    Frame,
    JoinChannel,
    Login,
    MessageFromPeer,
    Notice,
    Reply,
    Request,
    SendChannelMessage,
    SendMessageToPeer,
    SessionEnded,
    decode,
    encode_call,
    encode_notice,
    encode_reply,
)

DAY = 86_400.0
PATIENCE = 5.0


class Client:
    """A session's other end: takes frames as a socket would, and answers calls when told to."""

    def __init__(self, hub: Hub, *, answers: bool = True) -> None:
        self.hub = hub
        self.answers = answers
        self.session: Session
        self.frames: list[Frame] = []
        self.closed: tuple[int, str] | None = None
        self._next = 1
        self._arrived = asyncio.Event()

    async def log_in(self, uid: str, **options: Any) -> Client:
        self.session, _ = await self.hub.login(Login("app", uid, **options), self)
        self.hub.attach(self.session, self)
        return self

    def wake(self) -> None:
        while (text := self.session.outbox.take()) is not None:
            self._take(text)

    def send_now(self, frame: str) -> None:
        self._take(frame)

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)

    def _take(self, text: str) -> None:
        frame = decode(text)
        self.frames.append(frame)
        self._arrived.set()
        if isinstance(frame, Call) and self.answers:
            asyncio.get_running_loop().call_soon(self.say, encode_reply(frame.id, Done()))

    def say(self, text: str) -> None:
        self.hub.receive(self.session, self, text)

    def post(self, request: Request[Any]) -> int:
        call_id, self._next = self._next, self._next + 1
        self.say(encode_call(call_id, request))
        return call_id

    async def call(self, request: Request[Any]) -> Any:
        call_id = self.post(request)
        frame = await self.until(
            lambda frame: isinstance(frame, (Reply, Failure)) and frame.id == call_id
        )
        if isinstance(frame, Failure):
            raise frame.error
        assert isinstance(frame, Reply)
        return frame.result

    async def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        while True:
            for frame in self.frames:
                if wanted(frame):
                    return frame
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), PATIENCE)

    def texts(self) -> list[str]:
        return [
            frame.request.message.text  # type: ignore[union-attr]
            for frame in self.frames
            if isinstance(frame, Call) and isinstance(frame.request, MessageFromPeer)
        ]


def text(body: str, to: str, message_id: str, **options: Any) -> SendMessageToPeer:
    return SendMessageToPeer(to, RtmTextMessage(body), message_id, **options)


class HubCase(unittest.IsolatedAsyncioTestCase):
    limits = Limits()

    async def asyncSetUp(self) -> None:
        self.now = 1_700_000_000.0
        self.hub = Hub(
            LocalEngine(now=lambda: self.now),
            MemoryMediaStore(),
            limits=self.limits,
            now=lambda: self.now,
        )
        await self.hub.start()
        self.addAsyncCleanup(self.hub.stop)

    async def client(self, uid: str, **options: Any) -> Client:
        return await Client(self.hub, **options).log_in(uid)

    async def refused(self, name: str, work: Awaitable[Any]) -> RtmError:
        with self.assertRaises(RtmError) as caught:
            await work
        self.assertEqual(caught.exception.code.name, name)
        return caught.exception


class MediaTest(HubCase):
    async def uploaded(self, client: Client, data: bytes = b"photo") -> Upload:
        upload = await self.hub.media.begin_upload(
            client.session, UploadSpec(len(data), "cat.jpg", "image/jpeg")
        )
        await upload.append(reader(data), len(data))
        await self.hub.media.complete_upload(upload)
        return upload

    async def test_media_live_seven_days_and_are_swept(self) -> None:
        alice = await self.client("alice")
        media_id = (await self.uploaded(alice)).media_id
        self.now += 7 * DAY - 1
        self.assertEqual((await self.hub.media.stored_media(alice.session, media_id)).size, 5)
        self.assertEqual(await self.hub.sweep(), 0)
        self.now += 2
        error = await self.refused(
            "DOWNLOAD_MEDIA_ERR_NOT_EXIST", self.hub.media.stored_media(alice.session, media_id)
        )
        self.assertIn("has expired", error.message)
        self.assertEqual(await self.hub.sweep(), 1)
        with self.assertRaises(FileNotFoundError):
            self.hub.media._store.open(media_id)
        error = await self.refused(
            "DOWNLOAD_MEDIA_ERR_NOT_EXIST", self.hub.media.stored_media(alice.session, media_id)
        )
        self.assertIn("does not exist", error.message)

    async def test_another_apps_media_do_not_exist(self) -> None:
        alice = await self.client("alice")
        media_id = (await self.uploaded(alice)).media_id
        mallory = Client(self.hub)
        mallory.session, _ = await self.hub.login(Login("other", "mallory"), mallory)
        await self.refused(
            "DOWNLOAD_MEDIA_ERR_NOT_EXIST", self.hub.media.stored_media(mallory.session, media_id)
        )
        for wrong in ("", "x", "../../etc/passwd", media_id + "A", "é" * 32):
            await self.refused(
                "DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT",
                self.hub.media.stored_media(alice.session, wrong),
            )

    async def test_sizes_are_enforced_whatever_the_client_checked(self) -> None:
        alice = await self.client("alice")
        for size, name in (
            (0, "UPLOAD_MEDIA_ERR_INVALID_ARGUMENT"),
            (30 * 1024 * 1024 + 1, "UPLOAD_MEDIA_ERR_SIZE_OVERFLOW"),
        ):
            spec = UploadSpec(size, "f", "a/b")
            await self.refused(name, self.hub.media.begin_upload(alice.session, spec))

    async def test_more_bytes_than_announced_are_refused(self) -> None:
        alice = await self.client("alice")
        upload = await self.hub.media.begin_upload(alice.session, UploadSpec(3, "f", "a/b"))
        await self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload.append(reader(b"1234"), 3))

    async def test_nine_slots_and_each_comes_back(self) -> None:
        alice = await self.client("alice")
        slots = [self.hub.media.slot(alice.session, UploadMediaError) for _ in range(9)]
        for slot in slots:
            await slot.__aenter__()
        waiting = asyncio.ensure_future(
            self.hub.media.slot(alice.session, DownloadMediaError).__aenter__()
        )
        await asyncio.sleep(0)
        self.assertFalse(waiting.done())
        await slots.pop().__aexit__(None, None, None)
        await asyncio.wait_for(waiting, PATIENCE)

    async def test_an_idle_upload_ends(self) -> None:
        alice = await self.client("alice")
        upload = await self.hub.media.begin_upload(
            alice.session, UploadSpec(9, "f", "a/b", key="mine")
        )
        upload.touched_at -= self.limits.upload_idle + 1
        await self.hub.media.sweep_uploads()
        self.assertIsNone(self.hub.media.upload(alice.session, upload.media_id))
        again = await self.hub.media.begin_upload(
            alice.session, UploadSpec(9, "f", "a/b", key="mine")
        )
        self.assertNotEqual(again.media_id, upload.media_id)

    async def test_an_upload_goes_on_in_the_users_next_session_and_in_nobody_elses(self) -> None:
        spec = UploadSpec(6, "f", "a/b", key="mine", keep=True)
        first = await self.client("alice")
        upload = await self.hub.media.begin_upload(first.session, spec)
        await upload.append(reader(b"123"), 3)
        self.hub.end(first.session)
        later = await self.client("alice")
        again = await self.hub.media.begin_upload(later.session, spec)
        self.assertIs(again, upload)
        bob = await self.client("bob")
        self.assertIsNone(self.hub.media.upload(bob.session, upload.media_id))
        self.assertIsNot(await self.hub.media.begin_upload(bob.session, spec), upload)
        await again.append(reader(b"456"), 3)
        info = await self.hub.media.complete_upload(again)
        self.assertEqual(info.size, 6)

    async def test_completing_twice_at_once_publishes_once(self) -> None:
        alice = await self.client("alice")
        upload = await self.hub.media.begin_upload(alice.session, UploadSpec(3, "f", "a/b"))
        await upload.append(reader(b"123"), 3)
        infos = await asyncio.gather(*(self.hub.media.complete_upload(upload) for _ in range(3)))
        self.assertEqual(len({info.media_id for info in infos}), 1)


class MessageTest(HubCase):
    async def test_offline_messages_are_the_newest_two_hundred_in_order(self) -> None:
        alice = await self.client("alice")
        for number in range(205):
            request = text(str(number), "bob", f"m{number}", enable_offline_messaging=True)
            self.assertTrue((await alice.call(request))["cached_by_server"])
        bob = await self.client("bob")
        await bob.until(lambda _: len(bob.texts()) == 200)
        self.assertEqual(bob.texts(), [str(number) for number in range(5, 205)])

    async def test_offline_messages_wait_seven_days_and_no_longer(self) -> None:
        alice = await self.client("alice")
        for name in ("old", "new"):
            await alice.call(text(name, "bob", name, enable_offline_messaging=True))
            self.now += 4 * DAY
        bob = await self.client("bob")
        await bob.until(lambda _: bool(bob.texts()))
        self.assertEqual(bob.texts(), ["new"])

    async def test_an_offline_message_is_kept_until_it_is_acknowledged(self) -> None:
        alice = await self.client("alice")
        await alice.call(text("hi", "bob", "m1", enable_offline_messaging=True))
        deaf = await self.client("bob", answers=False)
        await deaf.until(lambda _: deaf.texts() == ["hi"])
        self.hub.end(deaf.session)
        bob = await self.client("bob")
        await bob.until(lambda _: bob.texts() == ["hi"])

    async def test_every_limit_of_a_session_has_its_error(self) -> None:
        alice = await self.client("alice")
        await self.refused("PEER_MESSAGE_ERR_INVALID_USERID", alice.call(text("x", "a/b", "m")))
        await self.refused("PEER_MESSAGE_ERR_INVALID_MESSAGE", alice.call(text("x", "bob", "m m")))
        message = RtmTextMessage("x")
        await self.refused(
            "CHANNEL_MESSAGE_ERR_NOT_IN_CHANNEL",
            alice.call(SendChannelMessage("room", message, "m1")),
        )
        for number in range(20):
            await alice.call(JoinChannel(f"room-{number}"))
        await self.refused("JOIN_CHANNEL_ERR_EXCEED_LIMIT", alice.call(JoinChannel("room-20")))
        await self.refused("JOIN_CHANNEL_ERR_ALREADY_JOINED", alice.call(JoinChannel("room-0")))
        await self.refused("JOIN_CHANNEL_ERR_INVALID_ARGUMENT", alice.call(JoinChannel("ä")))


class TooOftenTest(HubCase):
    limits = Limits(sends=Rate(3, 60.0), joins=Rate(2, 60.0), logins=Rate(2, 60.0))

    async def test_sending_joining_and_logging_in_have_their_rates(self) -> None:
        alice = await self.client("alice")
        for number in range(3):
            await alice.call(text("x", "bob", f"m{number}"))
        error = await self.refused("PEER_MESSAGE_ERR_TOO_OFTEN", alice.call(text("x", "bob", "m3")))
        self.assertIn("3 in 60 s", error.message)
        for name in ("a", "b"):
            await alice.call(JoinChannel(name))
        await self.refused("JOIN_CHANNEL_ERR_TOO_OFTEN", alice.call(JoinChannel("c")))
        await self.client("alice")
        with self.assertRaises(LoginError) as caught:
            await self.client("alice")
        self.assertEqual(caught.exception.reason, "TOO_OFTEN")


class SessionTest(HubCase):
    limits = Limits(session_grace=0.05, outbox_frames=10, sessions=3)

    async def test_a_second_login_ends_the_first_and_tells_it_why(self) -> None:
        first, second = await self.client("alice"), await self.client("alice")
        ended = await first.until(lambda frame: isinstance(frame, Notice))
        assert isinstance(ended, Notice)
        self.assertEqual(ended.event, SessionEnded(ConnectionChangeReason.REMOTE_LOGIN))
        self.assertIsNotNone(first.closed)
        self.assertIsNone(second.closed)
        self.assertEqual(self.hub.session_count, 1)

    async def test_a_session_outlives_its_connection_for_a_while(self) -> None:
        alice, bob = await self.client("alice"), await self.client("bob")
        self.hub.detach(bob.session, bob)
        alice.post(text("while away", "bob", "m1"))
        back = Client(self.hub)
        login = Login("app", "bob", session=bob.session.id, received=0)
        back.session, result = await self.hub.login(login, back)
        self.hub.attach(back.session, back)
        self.assertTrue(result.resumed)
        await back.until(lambda _: back.texts() == ["while away"])

    async def test_and_then_it_ends(self) -> None:
        bob = await self.client("bob")
        self.hub.detach(bob.session, bob)
        await until(lambda: self.hub.session_count == 0)
        back = Client(self.hub)
        login = Login("app", "bob", session=bob.session.id, received=0)
        back.session, result = await self.hub.login(login, back)
        self.assertFalse(result.resumed)

    async def test_anothers_session_cannot_be_resumed(self) -> None:
        bob = await self.client("bob")
        mallory = Client(self.hub)
        login = Login("app", "mallory", session=bob.session.id, received=0)
        mallory.session, result = await self.hub.login(login, mallory)
        self.assertFalse(result.resumed)
        self.assertIsNot(mallory.session, bob.session)

    async def test_a_client_that_never_acknowledges_is_disconnected_with_a_reason(self) -> None:
        alice, bob = await self.client("alice"), await self.client("bob", answers=False)
        for client in (alice, bob):
            await client.call(JoinChannel("room"))
        alice.say(encode_notice(Acknowledge(len(alice.frames))))
        for number in range(12):
            alice.post(SendChannelMessage("room", RtmTextMessage(str(number)), f"m{number}"))
            await asyncio.sleep(0)
        await until(lambda: bob.closed is not None)
        assert bob.closed is not None
        self.assertEqual(bob.closed[0], 4008)
        self.assertIn("slow consumer", bob.closed[1])
        self.assertLessEqual(len(bob.session.outbox), 10)

    async def test_a_full_hub_says_so(self) -> None:
        for uid in ("a", "b", "c"):
            await self.client(uid)
        with self.assertRaisesRegex(LoginError, "has 3 sessions, as many as it may"):
            await self.client("d")


async def until(predicate: Callable[[], bool]) -> None:
    """Return as soon as it is true."""

    async def look() -> None:
        while not predicate():
            await asyncio.sleep(0.002)

    await asyncio.wait_for(look(), PATIENCE)


def reader(data: bytes) -> Callable[[], Awaitable[bytes]]:
    parts: AsyncIterator[bytes] = _parts(data)

    async def read() -> bytes:
        return await anext(parts, b"")

    return read


async def _parts(data: bytes) -> AsyncIterator[bytes]:
    yield data
