"""`ScriptedPeer`: a user that a test plays."""

from __future__ import annotations

import threading
import time

from rtm_sync import LoginError, RtmClient, RtmTextMessage
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.testing import ScriptedPeer, local_gateway
from tests.support import PATIENCE, RtmTestCase

SECRET = "a secret of thirty-two bytes, or more"


class ScriptedPeerTest(RtmTestCase):
    def setUp(self) -> None:
        self.url = f"memory://{self.id()}"
        self.alice = self.entered(RtmClient("app", url=self.url))
        self.alice.login("alice")

    def peer(self, uid: str = "bob") -> ScriptedPeer:
        return self.entered(ScriptedPeer("app", uid, url=self.url))

    def test_what_came_before_it_was_expected_counts_once(self) -> None:
        bob = self.peer()
        self.alice.send_message_to_peer("hello", "bob")
        message, sender, _ = bob.expect("MessageFromPeer")
        self.assertEqual((message, sender), (RtmTextMessage("hello"), "alice"))
        with self.assertRaises(AssertionError):
            bob.expect("MessageFromPeer", timeout=0)

    def test_what_comes_later_is_waited_for(self) -> None:
        bob = self.peer()
        later = threading.Timer(0.05, self.alice.send_message_to_peer, ("at last", "bob"))
        later.start()
        self.assertEqual(bob.expect("message_from_peer")[0].text, "at last")
        later.join()

    def test_the_first_that_fits_is_taken_and_the_others_stay_in_order(self) -> None:
        bob = self.peer()
        for text in ("one", "two", "three", "two"):
            self.alice.send_message_to_peer(text, "bob")
        bob.expect("MessageFromPeer", lambda message, *_: message.text == "two")
        left = [event.args[0].text for event in bob.unexpected()]
        self.assertEqual(left, ["one", "three", "two"])

    def test_what_never_comes_fails_and_says_what_came_instead(self) -> None:
        bob = self.peer()
        self.alice.send_message_to_peer("something else", "bob")
        bob.expect("MessageFromPeer", lambda message, *_: message.text == "something else")
        self.alice.send_message_to_peer("wrong", "bob")
        with self.assertRaises(AssertionError) as caught:
            bob.expect("MessageFromPeer", lambda message, *_: message.text == "right", timeout=0.1)
        said = str(caught.exception)
        self.assertIn("bob got no MessageFromPeer that `where` accepts within 0.1 seconds", said)
        self.assertIn("RtmTextMessage(text='wrong'", said)
        self.assertNotIn("something else", said)

    def test_events_of_the_channels_it_joined_are_remembered_once(self) -> None:
        bob = self.peer()
        bob.join("cats").leave()
        bob.join("cats")
        cats = self.alice.create_channel("cats")
        cats.join()
        cats.send_message("meow")
        self.assertEqual(bob.expect("MemberJoined"), ("alice",))
        self.assertEqual(bob.expect("ChannelMessage")[1], "alice")
        self.assertEqual(bob.unexpected(), [])

    def test_it_answers_by_handlers_of_its_own(self) -> None:
        bob = self.peer()
        bob.on("MessageFromPeer", lambda _, sender, __: bob.send_message_to_peer("yes?", sender))
        with self.alice.events("MessageFromPeer") as answers:
            self.alice.send_message_to_peer("bob!", "bob")
            answer = next(answers.until(5)).args[0]
        self.assertEqual(answer.text, "yes?")

    def test_a_handler_may_ask_for_the_unexpected(self) -> None:
        bob, asked = self.peer(), []

        @bob.on("MessageFromPeer")
        def ask(*_: object) -> None:
            began = time.monotonic()
            names = [event.name for event in bob.unexpected()]
            asked.append((names, time.monotonic() - began < PATIENCE / 2))

        self.alice.send_message_to_peer("hello", "bob")
        self.assertEqual([event.name for event in bob.unexpected()], ["MessageFromPeer"])
        self.assertEqual(asked, [(["MessageFromPeer"], True)])

    def test_the_unexpected_is_complete_once_all_handlers_have_run(self) -> None:
        bob, ran = self.peer(), []
        bob.on("MessageFromPeer", lambda *_: ran.append(threading.Event().wait(0.05)))
        for _ in range(4):
            self.alice.send_message_to_peer("hello", "bob")
        self.assertEqual((len(bob.unexpected()), len(ran)), (4, 4))

    def test_what_its_handlers_raise_fails_the_block(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.peer_block() as bob:
            bob.on("MessageFromPeer", lambda *_: 1 / 0)
            self.alice.send_message_to_peer("boom", "bob")
            bob.expect("MessageFromPeer")

    def test_the_blocks_own_failure_comes_before_a_handlers(self) -> None:
        with self.assertRaisesRegex(AssertionError, "no TokenExpired"), self.peer_block() as bob:
            bob.on("MessageFromPeer", lambda *_: 1 / 0)
            self.alice.send_message_to_peer("boom", "bob")
            bob.expect("MessageFromPeer")
            bob.expect("TokenExpired", timeout=0)

    def peer_block(self) -> ScriptedPeer:
        return ScriptedPeer("app", "bob", url=self.url)

    def test_an_event_that_there_is_not_is_an_error_of_the_test(self) -> None:
        with self.assertRaisesRegex(ValueError, "ScriptedPeer has no event 'MessageFromPeers'"):
            self.peer().expect("MessageFromPeers")

    def test_it_logs_in_with_its_token_and_leaves_nothing_when_it_cannot(self) -> None:
        with local_gateway(app_id="app", app_secret=SECRET) as url:
            token = make_token("app", "carol", SECRET)
            with ScriptedPeer("app", "carol", url=url, token=token) as carol:
                self.assertEqual(carol.uid, "carol")
            with self.assertRaises(LoginError), ScriptedPeer("app", "dave", url=url, token=token):
                self.fail("dave must not get in with carol's token")
