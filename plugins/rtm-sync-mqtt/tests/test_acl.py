"""The README's ACL in a real broker: nobody does anything in another user's name."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import rtm_sync_mqtt
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from rtm_sync import DownloadMediaError, RtmClient
from rtm_sync.testing import wait_until

from .broker import Broker, running_broker
from .test_mqtt import PATIENCE, BrokerCase, hashed

README = Path(__file__).parents[1] / "README.md"
USERS = ("alice", "bob", "mallory", "a%20b")


class AclCase(BrokerCase):
    """Users with passwords at a broker with the README's ACL."""

    def setUp(self) -> None:
        found = re.search(r"```text\n(# what a user may read.*?)```", README.read_text(), re.S)
        assert found is not None
        folder = self.folder()
        passwords, rules = folder / "passwords", folder / "rules"
        passwords.write_text("".join(f"{hashed(name, f'of {name}')}\n" for name in USERS))
        rules.write_text(found[1])
        passwords.chmod(0o600)
        rules.chmod(0o600)
        self.broker: Broker = self.entered(
            running_broker(f"password_file {passwords}", f"acl_file {rules}")
        )
        self.media = self.folder()

    def user(self, uid: str, name: str = "") -> RtmClient:
        url = f"mqtt://127.0.0.1:{self.broker.port}/rtm?media=disk://{self.media}"
        client = RtmClient("my-app", url=url, plugins=(rtm_sync_mqtt,))
        self.addCleanup(client.close)
        client.login(uid, f"of {name or uid}")
        return client

    def stranger(self, name: str) -> Client:
        """A client of another maker, with a user's password."""
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        client.username_pw_set(name, f"of {name}")
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", self.broker.port)
        client.loop_start()
        self.addCleanup(client.loop_stop)
        self.addCleanup(client.disconnect)
        self.assertTrue(connected.wait(PATIENCE))
        return client


class HonestTest(AclCase):
    def test_everything_works(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        arriving = self.listen(bob, "MessageFromPeer")
        self.assertTrue(alice.send_message_to_peer("hi", "bob").has_peer_received)
        self.assertEqual(self.next_of(arriving)[0].text, "hi")
        room, theirs = alice.create_channel("room"), bob.create_channel("room")
        room.join()
        theirs.join()
        in_room = self.listen(theirs, "ChannelMessage")
        wait_until(lambda: sorted(room.get_members()) == ["alice", "bob"])
        room.send_message("to all")
        self.assertEqual(self.next_of(in_room)[0].text, "to all")
        invited = self.listen(bob, "RemoteInvitationReceived")
        alice.create_local_invitation("bob").send()
        self.assertEqual(self.next_of(invited)[0].caller_id, "alice")
        sent = alice.create_media_message_by_uploading(b"bytes" * 1000).result(PATIENCE)
        got = bob.download_media(sent.media_id).result(PATIENCE)
        self.assertEqual(got.to_bytes(), b"bytes" * 1000)
        bob.logout()
        wait_until(lambda: not alice.query_peers_online_status(["bob"])["bob"])
        kept = alice.send_message_to_peer("later", "bob", enable_offline_messaging=True)
        self.assertTrue(kept.cached_by_server)
        for expected in (["later"], []):  # handled once, and deleted
            client = self.user("bob")
            texts = self.listen(client, "MessageFromPeer")
            alice.send_message_to_peer("now", "bob")
            found = []
            while (text := self.next_of(texts)[0].text) != "now":
                found.append(text)
            self.assertEqual(found, expected)
            client.logout()

    def test_a_uid_that_is_no_level_has_its_encoded_name(self) -> None:
        odd, alice = self.user("a b", "a%20b"), self.user("alice")
        arriving = self.listen(alice, "MessageFromPeer")
        self.assertTrue(odd.send_message_to_peer("hi", "alice").has_peer_received)
        self.assertEqual(self.next_of(arriving)[1], "a b")


class HostileTest(AclCase):
    def test_nobody_writes_or_reads_in_another_users_place(self) -> None:
        mallory = self.stranger("mallory")
        answers: dict[int, Any] = {}
        mallory.on_publish = lambda _c, _u, mid, reason, _p: answers.update({mid: reason})
        root = "rtm/my-app"
        for topic in (
            f"{root}/u/alice/s/{'0' * 22}/message/bob",
            f"{root}/u/alice/s/{'0' * 22}/taken/alice",
            f"{root}/u/alice/s/{'0' * 22}/receipt/bob",
            f"{root}/u/alice/mail/bob/1",
            f"{root}/u/alice/online/x",
            f"{root}/u/alice/seen",
            f"{root}/c/room/message/alice",
            f"{root}/c/room/member/alice/x",
            f"{root}/m/alice/{'x' * 32}",
            f"{root}/m/{'x' * 32}",
            "rtm/other-app/u/alice/mail/mallory/1",
            "anything",
        ):
            with self.subTest(topic):
                sent = mallory.publish(topic, b"", qos=1, retain=True)
                wait_until(lambda sent=sent: sent.mid in answers)
                self.assertTrue(answers[sent.mid].is_failure, answers[sent.mid])
        for topic in (f"{root}/u/bob/mail/mallory/1", f"{root}/c/room/message/mallory"):
            sent = mallory.publish(topic, b"{}", qos=1)
            wait_until(lambda sent=sent: sent.mid in answers)
            self.assertFalse(answers[sent.mid].is_failure)
        # Mosquitto lets her subscribe, and delivers nothing that she may not read.
        bob = self.stranger("bob")
        for topic in (f"{root}/u/alice/mail/bob/2", f"{root}/u/mallory/mail/bob/3"):
            bob.publish(topic, b"{}", 1, retain=True).wait_for_publish(PATIENCE)
        read: list[str] = []
        mallory.on_message = lambda _c, _u, message: read.append(message.topic)
        for topic in (f"{root}/u/alice/#", "rtm/other-app/#", f"{root}/u/mallory/mail/+/+"):
            mallory.subscribe(topic, 1)
        wait_until(lambda: bool(read))
        self.assertEqual(read, [f"{root}/u/mallory/mail/bob/3"])

    def test_what_names_another_user_than_its_topic_is_ignored(self) -> None:
        alice, mallory = self.user("alice"), self.stranger("mallory")
        arriving = self.listen(alice, "MessageFromPeer", "RemoteInvitationReceived")
        room = alice.create_channel("room")
        room.join()
        in_room = self.listen(room, "ChannelMessage")
        bob = self.user("bob")
        theirs = bob.create_channel("room")
        theirs.join()
        [session] = self.sessions("alice")
        message = (
            b'"message":{"type":"TEXT","text":"forged"},"message_id":"1",'
            b'"message_props":{"server_received_ts":1}'
        )
        forged = {
            f"u/alice/s/{session}/message/mallory": b'{"peer_id":"bob",%s}' % message,
            f"u/alice/s/{session}/invitation/mallory": b'{"peer_id":"bob","invitation_id":"1",'
            b'"step":"INVITE","content":"forged","channel_id":""}',
            "u/alice/mail/mallory/1": b'{"peer_id":"bob",%s}' % message,
            "c/room/message/mallory": b'{"channel_id":"room","member_id":"bob",%s}' % message,
            f"u/alice/s/{session}/taken/mallory": b"",
        }
        with self.assertLogs("rtm_sync_mqtt", "WARNING") as logs:
            for topic, payload in forged.items():
                properties = Properties(PacketTypes.PUBLISH)
                mallory.publish(f"rtm/my-app/{topic}", payload, 1, properties=properties)
            refusals = [f"'rtm/my-app/{topic}' is not its own" for topic in forged]
            wait_until(lambda: all(one in "\n".join(logs.output) for one in refusals))
            bob.send_message_to_peer("genuine", "alice")
            theirs.send_message("genuine")
            self.assertEqual(self.next_of(arriving)[0].text, "genuine")
            self.assertEqual(self.next_of(in_room)[0].text, "genuine")
        self.assertEqual(alice.connection_state.name, "CONNECTED")

    def test_a_record_of_another_users_medium_does_not_count(self) -> None:
        alice, bob, mallory = self.user("alice"), self.user("bob"), self.stranger("mallory")
        sent = alice.create_media_message_by_uploading(b"genuine").result(PATIENCE)
        for record in (b"x" * 24 + b"{}", b""):
            done = mallory.publish(f"rtm/my-app/m/mallory/{sent.media_id}", record, 1, retain=True)
            done.wait_for_publish(PATIENCE)
        self.assertEqual(bob.download_media(sent.media_id).result(PATIENCE).to_bytes(), b"genuine")
        with self.assertRaises(DownloadMediaError):
            bob.download_media("x" * 32).result(PATIENCE)

    def sessions(self, uid: str) -> list[str]:
        """The sessions of a user, as anybody may see them."""
        found: list[str] = []
        watcher = self.stranger("bob")
        watcher.on_message = lambda _c, _u, message: found.append(message.topic.split("/")[-1])
        watcher.subscribe(f"rtm/my-app/u/{uid}/online/+", 1)
        wait_until(lambda: bool(found))
        return found
