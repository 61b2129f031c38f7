"""Presence, attributes, member lists and counts: the same over both transports."""

from __future__ import annotations

import itertools
from typing import Any

from rtm_sync import PeerOnlineState
from rtm_sync.client.events import EventStream
from rtm_sync.testing import TransportContract
from tests.support import RtmTestCase, local_gateway

ONLINE, OFFLINE = PeerOnlineState.ONLINE, PeerOnlineState.OFFLINE
_numbers = itertools.count()


class ApiCase(RtmTestCase):
    """Clients of one hub; the subclasses say which."""

    client = TransportContract.client
    listen = TransportContract.listen
    next_of = TransportContract.next_of
    refused = TransportContract.refused

    def url(self) -> str:
        raise NotImplementedError


class _PresenceCases(ApiCase):
    def test_who_is_online_is_answered_in_the_order_asked(self) -> None:
        alice = self.client("alice")
        self.client("bob")
        asked = ["nobody", "bob", "alice"]
        found = alice.query_peers_online_status(asked)
        self.assertEqual(list(found.items()), [("nobody", False), ("bob", True), ("alice", True)])

    def test_a_subscription_tells_the_state_at_once_and_each_change(self) -> None:
        alice = self.client("alice")
        news = self.listen(alice, "PeersOnlineStatusChanged")
        alice.subscribe_peers_online_status(["bob", "carol"])
        self.assertEqual(self.next_of(news), ({"bob": OFFLINE, "carol": OFFLINE},))
        bob = self.client("bob")
        self.assertEqual(self.next_of(news), ({"bob": ONLINE},))
        self.assertEqual(alice.query_peers_by_subscription_option(), ["bob", "carol"])
        alice.unsubscribe_peers_online_status(["carol"])
        self.client("carol")
        bob.logout()
        self.assertEqual(self.next_of(news), ({"bob": OFFLINE},))
        self.assertEqual(alice.query_peers_by_subscription_option("ONLINE_STATUS"), ["bob"])

    def test_a_logout_ends_the_subscriptions(self) -> None:
        alice = self.client("alice")
        alice.subscribe_peers_online_status(["bob"])
        alice.logout()
        alice.login("alice")
        self.assertEqual(alice.query_peers_by_subscription_option(), [])

    def test_bad_questions_name_the_argument_and_the_limit(self) -> None:
        alice = self.client("alice")
        query, subscribe = "QUERY_PEERS_ONLINE_STATUS_ERR_", "PEER_SUBSCRIPTION_STATUS_ERR_"
        many = [f"u{number}" for number in range(513)]
        for name, call, ids in (
            (query + "INVALID_ARGUMENT", alice.query_peers_online_status, []),
            (query + "INVALID_ARGUMENT", alice.query_peers_online_status, "bob"),
            (query + "INVALID_ARGUMENT", alice.query_peers_online_status, ["a/b"]),
            (query + "INVALID_ARGUMENT", alice.query_peers_online_status, many[:257]),
            (subscribe + "INVALID_ARGUMENT", alice.subscribe_peers_online_status, [""]),
            (subscribe + "OVERFLOW", alice.subscribe_peers_online_status, many),
        ):
            with self.subTest(name, ids=len(ids)):
                self.refused(name, call, ids)
        self.assertEqual(len(alice.query_peers_online_status(many[:256])), 256)
        alice.subscribe_peers_online_status(many[:512])
        alice.subscribe_peers_online_status(many[:10])
        self.refused(subscribe + "OVERFLOW", alice.subscribe_peers_online_status, ["one-more"])


class _AttributeCases(ApiCase):
    def test_a_users_attributes_are_read_by_everybody_while_it_is_there(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        alice.set_local_user_attributes({"name": "Alice", "mood": "fine"})
        alice.add_or_update_local_user_attributes({"mood": "better", "hat": "yes"})
        alice.delete_local_user_attributes_by_keys(["hat", "unknown"])
        self.assertEqual(bob.get_user_attributes("alice"), {"name": "Alice", "mood": "better"})
        self.assertEqual(
            bob.get_user_attributes_by_keys("alice", ["mood", "x"]), {"mood": "better"}
        )
        alice.clear_local_user_attributes()
        self.assertEqual(bob.get_user_attributes("alice"), {})
        alice.set_local_user_attributes({"name": "Alice"})
        alice.logout()
        self.refused("ATTRIBUTE_OPERATION_ERR_USER_NOT_FOUND", bob.get_user_attributes, "alice")
        alice.login("alice")
        self.assertEqual(bob.get_user_attributes("alice"), {})

    def test_a_channels_attributes_need_no_membership_and_tell_members_when_asked(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        room = bob.create_channel("room")
        room.join()
        news = self.listen(room, "AttributesUpdated")
        alice.set_channel_attributes("room", {"topic": "cats", "open": "yes"})
        alice.add_or_update_channel_attributes(
            "room", {"topic": "dogs"}, enable_notification_to_channel_members=True
        )
        (told,) = self.next_of(news)
        self.assertEqual(
            {key: item.value for key, item in told.items()}, {"topic": "dogs", "open": "yes"}
        )
        found = bob.get_channel_attributes_by_keys("room", ["topic"])
        self.assertEqual(list(found), ["topic"])
        self.assertEqual(
            (found["topic"].value, found["topic"].last_update_user_id), ("dogs", "alice")
        )
        self.assertGreaterEqual(found["topic"].last_update_ts, told["open"].last_update_ts)
        bob.delete_channel_attributes_by_keys("room", ["open"])
        self.assertEqual(set(alice.get_channel_attributes("room")), {"topic"})
        bob.clear_channel_attributes("room", enable_notification_to_channel_members=True)
        self.assertEqual(self.next_of(news), ({},))

    def test_every_limit_has_its_error(self) -> None:
        alice = self.client("alice")
        invalid, too_large = (
            "ATTRIBUTE_OPERATION_ERR_INVALID_ARGUMENT",
            "ATTRIBUTE_OPERATION_ERR_SIZE_OVERFLOW",
        )
        big = "x" * 8192
        for name, attributes in (
            (invalid, {}),
            (invalid, {"": "x"}),
            (invalid, {"k" * 33: "x"}),
            (invalid, {"a\nb": "x"}),
            (invalid, {"k": ""}),
            (invalid, {"k": 7}),
            (invalid, ["k"]),
            (too_large, {"k": big + "x"}),
            (too_large, {"k1": big, "k2": big}),
            (too_large, {f"k{number}": "x" for number in range(33)}),
        ):
            with self.subTest(str(attributes)[:30]):
                given: Any = attributes
                self.refused(name, alice.set_local_user_attributes, given)
        alice.set_local_user_attributes({"k" * 32: big})
        # The merged result counts, too.
        self.refused(too_large, alice.add_or_update_local_user_attributes, {"more": big})
        self.assertEqual(set(alice.get_user_attributes("alice")), {"k" * 32})
        alice.set_channel_attributes("room", {f"k{n}": "x" * 8000 for n in range(4)})
        self.refused(too_large, alice.add_or_update_channel_attributes, "room", {"more": "x" * 800})
        self.refused(invalid, alice.set_channel_attributes, "ä", {"k": "v"})
        self.refused(invalid, alice.get_user_attributes_by_keys, "alice", [])
        self.refused(invalid, alice.delete_local_user_attributes_by_keys, "k")


class _MemberCases(ApiCase):
    def counted(self, stream: EventStream, count: int) -> None:
        """Wait until that count is told; earlier ones may come before."""
        for _ in range(10):
            if self.next_of(stream) == (count,):
                return
        self.fail(f"the count {count} was never told")

    def test_members_are_listed_and_counted(self) -> None:
        clients = [self.client(name) for name in ("alice", "bob", "carol")]
        rooms = [client.create_channel("room") for client in clients]
        counts = self.listen(rooms[0], "MemberCountUpdated")
        for room in rooms[:2]:
            room.join()
        self.assertEqual(sorted(rooms[0].get_members()), ["alice", "bob"])
        self.counted(counts, 2)
        self.assertEqual(
            clients[2].get_channel_member_count(["empty", "room"]), {"empty": 0, "room": 2}
        )
        self.refused("GET_MEMBERS_ERR_NOT_IN_CHANNEL", rooms[2].get_members)
        rooms[1].leave()
        self.counted(counts, 1)

    def test_counting_has_its_limits(self) -> None:
        alice = self.client("alice")
        ids = [f"c{number}" for number in range(33)]
        prefix = "GET_CHANNEL_MEMBER_COUNT_ERR_"
        self.refused(prefix + "INVALID_ARGUMENT", alice.get_channel_member_count, [])
        self.refused(prefix + "EXCEED_LIMIT", alice.get_channel_member_count, ids)
        alice.get_channel_member_count(ids[:32])
        self.refused(prefix + "TOO_OFTEN", alice.get_channel_member_count, ids[:1])

    def test_who_is_not_logged_in_is_told_so(self) -> None:
        client = self.client()
        room = client.create_channel("room")
        for prefix, call in (
            ("ATTRIBUTE_OPERATION_ERR_", lambda: client.get_user_attributes("bob")),
            ("GET_MEMBERS_ERR_", room.get_members),
            ("GET_CHANNEL_MEMBER_COUNT_ERR_", lambda: client.get_channel_member_count(["c"])),
            ("QUERY_PEERS_ONLINE_STATUS_ERR_", lambda: client.query_peers_online_status(["b"])),
            ("PEER_SUBSCRIPTION_STATUS_ERR_", lambda: client.subscribe_peers_online_status(["b"])),
            (
                "QUERY_PEERS_BY_SUBSCRIPTION_OPTION_ERR_",
                client.query_peers_by_subscription_option,
            ),
            ("RENEW_TOKEN_ERR_", lambda: client.renew_token("t")),
            ("HISTORY_ERR_", room.get_history),
        ):
            self.refused(prefix + "USER_NOT_LOGGED_IN", call)


class _Embedded(ApiCase):
    def setUp(self) -> None:
        self._url = f"memory://api-{next(_numbers)}"

    def url(self) -> str:
        return self._url


class _Gateway(ApiCase):
    def setUp(self) -> None:
        self._url = self.entered(local_gateway(self.folder()))

    def url(self) -> str:
        return self._url


class EmbeddedPresenceTest(_Embedded, _PresenceCases):
    pass


class GatewayPresenceTest(_Gateway, _PresenceCases):
    pass


class EmbeddedAttributeTest(_Embedded, _AttributeCases):
    pass


class GatewayAttributeTest(_Gateway, _AttributeCases):
    pass


class EmbeddedMemberTest(_Embedded, _MemberCases):
    pass


class GatewayMemberTest(_Gateway, _MemberCases):
    pass


def load_tests(loader: Any, tests: Any, pattern: Any) -> Any:
    """Only the classes that have a hub."""
    suite = type(tests)()
    for case in (
        EmbeddedPresenceTest,
        GatewayPresenceTest,
        EmbeddedAttributeTest,
        GatewayAttributeTest,
        EmbeddedMemberTest,
        GatewayMemberTest,
    ):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
