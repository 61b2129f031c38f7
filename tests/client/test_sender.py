"""RtmSender: processes that send without a session."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import unittest
import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from rtm_sync import (
    ChannelMessageError,
    CreateInstanceError,
    HistoryError,
    PeerMessageError,
    PeerOnlineState,
    QueryPeersOnlineStatusError,
    RtmClient,
    RtmFileMessage,
    RtmImageMessage,
    RtmSender,
    RtmTextMessage,
    SenderError,
    UploadCancelled,
    UploadMediaError,
)
from rtm_sync.client import sender as sender_module
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.testing import FaultProxy
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

SECRET = "a secret of tests, 32 bytes or more"


class SenderCase(RtmTestCase):
    def setUp(self) -> None:
        self.url = self.entered(local_gateway(self.folder(), app_id="app", app_secret=SECRET))

    def sender(self, secret: str | None = SECRET, **options: object) -> RtmSender:
        return self.entered(RtmSender("app", secret, url=self.url, **options))  # type: ignore[arg-type]

    def client(self, uid: str) -> RtmClient:
        client = RtmClient("app", url=self.url)
        self.addCleanup(client.close)
        client.login(uid, make_token("app", uid, SECRET))
        return client


class ConnectionsTest(SenderCase):
    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.entered(FaultProxy(self.url))

    def proxied(self) -> RtmSender:
        return self.entered(RtmSender("app", SECRET, url=self.proxy.url))

    def test_threads_that_have_ended_leave_no_connections(self) -> None:
        sender = self.proxied()
        for _ in range(30):
            thread = threading.Thread(target=lambda: sender.send_message_to_peer("hi", "nobody"))
            thread.start()
            thread.join()
        self.assertEqual(self.proxy.accepted, 1)

    def test_many_threads_send_at_once_over_one_pool(self) -> None:
        sender = self.proxied()
        with ThreadPoolExecutor(40) as threads:
            sent = [
                threads.submit(sender.send_message_to_peer, f"{number}", "nobody", uid=f"u{number}")
                for number in range(120)
            ]
            for future in sent:
                self.assertFalse(future.result(PATIENCE).has_peer_received)
        pool = sender._http.adapters["http://"].poolmanager.pools  # type: ignore[union-attr]
        self.assertLessEqual(len(pool), 1)

    def test_many_users_upload_over_one_pool_and_old_users_are_forgotten(self) -> None:
        sender = self.proxied()
        with mock.patch.object(sender_module, "_USERS_KEPT", 3):
            for number in [*range(6), 0]:  # the first one is asked for again
                sender.create_media_message_by_uploading(b"x", uid=f"user{number}").result(PATIENCE)
        self.assertEqual(list(sender._bearers), ["/users/user4", "/users/user5", "/users/user0"])
        self.assertLessEqual(self.proxy.accepted, 2)  # a transfer asks for its token as it begins

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_a_forked_process_makes_its_own_connections(self) -> None:
        sender = self.proxied()
        sender.send_message_to_peer("parent", "nobody")
        self.assertEqual(self.proxy.accepted, 1)
        with warnings.catch_warnings():
            # Python 3.12 warns that the parent has threads, which this test is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            try:
                sender.send_message_to_peer("child", "nobody")
                sender.create_media_message_by_uploading(b"x").result(PATIENCE)
                os._exit(0)
            finally:
                os._exit(1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertGreater(self.proxy.accepted, 1)
        accepted = self.proxy.accepted
        sender.send_message_to_peer("parent again", "nobody")
        self.assertEqual(self.proxy.accepted, accepted)


class SendTest(SenderCase):
    def test_messages_of_every_type_arrive(self) -> None:
        bob = self.client("bob")
        room = bob.create_channel("room")
        room.join()
        peer, channel = bob.events("MessageFromPeer"), room.events("ChannelMessage")
        sender = self.sender()
        self.assertTrue(sender.send_message_to_peer("text", "bob").has_peer_received)
        self.assertTrue(sender.send_message_to_peer(b"raw", "bob", uid="alice").has_peer_received)
        sender.send_message_to_channel(RtmTextMessage("to all", "note"), "room")
        first, second = (next(peer.until(PATIENCE)).args for _ in range(2))
        self.assertEqual((first[0].text, first[1]), ("text", "server"))
        self.assertEqual((second[0].raw_message, second[1]), (b"raw", "alice"))
        message, member_id, _ = next(channel.until(PATIENCE)).args
        self.assertEqual((message, member_id), (RtmTextMessage("to all", "note"), "server"))
        offline = sender.send_message_to_peer("later", "carol", enable_offline_messaging=True)
        self.assertEqual((offline.has_peer_received, offline.cached_by_server), (False, True))

    def test_a_photo_is_uploaded_and_sent(self) -> None:
        bob = self.client("bob")
        arriving = bob.events("MessageFromPeer")
        sender = self.sender()
        data = b"\x00\x01" * 500_000
        seen: list[int] = []
        upload = sender.create_media_message_by_uploading(
            data,
            message_type="IMAGE",
            file_name="cat.bin",
            thumbnail=b"small",
            width=3,
            height=4,
            on_operation_progress=lambda progress: seen.append(progress.current_size),
        )
        message = upload.result(PATIENCE)
        self.assertIsInstance(message, RtmImageMessage)
        self.assertEqual(seen[-1], len(data))
        sender.send_message_to_peer(message, "bob")
        arrived = next(arriving.until(PATIENCE)).args[0]
        self.assertEqual(arrived, message)
        blob = bob.download_media(arrived.media_id).result(PATIENCE)
        self.assertEqual(hashlib.sha256(blob.to_bytes()).digest(), hashlib.sha256(data).digest())
        file = sender.create_media_message_by_uploading(b"x", file_name="a.txt").result(PATIENCE)
        self.assertIs(type(file), RtmFileMessage)

    def test_an_upload_is_cancelled_like_any_other(self) -> None:
        proxy = self.entered(FaultProxy(self.url))
        sender = self.entered(RtmSender("app", SECRET, url=proxy.url))
        started, cancel = threading.Event(), threading.Event()
        proxy.slow_down(1_000_000)
        upload = sender.create_media_message_by_uploading(
            bytes(20_000_000),
            cancel_signal=cancel,
            on_operation_progress=lambda progress: started.set(),
        )
        self.assertTrue(started.wait(PATIENCE))
        cancel.set()
        with self.assertRaises(UploadCancelled):
            upload.result(PATIENCE)

    def test_the_presence_of_as_many_users_as_are_promised_is_told(self) -> None:
        sender = self.sender()
        longest = [f"{number:03}" + "%" * 61 for number in range(256)]
        self.client(longest[-1])
        states = sender.query_peers_presence(longest)
        self.assertEqual(list(states), longest)
        online = [uid for uid, state in states.items() if state is PeerOnlineState.ONLINE]
        self.assertEqual(online, longest[-1:])
        for count in (0, 257):
            with self.assertRaises(QueryPeersOnlineStatusError) as caught:
                sender.query_peers_presence(["bob"] * count)
            self.assertEqual(caught.exception.reason, "INVALID_ARGUMENT")

    def test_presence_history_and_kicking(self) -> None:
        bob = self.client("bob")
        sender = self.sender()
        states = sender.query_peers_presence(["nobody", "bob"])
        self.assertEqual(
            list(states.items()),
            [("nobody", PeerOnlineState.OFFLINE), ("bob", PeerOnlineState.ONLINE)],
        )
        for number in range(130):
            sender.send_message_to_peer(
                f"{number}", "bob", uid="alice", enable_historical_messaging=True
            )
        history = sender.get_history(source="alice", limit=120)
        self.assertEqual(
            [item.message for item in history], [RtmTextMessage(str(n)) for n in range(120)]
        )
        self.assertEqual(history[0].destination, "bob")
        newest = sender.get_history(destination="bob", limit=1, newest_first=True)
        self.assertEqual(newest[0].message, RtmTextMessage("129"))
        self.assertEqual(sender.get_history(source="alice", end=1_000_000.0), [])
        self.assertTrue(sender.kick("bob", ban_seconds=60))
        [(banned, until)] = sender.get_bans().items()
        self.assertEqual(banned, "bob")
        self.assertAlmostEqual(until, time.time() + 60, delta=10)
        wait_until(lambda: bob.connection_state.value == "ABORTED")
        self.assertFalse(sender.kick("bob"))
        self.assertEqual(sender.get_bans(), {})


class RefusalTest(SenderCase):
    def test_a_wrong_secret_is_said_by_each_call(self) -> None:
        sender = self.sender("wrong" * 8)
        for family, call in (
            (PeerMessageError, lambda: sender.send_message_to_peer("hi", "bob")),
            (ChannelMessageError, lambda: sender.send_message_to_channel("hi", "room")),
            (
                UploadMediaError,
                lambda: sender.create_media_message_by_uploading(b"x").result(PATIENCE),
            ),
            (HistoryError, lambda: sender.get_history(source="a")),
            (SenderError, lambda: sender.kick("bob")),
        ):
            with self.subTest(family.__name__), self.assertRaises(family) as caught:
                call()
            self.assertEqual(caught.exception.code.value, 102)
            self.assertNotIn("wrongwrong", str(caught.exception))

    def test_bad_arguments_are_refused_before_anything_is_sent(self) -> None:
        sender = self.entered(RtmSender("app", SECRET, url="ws://127.0.0.1:9"))
        for name, call in (
            ("PEER_MESSAGE_ERR_INVALID_USERID", lambda: sender.send_message_to_peer("x", "a/b")),
            ("PEER_MESSAGE_ERR_INVALID_MESSAGE", lambda: sender.send_message_to_peer("", "bob")),
            (
                "PEER_MESSAGE_ERR_INVALID_MESSAGE",
                lambda: sender.send_message_to_peer("x", "bob", message_id="a b"),
            ),
            (
                "CHANNEL_MESSAGE_ERR_INVALID_MESSAGE",
                lambda: sender.send_message_to_channel("x" * 32_769, "room"),
            ),
            ("SENDER_ERR_INVALID_ARGUMENT", lambda: sender.kick("a/b")),
        ):
            with self.subTest(name), self.assertRaises(Exception) as caught:
                call()
            self.assertEqual(caught.exception.code.name, name)  # type: ignore[attr-defined]
        for arguments in ({"url": "ftp://x"}, {"url": "nowhere"}, {"uid": ""}, {"timeout": 0}):
            with self.assertRaises(CreateInstanceError):
                RtmSender("app", **arguments)  # type: ignore[arg-type]

    def test_a_gateway_that_is_not_there_is_a_timeout_in_time(self) -> None:
        proxy = self.entered(FaultProxy(self.url))
        proxy.refuse()
        sender = self.entered(RtmSender("app", SECRET, url=proxy.url, timeout=0.5))
        with self.assertRaises(PeerMessageError) as caught:
            sender.send_message_to_peer("hi", "bob")
        self.assertEqual(caught.exception.reason, "TIMEOUT")

    def test_one_that_comes_back_in_time_is_used(self) -> None:
        proxy = self.entered(FaultProxy(self.url))
        proxy.refuse()
        sender = self.entered(RtmSender("app", SECRET, url=proxy.url))
        threading.Timer(0.3, proxy.restore).start()
        self.assertFalse(sender.send_message_to_peer("hi", "bob").has_peer_received)


class ManyTest(SenderCase):
    def test_many_threads_and_processes_send_at_once_and_nothing_is_lost(self) -> None:
        bob = self.client("bob")
        texts: list[str] = []
        bob.on("MessageFromPeer", lambda message, *_: texts.append(message.text))
        script = (
            "import sys; from rtm_sync import RtmSender\n"
            "with RtmSender('app', sys.argv[2], url=sys.argv[1]) as sender:\n"
            "    for number in range(20):\n"
            "        sender.send_message_to_peer(f'{sys.argv[3]} {number}', 'bob')\n"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", script, self.url, SECRET, f"p{index}"])
            for index in range(3)
        ]
        sender = self.sender()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: sender.send_message_to_peer(f"t {n}", "bob"), range(100)))
        for process in processes:
            self.assertEqual(process.wait(30), 0)
        expected = {f"t {n}" for n in range(100)} | {
            f"p{index} {number}" for index in range(3) for number in range(20)
        }
        wait_until(lambda: len(texts) == len(expected))
        self.assertEqual(set(texts), expected)
