"""The channel objects of a client: how long each lives, and what it keeps meanwhile."""

from __future__ import annotations

import threading
import weakref

from rtm_sync import RtmClient
from rtm_sync.client.channel import RtmChannel
from rtm_sync.client.handlers import MessageHandler
from rtm_sync.messages import RtmMessage, RtmTextMessage
from tests.support import PATIENCE, RtmTestCase, wait_until


class ChannelLifeTest(RtmTestCase):
    def setUp(self) -> None:
        self.alice = self.entered(RtmClient("app"))
        self.bob = self.entered(RtmClient("app"))
        for client, uid in ((self.alice, "alice"), (self.bob, "bob")):
            client.login(uid)
        self.theirs = self.bob.create_channel("room")
        self.theirs.join()

    def test_one_that_was_left_and_is_not_held_is_released(self) -> None:
        released = []
        for number in range(50):
            channel = self.alice.create_channel(f"room {number}")
            channel.join()
            channel.leave()
            released.append(weakref.ref(channel))
        del channel
        wait_until(lambda: [life() for life in released] == [None] * len(released))

    def test_one_that_is_held_is_always_the_same(self) -> None:
        held = self.alice.create_channel("room")
        held.join()
        held.leave()
        self.assertIs(self.alice.create_channel("room"), held)

    def test_one_with_handlers_keeps_them_from_before_the_join_to_the_next_one(self) -> None:
        got: list[str] = []
        arrived = threading.Event()

        def on_message(message: RtmMessage, *_: object) -> None:
            assert isinstance(message, RtmTextMessage)
            got.append(message.text)
            arrived.set()

        self.alice.create_channel("room").on("ChannelMessage", on_message)
        for text in ("first", "second"):
            arrived.clear()
            self.alice.create_channel("room").join()
            self.theirs.send_message(text)
            self.assertTrue(arrived.wait(PATIENCE))
            self.alice.create_channel("room").leave()
        self.assertEqual(got, ["first", "second"])

    def test_one_with_a_stream_keeps_it(self) -> None:
        with self.alice.create_channel("room").events("ChannelMessage") as arriving:
            for text in ("first", "second"):
                self.alice.create_channel("room").join()
                self.theirs.send_message(text)
                message = next(arriving.until(PATIENCE)).args[0]
                self.assertEqual(message.text, text)
                self.alice.create_channel("room").leave()

    def watched(self) -> weakref.ref[RtmChannel]:
        """A joined channel that nothing but its handler keeps."""
        channel = self.alice.create_channel("room")
        channel.on("ChannelMessage", self.handler_of(threading.Event()))
        channel.join()
        return weakref.ref(channel)

    def handler_of(self, happened: threading.Event) -> MessageHandler:
        def handler(*_: object) -> None:
            happened.set()

        self.handler = handler
        return handler

    def test_without_its_last_handler_it_is_released(self) -> None:
        life = self.watched()
        self.assertIsNotNone(life())
        self.alice.create_channel("room").off("ChannelMessage", self.handler)
        self.assertIsNone(life())
        self.alice.create_channel("room").leave()
        life = self.watched()
        self.alice.create_channel("room").remove_all_listeners()
        self.assertIsNone(life())

    def test_a_handler_of_one_event_releases_it_with_that_event(self) -> None:
        happened = threading.Event()
        channel = self.alice.create_channel("room")
        channel.once("ChannelMessage", self.handler_of(happened))
        channel.join()
        life = weakref.ref(channel)
        del channel
        self.theirs.send_message("go")
        self.assertTrue(happened.wait(PATIENCE))
        wait_until(lambda: life() is None)

    def test_after_the_end_a_new_one_waits_for_nothing(self) -> None:
        self.alice.close()
        with self.alice.create_channel("another room").events() as arriving:
            self.assertEqual(list(arriving), [])
