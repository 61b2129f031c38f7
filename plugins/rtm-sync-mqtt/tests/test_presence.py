"""Presence, members, invitations and tokens, beyond the contract's tests."""

from __future__ import annotations

import queue

from rtm_sync import (
    AttributeOperationError,
    GetMembersError,
    PeerOnlineState,
    PeerSubscriptionStatusError,
    QueryPeersOnlineStatusError,
    RemoteInvitation,
)
from rtm_sync.testing import wait_until

from .broker import running_broker
from .test_mqtt import PATIENCE, BrokerCase, cut, hashed

ONLINE, OFFLINE = PeerOnlineState.ONLINE, PeerOnlineState.OFFLINE


class PresenceTest(BrokerCase):
    def test_who_is_online_is_answered_in_the_order_asked(self) -> None:
        alice = self.client("alice")
        self.client("bob")
        found = alice.query_peers_online_status(["nobody", "bob", "alice"])
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
        self.client("bob")  # a takeover does not report the user as offline
        wait_until(lambda: bob.connection_state == "ABORTED", PATIENCE)
        bob = self.client("bob")
        bob.logout()
        self.assertEqual(self.next_of(news), ({"bob": OFFLINE},))
        alice.logout()
        alice.login("alice")
        self.assertEqual(alice.query_peers_by_subscription_option(), [])

    def test_a_will_tells_subscribers_as_well(self) -> None:
        proxy, through = self.proxied(f"{self.url}?grace=1")
        alice = self.client("alice")
        self.client("bob", url=through)
        news = self.listen(alice, "PeersOnlineStatusChanged")
        alice.subscribe_peers_online_status(["bob"])
        cut(proxy)
        told = [self.next_of(news) for _ in range(2)]
        self.assertEqual(told, [({"bob": ONLINE},), ({"bob": OFFLINE},)])

    def test_what_changed_while_a_session_was_lost_is_told_when_it_is_back(self) -> None:
        with running_broker() as broker:
            url = broker.url()
            alice, bob = self.client("alice", url=url), self.client("bob", url=url)
            news = self.listen(alice, "PeersOnlineStatusChanged")
            alice.subscribe_peers_online_status(["bob"])
            self.assertEqual(self.next_of(news), ({"bob": ONLINE},))
            broker.stop()
            bob.close()
            broker.start()
            self.assertEqual(self.next_of(news), ({"bob": OFFLINE},))
            alice.close()

    def test_more_users_than_are_followed_are_asked_for_and_answered(self) -> None:
        alice = self.client("alice")
        self.client("bob")
        for first in range(0, 1280, 256):
            ids = [f"u{number}" for number in range(first, first + 256)]
            self.assertFalse(any(alice.query_peers_online_status(ids).values()))
        self.assertTrue(alice.send_message_to_peer("hi", "bob").has_peer_received)

    def test_bad_questions_are_refused(self) -> None:
        alice = self.client("alice")
        many = [f"u{number}" for number in range(513)]
        for ids in ([], ["a/b"], many[:257]):
            with self.assertRaises(QueryPeersOnlineStatusError) as query:
                alice.query_peers_online_status(ids)
            self.assertEqual(query.exception.reason, "INVALID_ARGUMENT")
        with self.assertRaises(PeerSubscriptionStatusError) as subscription:
            alice.subscribe_peers_online_status(many)
        self.assertEqual(subscription.exception.reason, "OVERFLOW")


class MemberTest(BrokerCase):
    def test_members_are_listed_by_members_alone(self) -> None:
        rooms = [self.client(name).create_channel("room") for name in ("alice", "bob", "carol")]
        for room in rooms[:2]:
            room.join()
        wait_until(lambda: len(rooms[0].get_members()) == 2, PATIENCE)
        self.assertEqual(sorted(rooms[1].get_members()), ["alice", "bob"])
        with self.assertRaises(GetMembersError) as caught:
            rooms[2].get_members()
        self.assertEqual(caught.exception.reason, "NOT_IN_CHANNEL")


class InvitationTest(BrokerCase):
    def test_an_invitation_goes_there_and_its_answer_back(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        arrived: queue.SimpleQueue[RemoteInvitation] = queue.SimpleQueue()
        bob.on("RemoteInvitationReceived", arrived.put)
        mine = alice.create_local_invitation("bob")
        mine.content = "come and see"
        told = self.listen(mine, "LocalInvitationReceivedByPeer", "LocalInvitationAccepted")
        mine.send()
        theirs = arrived.get(timeout=PATIENCE)
        self.assertEqual((theirs.caller_id, theirs.content), ("alice", "come and see"))
        theirs.accept("coming")
        self.assertEqual([self.next_of(told) for _ in range(2)], [(), ("coming",)])


class TokenTest(BrokerCase):
    def test_a_renewed_token_is_presented_at_the_next_connection(self) -> None:
        folder = self.folder()
        passwords = folder / "passwords"
        passwords.write_text(f"{hashed('alice', 'first')}\n")
        passwords.chmod(0o600)
        with running_broker(f"password_file {passwords}") as broker:
            alice = self.client(url=broker.url())
            alice.login("alice", "first")
            back = self.listen(alice, "Reconnected")
            alice.renew_token("second")
            broker.stop()
            passwords.write_text(f"{hashed('alice', 'second')}\n")
            broker.start()
            self.assertEqual(self.next_of(back), (False,))
            alice.close()


class BeyondTest(BrokerCase):
    def test_what_only_a_hub_knows_is_refused_with_the_way_out(self) -> None:
        with self.assertRaisesRegex(AttributeOperationError, "use a gateway") as caught:
            self.client("alice").get_user_attributes("bob")
        self.assertEqual(caught.exception.reason, "FAILURE")
