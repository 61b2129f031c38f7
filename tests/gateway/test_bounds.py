"""Every answer has a bound: lists come in pages, and the largest values fit into a frame."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import time
from typing import Any

import requests

from rtm_sync import RtmSender
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.gateway.openapi import document
from tests.gateway.description import Description
from tests.gateway.stranger import Stranger
from tests.gateway.test_stranger import StrangerCase
from tests.support import PATIENCE, RtmTestCase

LONGEST_ID = "~" * 64
WIDEST = "\x01"  # six bytes in JSON for one byte of text
LONGEST_ERROR = 1000  # bytes
LONGEST_LOGIN = 2000  # characters; 16,384 bytes fit before the answer


class BansTest(RtmTestCase):
    BANNED = 2500

    def setUp(self) -> None:
        data = self.folder()
        config = GatewayConfig(port=0, data=str(data))
        self.entered(BackgroundGateway(config)).stop()
        self.uids = {f"user {number}": time.time() + 3600 for number in range(self.BANNED)}
        with contextlib.closing(sqlite3.connect(data / "rtm.sqlite3")) as database, database:
            rows = [("app", uid, until) for uid, until in self.uids.items()]
            database.executemany("INSERT INTO bans VALUES (?, ?, ?)", rows)
        self.url = self.entered(BackgroundGateway(config)).url

    def test_the_sender_reads_all_pages(self) -> None:
        with RtmSender("app", url=self.url) as sender:
            self.assertEqual(sender.get_bans(), self.uids)

    def test_a_page_has_1000_users_and_says_where_the_next_one_begins(self) -> None:
        address = self.url.replace("ws:", "http:") + "/dev/v2/project/app/rtm/bans"
        sizes, listed, after = [], list[str](), None
        while after is not None or not sizes:
            answered = requests.get(address, params={"after": after}, timeout=PATIENCE)
            self.assertEqual(Description(document()).problems(answered), [])
            page = answered.json()
            sizes.append(len(page["bans"]))
            listed += page["bans"]
            after = page["after"]
        self.assertEqual(sizes, [1000, 1000, 500])
        self.assertEqual(listed, sorted(self.uids))


class FrameTest(StrangerCase):
    """`Stranger.read` fails for a frame of more than 262,144 bytes."""

    FILE_NAME = "é" * 120 + ".jpeg"

    def largest_messages(self) -> list[dict[str, Any]]:
        room = 32_768
        described = WIDEST * (room - len(self.FILE_NAME.encode()))
        file = {"media_id": WIDEST * 256, "file_name": self.FILE_NAME, "description": described}
        file |= {"size": 2**53 - 1, "thumbnail": "", "expires_at": 1.7976931348623157e308}
        sizes = ("width", "height", "thumbnail_width", "thumbnail_height")
        return [
            {"type": "TEXT", "text": WIDEST * room, "description": ""},
            {"type": "TEXT", "text": WIDEST, "description": WIDEST * (room - 1)},
            {
                "type": "RAW",
                "raw_message": base64.b64encode(bytes(room)).decode(),
                "description": "",
            },
            {"type": "FILE", **file},
            {"type": "IMAGE", **file, **dict.fromkeys(sizes, 2**53 - 1)},
        ]

    def users(self) -> tuple[Stranger, Stranger]:
        return self.user(LONGEST_ID[1:] + "a"), self.user(LONGEST_ID)

    def test_the_largest_messages_arrive(self) -> None:
        alice, bob = self.users()
        for user in (alice, bob):
            user.call("join_channel", channel_id=LONGEST_ID)
        for number, message in enumerate(self.largest_messages()):
            sent = {"message": message, "message_id": f"{number}".zfill(64)}
            sent["enable_historical_messaging"] = True
            alice.start("send_message_to_peer", peer_id=LONGEST_ID, **sent)
            self.assertEqual(bob.next("message_from_peer")["message"], message)
            alice.call("send_channel_message", channel_id=LONGEST_ID, **sent)
            self.assertEqual(bob.next("channel_message")["message"], message)
        after, found = None, list[dict[str, Any]]()
        while after is not None or not found:
            page = bob.call("get_history", channel_id=LONGEST_ID, after=after)
            found += [item["message"] for item in page["messages"]]
            after = page["after"]
        self.assertEqual(found, self.largest_messages())

    def test_a_media_id_is_at_most_256_characters(self) -> None:
        alice, _ = self.users()
        message = {"type": "FILE", "media_id": "x" * 257}
        sent = {"message": message, "message_id": "m"}
        refused = alice.refusal("send_message_to_peer", peer_id="bob", **sent)
        self.assertEqual(refused, (7, "PEER_MESSAGE_ERR_INVALID_MESSAGE"))

    def test_the_largest_attributes_arrive(self) -> None:
        alice, bob = self.users()
        for user in (alice, bob):
            user.call("join_channel", channel_id=LONGEST_ID)
        for room, method, target in (
            (16_384, "user", {"user_id": alice.uid}),
            (32_768, "channel", {"channel_id": LONGEST_ID}),
        ):
            value = WIDEST * ((room - 32 * 32) // 32)
            attributes = {f"{number}".zfill(32): value for number in range(32)}
            named = {} if method == "user" else target
            change = {"change": "SET", "attributes": attributes, **named}
            if method == "channel":
                change["enable_notification_to_channel_members"] = True
            alice.call(f"change_{method}_attributes", **change)
            found = bob.call(f"get_{method}_attributes", **target)["attributes"]
            self.assertEqual(len(found), 32)
        self.assertEqual(len(bob.next("attributes_updated")["attributes"]), 32)

    def test_the_largest_invitation_arrives(self) -> None:
        alice, bob = self.users()
        invite = {"step": "INVITE", "content": WIDEST * 8192, "channel_id": LONGEST_ID}
        sent = alice.start("send_invitation", peer_id=LONGEST_ID, invitation_id="i" * 64, **invite)
        self.assertEqual(bob.next("invitation_from_peer")["content"], invite["content"])
        self.assertEqual(alice.answer(sent)["result"], {"receipt": "RECEIVED"})

    def test_the_longest_lists_are_answered(self) -> None:
        self.serve("queried_peers=3000 subscribed_peers=3000 counted_channels=3000")
        alice = self.user("alice")
        uids = [f"{number}".zfill(64) for number in range(3000)]
        for method, argument in (
            ("query_peers_online_status", "peer_ids"),
            ("subscribe_peers_online_status", "peer_ids"),
            ("get_channel_member_count", "channel_ids"),
        ):
            [found] = alice.call(method, **{argument: uids}).values()
            self.assertEqual(len(found), 3000)
        listed = alice.call("query_peers_by_subscription_option", option="ONLINE_STATUS")
        self.assertEqual(listed["user_ids"], uids)

    def test_errors_repeat_no_more_than_the_beginning_of_what_was_sent(self) -> None:
        alice = self.user("alice")
        long = WIDEST * 30_000
        message = {"message_id": "m", "message": {"type": "TEXT", "text": "x"}}
        calls: list[tuple[str, dict[str, Any]]] = [
            (long, {}),
            ("send_message_to_peer", {"peer_id": long, **message}),
            ("send_message_to_peer", {"peer_id": "bob", **message, "message_id": long}),
            ("send_message_to_peer", {"peer_id": "b", **message, "message": {"type": long}}),
            ("send_channel_message", {"channel_id": long, **message}),
            ("join_channel", {"channel_id": long}),
            ("leave_channel", {"channel_id": long}),
            ("get_history", {"peer_id": long}),
            ("get_history", {"channel_id": long}),
            *(
                ("get_history", {"peer_id": "bob", name: sign * 2**53})
                for name in ("limit", "start", "end", "after")
                for sign in (1, -1)
            ),
            ("get_members", {"channel_id": long}),
            ("get_channel_member_count", {"channel_ids": [long]}),
            ("query_peers_online_status", {"peer_ids": [long]}),
            ("query_peers_by_subscription_option", {"option": long}),
            ("change_user_attributes", {"change": long}),
            ("change_user_attributes", {"change": "SET", "attributes": {long: "x"}}),
            ("change_user_attributes", {"change": "SET", "attributes": {"x": long}}),
            ("change_user_attributes", {"change": "DELETE", "keys": [long]}),
            ("get_user_attributes", {"user_id": long}),
            ("get_channel_attributes", {"channel_id": "cats", "keys": [long]}),
            ("send_invitation", {"peer_id": long, "invitation_id": "i", "step": "INVITE"}),
            ("send_invitation", {"peer_id": "bob", "invitation_id": long, "step": "INVITE"}),
            ("send_invitation", {"peer_id": "bob", "invitation_id": "i", "step": long}),
            ("join_channel", {"channel_id": "c", "since": {"epoch": "e", "sequence": 10**4000}}),
        ]
        for method, params in calls:
            with self.subTest(method[:40], names=list(params)):
                answer = alice.answer(alice.start(method, **params))
                self.assertIn("error", answer)
                self.assertLess(len(json.dumps(answer, ensure_ascii=False)), LONGEST_ERROR)
        for name in ("app_id", "uid", "token", "session"):
            with self.subTest(login=name):
                answer = self.stranger().login(**{"uid": "bob", name: long[:LONGEST_LOGIN]})
                self.assertLess(len(json.dumps(answer, ensure_ascii=False)), LONGEST_ERROR)
