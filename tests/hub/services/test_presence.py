"""Presence subscriptions: the node follows exactly the users that have subscribers."""

from __future__ import annotations

import asyncio

from rtm_sync.errors import PeerSubscriptionStatusError
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.protocol.events import PeersOnlineStatusChanged
from rtm_sync.protocol.frames import encode_call
from rtm_sync.protocol.requests import (
    Logout,
    QueryPeersBySubscriptionOption,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
)
from rtm_sync.protocol.values import PeerOnlineState, PeerSubscriptionOption

from ..support import APP, HubCase, User, eventually

ONLINE, OFFLINE = PeerOnlineState.ONLINE, PeerOnlineState.OFFLINE


class SlowEngine(LocalEngine):
    """An engine whose directory can be made slow or unreachable.

    Attributes:
        follows, unfollows: are waited for before a user is followed, or unfollowed.
        lost: uids that cannot be followed or unfollowed now.
        asked: how often it was asked to follow each user.
    """

    def __init__(self) -> None:
        super().__init__()
        self.follows, self.unfollows = asyncio.Event(), asyncio.Event()
        self.follows.set()
        self.unfollows.set()
        self.lost: set[str] = set()
        self.asked: dict[str, int] = {}

    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        self.asked[uid] = self.asked.get(uid, 0) + 1
        await self.follows.wait()
        state = await super().follow(app_id, uid)
        if uid in self.lost:
            raise OSError("the answer was lost")  # although the call was performed
        return state

    async def unfollow(self, app_id: str, uid: str) -> None:
        await self.unfollows.wait()
        if uid in self.lost:
            raise OSError("the cluster is away")
        await super().unfollow(app_id, uid)

    def followed(self) -> set[str]:
        return {uid for _, uid in self._followed}


class PresenceTest(HubCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.engine = SlowEngine()
        self.made = await self.hub(engine=self.engine)
        self.alice, self.bob = (
            await self.user(self.made, "alice"),
            await self.user(self.made, "bob"),
        )

    async def follows(self, *uids: str) -> None:
        """Wait until the node follows exactly these users."""
        await eventually(lambda: self.engine.followed() == set(uids), f"{self.engine.followed()}")

    async def subscriptions(self, user: User) -> tuple[str, ...]:
        option = PeerSubscriptionOption.ONLINE_STATUS
        return (await user.call(QueryPeersBySubscriptionOption(option))).user_ids

    def news(self, user: User, uid: str) -> list[PeerOnlineState]:
        """The reported states of a user, in order."""
        told = (item for item in user.received if isinstance(item, PeersOnlineStatusChanged))
        return [item.states[uid] for item in told if uid in item.states]

    async def test_a_user_is_followed_from_the_first_subscriber_to_the_last(self) -> None:
        await self.alice.call(subscribe("carol", "dora"))
        await self.bob.call(subscribe("carol"))
        await self.alice.call(subscribe("carol"))
        self.assertEqual(self.engine.asked, {"carol": 1, "dora": 1})
        await self.alice.call(unsubscribe("carol", "dora", "eve"))
        await self.follows("carol")
        carol = await self.user(self.made, "carol")
        await eventually(lambda: self.news(self.bob, "carol") == [OFFLINE, ONLINE])
        self.assertEqual(self.news(self.alice, "carol"), [OFFLINE, OFFLINE])
        await self.bob.call(unsubscribe("carol"))
        await self.follows()
        await carol.call(Logout())
        self.assertEqual(self.made.presence._followed, {})

    async def test_a_later_subscriber_is_told_the_newest_state(self) -> None:
        await self.alice.call(subscribe("carol"))
        await self.user(self.made, "carol")
        answer = await self.bob.call(subscribe("carol"))
        self.assertEqual(answer.states, {"carol": ONLINE})
        self.assertEqual(self.engine.asked, {"carol": 1})

    async def test_the_end_of_a_session_unfollows(self) -> None:
        await self.alice.call(subscribe("carol", "dora"))
        await self.bob.call(subscribe("dora"))
        await self.alice.call(Logout())
        await self.follows("dora")

    async def test_a_subscription_that_fails_leaves_nothing(self) -> None:
        await self.alice.call(subscribe("carol"))
        self.engine.lost = {"eve"}
        await self.refused("PEER_SUBSCRIPTION_STATUS_ERR_FAILURE", self.try_to_subscribe())
        self.assertEqual(await self.subscriptions(self.alice), ("carol",))
        await eventually(
            lambda: self.engine.followed() == {"carol", "eve"}
        )  # eve's cannot be ended
        await self.user(self.made, "eve")
        await self.user(self.made, "dora")
        self.assertEqual(self.news(self.alice, "eve") + self.news(self.alice, "dora"), [])
        self.engine.lost = set()
        answer = await self.alice.call(subscribe("dora", "eve"))
        self.assertEqual(answer.states, {"dora": ONLINE, "eve": ONLINE})
        await self.alice.call(unsubscribe("carol", "dora", "eve"))
        await self.follows()

    async def try_to_subscribe(self) -> None:
        await self.alice.call(subscribe("carol", "dora", "eve"))

    async def test_whoever_follows_although_the_answer_was_lost_is_unfollowed(self) -> None:
        self.engine.lost = {"eve"}
        self.engine.unfollows.clear()
        await self.refused("PEER_SUBSCRIPTION_STATUS_ERR_FAILURE", self.try_to_subscribe())
        self.engine.lost = set()
        self.engine.unfollows.set()
        await self.follows()

    async def test_a_subscriber_who_comes_while_the_user_is_unfollowed_is_told(self) -> None:
        await self.alice.call(subscribe("carol"))
        self.engine.unfollows.clear()
        await self.alice.call(unsubscribe("carol"))
        answering = asyncio.ensure_future(self.bob.call(subscribe("carol")))
        await eventually(lambda: self.bob.session.subscriptions)
        await self.user(self.made, "carol")
        self.engine.unfollows.set()
        self.assertEqual((await answering).states, {"carol": ONLINE})
        await self.follows("carol")
        await self.bob.call(unsubscribe("carol"))
        await self.follows()

    async def test_a_subscriber_who_takes_over_at_the_last_moment_is_told(self) -> None:
        await self.alice.call(subscribe("carol"))
        for user, request in ((self.alice, unsubscribe("carol")), (self.bob, subscribe("carol"))):
            self.made.receive(user.session, user, encode_call(77, request))
        await eventually(lambda: self.news(self.bob, "carol") == [OFFLINE])
        await self.user(self.made, "carol")
        await eventually(lambda: self.news(self.bob, "carol") == [OFFLINE, ONLINE])
        self.assertEqual(self.engine.asked, {"carol": 1})

    async def test_a_subscriber_who_comes_and_goes_while_the_user_is_unfollowed(self) -> None:
        await self.alice.call(subscribe("carol"))
        self.engine.unfollows.clear()
        await self.alice.call(unsubscribe("carol"))
        self.made.receive(self.bob.session, self.bob, encode_call(77, subscribe("carol")))
        await eventually(lambda: self.bob.session.subscriptions)
        await self.skip(0)  # its request waits until the other one ends
        self.made.end(self.bob.session)
        self.engine.unfollows.set()
        await eventually(lambda: not self.made.presence._followed)
        await self.skip(0)
        await self.follows()
        self.assertEqual(self.engine.asked, {"carol": 1})

    async def test_a_session_that_ends_while_it_subscribes_leaves_nothing(self) -> None:
        self.engine.follows.clear()
        self.made.receive(self.alice.session, self.alice, encode_call(1, subscribe("carol")))
        await eventually(lambda: self.engine.asked)
        self.made.end(self.alice.session)
        self.engine.follows.set()
        await eventually(lambda: not self.made.presence._followed)
        await self.follows()

    async def test_news_during_the_answer_is_not_taken_back(self) -> None:
        self.engine.follows.clear()
        answering = asyncio.ensure_future(self.bob.call(subscribe("carol")))
        await eventually(lambda: self.engine.asked)
        carol = await self.user(self.made, "carol")
        self.engine.follows.set()
        self.assertEqual((await answering).states, {"carol": ONLINE})
        await carol.call(Logout())
        await eventually(lambda: self.news(self.bob, "carol") == [ONLINE, OFFLINE])

    async def test_a_failed_request_leaves_what_another_of_the_same_session_asked_for(self) -> None:
        self.engine.follows.clear()
        first = asyncio.ensure_future(self.alice.call(subscribe("carol", "eve")))
        await eventually(lambda: "eve" in self.engine.asked)
        second = asyncio.ensure_future(self.alice.call(subscribe("carol")))
        await eventually(
            lambda: (
                self.made.presence._followed[APP, "carol"].subscribers[self.alice.session].peer_ids
                == ("carol",)
            )
        )
        self.engine.lost = {"eve"}
        self.engine.follows.set()
        with self.assertRaises(PeerSubscriptionStatusError):
            await first
        self.assertEqual((await second).states, {"carol": OFFLINE})
        self.assertEqual(await self.subscriptions(self.alice), ("carol",))
        self.assertEqual(set(self.made.presence._followed), {(APP, "carol")})

    async def test_requests_at_once_that_all_fail_leave_nothing(self) -> None:
        self.engine.lost = {"eve"}
        self.engine.follows.clear()
        calls = [asyncio.ensure_future(self.alice.call(subscribe("eve"))) for _ in range(3)]
        await eventually(lambda: self.engine.asked)
        self.engine.follows.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        self.assertEqual({type(item) for item in outcomes}, {PeerSubscriptionStatusError})
        self.assertEqual(await self.subscriptions(self.alice), ())
        await eventually(lambda: not self.made.presence._followed)


def subscribe(*uids: str) -> SubscribePeersOnlineStatus:
    return SubscribePeersOnlineStatus(uids)


def unsubscribe(*uids: str) -> UnsubscribePeersOnlineStatus:
    return UnsubscribePeersOnlineStatus(uids)
