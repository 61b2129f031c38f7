"""The rules that a hub and a transport without one share."""

from __future__ import annotations

import unittest

from hypothesis import given
from hypothesis import strategies as st

from rtm_sync import RtmTextMessage
from rtm_sync.protocol.requests import SendInvitation, SendMessageToPeer
from rtm_sync.protocol.values import InvitationStep
from rtm_sync.rules.idempotency import RecentIds
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import KeyedWindows, Rate
from rtm_sync.rules.requests import (
    CallRates,
    UserRates,
    announces_members,
    invitation_problem,
    join_refusal,
    listed_members,
    peer_message_refusal,
    peers_problem,
)


class CallRatesTest(unittest.TestCase):
    def test_each_kind_of_call_has_its_own_window(self) -> None:
        rates = CallRates(Limits(sends=Rate(2, 3.0), joins=Rate(1, 3.0)))
        self.assertEqual([rates.refusal("sends", 0.0) for _ in range(2)], [None, None])
        refusal = rates.refusal("sends", 2.9)
        assert refusal is not None
        self.assertEqual(refusal.reason, "TOO_OFTEN")
        self.assertEqual(refusal.message, "More sends than 2 in 3 s; slow down.")
        self.assertIsNone(rates.refusal("joins", 2.9))
        self.assertIsNone(rates.refusal("sends", 3.0))


class UserRatesTest(unittest.TestCase):
    def test_a_user_has_one_budget_which_is_forgotten_when_it_is_idle(self) -> None:
        rates = UserRates(Limits(sends=Rate(1, 3.0)), most=2)
        alice, bob, carol = (("app", uid) for uid in ("alice", "bob", "carol"))
        self.assertIsNone(rates.of(alice, 0.0).refusal("sends", 0.0))
        self.assertIsNotNone(rates.of(alice, 1.0).refusal("sends", 1.0))
        self.assertIsNone(rates.of(("other", "alice"), 2.0).refusal("sends", 2.0))
        self.assertIsNone(rates.of(bob, 3.0).refusal("sends", 3.0))  # alice is forgotten
        self.assertEqual(len(rates), 2)
        self.assertIsNone(rates.of(carol, 3.5).refusal("sends", 3.5))
        self.assertIsNotNone(rates.of(bob, 4.0).refusal("sends", 4.0))
        self.assertEqual(len(rates), 3)  # none was idle

    def test_a_flood_of_users_is_forgotten(self) -> None:
        rates = UserRates(Limits(sends=Rate(1, 3.0)), most=100)
        for number in range(1000):
            now = number / 10
            rates.of(("app", str(number)), now).refusal("sends", now)
        self.assertLessEqual(len(rates), 101)


class JoinTest(unittest.TestCase):
    def setUp(self) -> None:
        self.limits = Limits(joined_channels=2, same_channel_joins=Rate(1, 5.0))
        self.joins = KeyedWindows(self.limits.same_channel_joins)

    def reason(self, channel_id: str, *joined: str, now: float = 0.0) -> str | None:
        refusal = join_refusal(channel_id, joined, self.joins, self.limits, now)
        return None if refusal is None else refusal.reason

    def test_each_rule_refuses_with_its_own_reason_and_counts_only_what_it_allows(self) -> None:
        self.assertEqual(self.reason("a", "a"), "ALREADY_JOINED")
        self.assertEqual(self.reason("a", "b", "c"), "EXCEED_LIMIT")
        self.assertIsNone(self.reason("a", "b"))
        self.assertEqual(self.reason("a", "b", now=4.9), "JOIN_SAME_CHANNEL_TOO_OFTEN")
        self.assertIsNone(self.reason("a", "b", now=5.0))


class ProblemTest(unittest.TestCase):
    def test_users_that_a_request_names(self) -> None:
        self.assertIsNone(peers_problem(["a", "b"], 2))
        self.assertIsNone(peers_problem(["a"] * 1000, None))
        for peers, words in (([], "empty"), (["a"] * 3, "limit is 2"), (["a", "b/c"], "peer_id")):
            self.assertIn(words, peers_problem(peers, 2) or "")

    def test_a_message_to_a_peer(self) -> None:
        def reason(peer_id: str, message_id: str) -> str | None:
            message = RtmTextMessage("x")
            refusal = peer_message_refusal(SendMessageToPeer(peer_id, message, message_id))
            return None if refusal is None else refusal.reason

        self.assertIsNone(reason("bob", "a" * 20))
        self.assertEqual(reason("b/b", "a" * 20), "INVALID_USERID")
        self.assertEqual(reason("bob", ""), "INVALID_MESSAGE")

    def test_a_step_of_an_invitation(self) -> None:
        def problem(peer_id: str = "bob", content: str = "", channel_id: str = "") -> str | None:
            request = SendInvitation(peer_id, "a" * 20, InvitationStep.INVITE, content, channel_id)
            return invitation_problem(request, Limits(invitation_content=4))

        self.assertIsNone(problem(content="four", channel_id="room"))
        self.assertIn("peer_id", problem(peer_id="b/b") or "")
        self.assertIn("channel_id", problem(channel_id="b/b") or "")
        self.assertIn("6 bytes; the limit is 4", problem(content="äöü") or "")


class MemberTest(unittest.TestCase):
    def test_a_large_channel_announces_nobody_and_lists_a_choice(self) -> None:
        limits = Limits(announced_members=3)
        self.assertTrue(announces_members(3, limits))
        self.assertFalse(announces_members(4, limits))
        self.assertEqual(listed_members("abc", limits), "abc")
        self.assertEqual(listed_members("abcd", limits, lambda uids, most: uids[-most:]), "bcd")
        self.assertEqual(len(set(listed_members("abcdefgh", limits))), 3)


class RecentIdsTest(unittest.TestCase):
    def test_an_id_is_known_for_its_window_and_among_the_newest(self) -> None:
        ids = RecentIds(2, 10.0)
        self.assertTrue(ids.add("a", 0.0))
        self.assertFalse(ids.add("a", 10.0))
        self.assertTrue(ids.add("a", 10.1))
        self.assertTrue(ids.add("b", 11.0))
        self.assertTrue(ids.add("c", 11.0))  # and forgets "a"
        self.assertEqual(ids.items(), [("b", 11.0), ("c", 11.0)])
        ids.remove("b")
        self.assertTrue(ids.add("b", 11.0))

    def test_a_sender_pushes_out_its_own_ids_alone(self) -> None:
        ids = RecentIds(2, 10.0)
        for number in range(4):
            self.assertTrue(ids.add(number, 1.0, "alice"))
            self.assertEqual(ids.add(0, 1.0, "bob"), number == 0)
        self.assertFalse(ids.add(3, 1.0, "alice"))
        self.assertTrue(ids.add(0, 1.0, "alice"))

    def test_an_id_is_known_for_its_window_however_many_others_came(self) -> None:
        ids = RecentIds(1000, 120.0, 5)
        self.assertTrue(ids.add("first", 0.0, "alice"))
        for number in range(900):
            ids.add(number, number / 10, "alice")
            ids.add(number, number / 10, "bob")
        self.assertFalse(ids.add("first", 120.0, "alice"))
        self.assertTrue(ids.add("first", 120.1, "alice"))

    def test_the_newest_are_kept_beyond_the_window_and_the_others_take_no_room(self) -> None:
        ids = RecentIds(1000, 10.0, 5)
        for number in range(100):
            ids.add(number, 0.0, f"of {number % 7}")
        ids.add("late", 1000.0, "carol")
        self.assertEqual(len(ids.items()), 6)
        self.assertFalse(ids.add(99, 1000.0, "of 1"))

    def test_an_id_from_an_earlier_time_is_known_too(self) -> None:
        ids = RecentIds(10, 10.0)
        ids.restore("a", 3.0)
        ids.restore("a", 5.0)
        self.assertFalse(ids.add("a", 12.9))
        self.assertTrue(ids.add("a", 13.1))

    @given(st.lists(st.integers(0, 5)), st.integers(1, 4))
    def test_it_remembers_exactly_the_newest(self, keys: list[int], most: int) -> None:
        ids, newest = RecentIds(most), []
        for key in keys:
            self.assertEqual(ids.add(key), key not in newest)
            if key not in newest:
                newest = [*newest, key][-most:]
