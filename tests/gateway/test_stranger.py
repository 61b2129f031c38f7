"""What docs/protocol.md promises holds for a client that was written from it alone."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

import requests

from rtm_sync.gateway.app import BackgroundGateway, make_hub
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.hub.node import Hub
from tests.gateway.stranger import Closed, Stranger, token
from tests.support import PATIENCE, RtmTestCase, Stopwatch, wait_until

SECRET = "a secret of tests, 32 bytes or more"
FRAME_LIMIT = 262_144


def text(words: str) -> dict[str, str]:
    return {"type": "TEXT", "text": words, "description": ""}


class StrangerCase(RtmTestCase):
    LIMITS = "logins=100/1 receipt_timeout=60 session_grace=60 unreachable_after=600"
    """Limits that a busy machine does not reach."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, limits: str = "", silence: float = 600, **settings: Any) -> BackgroundGateway:
        config = GatewayConfig(
            port=0,
            data=str(self.folder()),
            limits=f"{self.LIMITS} {limits}",
            silence=silence,
            **settings,
        )
        gateway = self.entered(BackgroundGateway(config))
        self.url = gateway.url
        return gateway

    def stranger(self) -> Stranger:
        made = Stranger(self.url, PATIENCE)
        self.addCleanup(made.disconnect)
        return made

    def user(self, uid: str, **more: Any) -> Stranger:
        made = self.stranger()
        answer = made.login(uid, **more)
        self.assertIn("result", answer)
        return made

    def peer_message(self, number: int = 1, peer_id: str = "bob", **more: Any) -> dict[str, Any]:
        return {
            "peer_id": peer_id,
            "message_id": f"m{number}",
            "message": text(f"{number}"),
            **more,
        }


class LoginTest(StrangerCase):
    def test_the_answer_has_the_members_of_the_table(self) -> None:
        answer = self.stranger().login("alice", token=None, session=None, received=0, new="member")
        self.assertEqual(answer["id"], 0)
        result = answer["result"]
        self.assertEqual(result.keys(), {"session", "resumed", "received", "window"})
        self.assertEqual((result["resumed"], result["received"]), (False, 0))

    def test_pings_are_answered_before_and_after_it(self) -> None:
        alice = self.stranger()
        alice.connect()
        alice.socket.ping(b"early")
        self.assertEqual(alice.socket.recv_data(control_frame=True), (10, b"early"))
        alice.socket.pong(b"unasked")
        alice = self.user("alice")
        alice.socket.ping(b"late")
        self.assertEqual(alice.socket.recv_data(control_frame=True), (10, b"late"))

    def test_a_refused_one_is_answered_and_closed_with_4003(self) -> None:
        for params, code, name in (
            ({"version": 2}, 2, "LOGIN_ERR_REJECTED"),
            ({"uid": "null"}, 3, "LOGIN_ERR_INVALID_ARGUMENT"),
            ({"uid": "x" * 65}, 3, "LOGIN_ERR_INVALID_ARGUMENT"),
            ({"uid": "é"}, 3, "LOGIN_ERR_INVALID_ARGUMENT"),
            ({"uid": 7}, 3, "LOGIN_ERR_INVALID_ARGUMENT"),
            ({"app_id": ""}, 4, "LOGIN_ERR_INVALID_APP_ID"),
        ):
            with self.subTest(params):
                alice = self.stranger()
                answer = alice.login(**{"uid": "alice", **params})
                error = answer["error"]
                self.assertEqual((error["code"], error["data"]["name"]), (code, name))
                self.assertEqual(error["data"]["family"], "LoginError")
                self.assertEqual(alice.close_code(), 4003)

    def test_another_first_frame_is_answered_and_closed(self) -> None:
        for first, code in (
            (b'{"jsonrpc":"2.0","id":0,"method":"logout","params":{}}', 4003),
            (b"no JSON", 4003),
        ):
            alice = self.stranger()
            alice.connect()
            alice.socket.send(first.decode())
            with self.assertRaises(Closed) as closed:
                error = alice.read()["error"]
                self.assertEqual(error["data"]["name"], "LOGIN_ERR_INVALID_ARGUMENT")
                alice.read()
            self.assertEqual(closed.exception.code, code)
        alice = self.stranger()
        alice.connect()
        alice.socket.send_binary(b"x")
        self.assertEqual(alice.close_code(), 1003)


class TokenTest(StrangerCase):
    def setUp(self) -> None:
        self.serve(
            "token_renewals=100/1 token_warning=100",
            app_id="app",
            app_secret=SECRET,
            clock_skew=0,
        )

    def test_a_token_logs_its_user_in_and_nobody_else(self) -> None:
        self.user("alice", token=token(SECRET, "alice"))
        for given, code in (
            (None, 5),
            ("no token", 5),
            (token("x" * 32, "alice"), 5),
            (token(SECRET, "bob"), 5),
            (token(SECRET, "alice", rtm=None), 5),
            (token(SECRET, "alice", app="other"), 4),
            (token(SECRET, "alice", exp=time.time() - 60), 6),
        ):
            answer = self.stranger().login("alice", token=given)
            self.assertEqual(answer["error"]["code"], code, given)

    def test_privileges_refuse_with_the_error_of_the_table(self) -> None:
        rtm = {"join": ["room-*"], "publish": [], "upload": False, "download": False}
        alice = self.user("alice", token=token(SECRET, "alice", rtm=rtm))
        refused = alice.refusal("join_channel", channel_id="cats")
        self.assertEqual(refused, (2, "JOIN_CHANNEL_ERR_REJECTED"))
        alice.call("join_channel", channel_id="room-1")
        message = {"channel_id": "room-1", "message_id": "m", "message": text("x")}
        refused = alice.refusal("send_channel_message", **message)
        self.assertEqual(refused, (1, "CHANNEL_MESSAGE_ERR_FAILURE"))
        self.assertEqual(alice.http("POST", "/v1/media", Upload_Length="5")[0], 403)
        self.assertEqual(alice.http("GET", "/v1/media/" + "x" * 32)[0], 403)

    def test_before_a_token_expires_there_is_a_warning_and_a_renewal_is_possible(self) -> None:
        alice = self.user("alice", token=token(SECRET, "alice", exp=time.time() + 60))
        self.assertEqual(alice.next("token_privilege_will_expire"), {})
        alice.call("renew_token", token=token(SECRET, "alice"))
        refused = alice.refusal("renew_token", token=token(SECRET, "bob"))
        self.assertEqual(refused[1], "RENEW_TOKEN_ERR_INVALID_TOKEN")
        bob = self.stranger()
        for seconds in (1, 10, 60):  # a busy machine may log in after one second
            answer = bob.login("bob", token=token(SECRET, "bob", exp=int(time.time()) + seconds))
            if "result" in answer:
                break
            self.assertEqual(answer["error"]["data"]["name"], "LOGIN_ERR_TOKEN_EXPIRED")
        self.assertEqual(bob.next("token_expired"), {})
        self.assertEqual(bob.next("session_ended"), {"reason": 9})
        self.assertEqual(bob.close_code(), 4001)
        alice.call("get_user_attributes", user_id="alice")

    def test_a_kick_ends_the_session_with_its_reason(self) -> None:
        alice = self.user("alice", token=token(SECRET, "alice"))
        kick = self.url.replace("ws", "http", 1) + "/dev/v2/project/app/rtm/users/alice/kick"
        requests.post(kick, json={"ban_seconds": 60}, auth=("app", SECRET), timeout=PATIENCE)
        self.assertEqual(alice.next("session_ended"), {"reason": 7})
        self.assertEqual(alice.close_code(), 4001)
        answer = self.stranger().login("alice", token=token(SECRET, "alice"))
        self.assertEqual(answer["error"]["data"]["name"], "LOGIN_ERR_REJECTED")


class FrameTest(StrangerCase):
    def test_the_limit_is_accepted_and_one_byte_more_closes_with_1009(self) -> None:
        alice = self.user("alice")
        frame = json.dumps(
            {"jsonrpc": "2.0", "id": 7, "method": "get_user_attributes", "params": {"user_id": "a"}}
        )
        alice.socket.send(frame.ljust(FRAME_LIMIT))
        alice.answer(7)
        alice.socket.send(frame.ljust(FRAME_LIMIT + 1))
        self.assertEqual(alice.close_code(), 1009)

    def test_what_is_no_frame_closes_with_1002_1003_or_1007(self) -> None:
        call = {"jsonrpc": "2.0", "id": 1, "method": "logout", "params": {}}
        for data, is_binary, code in (
            (b"no JSON", False, 1002),
            (json.dumps([call]).encode(), False, 1002),
            (json.dumps(call | {"id": "one"}).encode(), False, 1002),
            (json.dumps(call | {"id": 2**53}).encode(), False, 1002),
            (json.dumps(call | {"jsonrpc": "1.0"}).encode(), False, 1002),
            (b'{"jsonrpc":"2.0","method":"unknown","params":{}}', False, 1002),
            (b'{"jsonrpc":"2.0","method":"acknowledge","params":{"received":99}}', False, 1002),
            (json.dumps(call).encode(), True, 1003),
            (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', False, 1007),
        ):
            with self.subTest(data):
                alice = self.user("alice")
                alice.socket.send(data, 2 if is_binary else 1)
                self.assertEqual(alice.close_code(), code)

    def test_a_call_that_does_not_fit_is_answered(self) -> None:
        alice = self.user("alice")
        self.assertEqual(alice.refusal("no_such_method"), (-32601, ""))
        forged = self.peer_message(message_props={"server_received_ts": 1})
        self.assertEqual(alice.refusal("message_from_peer", **forged), (-32601, ""))
        refused = alice.refusal("join_channel", channel_id=7)
        self.assertEqual(refused, (3, "JOIN_CHANNEL_ERR_INVALID_ARGUMENT"))
        refused = alice.refusal("login", app_id="app", uid="alice")
        self.assertEqual(refused, (-32601, ""))
        alice.send_frame({"jsonrpc": "2.0", "id": 499, "method": 7})
        self.assertEqual(alice.answer(499)["error"]["code"], -32600)
        alice.send_frame({"jsonrpc": "2.0", "id": 500, "method": "join_channel", "params": []})
        self.assertEqual(alice.answer(500)["error"]["data"]["family"], "JoinChannelError")
        alice.call("join_channel", channel_id="cats", unknown={"member": 1})

    def test_the_hub_acknowledges_every_32_frames_and_within_two_seconds(self) -> None:
        alice = self.user("alice")
        for _ in range(32):
            alice.notify("cancel_upload", key="none")
        alice.wait(lambda: alice.acknowledged == 32)
        alice.notify("cancel_upload", key="none")
        watch = Stopwatch()
        alice.wait(lambda: alice.acknowledged == 33)
        self.assertLess(watch.seconds(), 10, "two seconds, and time for a busy machine")


class MessageTest(StrangerCase):
    def test_a_message_arrives_with_its_members_and_the_answer_is_the_receipt(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        sent = alice.start("send_message_to_peer", **self.peer_message(description="ignored"))
        arrived = bob.next("message_from_peer")
        self.assertEqual(
            alice.answer(sent)["result"], {"has_peer_received": True, "cached_by_server": False}
        )
        props = arrived.pop("message_props")
        self.assertEqual(
            arrived,
            {"peer_id": "alice", "message_id": "m1", "message": text("1"), "key": None},
        )
        self.assertEqual(props["message_id"], "m1")
        self.assertAlmostEqual(props["server_received_ts"], time.time() * 1000, delta=60_000)
        marks = ("is_offline_message", "is_historical_message", "is_redelivered")
        self.assertFalse(any(props[mark] for mark in marks))

    def test_each_type_of_message_comes_as_it_was_sent(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        raw = base64.b64encode(bytes(range(256))).decode()
        file = {"type": "FILE", "media_id": "x" * 32, "file_name": "é.txt", "size": 5}
        file |= {"thumbnail": raw, "expires_at": 1.5, "description": "d"}
        sizes = {"width": 4, "height": 3, "thumbnail_width": 2, "thumbnail_height": 1}
        for number, message in enumerate(
            (
                text("\U0001f600 \x00"),
                {"type": "RAW", "raw_message": raw, "description": "bytes"},
                file,
                file | sizes | {"type": "IMAGE"},
            )
        ):
            sent = alice.start(
                "send_message_to_peer", **self.peer_message(number) | {"message": message}
            )
            self.assertEqual(bob.next("message_from_peer")["message"], message)
            self.assertTrue(alice.answer(sent)["result"]["has_peer_received"])

    def test_an_error_as_the_answer_is_no_receipt_and_a_copy_is_not_delivered(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        bob.refuses = True
        sent = alice.start("send_message_to_peer", **self.peer_message())
        bob.next("message_from_peer")
        self.assertFalse(alice.answer(sent)["result"]["has_peer_received"])
        bob.refuses = False
        sent = alice.start("send_message_to_peer", **self.peer_message(2))
        self.assertEqual(bob.next("message_from_peer")["message_id"], "m2")
        self.assertTrue(alice.answer(sent)["result"]["has_peer_received"])
        again = alice.call("send_message_to_peer", **self.peer_message(2))
        self.assertTrue(again["has_peer_received"])
        alice.start("send_message_to_peer", **self.peer_message(3))
        self.assertEqual(bob.next("message_from_peer")["message_id"], "m3")

    def test_a_message_that_is_not_right_is_refused(self) -> None:
        alice = self.user("alice")
        for changes, refused in (
            ({"peer_id": "a/b"}, (6, "PEER_MESSAGE_ERR_INVALID_USERID")),
            ({"message_id": ""}, (7, "PEER_MESSAGE_ERR_INVALID_MESSAGE")),
            ({"message_id": "x" * 65}, (7, "PEER_MESSAGE_ERR_INVALID_MESSAGE")),
            ({"message": text("")}, (7, "PEER_MESSAGE_ERR_INVALID_MESSAGE")),
            ({"message": text("x" * 32_769)}, (7, "PEER_MESSAGE_ERR_INVALID_MESSAGE")),
            ({"message": {"type": "VIDEO"}}, (7, "PEER_MESSAGE_ERR_INVALID_MESSAGE")),
        ):
            params = self.peer_message() | changes
            self.assertEqual(alice.refusal("send_message_to_peer", **params), refused)
        params = self.peer_message() | {"message": text("x" * 32_768)}
        self.assertIn("has_peer_received", alice.call("send_message_to_peer", **params))

    def test_what_waits_for_a_user_comes_first_and_in_order(self) -> None:
        alice = self.user("alice")
        for number in range(3):
            params = self.peer_message(number, enable_offline_messaging=True)
            result = alice.call("send_message_to_peer", **params)
            self.assertEqual(result, {"has_peer_received": False, "cached_by_server": True})
        bob = self.user("bob")
        sent = alice.start("send_message_to_peer", **self.peer_message(3))
        arrived = [bob.next("message_from_peer") for _ in range(4)]
        self.assertEqual([item["message_id"] for item in arrived], ["m0", "m1", "m2", "m3"])
        offline = [item["message_props"]["is_offline_message"] for item in arrived]
        self.assertEqual(offline, [True, True, True, False])
        self.assertTrue(alice.answer(sent)["result"]["has_peer_received"])

    def test_the_history_is_read_page_by_page(self) -> None:
        alice = self.user("alice")
        for number in range(3):
            params = self.peer_message(number, enable_historical_messaging=True)
            alice.call("send_message_to_peer", **params)
        page = alice.call("get_history", peer_id="bob", limit=2)
        self.assertEqual([item["message_id"] for item in page["messages"]], ["m0", "m1"])
        first = page["messages"][0]
        self.assertEqual(
            (first["source"], first["destination"], first["is_channel"]), ("alice", "bob", False)
        )
        self.assertTrue(first["message_props"]["is_historical_message"])
        rest = alice.call("get_history", peer_id="bob", limit=2, after=page["after"])
        self.assertEqual([item["message_id"] for item in rest["messages"]], ["m2"])
        self.assertIsNone(rest["after"])
        newest = alice.call("get_history", peer_id="bob", newest_first=True, limit=1)
        self.assertEqual(newest["messages"][0]["message_id"], "m2")
        past = alice.call("get_history", peer_id="bob", end=1000)
        self.assertEqual(past, {"messages": [], "after": None})


class SessionTest(StrangerCase):
    def test_after_a_lost_connection_both_ends_send_what_is_missing(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        sent = alice.start("send_message_to_peer", **self.peer_message(1))
        bob.next("message_from_peer")
        alice.answer(sent)
        bob.disconnect()
        waiting = [
            alice.start("send_message_to_peer", **self.peer_message(number)) for number in (2, 3)
        ]
        alice.call("get_user_attributes", user_id="alice")  # the hub has both messages
        answer = bob.login("bob", resume=True)
        self.assertEqual((answer["result"]["resumed"], answer["result"]["received"]), (True, 1))
        ids = [bob.next("message_from_peer")["message_id"] for _ in waiting]
        self.assertEqual(ids, ["m2", "m3"])
        for call_id in waiting:
            self.assertTrue(alice.answer(call_id)["result"]["has_peer_received"])
        # A client that says it has received less gets those frames again.
        bob.received -= 1
        bob.login("bob", resume=True)
        self.assertEqual(bob.next("message_from_peer")["message_id"], "m3")

    def test_the_newer_connection_closes_the_older_with_4000(self) -> None:
        alice, again = self.user("alice"), self.stranger()
        again.session, again.received = alice.session, alice.received
        self.assertTrue(again.login("alice", resume=True)["result"]["resumed"])
        self.assertEqual(alice.close_code(), 4000)
        again.call("join_channel", channel_id="cats")

    def test_another_login_of_the_user_ends_the_session(self) -> None:
        first, second = self.user("alice"), self.user("alice")
        self.assertEqual(first.next("session_ended"), {"reason": 8})
        self.assertEqual(first.close_code(), 4001)
        self.assertFalse(first.login("alice", resume=True)["result"]["resumed"])
        self.assertEqual(second.next("session_ended"), {"reason": 8})

    def test_a_logout_is_answered_and_closed_with_1000(self) -> None:
        alice = self.user("alice")
        call_id = alice.start("logout")
        with self.assertRaises(Closed) as closed:
            alice.wait(lambda: False)
        self.assertEqual(closed.exception.code, 1000)
        self.assertEqual(alice.answer(call_id)["result"], {})
        self.assertFalse(alice.login("alice", resume=True)["result"]["resumed"])

    def test_a_client_that_acknowledges_nothing_is_closed_with_4008(self) -> None:
        self.serve("outbox_frames=40")
        alice = self.user("alice")
        for number in range(41):  # no more: the gateway does not read after it has closed
            alice.send_frame(
                {
                    "jsonrpc": "2.0",
                    "id": 100 + number,
                    "method": "get_user_attributes",
                    "params": {"user_id": "alice"},
                }
            )
        with self.assertRaises(Closed) as closed:
            while True:
                alice.read()
        self.assertEqual(closed.exception.code, 4008)
        self.assertFalse(alice.login("alice", resume=True)["result"]["resumed"])

    def test_a_silent_client_is_closed_with_4002_and_can_resume(self) -> None:
        self.serve(silence=1)
        alice = self.user("alice")
        self.assertEqual(alice.close_code(), 4002)
        self.assertTrue(alice.login("alice", resume=True)["result"]["resumed"])

    def test_a_login_that_the_hub_cannot_process_is_answered_and_closed_with_1011(self) -> None:
        config = GatewayConfig(port=0, data=str(self.folder()))

        def make(*args: Any) -> Hub:
            hub = make_hub(*args)
            hub.login = no_disk  # type: ignore[method-assign]
            return hub

        async def no_disk(*_: object) -> Any:
            raise OSError("No space left on device")

        self.url = self.entered(BackgroundGateway(config, make)).url
        alice = self.stranger()
        with self.assertLogs("rtm_sync.gateway", "ERROR"):
            error = alice.login("alice")["error"]
        self.assertEqual(error["data"]["name"], "LOGIN_ERR_UNKNOWN")
        self.assertEqual(alice.close_code(), 1011)

    def test_a_hub_that_stops_closes_with_1001(self) -> None:
        gateway = self.serve()
        alice = self.user("alice")
        gateway.stop()
        self.assertEqual(alice.close_code(), 1001)


class ChannelTest(StrangerCase):
    def test_members_hear_of_each_other_and_of_messages_with_positions(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        joined = alice.call("join_channel", channel_id="cats")
        self.assertEqual(joined.keys(), {"position", "recovered"})
        bob.call("join_channel", channel_id="cats")
        told = alice.next("member_joined")
        self.assertEqual(told, {"channel_id": "cats", "member_id": "bob"})
        counted = alice.next("member_count_updated")
        self.assertEqual(counted["channel_id"], "cats")
        message = {"channel_id": "cats", "message_id": "m1", "message": text("hi")}
        self.assertEqual(bob.call("send_channel_message", **message), {})
        arrived = alice.next("channel_message")
        self.assertEqual(arrived.pop("message_props").keys() >= {"server_received_ts"}, True)
        position = arrived.pop("position")
        self.assertEqual(position["epoch"], joined["position"]["epoch"])
        self.assertGreater(position["sequence"], joined["position"]["sequence"])
        self.assertEqual(arrived, message | {"member_id": "bob"})
        members = alice.call("get_members", channel_id="cats")["user_ids"]
        self.assertEqual(sorted(members), ["alice", "bob"])
        counts = alice.call("get_channel_member_count", channel_ids=["cats", "dogs"])
        self.assertEqual(counts, {"counts": {"cats": 2, "dogs": 0}})
        bob.call("leave_channel", channel_id="cats")
        self.assertEqual(alice.next("member_left"), {"channel_id": "cats", "member_id": "bob"})

    def test_a_join_with_a_position_brings_what_was_missed(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        for user in (alice, bob):
            since = user.call("join_channel", channel_id="cats")["position"]
        alice.call("leave_channel", channel_id="cats")
        for number in range(3):
            message = {"channel_id": "cats", "message_id": f"m{number}", "message": text("x")}
            bob.call("send_channel_message", **message)
        joined = alice.call("join_channel", channel_id="cats", since=since)
        self.assertTrue(joined["recovered"])
        ids = [alice.next("channel_message")["message_id"] for _ in range(3)]
        self.assertEqual(ids, ["m0", "m1", "m2"])
        carol = self.user("carol")
        gone = {"epoch": "another", "sequence": 1}
        self.assertFalse(carol.call("join_channel", channel_id="cats", since=gone)["recovered"])

    def test_what_is_not_possible_has_the_numbers_of_the_table(self) -> None:
        alice = self.user("alice")
        message = {"channel_id": "cats", "message_id": "m1", "message": text("hi")}
        refused = alice.refusal("send_channel_message", **message)
        self.assertEqual(refused, (5, "CHANNEL_MESSAGE_ERR_NOT_IN_CHANNEL"))
        refused = alice.refusal("leave_channel", channel_id="cats")
        self.assertEqual(refused, (3, "LEAVE_CHANNEL_ERR_NOT_IN_CHANNEL"))
        alice.call("join_channel", channel_id="cats")
        refused = alice.refusal("join_channel", channel_id="cats")
        self.assertEqual(refused, (6, "JOIN_CHANNEL_ERR_ALREADY_JOINED"))


class UserTest(StrangerCase):
    def test_presence_is_queried_and_subscribed_to(self) -> None:
        alice = self.user("alice")
        query = {"peer_ids": ["bob", "carol"]}
        online = alice.call("query_peers_online_status", **query)
        self.assertEqual(online, {"online": {"bob": False, "carol": False}})
        states = alice.call("subscribe_peers_online_status", **query)
        self.assertEqual(states, {"states": {"bob": "OFFLINE", "carol": "OFFLINE"}})
        self.assertEqual(alice.next("peers_online_status_changed"), states)
        bob = self.user("bob")
        changed = alice.next("peers_online_status_changed")
        self.assertEqual(changed, {"states": {"bob": "ONLINE"}})
        bob.start("logout")
        changed = alice.next("peers_online_status_changed")
        self.assertEqual(changed, {"states": {"bob": "OFFLINE"}})
        alice.call("unsubscribe_peers_online_status", peer_ids=["bob"])
        option = {"option": "ONLINE_STATUS"}
        listed = alice.call("query_peers_by_subscription_option", **option)
        self.assertEqual(listed, {"user_ids": ["carol"]})

    def test_attributes_are_changed_in_four_ways_and_members_are_told(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        for user in (alice, bob):
            user.call("join_channel", channel_id="cats")
        user_steps: list[tuple[dict[str, Any], dict[str, str]]] = [
            ({"change": "SET", "attributes": {"a": "1", "b": "2"}}, {"a": "1", "b": "2"}),
            ({"change": "UPDATE", "attributes": {"b": "3"}}, {"a": "1", "b": "3"}),
            ({"change": "DELETE", "keys": ["a"]}, {"b": "3"}),
            ({"change": "CLEAR"}, {}),
        ]
        for change, left in user_steps:
            self.assertEqual(alice.call("change_user_attributes", **change), {})
            found = bob.call("get_user_attributes", user_id="alice")
            self.assertEqual(found, {"attributes": left})
            alice.call(
                "change_channel_attributes",
                channel_id="cats",
                enable_notification_to_channel_members=True,
                **change,
            )
            told = bob.next("attributes_updated")["attributes"]
            self.assertEqual({key: item["value"] for key, item in told.items()}, left)
            for item in told.values():
                self.assertEqual(item["last_update_user_id"], "alice")
            self.assertEqual(
                bob.call("get_channel_attributes", channel_id="cats"), {"attributes": told}
            )

    def test_an_invitation_is_relayed_step_by_step(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        invite = {"invitation_id": "c2Vj", "step": "INVITE", "content": "come", "channel_id": "c"}
        sent = alice.start("send_invitation", peer_id="bob", **invite)
        self.assertEqual(bob.next("invitation_from_peer"), invite | {"peer_id": "alice"})
        self.assertEqual(alice.answer(sent)["result"], {"receipt": "RECEIVED"})
        accept = {"invitation_id": "c2Vj", "step": "ACCEPT", "content": "coming"}
        sent = bob.start("send_invitation", peer_id="alice", **accept)
        self.assertEqual(alice.next("invitation_from_peer")["step"], "ACCEPT")
        self.assertEqual(bob.answer(sent)["result"], {"receipt": "RECEIVED"})
        told = alice.call("send_invitation", peer_id="carol", **invite)
        self.assertEqual(told, {"receipt": "OFFLINE"})
        bob.is_deaf = True
        told = alice.call("send_invitation", peer_id="bob", **invite | {"invitation_id": "x"})
        self.assertEqual(told, {"receipt": "UNCONFIRMED"})


class MediaTest(StrangerCase):
    DATA = bytes(range(256)) * 40
    STREAM = "application/offset+octet-stream"

    def digest(self) -> str:
        return f"sha-256=:{base64.b64encode(hashlib.sha256(self.DATA).digest()).decode()}:"

    def path(self, headers: dict[str, str]) -> str:
        return "/v1/media/" + headers["location"].rpartition("/")[2]

    def test_an_upload_in_one_request_is_there_for_every_user(self) -> None:
        alice, bob = self.user("alice"), self.user("bob")
        status, headers, _ = alice.http(
            "POST",
            "/v1/media",
            self.DATA,
            Upload_Length=f"{len(self.DATA)}",
            Upload_Metadata="filename bm90ZS50eHQ=,filetype dGV4dC9wbGFpbg==",
            Content_Type=self.STREAM,
        )
        self.assertEqual((status, headers["upload-offset"]), (201, f"{len(self.DATA)}"))
        self.assertEqual(headers["repr-digest"], self.digest())
        path = self.path(headers)
        self.assertRegex(path, r"^/v1/media/[A-Za-z0-9_-]{32}$")
        status, headers, body = bob.http("GET", path)
        self.assertEqual((status, body), (200, self.DATA))
        self.assertEqual(headers["repr-digest"], self.digest())
        self.assertEqual(headers["content-type"], "text/plain")
        self.assertEqual(headers["content-disposition"], "attachment; filename*=UTF-8''note.txt")
        etag = f'"{hashlib.sha256(self.DATA).hexdigest()}"'
        self.assertEqual(headers["etag"], etag)
        status, headers, body = bob.http("GET", path, Range="bytes=10-19", If_Range=etag)
        self.assertEqual((status, body), (206, self.DATA[10:20]))
        self.assertEqual(headers["content-range"], f"bytes 10-19/{len(self.DATA)}")
        status, _, body = bob.http("GET", path, Range="bytes=10-19", If_Range='"other"')
        self.assertEqual((status, body), (200, self.DATA))
        self.assertEqual(bob.http("GET", path, Range="bytes=99999-")[0], 416)
        self.assertEqual(bob.http("GET", path, If_None_Match=etag)[0], 304)
        status, headers, body = bob.http("HEAD", path, Tus_Resumable="")
        self.assertEqual((status, body), (412, b""))

    def test_an_upload_is_resumed_by_its_key(self) -> None:
        alice = self.user("alice")
        size, creation = len(self.DATA), {"Upload_Length": f"{len(self.DATA)}"}
        creation["Idempotency_Key"] = "3q2-7w"
        status, headers, _ = alice.http("POST", "/v1/media", **creation)
        self.assertEqual((status, headers["upload-offset"]), (201, "0"))
        path = self.path(headers)
        patch = {"Content_Type": self.STREAM, "Upload_Offset": "0"}
        status, headers, _ = alice.http("PATCH", path, self.DATA[:1000], **patch)
        self.assertEqual((status, headers["upload-offset"]), (204, "1000"))
        status, headers, _ = alice.http("POST", "/v1/media", **creation)
        self.assertEqual((self.path(headers), headers["upload-offset"]), (path, "1000"))
        self.assertEqual(alice.http("PATCH", path, b"x", **patch)[0], 409)
        status, headers, _ = alice.http("HEAD", path)
        self.assertEqual((headers["upload-offset"], headers["upload-length"]), ("1000", f"{size}"))
        patch["Upload_Offset"] = "1000"
        status, headers, _ = alice.http("PATCH", path, self.DATA[1000:], **patch)
        self.assertEqual((status, headers["repr-digest"]), (204, self.digest()))
        self.assertEqual(alice.http("GET", path)[2], self.DATA)
        self.assertEqual(alice.http("DELETE", path)[0], 403)
        creation["Upload_Length"] = "5"
        self.assertEqual(alice.http("POST", "/v1/media", **creation)[0], 400)

    def test_an_upload_is_cancelled_by_a_frame_or_a_delete(self) -> None:
        alice = self.user("alice")
        for key in ("one", "two"):
            _, headers, _ = alice.http("POST", "/v1/media", Upload_Length="5", Idempotency_Key=key)
            path = self.path(headers)
            if key == "one":
                alice.notify("cancel_upload", key=key)
                alice.call("get_user_attributes", user_id="alice")
                wait_until(lambda path=path: alice.http("HEAD", path)[0] != 200)  # type: ignore[misc]
            else:
                self.assertEqual(alice.http("DELETE", path)[0], 204)
            self.assertEqual(alice.http("HEAD", path)[0], 404)

    def test_checksums_are_checked(self) -> None:
        alice = self.user("alice")
        headers = {"Upload_Length": "5", "Content_Type": self.STREAM}
        for algorithm in ("sha1", "sha256"):
            right = base64.b64encode(hashlib.new(algorithm, b"hello").digest()).decode()
            for body, status in ((b"hello", 201), (b"jello", 460)):
                checksum = f"{algorithm} {right}"
                made = alice.http("POST", "/v1/media", body, Upload_Checksum=checksum, **headers)
                self.assertEqual(made[0], status)

    def test_errors_have_the_status_and_name_of_the_table(self) -> None:
        alice = self.user("alice")
        for method, path, headers, status, name in (
            (
                "POST",
                "/v1/media",
                {"Authorization": "Bearer x"},
                401,
                "UPLOAD_MEDIA_ERR_NOT_LOG",
            ),
            ("GET", "/v1/media/x", {"Authorization": ""}, 401, "DOWNLOAD_MEDIA_ERR_NOT_LOGGED_IN"),
            ("GET", "/v1/media/" + "x" * 32, {}, 404, "DOWNLOAD_MEDIA_ERR_NOT_EXIST"),
            ("POST", "/v1/media", {"Upload_Length": "0"}, 400, "UPLOAD_MEDIA_ERR_INVALID_ARGUMENT"),
            ("POST", "/v1/media", {"Upload_Length": "99999999"}, 413, "UPLOAD_MEDIA_ERR_SIZE_OVER"),
            ("PUT", "/v1/media", {}, 405, "UPLOAD_MEDIA_ERR_INVALID_ARGUMENT"),
            ("POST", "/v1/media", {"Content_Encoding": "x"}, 400, "UPLOAD_MEDIA_ERR_INVALID_ARG"),
        ):
            with self.subTest(status, method=method):
                answered, _, body = alice.http(method, path, **headers)
                error = json.loads(body)
                self.assertEqual(answered, status)
                self.assertEqual((error["jsonrpc"], error["id"]), ("2.0", None))
                self.assertIn(name, error["error"]["data"]["name"])
