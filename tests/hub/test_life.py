"""An ended session has no registered state, and every created session ends."""

from __future__ import annotations

import asyncio
from unittest import mock

from rtm_sync.errors import RtmError
from rtm_sync.hub.engine.directory import Claim
from rtm_sync.hub.engine.mailbox import StoredMessages
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.node import Hub
from rtm_sync.hub.registry import SessionEnd
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.frames import encode_call
from rtm_sync.protocol.requests import (
    GetChannelMemberCount,
    GetMembers,
    GetUserAttributes,
    JoinChannel,
    LeaveChannel,
    Login,
    Logout,
    QueryPeersOnlineStatus,
    Request,
    SendMessageToPeer,
    SubscribePeersOnlineStatus,
)
from rtm_sync.protocol.values import ChannelPosition, PeerOnlineState, UserIds
from rtm_sync.rules.limits import Limits

from .support import APP, HubCase, User, eventually, spec


class GatedEngine(LocalEngine):
    """An engine whose answers take time: a call of a gated method waits at `gate`.

    Attributes:
        gated: the methods that wait.
        waiting: how many calls wait.
    """

    def __init__(self, *gated: str) -> None:
        super().__init__()
        self.gated = set(gated)
        self.gate = asyncio.Event()
        self.waiting = 0

    async def _pass(self, name: str) -> None:
        if name in self.gated:
            self.waiting += 1
            await self.gate.wait()
            self.waiting -= 1

    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        await self._pass("claim")
        return await super().claim(app_id, uid, session_id)

    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        await self._pass("join")
        await super().join(app_id, channel_id, uid, session_id)

    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        await self._pass("follow")
        return await super().follow(app_id, uid)

    async def banned_until(self, app_id: str, uid: str) -> float:
        await self._pass("banned_until")
        return await super().banned_until(app_id, uid)


def burst(user: User, *requests: Request[object]) -> None:
    """Several calls that arrive in one read of a socket, before the first is answered."""
    for number, request in enumerate(requests, 1000):
        user.hub.receive(user.session, user, encode_call(number, request))


class LoginTest(HubCase):
    async def online(self, hub: Hub, uid: str) -> bool:
        return (await hub.presence.states(APP, [uid]))[uid] is not PeerOnlineState.OFFLINE

    async def test_a_login_that_nobody_attaches_ends(self) -> None:
        hub = await self.hub()
        await hub.login(Login(APP, "alice"), User(hub))
        self.assertTrue(await self.online(hub, "alice"))
        await self.skip(11.0)
        self.assertEqual(hub.session_count, 0)
        self.assertFalse(await self.online(hub, "alice"))

    async def test_a_message_for_a_login_that_nobody_attaches_is_kept(self) -> None:
        hub = await self.hub(limits=Limits(receipt_timeout=60.0))
        alice = await self.user(hub)
        session, _ = await hub.login(Login(APP, "bob"), User(hub))
        request = SendMessageToPeer(
            "bob", RtmTextMessage("hi"), "m1", enable_offline_messaging=True
        )
        send = asyncio.ensure_future(alice.call(request))
        await eventually(lambda: len(session.outbox) == 1)
        await self.skip(11.0)
        self.assertTrue((await send).cached_by_server)

    async def test_a_login_whose_connection_is_lost_before_its_answer_ends_at_once(self) -> None:
        hub = await self.hub()
        user = User(hub)
        session, _ = await hub.login(Login(APP, "alice"), user)
        hub.detach(session, user)
        self.assertEqual(hub.session_count, 0)
        await eventually(lambda: not hub._tasks)
        self.assertFalse(await self.online(hub, "alice"))

    async def test_a_login_that_is_cancelled_while_it_is_claimed_leaves_nothing(self) -> None:
        engine = GatedEngine("claim")
        with mock.patch("rtm_sync.hub.node._ATTACH_TIME", 3600.0):  # it does not wait for that
            hub = await self.hub(engine=engine)
        login = asyncio.ensure_future(hub.login(Login(APP, "alice"), User(hub)))
        await eventually(lambda: engine.waiting)
        login.cancel()
        await asyncio.wait([login])
        self.assertTrue(login.cancelled())
        engine.gate.set()
        await eventually(lambda: hub.session_count == 0)
        await eventually(lambda: not hub._tasks)
        self.assertFalse(await self.online(hub, "alice"))

    async def test_a_login_that_fails_at_its_claim_leaves_nothing(self) -> None:
        class Failing(LocalEngine):
            async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
                raise error

        for error in (OSError("away"), KeyError("a bug"), asyncio.CancelledError()):
            with self.subTest(error=error):
                hub = await self.hub(engine=Failing())
                with self.assertRaises(type(error)):
                    await hub.login(Login(APP, "alice"), User(hub))
                self.assertEqual(hub.session_count, 0)

    async def test_a_session_that_ends_while_it_is_claimed_is_refused_and_released(self) -> None:
        engine = GatedEngine("claim")
        hub = await self.hub(engine=engine)
        login = asyncio.ensure_future(hub.login(Login(APP, "alice"), User(hub)))
        await eventually(lambda: engine.waiting)
        self.assertEqual(hub.session_count, 1)  # registered before its claim is awaited
        await self.skip(11.0)
        self.assertEqual(hub.session_count, 0)
        engine.gate.set()
        await self.refused("LOGIN_ERR_REJECTED", login)
        await eventually(lambda: not hub._tasks)
        self.assertFalse(await self.online(hub, "alice"))

    async def test_a_hub_that_stops_meanwhile_takes_nobody_in(self) -> None:
        engine = GatedEngine("banned_until")
        hub = await self.hub(engine=engine)
        login = asyncio.ensure_future(hub.login(Login(APP, "alice"), User(hub)))
        await eventually(lambda: engine.waiting)
        stopping = asyncio.ensure_future(hub.stop())
        await asyncio.sleep(0)
        engine.gate.set()
        with self.assertRaisesRegex(OSError, "stopping"):
            await login
        await stopping
        self.assertEqual(hub.session_count, 0)

    async def test_sessions_that_wait_for_their_claim_count_against_the_limit(self) -> None:
        engine = GatedEngine("claim")
        hub = await self.hub(engine=engine, limits=Limits(sessions=2))
        logins = [
            asyncio.ensure_future(hub.login(Login(APP, uid), User(hub))) for uid in ("a", "b")
        ]
        await eventually(lambda: engine.waiting == 2)
        await self.refused("LOGIN_ERR_REJECTED", hub.login(Login(APP, "c"), User(hub)))
        engine.gate.set()
        await asyncio.gather(*logins)

    async def test_an_error_in_what_waits_for_a_user_does_not_hold_up_the_rest(self) -> None:
        class Damaged(LocalEngine):
            async def waiting(
                self, app_id: str, uid: str, after: int, limit: int
            ) -> StoredMessages:
                raise KeyError("a bug")

        with self.assertLogs("rtm_sync", "ERROR"):
            hub = await self.hub(engine=Damaged())
            alice, bob = await self.user(hub), await self.user(hub, "bob")
            await alice.call(SendMessageToPeer("bob", RtmTextMessage("hi"), "m1"))
            self.assertEqual(bob.texts(), ["hi"])


class EndedTest(HubCase):
    async def test_frames_behind_a_logout_do_nothing(self) -> None:
        hub = await self.hub()
        watcher = await self.user(hub, "watcher")
        for number in range(3):
            ghost = await self.user(hub, f"ghost{number}")
            burst(
                ghost,
                Logout(),
                JoinChannel("room"),
                SubscribePeersOnlineStatus(("x1", "x2")),
                SendMessageToPeer("watcher", RtmTextMessage("late"), "m1"),
            )
        await eventually(lambda: hub.session_count == 1)
        await watcher.call(JoinChannel("room"))
        self.assertEqual(await watcher.call(GetMembers("room")), UserIds(("watcher",)))
        self.assertEqual(hub.presence._followed, {})
        self.assertEqual(watcher.texts(), [])

    async def test_an_observer_that_fails_keeps_no_ended_user_online(self) -> None:
        def observe(app_id: str, kind: str, event: dict[str, object]) -> None:
            if event["type"] == "Logout" and event["user_id"] != "watcher":
                raise ValueError(f"no good: {event['user_id']}")

        hub = await self.hub(observe=observe, limits=Limits(session_grace=0.2))
        watcher = await self.user(hub, "watcher")
        for how in ("logout", "grace"):
            with self.subTest(how), self.assertLogs("rtm_sync.hub.node", "ERROR") as logged:
                ghosts = [await self.user(hub, f"{how}{number}") for number in range(2)]
                for ghost in ghosts:
                    await ghost.call(JoinChannel("room"))
                    if how == "logout":
                        burst(ghost, Logout())
                    else:
                        ghost.lose_connection()
                await eventually(lambda: hub.session_count == 1)
                self.assertEqual(hub.channels._members, {})
                uids = tuple(f"{how}{number}" for number in range(2))
                asked = QueryPeersOnlineStatus(uids)
                online = (await watcher.call(asked)).online.values()
                self.assertFalse(any(online))
                self.assertEqual(len(logged.output), 2)

    async def test_a_logout_ends_the_session_though_its_connection_is_lost(self) -> None:
        hub = await self.hub()
        user = await self.user(hub)
        burst(user, Logout())
        user.lose_connection()
        await eventually(lambda: hub.session_count == 0)

    async def test_a_join_that_the_engine_answers_after_the_end_is_taken_back(self) -> None:
        for since in (None, ChannelPosition("", 0)):
            with self.subTest(since=since):
                await self._join_late(since)

    async def _join_late(self, since: ChannelPosition | None) -> None:
        engine, observed = GatedEngine("join"), list[str]()
        hub = await self.hub(
            engine=engine, observe=lambda app_id, kind, event: observed.append(event["type"])
        )
        user = await self.user(hub, "ghost")
        burst(user, JoinChannel("room", since))
        await eventually(lambda: engine.waiting)
        hub.end(user.session)
        engine.gate.set()
        await eventually(lambda: not engine.waiting)
        await eventually(lambda: not hub._tasks)
        self.assertNotIn("Join", observed)
        alice = await self.user(hub)
        counts = await alice.call(GetChannelMemberCount(("room",)))
        self.assertEqual(counts.counts, {"room": 0})
        self.assertEqual(hub.channel_count, 0)

    async def test_a_join_or_leave_that_failed_half_way_leaves_no_member_behind(self) -> None:
        class HalfWay(LocalEngine):
            """An engine that performs the call and then fails."""

            async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
                await super().join(app_id, channel_id, uid, session_id)
                if channel_id == "joining":
                    raise OSError("the answer was lost")

            async def leave(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
                if channel_id == "leaving" and not tried:
                    tried.append(uid)
                    raise OSError("the request was lost")
                await super().leave(app_id, channel_id, uid, session_id)

        tried: list[str] = []
        hub = await self.hub(engine=HalfWay())
        bob, alice = await self.user(hub, "bob"), await self.user(hub)
        await bob.call(JoinChannel("leaving"))
        await self.refused("JOIN_CHANNEL_ERR_FAILURE", bob.call(JoinChannel("joining")))
        await self.refused("LEAVE_CHANNEL_ERR_FAILURE", bob.call(LeaveChannel("leaving")))
        hub.end(bob.session)
        await eventually(lambda: not hub._tasks)
        counts = await alice.call(GetChannelMemberCount(("joining", "leaving")))
        self.assertEqual(counts.counts, {"joining": 0, "leaving": 0})

    async def test_a_subscription_that_the_engine_answers_after_the_end_is_taken_back(self) -> None:
        engine = GatedEngine("follow")
        hub = await self.hub(engine=engine)
        user = await self.user(hub, "ghost")
        burst(user, SubscribePeersOnlineStatus(("x",)))
        await eventually(lambda: engine.waiting)
        hub.end(user.session)
        engine.gate.set()
        await eventually(lambda: not engine.waiting)
        await eventually(lambda: not hub._tasks)
        self.assertEqual(hub.presence._followed, {})

    async def test_nothing_is_kept_for_the_client_of_a_session_that_has_ended(self) -> None:
        hub = await self.hub()
        user = await self.user(hub)
        hub.end(user.session)
        before = len(user.session.outbox)
        user.session.push("{}")
        user.session.push_to_member("room", "{}")
        self.assertEqual(len(user.session.outbox), before)

    async def test_no_upload_begins_for_a_session_that_has_ended(self) -> None:
        hub = await self.hub()
        user = await self.user(hub)
        hub.end(user.session)
        await self.refused(
            "UPLOAD_MEDIA_ERR_NOT_LOGGED_IN", hub.media.begin_upload(user.session, spec(10))
        )
        self.assertEqual(hub.media.unfinished_count, 0)

    async def test_a_session_that_has_ended_does_not_go_on_with_a_kept_upload(self) -> None:
        hub = await self.hub()
        user = await self.user(hub)
        kept = spec(10, key="k", keep=True)
        await hub.media.begin_upload(user.session, kept)
        hub.end(user.session)
        await self.refused(
            "UPLOAD_MEDIA_ERR_NOT_LOGGED_IN", hub.media.begin_upload(user.session, kept)
        )

    async def test_a_service_session_that_is_used_while_its_user_is_kicked_is_refused(self) -> None:
        hub = await self.hub()
        service = hub.administration.service_session(APP, "service")
        hub.administration._sessions._end(service, SessionEnd.LOST)
        with self.assertRaises(RtmError) as caught:
            await hub.perform(service, GetUserAttributes("service"))
        self.assertEqual(caught.exception.reason, "USER_NOT_LOGGED_IN")
        self.assertIsNone(hub.session(service.id))
