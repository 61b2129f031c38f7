"""The registry: every event in every state of a session, with time as an argument."""

from __future__ import annotations

import unittest
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rtm_sync.hub.registry import (
    Action,
    Connection,
    Finish,
    Life,
    Registry,
    SessionEnd,
    SessionState,
    Supersede,
)
from rtm_sync.protocol.values import ConnectionChangeReason

ATTACH, GRACE = 10.0, 30.0
ATTACHING, ATTACHED = SessionState.ATTACHING, SessionState.ATTACHED
DETACHED, ENDED = SessionState.DETACHED, SessionState.ENDED


@dataclass(eq=False)
class Wire:
    """A connection that ignores all frames."""

    silence: float = 0.0

    def wake(self) -> None: ...
    def send_now(self, frame: str) -> None: ...
    def close(self, code: int, reason: str) -> None: ...


@dataclass(eq=False)
class User:
    """The attributes of a session that the registry uses."""

    id: str
    uid: str = "alice"
    app_id: str = "app"
    life: Life = field(default_factory=Life)


class RegistryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.registry: Registry[User] = Registry(ATTACH, GRACE)
        self.user, self.wire = User("1"), Wire()

    def state(self) -> SessionState:
        return self.user.life.state

    def opens(self) -> None:
        self.registry.opened(self.user, self.wire, 0.0)

    def attaches(self) -> None:
        self.opens()
        self.assertEqual(self.registry.claimed(self.user, 1), [])
        self.assertTrue(self.registry.attached(self.user, self.wire))

    def test_a_login_that_is_never_attached_ends_at_its_deadline(self) -> None:
        self.opens()
        self.registry.claimed(self.user, 1)
        self.assertEqual(self.registry.deadline, ATTACH)
        self.assertEqual(self.registry.tick(ATTACH - 0.1), [])
        self.assertEqual(
            self.registry.tick(ATTACH), [Finish(self.user, self.wire, SessionEnd.LOST)]
        )
        self.assertEqual(
            (self.state(), len(self.registry), self.registry.deadline), (ENDED, 0, None)
        )
        self.assertIsNone(self.registry.of_user("app", "alice"))

    def test_a_login_whose_connection_is_gone_ends_at_once(self) -> None:
        self.opens()
        [finish] = self.registry.detached(self.user, self.wire, 1.0)
        self.assertEqual(finish, Finish(self.user, None, SessionEnd.LOST))

    def test_an_attached_session_has_no_deadline(self) -> None:
        self.attaches()
        self.assertIsNone(self.registry.deadline)
        self.assertEqual(self.registry.tick(1e9), [])

    def test_it_can_be_attached_only_by_the_connection_it_waits_for_and_once(self) -> None:
        self.opens()
        self.assertFalse(self.registry.attached(self.user, Wire()))
        self.assertTrue(self.registry.attached(self.user, self.wire))
        self.assertFalse(self.registry.attached(self.user, self.wire))

    def test_a_detached_session_lasts_for_its_grace_and_no_longer(self) -> None:
        self.attaches()
        self.assertEqual(self.registry.detached(self.user, self.wire, 100.0), [])
        self.assertEqual((self.state(), self.registry.deadline), (DETACHED, 100.0 + GRACE))
        self.assertEqual(self.registry.tick(100.0 + GRACE - 1), [])
        [finish] = self.registry.tick(100.0 + GRACE)
        self.assertEqual(finish, Finish(self.user, None, SessionEnd.LOST))

    def test_resuming_closes_the_former_connection_and_its_late_end_changes_nothing(self) -> None:
        self.attaches()
        again = Wire()
        self.assertEqual(self.registry.resumed(self.user, again, 5.0), [Supersede(self.wire)])
        self.assertEqual(self.state(), ATTACHING)
        self.assertEqual(self.registry.detached(self.user, self.wire, 6.0), [])
        self.assertTrue(self.registry.attached(self.user, again))
        self.assertEqual(self.state(), ATTACHED)

    def test_a_resumed_session_that_is_not_attached_goes_back_to_its_grace(self) -> None:
        self.attaches()
        again = Wire()
        self.registry.resumed(self.user, again, 5.0)
        self.assertEqual(self.registry.detached(self.user, again, 6.0), [])
        self.assertEqual((self.state(), self.registry.deadline), (DETACHED, 6.0 + GRACE))

    def test_a_session_ends_once(self) -> None:
        self.attaches()
        self.assertEqual(
            self.registry.ended(self.user, SessionEnd.LOGOUT),
            [Finish(self.user, self.wire, SessionEnd.LOGOUT)],
        )
        self.assertEqual(self.registry.ended(self.user, SessionEnd.LOST), [])
        self.assertEqual(self.registry.detached(self.user, self.wire, 1.0), [])
        self.assertIsNone(self.registry.get("1"))

    def test_a_claim_that_comes_after_the_end_does_not_bring_it_back(self) -> None:
        self.opens()
        self.registry.ended(self.user, SessionEnd.STOPPING)
        self.assertEqual(self.registry.claimed(self.user, 1), [])
        self.assertEqual(self.state(), ENDED)
        self.assertIsNone(self.registry.of_user("app", "alice"))

    def test_the_newest_claim_of_a_user_wins_whichever_answer_comes_first(self) -> None:
        other = User("2")
        self.opens()
        self.registry.opened(other, Wire(), 0.0)
        self.assertEqual(self.registry.claimed(other, 2), [])
        self.assertEqual(
            self.registry.claimed(self.user, 1),
            [Finish(self.user, self.wire, SessionEnd.REMOTE_LOGIN)],
        )
        self.assertIs(self.registry.of_user("app", "alice"), other)
        third = User("3")
        self.registry.opened(third, Wire(), 0.0)
        [finish] = self.registry.claimed(third, 3)
        self.assertIs(finish.session, other)  # type: ignore[union-attr]
        self.assertIs(self.registry.of_user("app", "alice"), third)

    def test_use_keeps_a_session_without_a_connection(self) -> None:
        self.registry.opened(self.user, None, 0.0)
        for now in range(1000):
            self.registry.used(self.user, float(now))
        self.assertEqual(self.registry.tick(999.0 + GRACE - 1), [])
        self.assertEqual(len(self.registry.tick(999.0 + GRACE)), 1)
        self.registry.used(self.user, 2000.0)
        self.assertEqual(self.state(), ENDED)

    def test_outdated_deadlines_do_not_pile_up(self) -> None:
        self.registry.opened(self.user, None, 0.0)
        for now in range(1000):
            self.registry.used(self.user, float(now))
            self.registry.tick(float(now))
        self.assertLessEqual(len(self.registry._queue), 2)

    def test_each_end_that_is_told_has_its_reason(self) -> None:
        told = {end: end.reason for end in SessionEnd if end.reason is not None}
        self.assertIs(told.pop(SessionEnd.KEY_REMOVED), ConnectionChangeReason.TOKEN_EXPIRED)
        self.assertEqual(len(told), 3)
        for end, reason in told.items():
            self.assertIs(SessionEnd.of(reason), end)
        self.assertIs(SessionEnd.REMOTE_LOGIN.reason, ConnectionChangeReason.REMOTE_LOGIN)


class RegistryMachine(RuleBasedStateMachine):
    """Logins, connections and time in any order, compared with a model."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[User] = Registry(ATTACH, GRACE)
        self.now = 0.0
        self.users: list[User] = []
        self.finished: list[User] = []
        self.revisions = 0
        self.closed: set[Connection] = set()  # kept alive: another connection may get a freed id

    def chosen(self, number: int) -> User:
        return self.users[number % len(self.users)]

    def perform(self, actions: list[Action[User]]) -> None:
        for action in actions:
            if isinstance(action, Supersede):
                self.closed.add(action.connection)
            else:
                assert action.session not in self.finished, "a session ended twice"
                assert action.session.life.state is ENDED
                self.finished.append(action.session)

    @rule(uid=st.sampled_from("abc"))
    def opened(self, uid: str) -> None:
        user = User(str(len(self.users)), uid)
        self.users.append(user)
        self.registry.opened(user, Wire(), self.now)
        assert user.life.state is ATTACHING

    @precondition(lambda self: self.users)
    @rule(number=st.integers(0, 99), late=st.booleans())
    def claimed(self, number: int, late: bool) -> None:
        user = self.chosen(number)
        if user.life.revision is not None:
            return
        self.revisions += 1
        newest = self.revisions if not late else -self.revisions  # the engine's answer comes late
        alive = user.life.state is not ENDED
        holder = self.registry.of_user("app", user.uid)
        self.perform(self.registry.claimed(user, newest))
        if alive:
            expected = user
            if holder is not None and holder.life.revision is not None:
                expected = max(holder, user, key=lambda one: one.life.revision or 0)
            assert self.registry.of_user("app", user.uid) is expected
        else:
            assert user.life.state is ENDED

    @precondition(lambda self: self.users)
    @rule(number=st.integers(0, 99))
    def resumed(self, number: int) -> None:
        user = self.registry.get(self.chosen(number).id)
        if user is not None:
            self.perform(self.registry.resumed(user, Wire(), self.now))
            assert user.life.state is ATTACHING

    @precondition(lambda self: self.users)
    @rule(number=st.integers(0, 99), right=st.booleans())
    def attached(self, number: int, right: bool) -> None:
        user = self.chosen(number)
        before = user.life.state
        connection: Connection = (user.life.connection if right else None) or Wire()
        waits = before is ATTACHING and user.life.connection is connection
        assert self.registry.attached(user, connection) is waits
        assert user.life.state is (ATTACHED if waits else before)

    @precondition(lambda self: self.users)
    @rule(number=st.integers(0, 99), right=st.booleans())
    def detached(self, number: int, right: bool) -> None:
        user = self.chosen(number)
        life = user.life
        before, established = life.state, life.established
        connection: Connection = (life.connection if right else None) or Wire()
        concerns = life.connection is connection
        self.perform(self.registry.detached(user, connection, self.now))
        if not concerns:
            assert life.state is before
        else:
            assert life.state is (DETACHED if established else ENDED)

    @precondition(lambda self: self.users)
    @rule(number=st.integers(0, 99), end=st.sampled_from(SessionEnd))
    def ended(self, number: int, end: SessionEnd) -> None:
        user = self.chosen(number)
        self.perform(self.registry.ended(user, end))
        assert user.life.state is ENDED

    @precondition(lambda self: self.users)
    @rule(number=st.integers(0, 99))
    def used(self, number: int) -> None:
        user = self.chosen(number)
        if user.life.state is not ATTACHED:
            self.registry.used(user, self.now)

    @rule(seconds=st.sampled_from((0.0, 0.5, 5.0, ATTACH, GRACE, 100.0)))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        due = [user for user in self.users if (user.life.deadline or 1e9) <= self.now]
        self.perform(self.registry.tick(self.now))
        assert all(user.life.state is ENDED for user in due)

    @invariant()
    def a_session_lives_where_it_is_registered_and_nowhere_else(self) -> None:
        living = [user for user in self.users if user.life.state is not ENDED]
        assert list(self.registry) == living
        assert len(self.registry) == len(living)
        for user in self.users:
            held = self.registry.get(user.id)
            assert (held is user) is (user.life.state is not ENDED)
            assert (user in self.finished) is (user.life.state is ENDED)
        for uid in "abc":
            holder = self.registry.of_user("app", uid)
            assert holder is None or holder in living

    @invariant()
    def each_state_has_its_connection_or_its_deadline(self) -> None:
        for user in self.users:
            life = user.life
            if life.state is ATTACHING:
                assert life.deadline is not None
            elif life.state is ATTACHED:
                assert life.deadline is None
                assert life.connection is not None
                assert life.connection not in self.closed
            elif life.state is DETACHED:
                assert life.deadline is not None
                assert life.connection is None
            else:
                assert (life.connection, life.deadline) == (None, None)

    @invariant()
    def the_next_deadline_is_the_earliest(self) -> None:
        deadlines = [user.life.deadline for user in self.users if user.life.deadline is not None]
        assert self.registry.deadline == min(deadlines, default=None)

    def teardown(self) -> None:
        """Without connections every session ends eventually."""
        for user in self.users:
            if user.life.connection is not None:
                self.perform(self.registry.detached(user, user.life.connection, self.now))
        self.now += ATTACH + GRACE
        self.perform(self.registry.tick(self.now))
        assert len(self.registry) == 0
        assert len(self.finished) == len(self.users)


AnyOrderTest = RegistryMachine.TestCase
AnyOrderTest.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
