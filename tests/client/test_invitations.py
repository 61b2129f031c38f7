"""Invitations: states and events of caller and callee, and every failure."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from typing import Any

from rtm_sync import (
    InvitationApiCallError,
    LocalInvitation,
    LocalInvitationFailureReason,
    LocalInvitationState,
    RemoteInvitation,
    RemoteInvitationFailureReason,
    RemoteInvitationState,
    RtmClient,
)
from rtm_sync.client.invitation_registry import SENDERS, InvitationRegistry
from rtm_sync.client.invitation_states import InvitationTimes
from rtm_sync.errors import PeerMessageError
from rtm_sync.protocol.requests import InvitationFromPeer, Request, SendInvitation
from rtm_sync.protocol.values import InvitationReceipt, InvitationSent, InvitationStep
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

SHORT = InvitationTimes(resend=0.05, give_up=0.3, answer=0.5)
_numbers = itertools.count()


class ClientTest(RtmTestCase):
    """Through real clients and a hub, over both transports."""

    def urls(self) -> list[str]:
        return [
            f"memory://invitations-{next(_numbers)}",
            self.entered(local_gateway(self.folder())),
        ]

    def clients(self, url: str, *names: str) -> list[RtmClient]:
        clients = [RtmClient("app", url=url) for _ in names]
        for client, name in zip(clients, names, strict=True):
            self.addCleanup(client.close)
            client.login(name)
        return clients

    def invited(self, bob: RtmClient) -> queue.SimpleQueue[RemoteInvitation]:
        arrived: queue.SimpleQueue[RemoteInvitation] = queue.SimpleQueue()
        bob.on("RemoteInvitationReceived", arrived.put)
        return arrived

    def test_an_invitation_is_received_and_accepted(self) -> None:
        for url in self.urls():
            with self.subTest(url.partition(":")[0]):
                alice, bob = self.clients(url, "alice", "bob")
                arrived = self.invited(bob)
                mine = alice.create_local_invitation("bob")
                mine.content, mine.channel_id = "come and see", "cats"
                told = mine.events()
                self.assertIs(mine.state, LocalInvitationState.IDLE)
                mine.send()
                theirs = arrived.get(timeout=PATIENCE)
                self.assertEqual(
                    (theirs.caller_id, theirs.content, theirs.channel_id),
                    ("alice", "come and see", "cats"),
                )
                done = theirs.events()
                theirs.accept("coming")
                names = [next(told.until(PATIENCE)) for _ in range(2)]
                self.assertEqual(
                    [(event.name, event.args) for event in names],
                    [
                        ("LocalInvitationReceivedByPeer", ()),
                        ("LocalInvitationAccepted", ("coming",)),
                    ],
                )
                self.assertEqual(next(done.until(PATIENCE)).name, "RemoteInvitationAccepted")
                self.assertIs(mine.state, LocalInvitationState.ACCEPTED_BY_REMOTE)
                self.assertEqual(mine.response, "coming")
                self.assertIs(theirs.state, RemoteInvitationState.ACCEPTED)

    def test_it_may_be_refused_or_taken_back(self) -> None:
        for url in self.urls():
            with self.subTest(url.partition(":")[0]):
                alice, bob = self.clients(url, "alice", "bob")
                arrived = self.invited(bob)
                refused, canceled = (alice.create_local_invitation("bob") for _ in range(2))
                told = refused.events("LocalInvitationRefused")
                refused.send()
                arrived.get(timeout=PATIENCE).refuse("no time")
                self.assertEqual(next(told.until(PATIENCE)).args, ("no time",))
                canceled.content = "never mind"
                canceled.send()
                theirs = arrived.get(timeout=PATIENCE)
                withdrawn = theirs.events("RemoteInvitationCanceled")
                canceled.cancel()
                self.assertEqual(next(withdrawn.until(PATIENCE)).args, ("never mind",))
                self.assertIs(theirs.state, RemoteInvitationState.CANCELED)
                self.assertIs(canceled.state, LocalInvitationState.CANCELED)

    def test_logging_out_fails_what_is_open(self) -> None:
        alice, bob = self.clients(self.urls()[0], "alice", "bob")
        arrived = self.invited(bob)
        mine = alice.create_local_invitation("bob")
        failed = mine.events("LocalInvitationFailure")
        mine.send()
        theirs = arrived.get(timeout=PATIENCE)
        alice.logout()
        reason = LocalInvitationFailureReason.NOT_LOGGEDIN
        self.assertEqual(next(failed.until(PATIENCE)).args, (reason,))
        gone = theirs.events("RemoteInvitationFailure")
        theirs.accept()
        offline = RemoteInvitationFailureReason.PEER_OFFLINE
        self.assertEqual(next(gone.until(PATIENCE)).args, (offline,))
        again = alice.create_local_invitation("bob")
        failed = again.events("LocalInvitationFailure")
        again.send()
        self.assertEqual(next(failed.until(PATIENCE)).args, (reason,))

    def test_misuse_has_its_numbers(self) -> None:
        alice, bob = self.clients(self.urls()[0], "alice", "bob")
        arrived = self.invited(bob)
        mine = alice.create_local_invitation("bob")
        self.refused("NOT_STARTED", mine.cancel)
        mine.content = "x" * 8193
        self.refused("INVALID_ARGUMENT", mine.send)
        mine.content = "x" * 8192
        mine.send()
        self.refused("ALREADY_SENT", mine.send)
        theirs = arrived.get(timeout=PATIENCE)
        self.refused("INVALID_ARGUMENT", theirs.accept, "x" * 8193)
        theirs.accept()
        self.refused("ALREADY_ACCEPT", theirs.accept)
        self.refused("ALREADY_END", theirs.refuse)
        wait_until(lambda: mine.state is LocalInvitationState.ACCEPTED_BY_REMOTE)
        self.refused("ALREADY_END", mine.cancel)
        self.refused("INVALID_ARGUMENT", alice.create_local_invitation, "a/b")

    def refused(self, name: str, call: Callable[..., object], *args: Any) -> None:
        with self.assertRaises(InvitationApiCallError) as caught:
            call(*args)
        self.assertEqual(caught.exception.reason, name)


class Ends:
    """Two registries joined by a relay that can lose messages."""

    def __init__(self) -> None:
        self.lost: InvitationReceipt | None = None  # the receipt for a lost message
        self.sent: list[InvitationStep] = []
        self.arrived: queue.SimpleQueue[RemoteInvitation] = queue.SimpleQueue()
        self.errors: list[BaseException] = []
        self.alice = self._registry("alice", lambda: self.bob)
        self.bob = self._registry("bob", lambda: self.alice)

    def _registry(self, name: str, other: Callable[[], InvitationRegistry]) -> InvitationRegistry:
        def call(request: Request[Any], timeout: float) -> Any:
            assert isinstance(request, SendInvitation)
            self.sent.append(request.step)
            if self.lost is not None:
                return InvitationSent(self.lost)
            taken = other().take(
                InvitationFromPeer(name, request.invitation_id, request.step, request.content, "")
            )
            receipts = InvitationReceipt
            return InvitationSent(receipts.RECEIVED if taken else receipts.OFFLINE)

        return InvitationRegistry(
            call, lambda tell: tell(), self.arrived.put, self.errors.append, lambda: True, SHORT
        )

    def close(self) -> None:
        self.alice.close()
        self.bob.close()


class SideBySideTest(RtmTestCase):
    """Some peers never answer: the hub's receipt for their steps takes seconds."""

    def setUp(self) -> None:
        self.answer = threading.Event()  # set: the silent peers' receipts arrive
        self.lock = threading.Lock()
        self.calling: list[SendInvitation] = []  # calls without a receipt yet
        self.sent: list[SendInvitation] = []  # calls with a receipt
        self.most_calling = 0
        self.remote: list[RemoteInvitation] = []
        self.registry = self.registry_with(InvitationTimes(PATIENCE, PATIENCE, PATIENCE))

    def registry_with(self, times: InvitationTimes) -> InvitationRegistry:
        registry = InvitationRegistry(
            self.call, lambda tell: tell(), self.invited, print, lambda: True, times
        )
        self.addCleanup(registry.close)
        self.addCleanup(self.answer.set)
        return registry

    def invited(self, invitation: RemoteInvitation) -> None:
        self.remote.append(invitation)

    def call(self, request: Request[Any], timeout: float) -> Any:
        assert isinstance(request, SendInvitation)
        with self.lock:
            self.calling.append(request)
            self.most_calling = max(self.most_calling, len(self.calling))
        if request.peer_id.startswith("silent"):
            self.answer.wait(PATIENCE)
        with self.lock:
            self.calling.remove(request)
            self.sent.append(request)
        return InvitationSent(InvitationReceipt.RECEIVED)

    def invite_silent(self, count: int) -> list[LocalInvitation]:
        made = [self.registry.local(f"silent{number}") for number in range(count)]
        for invitation in made:
            invitation.send()
        return made

    def test_an_invitation_does_not_wait_for_the_receipts_of_others(self) -> None:
        self.invite_silent(20)
        wait_until(lambda: len(self.calling) == 20)
        mine = self.registry.local("bob")
        mine.send()
        wait_until(lambda: mine.state is LocalInvitationState.RECEIVED_BY_REMOTE)
        self.assertEqual([step.peer_id for step in self.sent], ["bob"])

    def test_an_answer_does_not_wait_either(self) -> None:
        self.invite_silent(20)
        wait_until(lambda: len(self.calling) == 20)
        invited = InvitationFromPeer("bob", "an-id", InvitationStep.INVITE, "", "")
        self.assertTrue(self.registry.take(invited))
        self.remote[0].accept()
        wait_until(lambda: self.remote[0].state is RemoteInvitationState.ACCEPTED)
        self.assertEqual([step.peer_id for step in self.sent], ["bob"])

    def test_time_limits_do_not_wait_either(self) -> None:
        self.registry = self.registry_with(SHORT)
        self.invite_silent(20)
        wait_until(lambda: len(self.calling) == 20)
        invited = InvitationFromPeer("bob", "an-id", InvitationStep.INVITE, "", "")
        self.assertTrue(self.registry.take(invited))
        wait_until(lambda: self.remote[0].state is RemoteInvitationState.FAILURE)
        self.assertEqual(self.sent, [])

    def test_the_steps_of_one_invitation_do_not_overtake_each_other(self) -> None:
        [mine] = self.invite_silent(1)
        wait_until(lambda: len(self.calling) == 1)
        mine.cancel()
        other = self.registry.local("bob")
        other.send()
        wait_until(lambda: other.state is LocalInvitationState.RECEIVED_BY_REMOTE)
        self.assertEqual([step.step for step in self.calling], [InvitationStep.INVITE])
        self.answer.set()
        wait_until(lambda: len(self.sent) == 3)
        steps = [step.step for step in self.sent if step.peer_id == "silent0"]
        self.assertEqual(steps, [InvitationStep.INVITE, InvitationStep.CANCEL])

    def test_the_number_of_threads_is_bounded_and_none_stays(self) -> None:
        before = threading.active_count()
        self.invite_silent(2 * SENDERS)
        wait_until(lambda: len(self.calling) == SENDERS)
        self.assertLessEqual(threading.active_count(), before + SENDERS + 1)
        self.answer.set()
        wait_until(lambda: len(self.sent) == 2 * SENDERS)
        self.assertEqual(self.most_calling, SENDERS)
        self.registry.close()
        wait_until(lambda: threading.active_count() == before)


class TimeTest(RtmTestCase):
    def setUp(self) -> None:
        self.ends = Ends()
        self.addCleanup(self.ends.close)

    def failure(self, invitation: LocalInvitation | RemoteInvitation) -> object:
        name = type(invitation).__name__ + "Failure"
        with invitation.events(name) as told:
            if isinstance(invitation, LocalInvitation):
                invitation.send()
            return next(told.until(PATIENCE)).args[0]

    def test_who_is_offline_and_who_is_deaf_are_told_apart(self) -> None:
        reasons = LocalInvitationFailureReason
        for lost, reason in (
            (InvitationReceipt.OFFLINE, reasons.PEER_OFFLINE),
            (InvitationReceipt.UNCONFIRMED, reasons.PEER_NO_RESPONSE),
        ):
            self.ends.lost = lost
            self.ends.sent.clear()
            self.assertIs(self.failure(self.ends.alice.local("bob")), reason)
            self.assertGreater(len(self.ends.sent), 3, "it is sent again and again")

    def test_one_who_comes_in_time_is_reached(self) -> None:
        self.ends.lost = InvitationReceipt.OFFLINE
        mine = self.ends.alice.local("bob")
        mine.send()
        wait_until(lambda: len(self.ends.sent) > 2)
        self.ends.lost = None
        self.assertEqual(self.ends.arrived.get(timeout=PATIENCE).caller_id, "alice")
        wait_until(lambda: mine.state is LocalInvitationState.RECEIVED_BY_REMOTE)

    def test_an_unanswered_one_expires_at_both_ends(self) -> None:
        reason = self.failure(self.ends.alice.local("bob"))
        self.assertIs(reason, LocalInvitationFailureReason.INVITATION_EXPIRE)
        theirs = self.ends.arrived.get(timeout=PATIENCE)
        wait_until(lambda: theirs.state is RemoteInvitationState.FAILURE)

    def test_an_acceptance_that_is_not_confirmed_fails_at_the_callee(self) -> None:
        self.ends.alice.local("bob").send()
        theirs = self.ends.arrived.get(timeout=PATIENCE)
        told = theirs.events("RemoteInvitationFailure")
        self.ends.lost = InvitationReceipt.UNCONFIRMED
        theirs.accept()
        reason = next(told.until(PATIENCE)).args[0]
        self.assertIs(reason, RemoteInvitationFailureReason.ACCEPT_FAILURE)

    def test_what_arrives_twice_counts_once(self) -> None:
        mine = self.ends.alice.local("bob")
        accepted = mine.events("LocalInvitationAccepted")
        mine.send()
        theirs = self.ends.arrived.get(timeout=PATIENCE)
        theirs.accept("yes")
        self.assertEqual(next(accepted.until(PATIENCE)).args, ("yes",))
        wait_until(lambda: theirs.state is RemoteInvitationState.ACCEPTED)
        copy = InvitationFromPeer("bob", mine._end.id, InvitationStep.ACCEPT, "yes", "")
        self.assertTrue(self.ends.alice.take(copy))
        refusal = InvitationFromPeer("bob", mine._end.id, InvitationStep.REFUSE, "no", "")
        self.assertFalse(self.ends.alice.take(refusal))
        again = InvitationFromPeer("alice", mine._end.id, InvitationStep.INVITE, "", "")
        self.assertTrue(self.ends.bob.take(again))
        self.assertTrue(self.ends.arrived.empty())
        self.assertIs(mine.state, LocalInvitationState.ACCEPTED_BY_REMOTE)

    def test_many_at_once_each_come_to_their_end(self) -> None:
        mine = [self.ends.alice.local("bob") for _ in range(50)]
        for invitation in mine:
            invitation.send()
        for number in range(50):
            theirs = self.ends.arrived.get(timeout=PATIENCE)
            theirs.accept() if number % 2 else theirs.refuse()
        over = (LocalInvitationState.ACCEPTED_BY_REMOTE, LocalInvitationState.REFUSED_BY_REMOTE)
        wait_until(lambda: all(item.state in over for item in mine))
        states = [item.state for item in mine]
        self.assertEqual([states.count(state) for state in over], [25, 25])

    def test_a_thread_lives_only_while_an_invitation_is_open(self) -> None:
        before = threading.active_count()
        mine = self.ends.alice.local("bob")
        self.assertEqual(threading.active_count(), before)
        mine.send()
        self.ends.arrived.get(timeout=PATIENCE).refuse()
        wait_until(lambda: threading.active_count() == before)

    def test_a_call_that_raises_is_tried_again(self) -> None:
        calls = itertools.count()

        def call(request: Request[Any], timeout: float) -> Any:
            if next(calls) < 2:
                raise PeerMessageError.named("TIMEOUT", "not now")
            return InvitationSent(InvitationReceipt.RECEIVED)

        registry = InvitationRegistry(
            call, lambda tell: tell(), print, self.ends.errors.append, lambda: True, SHORT
        )
        self.addCleanup(registry.close)
        mine = registry.local("bob")
        mine.send()
        wait_until(lambda: mine.state is LocalInvitationState.RECEIVED_BY_REMOTE)
