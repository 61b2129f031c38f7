"""The gateway is killed under load at random moments: acknowledged data survives."""

from __future__ import annotations

import hashlib
import random
import threading

from rtm_sync import RtmClient, RtmError
from rtm_sync.testing import GatewayProcess
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
