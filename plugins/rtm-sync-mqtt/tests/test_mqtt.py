"""Cases beyond the contract: wills, restarts, passwords, TLS, messages of foreign clients."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import rtm_sync_mqtt
import trustme
from paho.mqtt import publish as paho
from rtm_sync_mqtt.contract import ConnectionLost

from rtm_sync import (
    ConnectionChangeReason,
    ConnectionState,
    CreateInstanceError,
    DownloadMediaError,
    LoginError,
    PeerMessageError,
    RtmClient,
    UploadMediaError,
)
from rtm_sync.client.events import EventStream
from rtm_sync.supervision import loop_failures
from rtm_sync.testing import FaultProxy, RtmTestCase, wait_until
from rtm_sync.transports.base import TransportOptions

from .broker import Broker, running_broker

PATIENCE = 15.0


class BrokerCase(RtmTestCase):
    """A test case whose tests share one broker."""

    _broker: ClassVar[Broker]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls._broker = stack.enter_context(running_broker())

    def setUp(self) -> None:
        self.url = self._broker.url()

    def client(self, uid: str | None = None, **options: Any) -> RtmClient:
        url = options.pop("url", self.url)
        client = RtmClient("app", url=url, plugins=(rtm_sync_mqtt,), **options)
        self.addCleanup(client.close)
        if uid is not None:
            client.login(uid)
        return client

    def listen(self, emitter: Any, *names: str) -> EventStream:
        stream: EventStream = emitter.events(*names)
        self.addCleanup(stream.close)
        return stream

    def next_of(self, stream: EventStream) -> tuple[Any, ...]:
        return next(stream.until(PATIENCE)).args

    def proxied(self, url: str) -> tuple[FaultProxy, str]:
        """Start a proxy in front of the broker. Returns it and its URL."""
        proxy = self.entered(FaultProxy(url))
        port = proxy.url.rpartition(":")[2].partition("/")[0]
        return proxy, url.replace(f":{self._broker.port}", f":{port}", 1)


class LostConnectionTest(BrokerCase):
    def test_a_client_that_is_gone_for_good_leaves_by_its_will(self) -> None:
        proxy, through = self.proxied(f"{self.url}?grace=1")
        alice, bob = self.client("alice"), self.client("bob", url=through)
        room = alice.create_channel("room")
        room.join()
        bob.create_channel("room").join()
        self.assertTrue(alice.send_message_to_peer("hi", "bob").has_peer_received)
        news = self.listen(room, "MemberLeft")
        cut(proxy)
        self.assertEqual(self.next_of(news), ("bob",))
        self.assertFalse(alice.send_message_to_peer("hi", "bob").has_peer_received)

    def test_a_dead_member_that_nobody_saw_is_none_to_the_next_who_joins(self) -> None:
        proxy, through = self.proxied(f"{self.url}?grace=1")
        alice, bob = self.client("alice"), self.client("bob", url=through)
        bob.create_channel("room").join()
        cut(proxy)
        wait_until(lambda: not alice.send_message_to_peer("hi", "bob").has_peer_received, PATIENCE)
        room = alice.create_channel("room")
        room.join()
        news = self.listen(room, "MemberJoined", "MemberLeft")
        self.client("bob").create_channel("room").join()
        self.assertEqual(next(news.until(PATIENCE)), ("MemberJoined", ("bob",)))

    def test_a_killed_process_leaves_by_its_will_and_its_place_is_free(self) -> None:
        alice = self.client("alice")
        room = alice.create_channel("room")
        room.join()
        news = self.listen(room, "MemberJoined", "MemberLeft")
        code = (
            "import sys, rtm_sync_mqtt\n"
            "from rtm_sync import RtmClient\n"
            f"client = RtmClient('app', url={self.url + '?grace=1'!r}, plugins=(rtm_sync_mqtt,))\n"
            "client.login('bob')\n"
            "client.create_channel('room').join()\n"
            "sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", code]
        environment = {"PYTHONPATH": _path()}
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
            try:
                self.assertEqual(self.next_of(news), ("bob",))
            finally:
                process.kill()
        self.assertEqual(self.next_of(news), ("bob",))
        bob = self.client("bob")
        self.assertTrue(alice.send_message_to_peer("hi", "bob").has_peer_received)
        self.assertEqual(bob.connection_state, ConnectionState.CONNECTED)

    def test_what_is_sent_while_a_connection_is_away_arrives_when_it_is_back(self) -> None:
        proxy, through = self.proxied(self.url)
        alice, bob = self.client("alice"), self.client("bob", url=through)
        rooms = [client.create_channel("room") for client in (alice, bob)]
        for room in rooms:
            room.join()
        left = self.listen(rooms[0], "MemberLeft")
        arriving = self.listen(rooms[1], "ChannelMessage")
        back = self.listen(bob, "Reconnected")
        for number in range(20):
            if number in (5, 12):
                proxy.drop()
            rooms[0].send_message(str(number))
        received = [self.next_of(arriving)[0].text for _ in range(20)]
        self.assertEqual(received, [str(number) for number in range(20)])
        self.assertEqual(self.next_of(back), (True,))
        self.assertTrue(alice.send_message_to_peer("hi", "bob").has_peer_received)
        self.assertEqual(list(left.until(0.01)), [])

    def test_a_call_waits_for_the_connection_within_its_time_out(self) -> None:
        proxy, through = self.proxied(self.url)
        alice = self.client("alice", url=through)
        bob = self.client("bob")
        arriving = self.listen(bob, "MessageFromPeer")
        proxy.drop()
        self.assertTrue(alice.send_message_to_peer("one", "bob").has_peer_received)
        self.assertEqual(self.next_of(arriving)[0].text, "one")
        cut(proxy)
        began = time.monotonic()
        with self.assertRaisesRegex(PeerMessageError, "PEER_MESSAGE_ERR_TIMEOUT"):
            alice.send_message_to_peer("two", "bob", timeout=0.3)
        self.assertLess(time.monotonic() - began, PATIENCE)
        proxy.restore()

    def test_who_logged_in_elsewhere_meanwhile_is_not_thrown_out_by_the_one_that_is_back(
        self,
    ) -> None:
        proxy, through = self.proxied(f"{self.url}?grace=1")
        first = self.client("alice", url=through)
        states = self.listen(first, "ConnectionStateChanged")
        cut(proxy)
        second = self.client("alice")
        proxy.restore()
        told = self.next_of(states)
        while told[0] is not ConnectionState.ABORTED:
            told = self.next_of(states)
        self.assertEqual(told[1], ConnectionChangeReason.REMOTE_LOGIN)
        arriving = self.listen(second, "MessageFromPeer")
        self.assertTrue(self.client("bob").send_message_to_peer("hi", "alice").has_peer_received)
        self.assertEqual(self.next_of(arriving)[0].text, "hi")


class SupervisedTest(BrokerCase):
    def test_the_reader_goes_on_after_an_unexpected_error(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        arriving = self.listen(alice, "MessageFromPeer", "Reconnected")
        connection = alice._transport._session.connection  # type: ignore[attr-defined]
        before = loop_failures().get("MQTT reader", 0)

        def fail(client: object) -> None:
            raise ZeroDivisionError("a bug")

        with self.assertLogs("rtm_sync.supervision", "ERROR") as logs:
            asked = connection._submit(fail)
            events = arriving.until(PATIENCE)
            self.assertEqual(next(events), ("Reconnected", (True,)))
            self.assertIsInstance(asked.exception(0), ConnectionLost)
        self.assertTrue(bob.send_message_to_peer("hi", "alice").has_peer_received)
        self.assertEqual(next(events).args[0].text, "hi")
        self.assertEqual(loop_failures()["MQTT reader"] - before, 1)
        self.assertIn("ZeroDivisionError: a bug", logs.output[0])
        self.assertEqual(alice.connection_state, ConnectionState.CONNECTED)


class RestartTest(BrokerCase):
    def test_a_broker_that_forgot_everything_is_told_again_and_the_gap_is_admitted(self) -> None:
        with running_broker() as broker:
            url = broker.url()
            alice, bob = self.client("alice", url=url), self.client("bob", url=url)
            rooms = [client.create_channel("room") for client in (alice, bob)]
            for room in rooms:
                room.join()
            back = [self.listen(room, "Reconnected") for room in rooms]
            broker.stop()
            broker.start()
            for stream in back:
                self.assertEqual(self.next_of(stream), (False,))
            arriving = self.listen(rooms[1], "ChannelMessage")
            rooms[0].send_message("still here")
            self.assertEqual(self.next_of(arriving)[0].text, "still here")
            self.assertTrue(bob.send_message_to_peer("hi", "alice").has_peer_received)
            alice.close()
            bob.close()


class LoginTest(BrokerCase):
    def refused(self, reason: str, message: str, url: str, token: str | None = None) -> None:
        client = self.client(url=url, login_timeout=1.0)
        with self.assertRaisesRegex(LoginError, message) as caught:
            client.login("alice", token)
        self.assertEqual(caught.exception.reason, reason)
        self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)

    def test_a_token_is_the_brokers_password_and_wins_over_the_urls(self) -> None:
        folder = self.folder()
        passwords = folder / "passwords"
        passwords.write_text(f"{hashed('alice', 'secret')}\n{hashed('service', 'other')}\n")
        rules = folder / "rules"
        rules.write_text("user alice\ntopic readwrite #\n")
        passwords.chmod(0o600)
        rules.chmod(0o600)
        with running_broker(f"password_file {passwords}", f"acl_file {rules}") as broker:
            url = broker.url()
            self.client(url=url).login("alice", "secret")
            with_user = url.replace("//", "//alice:secret@")
            self.client("bob", url=with_user)
            self.refused("NOT_AUTHORIZED", "refused the login", url, "wrong")
            self.refused("NOT_AUTHORIZED", "refused the login", url)
            self.refused(
                "NOT_AUTHORIZED",
                "refused a subscription",
                url.replace("//", "//service:other@"),
            )

    def test_tls_is_checked_against_the_given_authority(self) -> None:
        folder = self.folder()
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        server.private_key_pem.write_to_path(folder / "key.pem")
        server.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        trustme.CA().cert_pem.write_to_path(folder / "other.pem")
        lines = (
            "allow_anonymous true",
            f"certfile {folder / 'cert.pem'}",
            f"keyfile {folder / 'key.pem'}",
        )
        with running_broker(*lines) as broker:
            url = broker.url().replace("mqtt:", "mqtts:")
            alice = self.client("alice", url=url, ca_file=folder / "ca.pem")
            bob = self.client("bob", url=url, ca_file=folder / "ca.pem")
            arriving = self.listen(bob, "MessageFromPeer")
            self.assertTrue(alice.send_message_to_peer("x" * 30_000, "bob").has_peer_received)
            self.assertEqual(len(self.next_of(arriving)[0].text), 30_000)
            stranger = self.client(url=url, ca_file=folder / "other.pem")
            with self.assertRaises(LoginError) as caught:
                stranger.login("carol")
            self.assertIsInstance(caught.exception.cause, ssl.SSLError)
            sockets = [one for one in gc.get_objects() if isinstance(one, ssl.SSLSocket)]
            in_use = [one for one in sockets if one.fileno() != -1]
            self.assertEqual(len(in_use), 2, "that of the failed login is open")
            alice.close()
            bob.close()

    def test_nobody_there_and_somebody_silent_are_told_apart(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            self.refused("TIMEOUT", "within 1 seconds", f"mqtt://127.0.0.1:{port}")
        self.refused("UNKNOWN", "cannot be reached", f"mqtt://127.0.0.1:{port}")

    def test_a_media_store_that_cannot_be_is_a_login_error(self) -> None:
        self.refused("REJECTED", "No media store serves 'tape'", f"{self.url}?media=tape:1")

    def test_urls_that_are_none_are_refused_and_other_schemes_declined(self) -> None:
        for url in (
            "mqtt://",
            "mqtt://host:port",
            "mqtt://host?colour=blue",
            "mqtt://host/a%2B/b",
            "mqtt://host?grace=0",
            "mqtt://host?grace=soon",
        ):
            with self.subTest(url), self.assertRaises(CreateInstanceError):
                self.client(url=url)
        self.assertIsNone(rtm_sync_mqtt.transport("ws://host", TransportOptions()))


class TopicTest(BrokerCase):
    def test_ids_that_mean_something_to_mqtt_are_only_names(self) -> None:
        names = ("+", "#", "$SYS", "a+b#c", "%2F", " ")
        clients = {name: self.client(name) for name in names}
        rooms = {name: client.create_channel("#") for name, client in clients.items()}
        other = clients["+"].create_channel("+")
        for room in (*rooms.values(), other):
            room.join()
        strayed = self.listen(other, "ChannelMessage")
        for name, client in clients.items():
            arriving = self.listen(client, "MessageFromPeer")
            sender = "#" if name != "#" else "+"
            self.assertTrue(clients[sender].send_message_to_peer(name, name).has_peer_received)
            self.assertEqual(self.next_of(arriving)[:2][1], sender)
        in_room = self.listen(rooms["%2F"], "ChannelMessage")
        rooms["+"].send_message("to all in #")
        self.assertEqual(self.next_of(in_room)[1], "+")
        self.assertEqual(list(strayed.until(0.01)), [])

    def test_what_strangers_publish_costs_a_log_line_and_nothing_else(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        room = alice.create_channel("room")
        room.join()
        theirs = bob.create_channel("room")
        theirs.join()
        self.assertTrue(bob.send_message_to_peer("hi", "alice").has_peer_received)
        root = f"{self.url.rpartition('/')[2]}/app"
        topics = [
            f"{root}/u/alice/mail/x/1",
            f"{root}/u/alice/online/zz",
            f"{root}/c/room/message",
            f"{root}/c/room/member/x/y",
        ]
        messages: list[Any] = [
            {"topic": topic, "payload": payload, "qos": 1}
            for topic in topics
            for payload in (b"\xff", b"{}", b'{"message":{"type":"TEXT"}}', b"[" * 10_000)
        ]
        with self.assertLogs("rtm_sync_mqtt", "WARNING"):
            paho.multiple(messages, "127.0.0.1", self._broker.port)
            arriving = self.listen(theirs, "ChannelMessage")
            room.send_message("after all that")
            self.assertEqual(self.next_of(arriving)[0].text, "after all that")
            self.assertTrue(bob.send_message_to_peer("hi", "alice").has_peer_received)

    def test_the_newest_200_offline_messages_are_kept_and_the_others_forgotten(self) -> None:
        alice = self.client("alice")
        for number in range(203):
            alice.send_message_to_peer(str(number), "bob", enable_offline_messaging=True)
        bob = self.client()
        arriving = self.listen(bob, "MessageFromPeer")
        bob.login("bob")
        received = [self.next_of(arriving)[0].text for _ in range(200)]
        self.assertEqual(received, [str(number) for number in range(3, 203)])
        bob.logout()
        bob.login("bob")
        alice.send_message_to_peer("last", "bob")
        self.assertEqual(self.next_of(arriving)[0].text, "last")


class HandledTest(BrokerCase):
    def test_an_offline_message_stays_until_it_is_handled(self) -> None:
        alice = self.client("alice")
        for number in range(5):
            alice.send_message_to_peer(str(number), "bob", enable_offline_messaging=True)
        with self.client("bob"):
            pass  # a script that only sends something
        texts = []
        for _ in range(2):
            with self.client("bob") as bob:
                texts.append(bob.wait_for("MessageFromPeer", PATIENCE)[0].text)
        bob = self.client()
        arriving = self.listen(bob, "MessageFromPeer")
        bob.login("bob")
        alice.send_message_to_peer("new", "bob")
        texts += [self.next_of(arriving)[0].text for _ in range(4)]
        self.assertEqual(texts, ["0", "1", "2", "3", "4", "new"])
        bob.logout()
        bob.login("bob")
        alice.send_message_to_peer("last", "bob")
        self.assertEqual(self.next_of(arriving)[0].text, "last")


class ThreadTest(BrokerCase):
    def test_threads_of_one_client_send_at_once_and_each_in_its_order(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        arriving = self.listen(bob, "MessageFromPeer")

        def send(name: str) -> int:
            sent = [alice.send_message_to_peer(f"{name} {n}", "bob") for n in range(100)]
            return sum(result.has_peer_received for result in sent)

        with ThreadPoolExecutor(8) as pool:
            received = list(pool.map(send, "abcdefgh"))
        self.assertEqual(received, [100] * 8)
        texts = [self.next_of(arriving)[0].text for _ in range(800)]
        for name in "abcdefgh":
            own = [text for text in texts if text.startswith(name)]
            self.assertEqual(own, [f"{name} {n}" for n in range(100)])

    def test_a_handler_may_send_and_close_its_own_client(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        answers = self.listen(alice, "MessageFromPeer")
        closed = threading.Event()

        @bob.on("MessageFromPeer")
        def answer(message: Any, peer_id: str, props: object) -> None:
            bob.send_message_to_peer("bye", peer_id)
            bob.close()
            closed.set()

        alice.send_message_to_peer("hi", "bob")
        self.assertEqual(self.next_of(answers)[0].text, "bye")
        self.assertTrue(closed.wait(PATIENCE))
        self.assertFalse(alice.send_message_to_peer("hi", "bob").has_peer_received)


class MediaTest(BrokerCase):
    def test_without_a_media_store_the_error_says_where_to_name_one(self) -> None:
        upload = self.client("alice").create_media_message_by_uploading(b"x")
        with self.assertRaisesRegex(UploadMediaError, r"\?media=disk:///folder"):
            upload.result(PATIENCE)

    def test_the_clients_option_names_the_store_as_well(self) -> None:
        media = f"disk://{self.folder()}"
        alice, bob = self.client("alice", media=media), self.client("bob", media=media)
        message = alice.create_media_message_by_uploading(b"cat", file_name="c").result(PATIENCE)
        blob = bob.download_media(message.media_id).result(PATIENCE)
        self.assertEqual((blob.to_bytes(), blob.name), (b"cat", "c"))

    def test_bytes_that_changed_in_the_store_are_not_given_out(self) -> None:
        folder = self.folder()
        alice = self.client("alice", media=f"disk://{folder}")
        message = alice.create_media_message_by_uploading(b"cat").result(PATIENCE)
        (stored,) = folder.glob(f"*/{message.media_id}")
        stored.write_bytes(b"dog")
        with self.assertRaisesRegex(DownloadMediaError, "damaged"):
            alice.download_media(message.media_id).result(PATIENCE)
        stored.unlink()
        with self.assertRaises(DownloadMediaError) as caught:
            alice.download_media(message.media_id).result(PATIENCE)
        self.assertEqual(caught.exception.reason, "NOT_EXIST")

    def test_a_cancelled_upload_leaves_nothing_in_the_store(self) -> None:
        folder = self.folder()
        alice = self.client("alice", media=f"disk://{folder}")
        upload = alice.create_media_message_by_uploading(
            bytes(8_000_000), on_operation_progress=lambda progress: upload.cancel()
        )
        self.assertTrue(upload.exception(PATIENCE))
        wait_until(lambda: not [path for path in folder.glob("*/*") if path.is_file()])


def cut(proxy: FaultProxy) -> None:
    """Drop all connections and refuse new ones."""
    proxy.refuse()
    proxy.drop()


def hashed(user: str, password: str) -> str:
    """A line of Mosquitto's password file."""
    salt = b"twelve bytes"
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    encoded = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7$101${'$'.join(encoded)}"


def _path() -> str:
    """The PYTHONPATH with which a child process imports this plugin and rtm_sync."""
    return ":".join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
