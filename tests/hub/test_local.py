"""The engine of one machine: who is where, what waits, and what a restart leaves of it."""

from __future__ import annotations

import unittest
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rtm_sync.hub.engine import ChannelEvent, Delivery, HistoryQuery
from rtm_sync.hub.local import LocalEngine
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol import (
    ChannelMessage,
    ConnectionChangeReason,
    HistoricalMessage,
    MediaInfo,
    MemberJoined,
    MemberLeft,
    MessageFromPeer,
    PeerOnlineState,
    ReceivedMessageProperties,
)
from tests.support import RtmTestCase

from .support import APP, DAY

WEEK = 7 * DAY
KEEP = 200


@dataclass
class NotingNode:
    """The hub's side: notes what it is told."""

    told: list[object] = field(default_factory=list)
    states: list[tuple[str, str, PeerOnlineState]] = field(default_factory=list)
    counts: list[tuple[str, str, int]] = field(default_factory=list)

    async def deliver_to_peer(self, app_id: str, uid: str, message: MessageFromPeer) -> Delivery:
        self.told.append(("peer", app_id, uid, message))
        return Delivery.RECEIVED

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        self.told.append((app_id, event))

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        self.told.append(("evict", app_id, uid, session_id))

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        self.states.append((app_id, uid, state))

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        self.counts.append((app_id, channel_id, count))


def message(text: str, sender: str = "alice") -> MessageFromPeer:
    props = ReceivedMessageProperties(1, is_offline_message=True)
    return MessageFromPeer(RtmTextMessage(text), sender, f"id-{text}", props)


def medium(media_id: str, expires_at: float) -> MediaInfo:
    return MediaInfo(media_id, 3, "ab" * 32, "naïve.txt", "text/plain", expires_at)


def historical(
    text: str, source: str = "alice", destination: str = "bob", *, channel: bool = False, at: float
) -> HistoricalMessage:
    props = ReceivedMessageProperties(int(at * 1000), is_historical_message=True)
    return HistoricalMessage(RtmTextMessage(text), source, destination, channel, f"m{text}", props)


class LocalCase(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.wall = 1_700_000_000.0
        self.node = NotingNode()
        self.path: Path = self.folder() / "data" / "rtm.sqlite3"
        self.engine = await self.started()

    async def started(self) -> LocalEngine:
        engine = LocalEngine(self.path, now=lambda: self.wall)
        await engine.start(self.node)
        self.addAsyncCleanup(engine.stop)
        return engine

    async def restart(self) -> None:
        await self.engine.stop()
        self.engine = await self.started()

    async def store(self, *texts: str, uid: str = "bob", sender: str = "alice") -> None:
        for text in texts:
            await self.engine.store_offline(APP, uid, message(text, sender), KEEP, WEEK)

    async def waiting(self, uid: str = "bob", app_id: str = APP) -> list[str]:
        found = await self.engine.offline(app_id, uid, self.wall)
        return [item.message.message.text for item in found]  # type: ignore[union-attr]


class RoutingTest(LocalCase):
    async def test_a_claim_evicts_whoever_held_the_user(self) -> None:
        await self.engine.claim(APP, "bob", "first")
        await self.engine.claim(APP, "bob", "first")
        await self.engine.claim("other", "bob", "stranger")
        self.assertEqual(self.node.told, [])
        await self.engine.claim(APP, "bob", "second")
        self.assertEqual(self.node.told, [("evict", APP, "bob", "first")])

    async def test_only_the_holder_can_give_a_claim_up(self) -> None:
        await self.engine.claim(APP, "bob", "first")
        await self.engine.claim(APP, "bob", "second")
        await self.engine.release(APP, "bob", "first")
        sent = self.engine.send_to_peer(APP, "bob", message("hi"))
        self.assertIs(await sent, Delivery.RECEIVED)
        await self.engine.release(APP, "bob", "second")
        sent = self.engine.send_to_peer(APP, "bob", message("hi"))
        self.assertIs(await sent, Delivery.OFFLINE)

    async def test_a_user_of_another_app_is_not_there(self) -> None:
        await self.engine.claim(APP, "bob", "session")
        sent = self.engine.send_to_peer("other", "bob", message("hi"))
        self.assertIs(await sent, Delivery.OFFLINE)
        self.assertEqual(self.node.told, [])

    async def test_joins_and_leaves_are_told_once(self) -> None:
        for uid in ("alice", "bob", "bob"):
            await self.engine.join(APP, "room", uid)
        self.assertEqual(await self.engine.members(APP, "room"), ["alice", "bob"])
        self.assertEqual(await self.engine.members("other", "room"), [])
        for _ in range(2):
            await self.engine.leave(APP, "room", "alice")
        await self.engine.leave(APP, "room", "bob")
        self.assertEqual(await self.engine.members(APP, "room"), [])
        self.assertEqual(
            self.node.told,
            [
                (APP, MemberJoined("room", "alice")),
                (APP, MemberJoined("room", "bob")),
                (APP, MemberLeft("room", "alice")),
                (APP, MemberLeft("room", "bob")),
            ],
        )
        self.assertEqual(self.engine._members, {})

    async def test_what_is_published_comes_with_its_place(self) -> None:
        event = ChannelMessage(
            "room", RtmTextMessage("hi"), "alice", "m1", ReceivedMessageProperties(1)
        )
        for _ in range(2):
            await self.engine.publish(APP, event)
        told = [item for _, item in self.node.told]  # type: ignore[misc]
        self.assertEqual([replace(item, position=None) for item in told], [event, event])
        self.assertEqual([item.position.sequence for item in told], [1, 2])
        since = await self.engine.missed(APP, "room", told[0].position)
        self.assertEqual((since.messages, since.complete), ((told[1],), True))


class OfflineTest(LocalCase):
    async def test_messages_wait_in_order_for_their_receiver_only(self) -> None:
        await self.store("1", "2", "3")
        await self.store("other", uid="carol")
        self.assertEqual(await self.waiting(), ["1", "2", "3"])
        self.assertEqual(await self.waiting("carol"), ["other"])
        self.assertEqual(await self.waiting(app_id="other"), [])

    async def test_the_newest_two_hundred_are_kept_for_each_receiver(self) -> None:
        await self.store("carol's", uid="carol")
        await self.store(*map(str, range(205)))
        self.assertEqual(await self.waiting(), [str(number) for number in range(5, 205)])
        self.assertEqual(await self.waiting("carol"), ["carol's"])

    async def test_a_copy_changes_nothing_but_another_senders_is_no_copy(self) -> None:
        await self.store("1", "2", "1")
        self.assertEqual(await self.waiting(), ["1", "2"])
        await self.store("1", sender="carol")
        self.assertEqual(await self.waiting(), ["1", "2", "1"])

    async def test_a_copy_does_not_push_an_old_message_out(self) -> None:
        await self.store(*map(str, range(200)))
        await self.store("199", "0")
        self.assertEqual(await self.waiting(), [str(number) for number in range(200)])

    async def test_they_outlive_a_restart_until_they_are_discarded(self) -> None:
        await self.store("1", "2", "3")
        await self.restart()
        first, second, third = await self.engine.offline(APP, "bob", self.wall)
        self.assertEqual(second.message, message("2"))
        await self.engine.discard_offline(APP, "bob", [first.key, second.key])
        await self.engine.discard_offline(APP, "carol", [third.key])  # not hers
        await self.restart()
        self.assertEqual(await self.waiting(), ["3"])

    async def test_a_key_is_never_given_twice(self) -> None:
        await self.store("1")
        (old,) = await self.engine.offline(APP, "bob", self.wall)
        await self.engine.discard_offline(APP, "bob", [old.key])
        await self.restart()
        await self.store("2")
        (new,) = await self.engine.offline(APP, "bob", self.wall)
        self.assertGreater(new.key, old.key)

    async def test_after_seven_days_they_are_gone(self) -> None:
        await self.store("1")
        self.wall += WEEK - 1
        self.assertEqual(await self.waiting(), ["1"])
        self.wall += 1
        self.assertEqual(await self.waiting(), [])
        self.wall -= 1
        self.assertEqual(await self.waiting(), [])  # removed, not hidden


class RecordTest(LocalCase):
    async def test_a_medium_is_known_to_its_app_after_a_restart_too(self) -> None:
        info = medium("M" * 32, self.wall + WEEK)
        await self.engine.put_media(APP, "alice", info)
        await self.restart()
        self.assertEqual(await self.engine.media(APP, info.media_id), info)
        self.assertIsNone(await self.engine.media("other", info.media_id))
        await self.engine.delete_media(info.media_id)
        self.assertIsNone(await self.engine.media(APP, info.media_id))

    async def test_expired_media_come_in_batches_until_all_are_deleted(self) -> None:
        for number in range(510):
            await self.engine.put_media(APP, "alice", medium(f"{number:032}", self.wall + WEEK))
        await self.engine.put_media(APP, "alice", medium("L" * 32, self.wall + WEEK + 1))
        self.assertEqual(await self.engine.expired_media(self.wall + WEEK - 1), [])
        batches = []
        while batch := await self.engine.expired_media(self.wall + WEEK):
            batches.append(len(batch))
            for media_id in batch:
                await self.engine.delete_media(media_id)
        self.assertEqual(batches, [500, 10])
        self.assertIsNotNone(await self.engine.media(APP, "L" * 32))

    async def test_sweeping_removes_old_messages_of_users_who_never_come(self) -> None:
        await self.store("1")
        await self.engine.store_history(APP, historical("1", at=self.wall), WEEK)
        await self.engine.expired_media(self.wall + WEEK)
        left = await self.engine._disk.run(
            lambda c: c.execute(
                "SELECT (SELECT count(*) FROM offline) + (SELECT count(*) FROM history)"
            ).fetchone()
        )
        self.assertEqual(left, (0,))


class HistoryTest(LocalCase):
    async def texts(self, **query: Any) -> list[str]:
        found = await self.engine.history(APP, HistoryQuery(**query), self.wall)
        self.assertEqual(
            len(found), min(100, await self.engine.history_count(APP, HistoryQuery(**query), 0))
        )
        return [item.message.text for _, item in found]  # type: ignore[union-attr]

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        for number, (source, destination, channel) in enumerate(
            (
                ("alice", "bob", False),
                ("bob", "alice", False),
                ("carol", "bob", False),
                ("alice", "bob", True),  # a channel of that name
            )
        ):
            await self.engine.store_history(
                APP,
                historical(f"{number}", source, destination, channel=channel, at=100 + number),
                WEEK,
            )

    async def test_each_kind_of_conversation_is_found(self) -> None:
        for query, texts in (
            ({"source": "alice"}, ["0", "3"]),
            ({"destination": "bob"}, ["0", "2", "3"]),
            ({"destination": "bob", "is_channel": True}, ["3"]),
            ({"source": "alice", "destination": "bob", "is_channel": False}, ["0"]),
            (
                {
                    "source": "alice",
                    "destination": "bob",
                    "is_channel": False,
                    "both_ways": True,
                },
                ["0", "1"],
            ),
            ({"start": 101_000, "end": 103_000}, ["1", "2"]),
            ({"newest_first": True}, ["3", "2", "1", "0"]),
            ({"source": "nobody"}, []),
        ):
            with self.subTest(query=query):
                self.assertEqual(await self.texts(**query), texts)
        self.assertEqual(await self.engine.history("other", HistoryQuery(), self.wall), [])

    async def test_pages_meet_without_gap_or_copy_in_both_orders(self) -> None:
        for newest_first in (False, True):
            seen: list[str] = []
            after = None
            while True:
                query = HistoryQuery(newest_first=newest_first, after=after, limit=3)
                page = await self.engine.history(APP, query, self.wall)
                if not page:
                    break
                seen += [item.message_id for _, item in page]
                after = page[-1][0]
            self.assertEqual(sorted(seen), ["m0", "m1", "m2", "m3"])
            self.assertEqual(seen, sorted(seen, reverse=newest_first))
        offset = HistoryQuery(offset=1, limit=2)
        found = await self.engine.history(APP, offset, self.wall)
        self.assertEqual([item.message_id for _, item in found], ["m1", "m2"])

    async def test_a_copy_is_kept_once_and_everything_seven_days(self) -> None:
        await self.engine.store_history(APP, historical("0", "alice", "bob", at=100), WEEK)
        self.assertEqual(len(await self.texts()), 4)
        self.wall += WEEK
        self.assertEqual(await self.engine.history(APP, HistoryQuery(), self.wall), [])


class LifeTest(LocalCase):
    async def test_before_start_and_after_stop_it_refuses(self) -> None:
        new = LocalEngine(self.path)
        with self.assertRaisesRegex(OSError, "not been started"):
            await new.claim(APP, "bob", "a")
            await new.claim(APP, "bob", "b")
        await self.engine.stop()
        await self.engine.stop()
        with self.assertRaisesRegex(OSError, "stopped"):
            await self.waiting()

    async def test_without_a_path_nothing_outlives_it(self) -> None:
        self.engine = LocalEngine.from_url("local:")
        await self.engine.start(self.node)
        self.addAsyncCleanup(self.engine.stop)
        await self.store("1")
        self.assertEqual(len(await self.engine.offline(APP, "bob", 0)), 1)
        await self.engine.stop()
        await self.engine.start(self.node)
        self.assertEqual(await self.engine.offline(APP, "bob", 0), [])

    async def test_a_url_names_its_folder(self) -> None:
        folder = self.folder() / "with space"
        engine = LocalEngine.from_url(f"local://{str(folder).replace(' ', '%20')}")
        await engine.start(self.node)
        await engine.stop()
        self.assertTrue((folder / "rtm.sqlite3").exists())
