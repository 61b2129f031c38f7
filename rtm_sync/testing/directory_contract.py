"""The contract of every `Directory`, as a test case to mix in."""

from __future__ import annotations

import asyncio

from ..hub.engine.directory import Directory
from ..protocol.values import ConnectionChangeReason, PeerOnlineState
from .engine_kit import APP, OTHER_APP, EnginePartContract

ONLINE, OFFLINE = PeerOnlineState.ONLINE, PeerOnlineState.OFFLINE
UNREACHABLE = PeerOnlineState.UNREACHABLE


class DirectoryContract(EnginePartContract):
    """Mix into a `RtmTestCase` and an `IsolatedAsyncioTestCase` and make the directory:

        class MyDirectoryTest(DirectoryContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
            def make_directory(self) -> Directory:
                return MyDirectory(…)

    `EnginePartContract` has the attributes that a test may set or use.
    """

    def make_directory(self) -> Directory:
        """A directory of this test's world, not started.

        A second call, after the first directory was stopped, returns the directory after a restart.
        """
        raise NotImplementedError

    def make_part(self) -> Directory:
        return self.make_directory()

    @property
    def directory(self) -> Directory:
        """The directory under test, started."""
        assert isinstance(self.part, Directory), f"{self.part!r} is not a Directory."
        return self.part

    async def state_of(self, uid: str = "bob", app_id: str = APP) -> PeerOnlineState:
        """A user's state."""
        return (await self.directory.presence(app_id, [uid]))[uid]

    # -- claims --

    async def test_a_claim_evicts_the_former_session_before_it_returns(self) -> None:
        await self.directory.claim(APP, "bob", "first")
        await self.directory.claim(APP, "bob", "first")
        await self.directory.claim(OTHER_APP, "bob", "stranger")
        self.assertEqual(self.node.of("evict"), [])
        await self.directory.claim(APP, "bob", "second")
        evicted = [(APP, "bob", "first", ConnectionChangeReason.REMOTE_LOGIN)]
        self.assertEqual(self.node.of("evict"), evicted)

    async def test_each_claim_of_a_user_has_a_larger_revision(self) -> None:
        revisions = []
        for session_id in ("first", "second", "third"):
            claim = await self.directory.claim(APP, "bob", session_id)
            self.assertEqual(claim.session_id, session_id)
            revisions.append(claim.revision)
        await self.directory.release(APP, "bob", "third")
        revisions.append((await self.directory.claim(APP, "bob", "first")).revision)
        self.assertEqual(revisions, sorted(set(revisions)))

    async def test_claiming_again_changes_nothing(self) -> None:
        before = await self.directory.claim(APP, "bob", "session")
        await self.directory.put_user_attributes(APP, "bob", "session", {"mood": "fine"})
        again = await self.directory.claim(APP, "bob", "session")
        self.assertEqual(again.session_id, "session")
        self.assertGreaterEqual(again.revision, before.revision)
        self.assertEqual(await self.directory.user_attributes(APP, "bob"), {"mood": "fine"})
        await self.directory.release(APP, "bob", "session")
        self.assertIs(await self.state_of(), OFFLINE)

    async def test_only_the_holder_can_give_a_claim_up(self) -> None:
        await self.directory.claim(APP, "bob", "first")
        await self.directory.claim(APP, "bob", "second")
        await self.directory.release(APP, "bob", "first")
        self.assertIs(await self.state_of(), ONLINE)
        await self.directory.release(OTHER_APP, "bob", "second")
        self.assertIs(await self.state_of(), ONLINE)
        await self.directory.release(APP, "bob", "second")
        self.assertIs(await self.state_of(), OFFLINE)

    async def test_releasing_what_nobody_holds_is_no_matter(self) -> None:
        await self.directory.follow(APP, "bob")
        await self.directory.release(APP, "bob", "session")
        self.assertIsNone(await self.directory.user_attributes(APP, "bob"))
        self.assertIs(await self.state_of(), OFFLINE)
        self.assertEqual(self.node.of("evict"), [])

    async def test_a_former_session_changes_nothing(self) -> None:
        await self.directory.claim(APP, "bob", "first")
        await self.directory.claim(APP, "bob", "second")
        await self.directory.put_user_attributes(APP, "bob", "second", {"mood": "fine"})
        await self.directory.set_reachable(APP, "bob", "first", reachable=False)
        await self.directory.put_user_attributes(APP, "bob", "first", {"mood": "bad"})
        await self.directory.release(APP, "bob", "first")
        self.assertIs(await self.state_of(), ONLINE)
        self.assertEqual(await self.directory.user_attributes(APP, "bob"), {"mood": "fine"})

    async def test_many_users_are_claimed_at_once(self) -> None:
        uids = [f"user {number}" for number in range(100)]
        await asyncio.gather(*(self.directory.claim(APP, uid, f"of {uid}") for uid in uids))
        states = await self.directory.presence(APP, uids)
        self.assertEqual(states, dict.fromkeys(uids, ONLINE))
        self.assertEqual(self.node.of("evict"), [])

    async def test_of_many_claims_at_once_the_one_of_the_largest_revision_holds(self) -> None:
        sessions = [f"session {number}" for number in range(10)]
        claims = await asyncio.gather(
            *(self.directory.claim(APP, "bob", session) for session in sessions)
        )
        self.assertEqual(len({claim.revision for claim in claims}), 10)
        holder = max(claims, key=lambda claim: claim.revision).session_id
        losers = set(sessions) - {holder}
        await self.soon(losers, lambda: {told[2] for told in self.node.of("evict")})
        for session in losers:
            await self.directory.release(APP, "bob", session)
        self.assertIs(await self.state_of(), ONLINE)
        await self.directory.release(APP, "bob", holder)
        self.assertIs(await self.state_of(), OFFLINE)

    async def test_the_holder_of_a_user_can_be_kicked(self) -> None:
        self.assertFalse(await self.directory.kick(APP, "bob"))
        await self.directory.claim(APP, "bob", "session")
        self.assertFalse(await self.directory.kick(OTHER_APP, "bob"))
        self.assertTrue(await self.directory.kick(APP, "bob"))
        await self.soon(
            [(APP, "bob", "session", ConnectionChangeReason.BANNED_BY_SERVER)],
            lambda: self.node.of("evict"),
        )

    # -- presence --

    async def test_presence_is_answered_for_each_asked_in_order(self) -> None:
        await self.directory.claim(APP, "alice", "a")
        await self.directory.claim(APP, "bob", "b")
        await self.directory.claim(OTHER_APP, "carol", "c")
        await self.directory.set_reachable(APP, "bob", "b", reachable=False)
        found = await self.directory.presence(APP, ["carol", "bob", "alice"])
        self.assertEqual(
            list(found.items()), [("carol", OFFLINE), ("bob", UNREACHABLE), ("alice", ONLINE)]
        )
        self.assertEqual(await self.directory.presence(APP, []), {})

    async def test_presence_of_a_followed_user_is_told_as_it_changes(self) -> None:
        await self.directory.follow(APP, "bob")
        directory, states = self.directory, []
        for state, change in (
            (ONLINE, lambda: directory.claim(APP, "bob", "session")),
            (UNREACHABLE, lambda: directory.set_reachable(APP, "bob", "session", reachable=False)),
            (ONLINE, lambda: directory.set_reachable(APP, "bob", "session", reachable=True)),
            (OFFLINE, lambda: directory.release(APP, "bob", "session")),
        ):
            await change()
            states.append(state)
            await self.soon(states, lambda: self.node.states("bob"))

    async def test_following_answers_with_the_present_state(self) -> None:
        self.assertIs(await self.directory.follow(APP, "bob"), OFFLINE)
        await self.directory.claim(APP, "bob", "session")
        self.assertIs(await self.directory.follow(APP, "bob"), ONLINE)
        await self.directory.set_reachable(APP, "bob", "session", reachable=False)
        self.assertIs(await self.directory.follow(APP, "bob"), UNREACHABLE)
        self.assertIs(await self.directory.follow(OTHER_APP, "bob"), OFFLINE)

    async def test_nothing_is_missed_between_the_answer_and_the_first_change(self) -> None:
        uids = [f"user {number}" for number in range(30)]
        known: dict[str, tuple[PeerOnlineState, int]] = {}

        async def follow(uid: str) -> None:
            state = await self.directory.follow(APP, uid)
            known[uid] = state, len(self.node.told)

        def newest(uid: str) -> object:
            state, told = known[uid]
            later = [news[3] for news in self.node.told[told:] if news[:3] == (*change, uid)]
            return later[-1] if later else state

        change = ("presence_changed", APP)
        claims = (self.directory.claim(APP, uid, f"of {uid}") for uid in uids)
        await asyncio.gather(*map(follow, uids[:15]), *claims, *map(follow, uids[15:]))
        await self.soon(dict.fromkeys(uids, ONLINE), lambda: {uid: newest(uid) for uid in uids})

    async def test_only_followed_users_are_told_of(self) -> None:
        await self.directory.follow(OTHER_APP, "bob")
        await self.directory.follow(APP, "dora")
        for uid in ("bob", "carol", "dora"):
            await self.directory.claim(APP, uid, f"of {uid}")
            await self.directory.set_reachable(APP, uid, f"of {uid}", reachable=False)
        await self.soon([ONLINE, UNREACHABLE], lambda: self.node.states("dora"))
        self.assertEqual({told[:2] for told in self.node.of("presence_changed")}, {(APP, "dora")})

    async def test_a_user_is_unfollowed_at_once_however_often_it_was_followed(self) -> None:
        for uid in ("bob", "bob", "carol"):
            await self.directory.follow(APP, uid)
        await self.directory.claim(APP, "bob", "session")
        await self.soon([ONLINE], lambda: self.node.states("bob"))
        await self.directory.unfollow(OTHER_APP, "bob")
        await self.directory.set_reachable(APP, "bob", "session", reachable=False)
        await self.soon([ONLINE, UNREACHABLE], lambda: self.node.states("bob"))
        await self.directory.unfollow(APP, "bob")
        await self.directory.release(APP, "bob", "session")
        await self.directory.claim(APP, "carol", "session")
        await self.soon([ONLINE], lambda: self.node.states("carol"))
        self.assertEqual(self.node.states("bob"), [ONLINE, UNREACHABLE])
        await self.directory.unfollow(APP, "bob")
        self.assertIs(await self.directory.follow(APP, "bob"), OFFLINE)
        await self.directory.claim(APP, "bob", "another")
        await self.soon([ONLINE, UNREACHABLE, ONLINE], lambda: self.node.states("bob"))

    # -- attributes --

    async def test_a_users_attributes_live_as_long_as_the_claim(self) -> None:
        self.assertIsNone(await self.directory.user_attributes(APP, "bob"))
        await self.directory.claim(APP, "bob", "session")
        self.assertEqual(await self.directory.user_attributes(APP, "bob"), {})
        for attributes in ({"mood": "fine", "näme": "Böb 🎉"}, {"mood": "tired"}):
            await self.directory.put_user_attributes(APP, "bob", "session", attributes)
            self.assertEqual(await self.directory.user_attributes(APP, "bob"), attributes)
        self.assertIsNone(await self.directory.user_attributes(OTHER_APP, "bob"))
        await self.directory.release(APP, "bob", "session")
        self.assertIsNone(await self.directory.user_attributes(APP, "bob"))
        await self.directory.claim(APP, "bob", "another")
        self.assertEqual(await self.directory.user_attributes(APP, "bob"), {})

    async def test_a_new_session_begins_without_the_former_ones_attributes(self) -> None:
        await self.directory.claim(APP, "bob", "first")
        await self.directory.put_user_attributes(APP, "bob", "first", {"mood": "fine"})
        await self.directory.set_reachable(APP, "bob", "first", reachable=False)
        await self.directory.claim(APP, "bob", "second")
        self.assertEqual(await self.directory.user_attributes(APP, "bob"), {})
        self.assertIs(await self.state_of(), ONLINE)

    # -- bans and revocations --

    async def test_a_ban_holds_for_its_user_until_it_is_ended(self) -> None:
        self.assertEqual(await self.directory.banned_until(APP, "bob"), 0.0)
        for until in (self.wall + 60, self.wall + 3600.5):
            await self.directory.ban(APP, "bob", until)
            self.assertEqual(await self.directory.banned_until(APP, "bob"), until)
        self.assertEqual(await self.directory.banned_until(APP, "carol"), 0.0)
        self.assertEqual(await self.directory.banned_until(OTHER_APP, "bob"), 0.0)
        for _ in range(2):
            await self.directory.ban(APP, "bob", 0.0)
            self.assertEqual(await self.directory.banned_until(APP, "bob"), 0.0)

    async def test_the_bans_of_an_app_can_be_listed(self) -> None:
        self.assertEqual(await self.directory.bans(APP, self.wall, "", 10), {})
        for uid, seconds in (("bob", 60), ("carol", 30), ("dora", 10)):
            await self.directory.ban(APP, uid, self.wall + seconds)
        await self.directory.ban(APP, "dora", 0.0)
        await self.directory.ban(OTHER_APP, "eve", self.wall + 60)
        listed = await self.directory.bans(APP, self.wall, "", 10)
        self.assertEqual(listed, {"carol": self.wall + 30, "bob": self.wall + 60})
        self.assertEqual(list(await self.directory.bans(APP, self.wall + 30, "", 10)), ["bob"])

    async def test_the_bans_come_in_pages_in_the_order_of_the_ids(self) -> None:
        uids = ["b", "B", "~", "a b", "a", "1"]
        for seconds, uid in enumerate(uids, 60):
            await self.directory.ban(APP, uid, self.wall + seconds)
        await self.directory.ban(APP, "C", self.wall + 10)
        listed: list[str] = []
        for size in (4, 2, 0):  # at 30 s, the ban of C is over and takes no place in a page
            after = listed[-1] if listed else ""
            page = await self.directory.bans(APP, self.wall + 30, after, 4)
            self.assertEqual(len(page), size)
            listed += page
        self.assertEqual(listed, sorted(uids))

    async def test_a_ban_outlives_a_restart(self) -> None:
        until = self.wall + 60
        await self.directory.ban(APP, "bob", until)
        await self.restart()
        kept = until if self.outlives_process else 0.0
        self.assertEqual(await self.directory.banned_until(APP, "bob"), kept)

    async def test_a_revocation_is_one_users_alone_and_outlives_a_restart(self) -> None:
        self.assertEqual(await self.directory.revoked_before(APP, "bob"), 0.0)
        for before in (self.wall, self.wall + 1.5):
            await self.directory.revoke(APP, "bob", before)
            self.assertEqual(await self.directory.revoked_before(APP, "bob"), before)
        self.assertEqual(await self.directory.revoked_before(APP, "carol"), 0.0)
        self.assertEqual(await self.directory.revoked_before(OTHER_APP, "bob"), 0.0)
        await self.restart()
        kept = self.wall + 1.5 if self.outlives_process else 0.0
        self.assertEqual(await self.directory.revoked_before(APP, "bob"), kept)

    # -- life --

    async def test_a_directory_that_is_not_running_refuses(self) -> None:
        await self.assert_needs_running(
            lambda: self.directory.claim(APP, "bob", "session"),
            lambda: self.directory.release(APP, "bob", "session"),
            lambda: self.directory.kick(APP, "bob"),
            lambda: self.directory.presence(APP, ["bob"]),
            lambda: self.directory.follow(APP, "bob"),
            lambda: self.directory.user_attributes(APP, "bob"),
            lambda: self.directory.ban(APP, "bob", self.wall + 60),
            lambda: self.directory.banned_until(APP, "bob"),
            lambda: self.directory.revoked_before(APP, "bob"),
        )
