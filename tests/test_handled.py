"""Delivered means handled: whatever ends the receiving process, nothing that was kept is lost."""

from __future__ import annotations

import signal
import subprocess
import sys

from rtm_sync import LoginError, RtmClient
from rtm_sync.testing import GatewayProcess
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

COUNT = 40
RECEIVER = """
import sys, time
from rtm_sync import LoginError, RtmClient
from rtm_sync.testing import wait_until
url, path, how = sys.argv[1:]
client = RtmClient("app", url=url)
file = open(path, "a", buffering=1)
def handle(message, peer, props):
    file.write(message.text + "\\n")
    time.sleep(0.02)  # the handler's work
client.on("MessageFromPeer", handle)
def logged_in():
    try:
        client.login("bob")
    except LoginError as error:
        assert error.reason == "TOO_OFTEN", error
    return client.uid is not None
wait_until(logged_in)
print("ready", flush=True)
sys.stdin.read()
if how == "logout":
    client.logout()
elif how == "close":
    client.close()
"""


def log_in(client: RtmClient, uid: str = "bob") -> None:
    """Log in, as soon as the limit of two logins a second allows it."""

    def try_to() -> bool:
        try:
            client.login(uid)
        except LoginError as error:
            if error.reason != "TOO_OFTEN":
                raise
            return False
        return True

    wait_until(try_to)


class ProcessTest(RtmTestCase):
    def setUp(self) -> None:
        self.gateway = self.entered(GatewayProcess())
        self.alice = self.user("alice")
        self.path = self.folder() / "handled"
        self.path.touch()

    def user(self, uid: str) -> RtmClient:
        client = self.entered(RtmClient("app", url=self.gateway.url))
        client.login(uid)
        return client

    def send(self, count: int = COUNT) -> list[bool]:
        """Send numbers to bob; returns which of them bob's client has received."""
        results = [
            self.alice.send_message_to_peer(str(number), "bob", enable_offline_messaging=True)
            for number in range(count)
        ]
        self.assertTrue(all(r.has_peer_received is not r.cached_by_server for r in results))
        return [result.has_peer_received for result in results]

    def handled(self) -> list[int]:
        return [int(line) for line in self.path.read_text().splitlines()]

    def receiver(self, how: str = "kill") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", RECEIVER, self.gateway.url, self.path, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            self.addCleanup(stream.close)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def end(self, process: subprocess.Popen[str], how: str) -> None:
        if how == "kill":
            process.kill()
        elif how == "term":
            process.send_signal(signal.SIGTERM)
        else:
            assert process.stdin is not None
            process.stdin.close()
        process.wait(PATIENCE)

    def assert_the_rest_comes(self, first: list[int], how: str) -> None:
        """What the first process has not handled comes to the next, once and in order.

        After a kill, what was handled just before comes again and is marked.

        Args:
            first: what the handlers of the first process began with.
            how: what ended the process.
        """
        bob = RtmClient("app", url=self.gateway.url)
        with bob, bob.events("MessageFromPeer") as arriving:
            log_in(bob)
            self.alice.send_message_to_peer(str(COUNT), "bob", enable_offline_messaging=True)
            events = arriving.until(PATIENCE)
            rest = []
            while not rest or rest[-1][0] < COUNT:
                message, _, props = next(events).args
                rest.append((int(message.text), props.is_redelivered))
        numbers = [number for number, _ in rest]
        self.assertEqual(numbers, list(range(numbers[0], COUNT + 1)))
        again = {number for number, _ in rest} & set(first)
        self.assertEqual(first, list(range(len(first))))
        self.assertLessEqual(numbers[0], len(first))
        if how in ("logout", "close"):
            self.assertEqual(again, set())  # the one that was running was reported
        self.assertLessEqual(again, {number for number, is_again in rest if is_again})

    def test_what_waits_for_the_handlers_survives_their_process(self) -> None:
        for how in ("kill", "term", "logout", "close"):
            with self.subTest(how):
                self.path.write_text("")
                self.assertEqual(self.send(), [False] * COUNT)
                process = self.receiver(how)
                wait_until(lambda: len(self.handled()) > 3)
                self.end(process, how)
                first = self.handled()
                if how != "close":  # which gives the handlers a second
                    self.assertLess(len(first), COUNT)
                self.assert_the_rest_comes(first, how)

    def test_what_was_received_and_not_handled_survives_as_well(self) -> None:
        process = self.receiver()
        self.assertIn(True, self.send())
        self.end(process, "kill")
        self.assert_the_rest_comes(self.handled(), "kill")

    def test_it_survives_the_gateways_process_too(self) -> None:
        process = self.receiver()
        self.assertIn(True, self.send())
        self.gateway.kill()
        self.end(process, "kill")
        self.gateway.start()
        self.assert_the_rest_comes(self.handled(), "kill")


class OneProcessTest(RtmTestCase):
    def setUp(self) -> None:
        self.url = self.entered(local_gateway())
        self.alice = self.entered(RtmClient("app", url=self.url))
        self.alice.login("alice")

    def send(self, *texts: str) -> None:
        for text in texts:
            self.alice.send_message_to_peer(text, "bob", enable_offline_messaging=True)

    def bob(self) -> RtmClient:
        return RtmClient("app", url=self.url)

    def test_a_stream_takes_what_it_returns_and_the_next_login_gets_the_rest(self) -> None:
        self.send("one", "two", "three")
        texts = []
        for _ in range(3):  # as in the README
            with self.bob() as bob, bob.events("MessageFromPeer") as arriving:
                log_in(bob)
                texts.append(next(iter(arriving)).args[0].text)
        self.assertEqual(texts, ["one", "two", "three"])

    def test_a_login_that_only_sends_takes_nothing(self) -> None:
        self.send("one", "two")
        with self.bob() as bob:
            log_in(bob)
            bob.send_message_to_peer("hello", "alice")
            result = self.alice.send_message_to_peer("three", "bob", enable_offline_messaging=True)
            self.assertTrue(result.cached_by_server)
        with self.bob() as bob:
            log_in(bob)
            texts: list[str] = []
            marks: list[bool] = []

            @bob.on("MessageFromPeer")
            def received(message: object, peer: str, props: object) -> None:
                texts.append(message.text)  # type: ignore[attr-defined]
                marks.append(props.is_redelivered)  # type: ignore[attr-defined]

            wait_until(lambda: len(texts) == 3)
        self.assertEqual((texts, marks), (["one", "two", "three"], [False] * 3))

    def test_a_message_is_given_once_when_its_user_logs_in_again(self) -> None:
        with self.bob() as bob:
            texts: list[str] = []
            bob.on("MessageFromPeer", lambda message, *_: texts.append(message.text))
            for number in range(4):
                self.send(f"{number} kept")
                log_in(bob)
                self.send(f"{number} sent")
                bob.logout()
            log_in(bob)
            self.send("last")
            wait_until(lambda: "last" in texts)
        expected = [f"{number} {how}" for number in range(4) for how in ("kept", "sent")]
        self.assertEqual(texts, [*expected, "last"])
