"""Error answers: every route answers everything that is wrong in JSON, with the right status."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import quote, urlsplit

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtm_sync.gateway.api_requests import BODY_LIMIT
from rtm_sync.gateway.app import BackgroundGateway, RunningTransfers, make_app, make_hub
from rtm_sync.gateway.app_secrets import AppSecrets
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.gateway.guard.addresses import Addresses
from rtm_sync.gateway.guard.idle import IdleConnectionReaper
from rtm_sync.gateway.guard.origins import Origins
from rtm_sync.gateway.readiness import Readiness
from rtm_sync.gateway.rest import EventLog
from rtm_sync.hub.metrics_sink import MetricsSink
from rtm_sync.protocol.frames import Failure, decode
from tests.support import PATIENCE, RtmTestCase, local_gateway

SECRET = "a secret of tests, 32 bytes or more"
PROJECT = "/dev/v2/project/app/rtm"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"app:{SECRET}".encode()).decode()}
JSON = {"Content-Type": "application/json"}
OFFSET_STREAM = {"Content-Type": "application/offset+octet-stream"}
READS_NO_BODY = ("/media_session",)
IDS = {"app_id": "app", "uid": "server", "media_id": "x" * 32, "handle": "e30"}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def routes(folder: str) -> list[tuple[str, str]]:
    """The method and path of every route of the gateway's application, with example ids."""

    async def listed() -> list[tuple[str, str]]:
        config = GatewayConfig(port=0, data=folder)
        app = make_app(
            make_hub(config, EventLog(), MetricsSink()),
            RunningTransfers(),
            IdleConnectionReaper(),
            Addresses(()),
            Origins((), Addresses(()), lambda: False),
            EventLog(),
            AppSecrets(config),
            10.0,
            Readiness([]),
        )
        return [
            (route.method, route.resource.canonical.format(**IDS))
            for route in app.router.routes()
            if route.resource is not None
        ]

    return asyncio.run(listed())


class ErrorCase(RtmTestCase):
    def setUp(self) -> None:
        self.serve(local_gateway(app_id="app", app_secret=SECRET))

    def serve(self, gateway: Any) -> None:
        served = self.entered(gateway)
        self.address = urlsplit(served if isinstance(served, str) else served.url).netloc

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Make a request. An error answer must be in the JSON form of its path."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        finally:
            connection.close()
        self.check(answer, path, has_body=method != "HEAD")
        return answer

    def check(self, answer: Answer, path: str, *, has_body: bool = True) -> None:
        self.assertLess(answer.status, 500, answer)
        if answer.status < 400:
            return
        self.assertEqual(answer.headers.get_content_type(), "application/json", answer)
        if not has_body:
            return
        body = json.loads(answer.body)
        if "jsonrpc" in body:
            self.assertTrue(path.startswith("/v1/"), answer)
            frame = decode(answer.body)
            assert isinstance(frame, Failure)
            self.assertIsNone(frame.id)
            message = frame.error.message
        else:
            if path.startswith("/v1/"):  # the path of what is no valid request is not known
                self.assertEqual(answer.status, 400)
            self.assertEqual(body.keys(), {"result", "request_id", "code", "message"})
            self.assertEqual(body["result"], "failed")
            self.assertRegex(body["code"], r"^[A-Z_]+$")
            message = body["message"]
        self.assertNotIn("\n", message)
        self.assertGreater(len(message), 10)

    def credentials(self, path: str) -> dict[str, str]:
        if not path.startswith("/v1/"):
            return BASIC
        session = self.ask("POST", PROJECT + "/users/server/media_session", BASIC)
        token = json.loads(session.body)["token"]
        return {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}


class EveryRouteTest(ErrorCase):
    def setUp(self) -> None:
        super().setUp()
        self.routes = routes(f"{self.folder()}")

    def paths(self) -> list[str]:
        return sorted({path for _, path in self.routes})

    def with_bodies(self) -> Iterator[str]:
        """The paths of the routes that read a body."""
        for method, path in self.routes:
            if method == "POST" and not path.endswith(READS_NO_BODY) and path != self.upload():
                yield path

    def upload(self) -> str:
        return f"/v1/media/{IDS['media_id']}"

    def test_the_routes_are_those_that_this_test_knows(self) -> None:
        self.assertGreater(len(self.routes), 20)
        self.assertIn(("PATCH", self.upload()), self.routes)
        self.assertEqual(len(list(self.with_bodies())), 8)

    def test_an_unknown_path_is_404_and_another_method_405(self) -> None:
        for path in ("/", "/nope", PROJECT, f"{PROJECT}/nope", "/v1/nope", "/v1/media/a/b", "/v1/"):
            self.assertEqual(self.ask("GET", path).status, 404, path)
        for path in self.paths():
            known = {method for method, route in self.routes if route == path}
            for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - known:
                with self.subTest(method, path=path):
                    answer = self.ask(method, path)
                    self.assertEqual(answer.status, 405)
                    self.assertEqual(set(answer.headers["Allow"].split(",")), known)

    def test_a_body_that_does_not_decode_is_400(self) -> None:
        text = json.dumps({"destination": "bob", "payload": "x" * 2000}).encode()
        damaged = {
            "gzip": [b"no gzip", gzip.compress(text)[:-20], gzip.compress(text)[:20] + bytes(40)],
            "deflate": [b"no deflate", b"\xff" * 100],
            "br": [b"\xff\xff\xff", b""],
            "zstd": [b"\x28\xb5\x2f\xfd\xff\xff\xff\xff", b"no zstd"],
            "compress": [b"anything"],
            "gzip, gzip": [gzip.compress(text)],
        }
        with self.assertNoLogs("rtm_sync.gateway.server", "WARNING"):
            for path in self.with_bodies():
                headers = self.credentials(path) | {"Upload-Length": "100"}
                headers |= OFFSET_STREAM if path.startswith("/v1/") else JSON
                for encoding, bodies in damaged.items():
                    for body in bodies:
                        with self.subTest(path, encoding=encoding, body=body[:20]):
                            encoded = headers | {"Content-Encoding": encoding}
                            self.assertEqual(self.ask("POST", path, encoded, body).status, 400)
            headers = self.credentials("/v1/") | OFFSET_STREAM | {"Upload-Offset": "0"}
            for encoding, bodies in damaged.items():
                encoded = headers | {"Content-Encoding": encoding}
                self.assertEqual(self.ask("PATCH", self.upload(), encoded, bodies[0]).status, 400)

    def test_a_body_that_is_not_needed_and_does_not_decode_is_400(self) -> None:
        path = f"{PROJECT}/users/server/media_session"
        for encoding in ("gzip", "deflate", "br"):
            encoded = BASIC | {"Content-Encoding": encoding}
            self.assertEqual(self.ask("POST", path, encoded, b"\xff" * 50).status, 400, encoding)
        self.assertEqual(self.ask("POST", path, BASIC).status, 200)

    def test_a_line_that_is_too_long_is_answered_with_the_way_out(self) -> None:
        users = "&".join(f"user_id={'u' * 60}{number:04}" for number in range(256))
        answer = self.ask("GET", f"{PROJECT}/presence?{users}", BASIC)
        self.assertEqual(answer.status, 400)
        self.assertIn(b"longer than 8,190 bytes", answer.body)
        self.assertIn(b"POST", answer.body)
        body = json.dumps({"user_ids": [f"{'u' * 60}{number:04}" for number in range(256)]})
        answer = self.ask("POST", f"{PROJECT}/presence", BASIC | JSON, body.encode())
        self.assertEqual(answer.status, 200)

    def test_a_body_that_decodes_is_read(self) -> None:
        text = json.dumps({"destination": "bob", "payload": "x" * 2000}).encode()
        path = f"{PROJECT}/users/server/peer_messages"
        headers = BASIC | JSON
        for encoding, body in (("identity", text), ("gzip", gzip.compress(text))):
            encoded = headers | {"Content-Encoding": encoding}
            self.assertEqual(self.ask("POST", path, encoded, body).status, 200, encoding)
        bomb = headers | {"Content-Encoding": "gzip"}
        answer = self.ask("POST", path, bomb, gzip.compress(bytes(100 * BODY_LIMIT)))
        self.assertEqual(answer.status, 413)

    def test_wrong_types_sizes_and_json_are_400_or_413(self) -> None:
        for path in self.with_bodies():
            if path.startswith("/v1/") or path.endswith("/media"):
                continue
            for headers, body, status in (
                ({}, b"{}", 400),
                ({"Content-Type": "text/plain"}, b"{}", 400),
                ({"Content-Type": "nonsense"}, b"{}", 400),
                (JSON, b"", 400),
                (JSON, b"{", 400),
                (JSON, b"\xff\xfe", 400),
                (JSON, b"[" * 10_000, 400),
                (JSON, b" " * (BODY_LIMIT + 1), 413),
            ):
                with self.subTest(path, headers=headers, body=body[:20]):
                    self.assertEqual(self.ask("POST", path, BASIC | headers, body).status, status)

    def test_tus_answers_its_own_refusals_in_json_too(self) -> None:
        bearer = self.credentials("/v1/")
        made = self.ask("POST", "/v1/media", bearer | {"Upload-Length": "5"})
        upload = f"/v1/media/{made.headers['Location'].rpartition('/')[2]}"
        for method, path, headers, body, status, name in (
            ("POST", "/v1/media", {"Tus-Resumable": "2.0.0"}, b"", 412, "INVALID_ARGUMENT"),
            ("POST", "/v1/media", {"Upload-Length": "x"}, b"", 400, "INVALID_ARGUMENT"),
            ("POST", "/v1/media", {"Upload-Length": "9" * 18}, b"", 413, "SIZE_OVERFLOW"),
            ("POST", upload, {}, b"", 405, "INVALID_ARGUMENT"),
            ("PATCH", upload, {"Content-Type": "text/plain"}, b"x", 415, "INVALID_ARGUMENT"),
            ("PATCH", upload, OFFSET_STREAM | {"Upload-Offset": "3"}, b"x", 409, "FAILURE"),
            ("PATCH", upload, OFFSET_STREAM | {"Upload-Offset": "0"}, b"x" * 6, 413, "SIZE"),
            ("PATCH", self.upload(), OFFSET_STREAM, b"x", 404, "FAILURE"),
            ("DELETE", self.upload(), {}, b"", 404, "FAILURE"),
        ):
            with self.subTest(method, path=path, status=status):
                answer = self.ask(method, path, bearer | headers, body)
                self.assertEqual(answer.status, status)
                frame = decode(answer.body)
                assert isinstance(frame, Failure)
                self.assertIn(f"UPLOAD_MEDIA_ERR_{name}", frame.error.code.name)

    def test_a_websocket_that_is_none_is_refused_in_json(self) -> None:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        for headers in (
            {},
            upgrade,
            upgrade | {"Sec-WebSocket-Version": "7", "Sec-WebSocket-Key": "AAAA"},
            upgrade | {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "short"},
        ):
            self.assertEqual(self.ask("GET", "/v1/signalling", headers).status, 400)

    def test_the_guards_answer_in_json(self) -> None:
        for path in self.paths():
            answer = self.ask("GET", path, {"Origin": "https://evil.example"})
            self.assertEqual(answer.status, 403, path)
            self.assertEqual(self.ask("GET", path, {"Expect": "cake"}).status, 417, path)

    def test_too_many_wrong_secrets_are_429_in_json(self) -> None:
        config = GatewayConfig(
            port=0, data=f"{self.folder()}", app_id="app", app_secret=SECRET, proxies=""
        )
        self.serve(BackgroundGateway(config))
        wrong = {"Authorization": "Basic YXBwOndyb25n"}
        for _ in range(100):
            self.assertEqual(self.ask("GET", f"{PROJECT}/bans", wrong).status, 401)
        for path in (f"{PROJECT}/bans", "/v1/media/x", "/v1/signalling"):
            answer = self.ask("GET", path)
            self.assertEqual((answer.status, answer.headers["Retry-After"]), (429, "60"))


class AnyRequestTest(ErrorCase):
    """Any request to any path is answered: with success, or with an error in JSON below 500."""

    methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=6,
    )
    names = st.sampled_from(
        [
            "destination",
            "channel_name",
            "payload",
            "message",
            "message_id",
            "ban_seconds",
            "user_ids",
            "filter",
            "offset",
            "limit",
            "order",
            "enable_offline_messaging",
            "revoke_tokens",
        ]
    )
    bodies = (
        st.binary(max_size=40)
        | values.map(lambda value: json.dumps(value).encode())
        | st.dictionaries(names, values, max_size=5).map(lambda value: json.dumps(value).encode())
    )
    queries = st.lists(
        st.tuples(
            st.sampled_from(
                ["user_id", "file_name", "wait_for_ack", "source", "start_time", "end_time"]
            ),
            st.text(max_size=10),
        ),
        max_size=3,
    )
    headers = st.dictionaries(
        st.sampled_from(
            [
                "Content-Type",
                "Content-Encoding",
                "Upload-Length",
                "Upload-Offset",
                "Upload-Metadata",
                "Range",
                "Upload-Checksum",
                "Idempotency-Key",
                "Tus-Resumable",
                "X-HTTP-Method-Override",
                "x-agora-token",
                "x-agora-uid",
                "If-Range",
            ]
        ),
        st.sampled_from(
            [
                "1.0.0",
                "application/json",
                "gzip",
                "br",
                "5",
                "0",
                "x",
                "PATCH",
                "DELETE",
                "bytes=1-2",
                "sha1",
            ]
        )
        | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8),
        max_size=4,
    )

    def setUp(self) -> None:
        super().setUp()
        self.paths = sorted({path for _, path in routes(f"{self.folder()}")} | {"/nope", "/v1/x"})
        self.bearer = self.credentials("/v1/")

    def test_any_request(self) -> None:
        @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(
            self.methods,
            st.sampled_from(self.paths),
            self.queries,
            self.headers,
            st.booleans(),
            self.bodies,
        )
        def check(
            method: str,
            path: str,
            query: list[tuple[str, str]],
            headers: dict[str, str],
            is_json: bool,
            body: bytes,
        ) -> None:
            asked = "&".join(f"{name}={quote(value, errors='replace')}" for name, value in query)
            known = self.bearer if path.startswith("/v1/") else BASIC
            if is_json:
                known = known | JSON
            self.ask(method, f"{path}?{asked}" if asked else path, known | headers, body)

        check()


class BrokenRequestTest(ErrorCase):
    def send(self, data: bytes) -> Answer:
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as sock:
            sock.sendall(data)
            response = http.client.HTTPResponse(sock)
            response.begin()
            return Answer(response.status, response.headers, response.read())

    def test_what_is_no_http_is_400_in_json(self) -> None:
        head = f"POST {PROJECT}/users/server/kick HTTP/1.1\r\nHost: x\r\n".encode()
        many = "&".join("user_id=" + "u" * 64 for _ in range(256)).encode()
        for data in (
            b"hello\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            b"GET / HTTP/1.1\r\nX\x01Y: z\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
            b"GET " + PROJECT.encode() + b"/presence?" + many + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            head + b"Content-Length: -5\r\n\r\n",
            head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
            head + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
        ):
            with self.subTest(data[:60]):
                answer = self.send(data)
                self.assertEqual(answer.status, 400)
                self.check(answer, "/")

    def test_a_body_that_breaks_off_is_400_in_json(self) -> None:
        head = f"POST {PROJECT}/users/server/kick HTTP/1.1\r\nHost: x\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in (BASIC | JSON).items())
        chunked = f"{head}{fields}Transfer-Encoding: chunked\r\n\r\n".encode()
        for broken in (b"ZZ\r\nabc\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n"):
            with self.subTest(broken):
                answer = self.send(chunked + broken)
                self.assertEqual(answer.status, 400)
                self.check(answer, "/")

    def test_a_handler_that_fails_is_500_in_json_and_says_nothing_of_the_inside(self) -> None:
        def hub_of(config: GatewayConfig, events: EventLog, metrics: MetricsSink) -> Any:
            hub = make_hub(config, events, metrics)
            broken = mock.AsyncMock(side_effect=ZeroDivisionError("an inner detail"))
            hub.administration.bans = broken  # type: ignore[method-assign]
            hub.media.stored_media = broken  # type: ignore[method-assign]
            return hub

        config = GatewayConfig(port=0, data=f"{self.folder()}")
        self.serve(BackgroundGateway(config, hub_of))
        bearer = self.credentials("/v1/")["Authorization"]
        for path in (f"{PROJECT}/bans", "/v1/media/" + "x" * 32):
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n"
            with self.assertLogs("rtm_sync.gateway.server", "ERROR"):
                answer = self.send(request.encode())
            self.assertEqual(answer.status, 500)
            self.assertNotIn(b"inner", answer.body)
            self.check(answer._replace(status=499), path)
