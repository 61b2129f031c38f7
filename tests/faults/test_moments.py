"""The kill matrix of stored messages: client or gateway is killed at each moment of their life.

Each test kills somebody while five messages are under way, lets everything go on, and balances the
books: none lost, none out of order, none twice in one process, and copies are marked.
"""

from __future__ import annotations

import signal
import threading
import time
from functools import partial

from rtm_sync import RtmClient, RtmError
from rtm_sync.testing import FaultProxy
from tests.faults.books import Books, End, message_id
from tests.faults.client_process import APP, Orders, given_path, read_book
from tests.faults.dying_gateway import MOMENTS, DyingGateway
from tests.faults.killed_clients import User, stored_messages
from tests.support import PATIENCE, RtmTestCase, at_once, wait_until

COUNT = 5
_PING = {"ping_interval": 0.2, "ping_timeout": 1.0}


class Scene:
    """A gateway, alice in this process, bob in others, and the books. The case cleans up."""

    def __init__(self, case: RtmTestCase) -> None:
        self._case = case
        folder = case.folder()
        self.gateway = DyingGateway(folder / "data")
        case.addCleanup(self.gateway.close)
        self.books = Books()
        self.bob = User(Orders("", "bob", 0, str(folder), 0), self.books.lives)
        case.addCleanup(self.bob.kill)
        self.answers: list[str] = []

    def begin(self, moment: str | None = None) -> None:
        """Start the gateway, which dies at the moment, and log alice in."""
        self.gateway.moment = moment
        self.gateway.start()
        self.gateway.moment = None  # the next one lives
        self.alice = self._case.entered(RtmClient(APP, url=self.gateway.url, **_PING))
        self.alice.login("alice")

    def start_bob(self, *, url: str = "", holds: bool = False) -> None:
        self.bob.start(url=url or self.gateway.url, holds=holds)
        wait_until(lambda: self.bob.has_written("finished"), PATIENCE)  # has logged in

    def send(self, first: int, count: int) -> None:
        """Send numbers, each until it is answered."""
        for number in range(first, first + count):
            how = None
            while how is None:
                how = self.sent(number)
            self.answers.append(how)

    def sent(self, number: int) -> str | None:
        entry = {"to": "bob", "number": number, "kept": True}
        self.books.enter_sent("alice", {"what": "tried", "at": time.monotonic(), **entry})
        try:
            result = self.alice.send_message_to_peer(
                str(number),
                "bob",
                message_id=message_id("alice", "bob", number),
                enable_offline_messaging=True,
                timeout=1.0,
            )
        except RtmError as error:
            self._case.assertIn(error.reason, ("TIMEOUT", "FAILURE"))
            return None
        how = "received" if result.has_peer_received else "cached"
        answered = {"what": "answered", "how": how, "at": time.monotonic(), **entry}
        self.books.enter_sent("alice", answered)
        return how

    def written(self, what: str) -> list[int]:
        """The numbers that bob's processes were given, or have handled."""
        return [
            entry["number"]
            for life in self.books.lives
            for entry in read_book(given_path(str(self.bob.given.parent), "bob", life.number))
            if entry["what"] == what
        ]

    def check(self) -> None:
        """All are handled, nothing is left on the gateway, and the books balance."""
        self.send(COUNT, 1)  # comes after whatever is left
        wait_until(lambda: set(self.written("handled")) == {*range(COUNT + 1)}, PATIENCE)
        self.bob.close()
        self.bob.life.end = End.CLOSED
        wait_until(lambda: stored_messages(self.gateway.data) == 0, PATIENCE)
        for life in self.books.lives:
            for entry in read_book(given_path(str(self.bob.given.parent), "bob", life.number)):
                self.books.enter_given(life, entry)
        problems, counts = self.books.balance()
        self._case.assertEqual(problems, [], counts)
        self._case.assertEqual(counts["messages acknowledged and kept"], COUNT + 1)


class KilledClientTest(RtmTestCase):
    def test_in_the_handler_and_before_it(self) -> None:
        def end_by(number: signal.Signals) -> None:
            scene = Scene(self)
            scene.begin()
            scene.start_bob(holds=True)
            scene.send(0, COUNT)
            self.assertEqual(scene.answers, ["received"] * COUNT)
            wait_until(lambda: scene.written("given") == [0], PATIENCE)
            scene.bob.end(number)
            scene.start_bob()
            scene.check()
            self.assertEqual(scene.written("handled"), [*range(COUNT + 1)])
            self.assertEqual(scene.written("given"), [0, *range(COUNT + 1)])

        at_once(lambda: end_by(signal.SIGKILL), lambda: end_by(signal.SIGTERM))

    def test_after_the_handler_before_its_report(self) -> None:
        scene = Scene(self)
        scene.begin()
        proxy = self.entered(FaultProxy(scene.gateway.url))
        scene.start_bob(url=proxy.url, holds=True)
        scene.send(0, COUNT)
        wait_until(lambda: scene.written("given") == [0], PATIENCE)
        proxy.stall()
        scene.bob.say("go")
        wait_until(lambda: scene.written("handled") == [*range(COUNT)], PATIENCE)
        scene.bob.end(signal.SIGKILL)
        proxy.drop()  # the reports are lost with the connection
        scene.start_bob()
        scene.check()
        self.assertEqual(scene.written("handled"), [*range(COUNT), *range(COUNT + 1)])

    def test_after_its_report(self) -> None:
        scene = Scene(self)
        scene.begin()
        scene.start_bob()
        scene.send(0, COUNT)
        wait_until(lambda: scene.written("handled") == [*range(COUNT)], PATIENCE)
        wait_until(lambda: stored_messages(scene.gateway.data) == 0, PATIENCE)
        scene.bob.end(signal.SIGKILL)
        scene.start_bob()
        scene.check()
        self.assertEqual(scene.written("given"), [*range(COUNT + 1)])


class KilledGatewayTest(RtmTestCase):
    def die(self, moment: str, *, with_bob: bool) -> None:
        scene = Scene(self)
        scene.begin(moment)
        scene.start_bob()
        sender = threading.Thread(target=scene.send, args=(0, COUNT))
        sender.start()
        try:
            wait_until(lambda: not scene.gateway.is_running, PATIENCE, f"not seen: {moment}")
            scene.gateway.kill()  # takes note that the process is gone
            if with_bob:
                scene.bob.end(signal.SIGKILL)
            scene.gateway.start()
        finally:
            sender.join(PATIENCE)
        if with_bob:
            self.assertEqual(scene.answers[-1], "cached", moment)
            scene.start_bob()
        scene.check()
        if not with_bob:
            self.assertEqual(scene.written("given"), [*range(COUNT + 1)], moment)

    def test_the_receiver_lives(self) -> None:
        at_once(
            lambda: self.die("offered, receipt not read", with_bob=False),
            lambda: self.die("reported, not deleted", with_bob=False),
        )

    def test_the_receiver_is_killed_too(self) -> None:
        moments = list(MOMENTS)
        for pair in (moments[:2], moments[2:4], moments[4:]):
            with self.subTest(pair):
                at_once(*(partial(self.die, moment, with_bob=True) for moment in pair))
