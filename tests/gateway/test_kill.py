"""The gateway is killed under load at random moments: acknowledged data survives."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading

from rtm_sync import RtmClient, RtmError
from rtm_sync.testing import FaultProxy, GatewayProcess
from tests.support import PATIENCE, RtmTestCase, Stopwatch, wait_until

ROUNDS = 3
MESSAGES = 60  # per round; all rounds stay below the 200 offline messages of a user
START_BOUND = 2.0  # seconds, as promised
SEED = 20261123


class KillTest(RtmTestCase):
    def setUp(self) -> None:
        self.process = GatewayProcess(self.folder())
        self.addCleanup(self.process.close)
        self.acknowledged: list[str] = []
        self.stored: dict[str, str] = {}  # media id: SHA-256

    def send_until_it_fails(self, client: RtmClient, name: str) -> None:
        for number in range(MESSAGES):
            text = f"{name}-{number}"
            try:
                sent = client.send_message_to_peer(
                    text, "bob", enable_offline_messaging=True, message_id=text, timeout=PATIENCE
                )
            except RtmError:
                return
            if sent.cached_by_server:
                self.acknowledged.append(text)

    def upload_until_it_fails(self, client: RtmClient, chance: random.Random) -> None:
        while True:
            data = chance.randbytes(chance.randrange(1, 1_500_000))
            try:
                message = client.create_media_message_by_uploading(data).result(PATIENCE)
            except RtmError:
                return
            self.stored[message.media_id] = hashlib.sha256(data).hexdigest()

    def one_life(self, number: int, chance: random.Random) -> None:
        """Create load, and send SIGKILL during it."""
        with RtmClient("app", url=self.process.url) as client:
            client.login("alice")
            workers = [
                threading.Thread(target=self.send_until_it_fails, args=(client, f"life-{number}")),
                threading.Thread(
                    target=self.upload_until_it_fails,
                    args=(client, random.Random(chance.random())),
                ),
            ]
            before = len(self.acknowledged), len(self.stored)
            for worker in workers:
                worker.start()
            wait_until(
                lambda: len(self.acknowledged) > before[0] and len(self.stored) > before[1],
                PATIENCE,
            )
            threading.Event().wait(chance.uniform(0, 0.2))
            self.process.kill()
            client.close()  # the gateway is dead
            for worker in workers:
                worker.join(PATIENCE)
                self.assertFalse(worker.is_alive())

    def test_nothing_acknowledged_is_lost_and_nothing_partial_is_seen(self) -> None:
        chance = random.Random(SEED)
        self.process.start()
        for number in range(ROUNDS):
            self.one_life(number, chance)
            watch = Stopwatch()
            self.process.start()
            self.assertLess(watch.seconds(), START_BOUND + 1.0)  # with the interpreter's start
        with RtmClient("app", url=self.process.url) as bob:
            with bob.events("MessageFromPeer") as arriving:
                bob.login("bob")
                texts: list[str] = []
                for event in arriving.until(PATIENCE):
                    texts.append(event.args[0].text)
                    if self.acknowledged[-1] in texts:
                        break
            # Stored but unacknowledged messages may arrive, but never twice or reordered.
            self.assertEqual(len(texts), len(set(texts)))
            acknowledged = set(self.acknowledged)
            self.assertEqual([text for text in texts if text in acknowledged], self.acknowledged)
            for media_id, digest in self.stored.items():
                data = bob.download_media(media_id).result(PATIENCE).to_bytes()
                self.assertEqual(hashlib.sha256(data).hexdigest(), digest)
            whole = {
                path.name for path in (self.process.data / "media").glob("*/*") if not path.suffix
            }
            self.assertLessEqual(set(self.stored), whole)


class ChannelKillTest(RtmTestCase):
    """What was accepted in a channel reaches its members, whenever the gateway is killed."""

    def setUp(self) -> None:
        self.process = self.entered(GatewayProcess(self.folder()))

    def member(self, uid: str, url: str | None = None) -> _Member:
        client = RtmClient("app", url=url or self.process.url)
        self.addCleanup(client.close)
        client.login(uid)
        return _Member(client)

    def test_members_get_all_that_was_accepted_once_and_in_order(self) -> None:
        chance = random.Random(SEED)
        alice, bob = self.member("alice"), self.member("bob")
        done = threading.Event()
        accepted: list[str] = []

        def send() -> None:
            for number in itertools.count():
                if done.is_set():
                    return
                while not alice.sent(str(number), timeout=0.3):
                    pass
                accepted.append(str(number))

        sender = threading.Thread(target=send)
        sender.start()
        try:
            for _ in range(ROUNDS):
                before = len(accepted)
                wait_until(lambda before=before: len(accepted) > before + 20, PATIENCE)
                threading.Event().wait(chance.uniform(0, 0.05))
                self.process.kill()
                self.process.start()
        finally:
            done.set()
            sender.join(PATIENCE)
        wait_until(lambda: len(bob.texts) >= len(accepted), PATIENCE)
        self.assertEqual(bob.texts, accepted)
        self.assertIn(True, bob.recovered)
        self.assertNotIn(False, bob.recovered)

    def test_what_was_accepted_before_another_member_is_back_reaches_it(self) -> None:
        alice = self.member("alice")
        proxy = self.entered(FaultProxy(self.process.url))
        bob = self.member("bob", proxy.url)
        self.assertTrue(alice.sent("before"))
        wait_until(lambda: bob.texts == ["before"], PATIENCE)
        proxy.refuse()
        proxy.drop()
        self.assertTrue(alice.sent("away"))
        for text in ("killed-once", "killed-twice"):
            self.process.kill()
            self.process.start()
            self.assertTrue(alice.sent(text))
        proxy.restore()
        wait_until(lambda: len(bob.texts) == 4, PATIENCE)
        self.assertEqual(bob.texts, ["before", "away", "killed-once", "killed-twice"])
        wait_until(lambda: bob.recovered == [True], PATIENCE)

    def test_a_message_that_is_sent_again_after_the_kill_comes_once(self) -> None:
        alice, bob = self.member("alice"), self.member("bob")
        self.assertTrue(alice.sent("1"))
        self.assertTrue(alice.sent("2"))
        self.process.kill()
        self.process.start()
        carol = self.member("carol")  # has no memory of the first
        self.assertTrue(alice.sent("2"))
        self.assertTrue(alice.sent("3"))
        wait_until(lambda: bob.texts == ["1", "2", "3"], PATIENCE)
        wait_until(lambda: carol.texts == ["3"], PATIENCE)


class _Member:
    """A member of a room, and what it was given."""

    def __init__(self, client: RtmClient) -> None:
        self.channel = client.create_channel("room")
        self.texts: list[str] = []
        self.recovered: list[bool] = []
        self.channel.on("ChannelMessage", lambda message, *_: self.texts.append(message.text))
        self.channel.on("Reconnected", self.recovered.append)
        self.channel.join()

    def sent(self, text: str, timeout: float = PATIENCE) -> bool:
        """Send a text under an id made of it. False when that was not answered."""
        try:
            self.channel.send_message(text, message_id=f"id-{text}", timeout=timeout)
        except RtmError as error:
            if error.reason not in ("TIMEOUT", "FAILURE"):
                raise
            return False
        return True
