"""The HTTP API: the reference's paths and codes, authentication, and refusals."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import requests
from openapi_spec_validator import validate

from rtm_sync import RtmClient
from rtm_sync.gateway.api_requests import BODY_LIMIT
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.gateway.openapi import document
from rtm_sync.gateway.rest import Rest
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.protocol.values import ConnectionChangeReason, ConnectionState
from tests.cli.support import REPOSITORY
from tests.gateway.description import Description
from tests.support import PATIENCE, RtmTestCase, wait_until

DOCS = REPOSITORY / "docs"
DESCRIPTION = Description(document())
SECRET = "a secret of tests, 32 bytes or more"


class RestCase(RtmTestCase):
    def setUp(self) -> None:
        self.serve()
        self.http = self.entered(requests.Session())
        self.http.auth = ("my app", SECRET)

    def serve(self, **settings: str) -> None:
        """Start a gateway, and send the following requests to it."""
        config = GatewayConfig(
            port=0, data=str(self.folder()), app_id="my app", app_secret=SECRET, **settings
        )
        self.url = self.entered(BackgroundGateway(config)).url
        self.base = self.url.replace("ws:", "http:") + "/dev/v2/project/my%20app/rtm"

    def client(self, uid: str) -> RtmClient:
        client = RtmClient("my app", url=self.url)
        self.addCleanup(client.close)
        client.login(uid, make_token("my app", uid, SECRET))
        return client

    def ask(self, method: str, path: str, *, status: int = 200, **options: Any) -> dict[str, Any]:
        response = self.http.request(method, self.base + path, timeout=PATIENCE, **options)
        self.assertEqual(response.status_code, status, response.text)
        self.assertEqual(DESCRIPTION.problems(response), [], response.text)
        answer: dict[str, Any] = response.json()
        self.assertEqual(answer["result"], "success" if status == 200 else "failed")
        self.assertRegex(answer["request_id"], r"^\w+$")
        return answer

    def post(self, path: str, body: Any, *, status: int = 200, **options: Any) -> dict[str, Any]:
        return self.ask("POST", path, json=body, status=status, **options)


class MessageTest(RestCase):
    def test_a_text_reaches_the_peer_and_the_code_says_so(self) -> None:
        bob = self.client("bob")
        arriving = bob.events("MessageFromPeer")
        path = "/users/server/peer_messages"
        told = self.post(path + "?wait_for_ack=true", {"destination": "bob", "payload": "hi"})
        self.assertEqual(told["code"], "message_delivered")
        message, peer_id, _ = next(arriving.until(PATIENCE)).args
        self.assertEqual((message.text, peer_id), ("hi", "server"))
        told = self.post(path, {"destination": "bob", "payload": "hi"})
        self.assertEqual(told["code"], "message_sent")
        told = self.post(path + "?wait_for_ack=true", {"destination": "carol", "payload": "hi"})
        self.assertEqual((told["code"], told["cached_by_server"]), ("message_offline", False))

    def test_any_type_of_message_waits_for_one_who_is_offline(self) -> None:
        body = {
            "destination": "bob",
            "message": {"type": "RAW", "raw_message": "AAE=", "description": "two bytes"},
            "enable_offline_messaging": True,
        }
        told = self.post("/users/server/peer_messages?wait_for_ack=true", body)
        self.assertTrue(told["cached_by_server"])
        bob = RtmClient("my app", url=self.url)
        self.addCleanup(bob.close)
        arriving = bob.events("MessageFromPeer")
        bob.login("bob", make_token("my app", "bob", SECRET))
        message, _, props = next(arriving.until(PATIENCE)).args
        self.assertEqual((message.raw_message, message.description), (b"\x00\x01", "two bytes"))
        self.assertTrue(props.is_offline_message)

    def test_a_message_sent_again_under_its_id_arrives_once(self) -> None:
        bob = self.client("bob")
        arriving = bob.events("MessageFromPeer")
        for text, message_id in (("one", "order-7"), ("one", "order-7"), ("two", "order-8")):
            body = {"destination": "bob", "payload": text, "message_id": message_id}
            self.post("/users/server/peer_messages?wait_for_ack=true", body)
        texts = [next(arriving.until(PATIENCE)).args[0].text for _ in range(2)]
        self.assertEqual(texts, ["one", "two"])

    def test_a_channel_message_needs_no_membership(self) -> None:
        room = self.client("bob").create_channel("room")
        room.join()
        arriving = room.events("ChannelMessage")
        body = {"channel_name": "room", "payload": "to all"}
        self.assertEqual(self.post("/users/server/channel_messages", body)["code"], "message_sent")
        message, member_id, _ = next(arriving.until(PATIENCE)).args
        self.assertEqual((message.text, member_id), ("to all", "server"))

    def test_a_token_acts_as_its_own_user_only(self) -> None:
        self.http.auth = None
        self.http.headers["x-agora-token"] = make_token("my app", "alice", SECRET)
        self.http.headers["x-agora-uid"] = "alice"
        body = {"destination": "bob", "payload": "hi"}
        self.post("/users/alice/peer_messages", body)
        self.post("/users/carol/peer_messages", body, status=401)
        self.http.headers["x-agora-uid"] = "carol"
        refused = self.post("/users/carol/peer_messages", body, status=401)
        self.assertEqual(refused["code"], "LOGIN_ERR_INVALID_TOKEN")
        self.ask("GET", "/vendor/user_events", status=401)

    def test_a_token_opens_what_the_document_says_and_no_more(self) -> None:
        table = (DOCS / "http_api.md").read_text().partition("## Endpoints")[2]
        rows = re.findall(r"^\| (`.+?`) \| (secret(?: or token)?) \|", table, re.MULTILINE)
        self.assertEqual(len(rows), 12)
        self.http.auth = None
        self.http.headers["x-agora-token"] = make_token("my app", "alice", SECRET)
        self.http.headers["x-agora-uid"] = "alice"
        times = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2100-01-01T00:00:00Z"}
        bodies: dict[str, Any] = {
            "/peer_messages": {"destination": "bob", "payload": "hi"},
            "/channel_messages": {"channel_name": "room", "payload": "hi"},
            "/presence": {"user_ids": ["bob"]},
            "/kick": {},
            "/end": {},
            "/query": {"filter": times | {"source": "alice"}},
        }
        tried = 0
        for calls, who in rows:
            for method, path in re.findall(r"(GET|POST) /rtm(/[\w/]+)", calls):
                given: dict[str, Any] = {"json": bodies.get("/" + path.rpartition("/")[2])}
                if path.endswith("/media"):
                    given = {"data": b"bytes"}
                if method == "GET":
                    asked = {"/presence": {"user_id": "bob"}, "/count": times | {"source": "alice"}}
                    given = {"params": asked.get("/" + path.rpartition("/")[2])}
                with self.subTest(method, path=path):
                    status = 200 if who == "secret or token" else 401
                    self.ask(method, path.replace("UID", "alice"), status=status, **given)
                    tried += 1
        self.assertEqual(tried, 13)

    def test_a_token_reads_presence_as_often_as_its_user_may(self) -> None:
        self.serve(limits="presence_queries=3/600")
        path = "/presence?user_id=bob"
        for _ in range(4):
            self.ask("GET", path)  # the app's own processes
        self.http.auth = None
        self.http.headers["x-agora-token"] = make_token("my app", "alice", SECRET)
        self.http.headers["x-agora-uid"] = "alice"
        for _ in range(3):
            self.ask("GET", path)
        refused = self.ask("GET", path, status=429)
        self.assertEqual(refused["code"], "QUERY_PEERS_ONLINE_STATUS_ERR_TOO_OFTEN")
        for uid in ("carol", "a/b", ""):
            self.http.headers["x-agora-uid"] = uid
            self.ask("GET", path, status=401 if uid == "carol" else 400)

    def test_who_shows_no_secret_may_nothing(self) -> None:
        for auth in (None, ("my app", "wrong"), ("other", SECRET), ("my app", "")):
            self.http.auth = auth
            with self.subTest(auth):
                body = {"destination": "bob", "payload": "hi"}
                self.post("/users/server/peer_messages", body, status=401)
                self.ask("GET", "/presence?user_id=bob", status=401)
                self.post("/users/bob/kick", {}, status=401)
                self.ask("POST", "/users/server/media", data=b"x", status=401)

    def test_bad_requests_say_what_is_wrong(self) -> None:
        path = "/users/server/peer_messages"
        for body, words in (
            ({"payload": "x"}, "destination"),
            ({"destination": "bob"}, "payload"),
            (
                {"destination": "bob", "payload": "x", "message": {"type": "TEXT", "text": "y"}},
                "not both",
            ),
            ({"destination": "bob", "payload": ""}, "empty"),
            ({"destination": "bob", "payload": "x" * 32769}, "32,768"),
            ({"destination": "a/b", "payload": "x"}, "'/'"),
            ({"destination": "bob", "payload": "x", "message_id": "a b"}, "message_id"),
            ({"destination": "bob", "message": {"type": "VIDEO"}}, "IMAGE"),
            ([], "object"),
        ):
            with self.subTest(str(body)[:60]):
                self.assertIn(words, self.post(path, body, status=400)["message"])
        self.assertIn(
            "wait_for_ack",
            self.post(path + "?wait_for_ack=1", {"destination": "b", "payload": "x"}, status=400)[
                "message"
            ],
        )
        self.assertIn(
            "JSON",
            self.ask(
                "POST", path, data=b"{", headers={"Content-Type": "application/json"}, status=400
            )["message"],
        )
        self.assertIn("application/json", self.ask("POST", path, data=b"{}", status=400)["message"])
        large = b" " * (BODY_LIMIT + 1)
        for data in (large, iter([large])):
            kind = {"Content-Type": "application/json"}
            self.ask("POST", path, data=data, headers=kind, status=413)
        self.post("/users/a%2Fb/peer_messages", {"destination": "b", "payload": "x"}, status=400)


class MediaTest(RestCase):
    def test_a_medium_is_uploaded_in_one_request_and_sent(self) -> None:
        data = bytes(range(256)) * 1000
        info = self.ask(
            "POST",
            "/users/server/media?file_name=cat.jpg",
            data=data,
            headers={"Content-Type": "image/jpeg"},
        )
        self.assertEqual(info["sha256"], hashlib.sha256(data).hexdigest())
        bob = self.client("bob")
        blob = bob.download_media(info["media_id"]).result(PATIENCE)
        self.assertEqual(
            (blob.to_bytes(), blob.name, blob.content_type), (data, "cat.jpg", "image/jpeg")
        )

    def test_media_that_cannot_be_are_refused(self) -> None:
        path = "/users/server/media"
        refused = self.ask("POST", path, data=b"", status=400)
        self.assertEqual(refused["code"], "UPLOAD_MEDIA_ERR_INVALID_ARGUMENT")
        refused = self.ask("POST", path, data=iter([b"no length"]), status=400)
        self.assertIn("Content-Length", refused["message"])

    def test_a_media_session_is_a_bearer_for_tus_and_downloads(self) -> None:
        token = self.post("/users/server/media_session", {})["token"]
        media = self.url.replace("ws:", "http:") + "/v1/media"
        bearer = {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}
        made = requests.post(
            media,
            data=b"hello",
            timeout=PATIENCE,
            headers={
                **bearer,
                "Upload-Length": "5",
                "Content-Type": "application/offset+octet-stream",
            },
        )
        self.assertEqual(made.status_code, 201)
        got = requests.get(
            urljoin(media, made.headers["Location"]), headers=bearer, timeout=PATIENCE
        )
        self.assertEqual(got.content, b"hello")


class UserTest(RestCase):
    def test_presence_and_events_tell_who_came_and_went(self) -> None:
        bob = self.client("bob")
        room = bob.create_channel("room")
        room.join()
        states = self.ask("GET", "/presence?user_id=carol&user_id=bob")["states"]
        self.assertEqual(states, {"carol": "OFFLINE", "bob": "ONLINE"})
        room.leave()
        bob.logout()
        events = self.ask("GET", "/vendor/user_events")["events"]
        self.assertEqual(
            [(item["user_id"], item["type"]) for item in events],
            [("bob", "Login"), ("bob", "Logout")],
        )
        events = self.ask("GET", "/vendor/channel_events")["events"]
        self.assertEqual(
            [(item["group_id"], item["user_id"], item["type"]) for item in events],
            [("room", "bob", "Join"), ("room", "bob", "Leave")],
        )
        self.assertEqual(self.ask("GET", "/vendor/user_events")["events"], [], "reading removes")
        for asked in ({"user_ids": ["carol", "bob"]}, {"user_ids": ["carol"] * 255 + ["bob"]}):
            states = self.post("/presence", asked)["states"]
            self.assertEqual(states, {"carol": "OFFLINE", "bob": "OFFLINE"})
        for wrong in ([], ["u"] * 257, ["a/b"], [1], "bob", None):
            self.post("/presence", {"user_ids": wrong}, status=400)
        self.post("/presence", {}, status=400)
        self.ask("GET", "/presence", status=400)
        self.ask("GET", "/presence?" + "&".join(["user_id=u"] * 257), status=400)

    def test_a_kicked_user_is_aborted_and_stays_out_for_as_long_as_was_said(self) -> None:
        bob = self.client("bob")
        changes = bob.events("ConnectionStateChanged")
        self.assertTrue(self.post("/users/bob/kick", {"ban_seconds": 60})["was_online"])
        for change in changes.until(PATIENCE):
            if change.args[0] is ConnectionState.ABORTED:
                self.assertIs(change.args[1], ConnectionChangeReason.BANNED_BY_SERVER)
                break
        with self.assertRaisesRegex(Exception, "banned for another"):
            self.client("bob")
        self.assertFalse(self.post("/users/bob/kick", {})["was_online"])
        wait_until(lambda: bob.connection_state is ConnectionState.ABORTED)
        self.client("bob")
        for seconds in (-1, float("inf"), float("nan"), "60", None):
            self.ask(
                "POST",
                "/users/bob/kick",
                data=json.dumps({"ban_seconds": seconds}),
                headers={"Content-Type": "application/json"},
                status=400,
            )


class HistoryTest(RestCase):
    TIMES = "&start_time=2020-01-01T00:00:00Z&end_time=2100-01-01T00:00:00Z"

    def query(self, **changes: Any) -> dict[str, Any]:
        times = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2100-01-01T00:00:00Z"}
        return {"filter": {**times, "source": "alice"}, "limit": 20, **changes}

    def test_what_was_kept_is_read_and_counted(self) -> None:
        for number in range(25):
            body = {
                "destination": "bob",
                "payload": f"{number}",
                "enable_historical_messaging": True,
            }
            self.post("/users/alice/peer_messages", body)
        told = self.post("/message/history/query", self.query(offset=10))
        self.assertEqual((told["offset"], told["limit"], told["order"]), (10, 20, "asc"))
        found = self.ask("GET", told["location"].removeprefix("~/rtm"))
        self.assertEqual(found["code"], "ok")
        self.assertEqual(
            [item["payload"] for item in found["messages"]], [str(n) for n in range(10, 25)]
        )
        first = found["messages"][0]
        self.assertEqual(
            (first["src"], first["dst"], first["message_type"]), ("alice", "bob", "peer_message")
        )
        count = self.ask("GET", "/message/history/count?destination=bob" + self.TIMES)
        self.assertEqual(count["count"], 25)

    def test_bad_questions_are_refused(self) -> None:
        times = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2020-13-01T00:00:00Z"}
        for changes, words in (
            ({"limit": 7}, "20, 50 or 100"),
            ({"order": "up"}, "asc or desc"),
            ({"offset": -1}, "offset"),
            ({"filter": {**times, "source": "alice"}}, "end_time"),
            ({"filter": {"start_time": "x", "end_time": "y"}}, "source or a destination"),
            ({"filter": {**times, "source": "a" * 65}}, "source has 65"),
            ({"filter": {**times, "destination": "a/b"}}, "destination 'a/b'"),
        ):
            with self.subTest(words):
                refused = self.post("/message/history/query", self.query(**changes), status=400)
                self.assertIn(words, refused["message"])
        for handle in ("x", "e30", "%00", "é"):
            self.ask("GET", f"/message/history/query/{handle}", status=400)


class DescriptionTest(RestCase):
    def test_it_is_valid_openapi_and_names_every_path(self) -> None:
        described = requests.get(
            self.url.replace("ws:", "http:") + "/openapi.json", timeout=PATIENCE
        ).json()
        validate(described)
        self.assertEqual(described["openapi"], "3.1.0")
        served = {
            (route.method, route.path)
            for route in Rest(None, None, None, None).routes()  # type: ignore[arg-type]
            if route.path.startswith("/dev/")
        }
        named = {
            (method.upper(), path)
            for path, item in described["paths"].items()
            for method in item
            if method != "parameters"
        }
        self.assertEqual(served, named)

    def test_the_gateway_accepts_exactly_the_described_requests(self) -> None:
        accepted: Counter[bool] = Counter()
        for method, path, options in self.requests():
            response = self.http.request(method, self.base + path, timeout=PATIENCE, **options)
            with self.subTest(method, path=path[:80], options=str(options)[:120]):
                self.assertIn(response.status_code, (200, 400), response.text)
                is_accepted = response.status_code == 200
                self.assertEqual(DESCRIPTION.accepts(response), is_accepted, response.text)
                self.assertEqual(DESCRIPTION.problems(response), [])
                accepted[is_accepted] += 1
        self.assertGreater(min(accepted[True], accepted[False]), 40)

    def requests(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Requests with each value right and wrong, one at a time."""
        longest = "x" * 64
        message_ids = ("m", "A_z.0:-", longest, "", "a b", "é", longest + "x", 7)
        ids = ("b", longest, "a b!#$%&()+-:;<=.>?@[]^_{}|~,", "", "null", "a/b", "é", "x" * 65, 7)
        flags = (True, False, "true", 1, None)
        messages = (
            {"type": "TEXT", "text": "t"},
            {"type": "TEXT", "text": "t", "description": "d", "new": 1},
            {"type": "TEXT", "text": ""},
            {"type": "TEXT"},
            {"type": "RAW", "raw_message": "AAE="},
            {"type": "RAW", "raw_message": ""},
            {"type": "RAW", "text": "t"},
            {"type": "FILE", "media_id": "m", "file_name": "f", "size": 1, "expires_at": 1.5},
            {"type": "FILE", "media_id": ""},
            {"type": "FILE", "media_id": "m", "size": "1"},
            {"type": "FILE", "media_id": "m", "width": "any"},
            {"type": "IMAGE", "media_id": "m", "width": 1, "thumbnail": "AAE="},
            {"type": "IMAGE", "media_id": "m", "width": "1"},
            {"type": "image", "media_id": "m"},
            {"text": "t"},
            "t",
            [],
        )
        peer = {"destination": "bob", "payload": "hi"}
        channel = {"channel_name": "room", "payload": "hi"}
        for name, body in (("peer", peer), ("channel", channel)):
            path = f"/users/server/{name}_messages"
            yield "POST", path, {"json": {}}
            yield "POST", path, {"json": {"payload": "hi"}}
            yield "POST", path, {"json": body | {"message": messages[0]}}
            yield "POST", path, {"json": body | {"payload": ""}}
            yield "POST", path, {"json": body | {"unknown": []}}
            target = next(iter(body))
            yield "POST", path, {"json": {target: "b"}}
            for value in ids:
                yield "POST", path, {"json": body | {target: value}}
            for value in message_ids:
                yield "POST", path, {"json": body | {"message_id": value}}
            for value in flags:
                yield "POST", path, {"json": body | {"enable_historical_messaging": value}}
            for message in messages:
                yield "POST", path, {"json": {target: "b", "message": message}}
        for value in ("true", "false", "", "1", "True"):
            yield "POST", f"/users/server/peer_messages?wait_for_ack={value}", {"json": peer}
        for uid in ("null", "%2F", "a%20b"):
            yield "POST", f"/users/{uid}/media_session", {}
            yield "POST", f"/users/{uid}/kick", {"json": {}}
        for seconds in (0, 1, 1.5, 1e12, -1, "1", None, True):
            yield "POST", "/users/bob/kick", {"json": {"ban_seconds": seconds}}
        for value in flags:
            yield "POST", "/users/bob/kick", {"json": {"revoke_tokens": value}}
        for users in (["b"], ids[:3], [], "b", [ids[4]], ["b"] * 256, ["b"] * 257, None):
            yield "POST", "/presence", {"json": {"user_ids": users}}
            if isinstance(users, list | tuple):
                yield "GET", "/presence", {"params": {"user_id": users}}
        yield "POST", "/presence", {"json": {}}
        times = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2100-01-01T00:00:00Z"}
        query: dict[str, Any] = {"filter": times | {"source": "alice"}}
        yield "POST", "/message/history/query", {"json": query}
        for changes in (
            {"filter": times},
            {"filter": times | {"destination": "bob"}},
            {"filter": times | {"source": "null"}},
            {"filter": times | {"source": "alice", "end_time": "2100-01-01"}},
            {"filter": {"source": "alice", "start_time": times["start_time"]}},
            *({"limit": limit} for limit in (20, 50, 100, 0, 21, "20")),
            *({"offset": offset} for offset in (0, 1, 10**9, 10**9 + 1, -1, "0")),
            *({"order": order} for order in ("asc", "desc", "up", 1)),
        ):
            yield "POST", "/message/history/query", {"json": query | changes}
        yield "GET", "/message/history/count", {"params": times | {"source": "alice"}}
        yield "GET", "/message/history/count", {"params": times | {"source": "a/b"}}
        yield "GET", "/message/history/count", {"params": {"source": "alice"}}
        for path in ("/bans", "/vendor/user_events", "/vendor/channel_events"):
            yield "GET", path, {}
        for uid in ids:
            yield "GET", "/bans", {"params": {"after": uid}}


class OriginTest(RestCase):
    """A browser sends the page's origin; pages of other sites must not act for their visitors."""

    def test_other_sites_pages_may_nothing_and_its_own_may(self) -> None:
        host = self.url.removeprefix("ws://")
        body = {"destination": "bob", "payload": "hi"}
        for origin, status in (
            (f"http://{host}", 200),
            ("https://evil.example", 403),
            ("null", 403),
        ):
            response = self.http.post(
                self.base + "/users/server/peer_messages",
                json=body,
                headers={"Origin": origin},
                timeout=PATIENCE,
            )
            self.assertEqual(response.status_code, status, origin)
        upgrade = {
            "Origin": "https://evil.example",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        address = f"http://{host}/v1/signalling"
        self.assertEqual(requests.get(address, headers=upgrade, timeout=PATIENCE).status_code, 403)
