"""The Flask extension, in one process: configuration, client, handlers, media, blueprints, kit."""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask, current_app, request, session
from urllib3 import encode_multipart_formdata
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.test import create_environ

from rtm_sync import (
    Blob,
    DownloadMediaError,
    LoginError,
    RtmClient,
    RtmError,
    RtmImageMessage,
    RtmTextMessage,
    UploadMediaError,
)
from rtm_sync.flask.extension import SETTINGS, Rtm, status_of
from rtm_sync.flask.sessions import running
from rtm_sync.hub.auth.tokens import JwtVerifier, Privileges
from rtm_sync.protocol.values import ConnectionState
from rtm_sync.testing import FaultProxy, local_gateway
from rtm_sync.testing.flask_kit import FlaskKit
from tests.support import PATIENCE, RtmTestCase, wait_until

SECRET = "a secret of tests, 32 bytes or more"
DATA = random.Random(3).randbytes(2_000_000)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0"
    "00000301010018dd8db00000000049454e44ae426082"
)


def photo_app(rtm: Rtm, **settings: object) -> Flask:
    """A small app that uses every part of the extension."""
    app = Flask(__name__)
    app.config.update(RTM_APP_ID="photos", SECRET_KEY="of tests", TESTING=True, **settings)
    rtm.init_app(app)

    @app.post("/upload")
    def upload() -> dict[str, Any]:
        message = rtm.upload(request.files["photo"], description="from a form")
        rtm.client.send_message_to_peer(message, "alice")
        return {
            "media_id": message.media_id,
            "kind": type(message).__name__,
            "name": message.file_name,
        }

    @app.get("/media/<media_id>")
    def media(media_id: str) -> Any:
        return rtm.send_media(media_id, as_attachment="save" in request.args)

    @app.errorhandler(RtmError)
    def failed(error: RtmError) -> tuple[str, int]:
        return error.message, status_of(error)

    return app


def awaited(body: Iterator[bytes], event: str) -> str:
    """The part of a stream with an event. The first events of a client are of its login."""
    return next(chunk.decode() for chunk in body if f"event: {event}" in chunk.decode())


class AppTest(RtmTestCase):
    def setUp(self) -> None:
        self.rtm = Rtm()
        self.app = photo_app(self.rtm)
        self.entered(running(self.app))
        self.http = self.app.test_client()

    def peer(self, uid: str = "alice") -> RtmClient:
        client = self.entered(RtmClient("photos"))
        client.login(uid)
        return client

    def get(self, path: str, **options: Any) -> Any:
        """The response of a request, read to its end and closed, as a server does it."""
        return self.http.get(path, buffered=True, **options)

    def post(self, data: bytes, name: str, kind: str = "application/octet-stream") -> Any:
        # Werkzeug's client writes large forms into a file that it does not close.
        form, form_kind = encode_multipart_formdata({"photo": (name, data, kind)})
        return self.http.post("/upload", data=form, content_type=form_kind)


class ClientTest(AppTest):
    def test_there_is_one_client_whoever_asks_first(self) -> None:
        start = threading.Barrier(8)

        def ask(_: int) -> RtmClient:
            with self.app.app_context():
                start.wait(PATIENCE)
                return self.rtm.client

        with ThreadPoolExecutor(8) as pool:
            clients = set(pool.map(ask, range(8)))
        [client] = clients
        self.assertEqual(client.uid.rpartition("-")[2], str(os.getpid()))

    def test_the_uid_is_a_template(self) -> None:
        self.app.config["RTM_UID"] = "worker {pid}"
        with self.app.app_context():
            self.assertEqual(self.rtm.client.uid, f"worker {os.getpid()}")

    def test_one_rtm_serves_many_apps(self) -> None:
        other = photo_app(self.rtm, RTM_UID="other")
        with running(other):
            with other.app_context():
                self.assertEqual(self.rtm.client.uid, "other")
            with self.app.app_context():
                self.assertNotEqual(self.rtm.client.uid, "other")

    def test_a_refused_login_is_tried_again_at_the_next_use(self) -> None:
        self.app.config["RTM_CLIENT_OPTIONS"] = {"login_timeout": 1.0}
        self.app.config["RTM_URL"] = "ws://127.0.0.1:9"
        with self.app.app_context():
            with self.assertRaises(RtmError):
                _ = self.rtm.client
            self.app.config["RTM_URL"] = "memory://"
            self.assertTrue(self.rtm.client.uid)

    def test_what_is_missing_is_named(self) -> None:
        for name, value, why in (
            ("RTM_APP_ID", "", r"RTM_APP_ID.* is empty"),
            ("RTM_UID", "{name}", r"RTM_UID is '\{name\}'; .* may be \{host\} and \{pid\} only"),
            ("RTM_UID", "a/b", "RTM_UID 'a/b' contains '/'"),
        ):
            app = photo_app(self.rtm)
            app.config[name] = value
            with self.subTest(why), app.app_context(), self.assertRaisesRegex(RuntimeError, why):
                _ = self.rtm.client
        with Flask("bare").app_context(), self.assertRaisesRegex(RuntimeError, "bare has no Rtm"):
            _ = self.rtm.client
        with self.assertRaisesRegex(RuntimeError, "has an Rtm already"):
            self.rtm.init_app(self.app)

    def test_with_a_secret_it_mints_its_own_tokens(self) -> None:
        gateway = local_gateway(self.folder(), app_id="photos", app_secret=SECRET)
        app = photo_app(self.rtm, RTM_URL=self.entered(gateway), RTM_SECRET=SECRET)
        self.entered(running(app))
        with app.app_context():
            self.assertTrue(self.rtm.client.uid)
            self.assertEqual(self.rtm.sender.query_peers_presence(["x"]).keys(), {"x"})
            self.assertIs(self.rtm.sender, self.rtm.sender)

    def test_without_a_gateway_there_is_no_sender_and_the_reason_is_told(self) -> None:
        with self.app.app_context(), self.assertRaisesRegex(RuntimeError, "needs a gateway"):
            _ = self.rtm.sender

    def test_settings_are_those_that_are_documented(self) -> None:
        app = Flask("fresh")
        Rtm(app)
        found = {name: value for name, value in app.config.items() if name.startswith("RTM_")}
        self.assertEqual(found, dict(SETTINGS))


class UserTest(AppTest):
    """Sessions of the app's users, in the app's process."""

    def test_users_have_clients_of_their_own_for_as_long_as_they_are_used(self) -> None:
        self.app.config["RTM_USER_LINGER"] = 0.05
        with self.app.app_context():
            alice = self.rtm.client_for("alice")
            self.assertIs(self.rtm.client_for("alice"), alice)
            self.assertIsNotNone(alice.uid)
            wait_until(lambda: alice.uid is None)  # without another request
            self.assertIsNot(self.rtm.client_for("alice"), alice)
            self.assertTrue(self.rtm.client.uid)  # the process's own client stays logged in

    def test_who_listens_is_not_idle(self) -> None:
        self.app.config["RTM_USER_LINGER"] = 0.0
        self.app.register_blueprint(self.rtm.events_blueprint(lambda: "alice", seconds=PATIENCE))
        stream = self.http.get("/rtm/events")
        body = stream.iter_encoded()
        next(body)
        with self.app.app_context():
            alice = self.rtm.client_for("alice")
            self.rtm.client_for("bob").send_message_to_peer("hi", "alice")
            self.assertIn('"text":"hi"', awaited(body, "MessageFromPeer"))
            stream.close()
            wait_until(lambda: alice.uid is None)

    def test_there_are_only_so_many(self) -> None:
        self.app.config["RTM_USERS"] = 2
        with self.app.app_context():
            for uid in ("alice", "bob"):
                self.rtm.client_for(uid)
            _ = self.rtm.client
            with self.assertRaisesRegex(ServiceUnavailable, "2 users are logged in"):
                self.rtm.client_for("carol")

    def test_a_session_that_was_ended_elsewhere_begins_anew(self) -> None:
        with self.app.app_context():
            alice = self.rtm.client_for("alice")
            self.peer("alice")
            wait_until(lambda: alice.connection_state is ConnectionState.ABORTED)
            again: list[RtmClient] = []

            def is_back() -> bool:
                with contextlib.suppress(LoginError):  # TOO_OFTEN after three fast logins
                    again.append(self.rtm.client_for("alice"))
                return bool(again)

            wait_until(is_back)
            self.assertIsNot(again[0], alice)
            self.assertIs(again[0].connection_state, ConnectionState.CONNECTED)

    def test_a_joined_channel_is_joined_once_and_relayed(self) -> None:
        with self.app.app_context():
            room = self.rtm.join("room", uid="alice")
            self.assertIs(self.rtm.join("room", uid="alice"), room)
            stream = self.rtm.relay_for("alice").stream(seconds=PATIENCE)
            next(stream)
            self.rtm.join("room").send_message("hello")
            self.rtm.join("room").send_message("the last")
            told = b""
            while b"the last" not in told:
                told += next(stream)
            self.assertEqual(told.count(b"event: ChannelMessage"), 2)

    def test_a_channel_is_left_and_heard_no_more(self) -> None:
        with self.app.app_context():
            room = self.rtm.join("room", uid="alice")
            self.rtm.leave("room", uid="alice")
            self.rtm.leave("room", uid="alice")
            self.assertEqual(room.listener_count("ChannelMessage"), 0)
            self.assertEqual(self.rtm.join("room").get_members(), [str(self.rtm.client.uid)])

    def test_a_user_who_signs_out_is_offline_at_once(self) -> None:
        with self.app.app_context():
            alice = self.rtm.client_for("alice")
            stream = self.rtm.relay_for("alice").stream(seconds=PATIENCE)
            next(stream)
            self.rtm.logout("alice")
            self.rtm.logout("nobody")
            self.assertIsNone(alice.uid)
            self.assertLess(len(list(stream)), 5)  # the stream has ended
            online = self.rtm.client.query_peers_online_status(["alice"])
            self.assertEqual(online, {"alice": False})
            self.assertIsNot(self.rtm.client_for("alice"), alice)

    def test_a_client_that_was_logged_out_by_the_app_begins_anew(self) -> None:
        with self.app.app_context():
            alice = self.rtm.client_for("alice")
            alice.logout()
            self.assertIsNot(self.rtm.client_for("alice"), alice)


class HandlerTest(AppTest):
    def test_handlers_run_with_the_apps_context(self) -> None:
        got: list[tuple[str, str, str]] = []

        @self.rtm.on("message_from_peer")
        def greet(message: RtmTextMessage, peer_id: str, _: object) -> None:
            got.append((current_app.name, message.text, peer_id))
            self.rtm.client.send_message_to_peer("hello to you", peer_id)

        @self.rtm.on("ChannelMessage", channel="news")
        def note(message: RtmTextMessage, member_id: str, _: object) -> None:
            got.append((current_app.name, message.text, member_id))

        self.rtm.start(self.app)
        alice = self.peer()
        arriving = alice.events("MessageFromPeer")
        with self.app.app_context():
            uid = str(self.rtm.client.uid)
        alice.send_message_to_peer("hi", uid)
        self.assertEqual(next(arriving.until(PATIENCE)).args[0].text, "hello to you")
        news = alice.create_channel("news")
        news.join()
        news.send_message("extra")
        wait_until(lambda: len(got) == 2)
        self.assertEqual(got, [(self.app.name, "hi", "alice"), (self.app.name, "extra", "alice")])

    def test_an_event_that_there_is_not_is_refused_where_it_stands(self) -> None:
        with self.assertRaisesRegex(ValueError, "RtmClient has no event 'ChannelMessage'"):
            self.rtm.on("ChannelMessage")
        with self.assertRaisesRegex(ValueError, "RtmChannel has no event 'Messages'"):
            self.rtm.on("Messages", channel="news")


class MediaTest(AppTest):
    def uploaded(self, data: bytes, name: str, kind: str = "application/octet-stream") -> str:
        answer = self.post(data, name, kind)
        self.assertEqual(answer.status_code, 200, answer.text)
        media_id: str = answer.json["media_id"]
        return media_id

    def test_a_form_becomes_a_message(self) -> None:
        arriving = self.peer().events("MessageFromPeer")
        answer = self.post(PNG, "dot.png", "image/png").json
        self.assertEqual((answer["kind"], answer["name"]), ("RtmImageMessage", "dot.png"))
        message = next(arriving.until(PATIENCE)).args[0]
        self.assertEqual((message.width, message.height), (1, 1))
        self.assertEqual(message.description, "from a form")
        self.assertEqual(self.post(DATA, "film.bin").json["kind"], "RtmFileMessage")

    def test_of_a_path_the_last_part_is_the_files_name(self) -> None:
        for path in ("/home/alice/film.bin", "C:\\films\\film.bin"):
            with self.app.app_context():
                message = self.rtm.upload(FileStorage(io.BytesIO(DATA), path))
            self.assertEqual(message.file_name, "film.bin")

    def test_a_thumbnail_of_the_form_is_taken_as_it_is(self) -> None:
        file = FileStorage(io.BytesIO(PNG), "dot.png", content_type="image/png")
        thumbnail = FileStorage(io.BytesIO(PNG), "small.png")
        thumbnail.read(10)
        with self.app.app_context():
            message = self.rtm.upload(file, thumbnail=thumbnail)
        assert isinstance(message, RtmImageMessage)
        self.assertEqual((message.thumbnail, message.thumbnail_width), (PNG, 1))

    def test_a_file_that_the_view_has_looked_into_is_uploaded_whole(self) -> None:
        file = FileStorage(io.BytesIO(DATA), "film.bin")
        self.assertEqual(file.read(100_000), DATA[:100_000])
        with self.app.app_context():
            self.assertEqual(self.rtm.upload(file).size, len(DATA))

    def test_a_large_form_is_read_where_werkzeug_put_it(self) -> None:
        self.assertIsInstance(self.post(DATA, "film.bin").json["media_id"], str)
        media_id = self.uploaded(DATA, "film.bin")
        self.assertEqual(self.get(f"/media/{media_id}").data, DATA)

    def test_empty_and_too_large_files_are_errors_with_a_status(self) -> None:
        self.assertEqual(self.post(b"", "empty").status_code, 400)
        too_large = self.post(bytes(30 * 1024 * 1024 + 1), "large")
        self.assertEqual(too_large.status_code, 413)
        self.assertIn("31,457,280", too_large.text)

    def test_a_medium_comes_back_with_its_headers(self) -> None:
        media_id = self.uploaded(PNG, "dot.png", "image/png")
        got = self.get(f"/media/{media_id}")
        self.assertEqual((got.status_code, got.data), (200, PNG))
        self.assertEqual(got.content_type, "image/png")
        self.assertEqual(got.content_length, len(PNG))
        self.assertEqual(got.headers["Accept-Ranges"], "bytes")
        self.assertEqual(got.headers["X-Content-Type-Options"], "nosniff")
        self.assertIn("sandbox", got.headers["Content-Security-Policy"])
        self.assertTrue(got.headers["Content-Disposition"].startswith("inline"))
        saved = self.get(f"/media/{media_id}?save=1")
        self.assertTrue(saved.headers["Content-Disposition"].startswith("attachment"))
        head = self.http.head(f"/media/{media_id}")
        self.assertEqual((head.data, head.content_length), (b"", len(PNG)))

    def test_what_a_browser_could_run_is_a_download(self) -> None:
        for kind in ("text/html", "image/svg+xml", "application/pdf", "text/xml"):
            media_id = self.uploaded(b"<script>alert(1)</script>", "page", kind)
            with self.subTest(kind):
                got = self.get(f"/media/{media_id}")
                self.assertTrue(got.headers["Content-Disposition"].startswith("attachment"))

    def test_parts_can_be_asked_for(self) -> None:
        media_id = self.uploaded(DATA, "film.mp4", "video/mp4")
        for wanted, start, stop in (
            ("bytes=0-99", 0, 100),
            ("bytes=1500000-1500099", 1_500_000, 1_500_100),
            ("bytes=-50", len(DATA) - 50, len(DATA)),
            ("bytes=1999990-", 1_999_990, len(DATA)),
        ):
            with self.subTest(wanted):
                got = self.get(f"/media/{media_id}", headers={"Range": wanted})
                self.assertEqual((got.status_code, got.data), (206, DATA[start:stop]))
                self.assertEqual(
                    got.headers["Content-Range"], f"bytes {start}-{stop - 1}/{len(DATA)}"
                )
        beyond = self.get(f"/media/{media_id}", headers={"Range": "bytes=2000000-"})
        self.assertEqual(beyond.status_code, 416)

    def test_only_what_is_sent_is_downloaded(self) -> None:
        proxy = self.entered(FaultProxy(self.entered(local_gateway(self.folder()))))
        self.app = photo_app(Rtm(), RTM_URL=proxy.url)
        self.entered(running(self.app))
        self.http = self.app.test_client()
        media_id = self.uploaded(DATA, "film.mp4", "video/mp4")
        path = f"/media/{media_id}"
        etag = self.http.head(path).headers["ETag"]
        for method, headers, status, data in (
            ("HEAD", {}, 200, b""),
            ("HEAD", {"Range": "bytes=0-9"}, 206, b""),
            ("GET", {"If-None-Match": etag}, 304, b""),
            ("GET", {"Range": "bytes=1500000-1500000"}, 206, DATA[1_500_000:1_500_001]),
            ("GET", {"Range": "bytes=2000000-"}, 416, None),
        ):
            with self.subTest(method, headers=headers):
                before = proxy.bytes_received
                got = self.http.open(path, method=method, headers=headers, buffered=True)
                self.assertEqual(got.status_code, status)
                if data is not None:
                    self.assertEqual(got.data, data)
                if method == "HEAD" and status == 200:
                    self.assertEqual(got.content_length, len(DATA))
                self.assertLess(proxy.bytes_received - before, 10_000)

    def test_who_has_it_gets_nothing_again(self) -> None:
        media_id = self.uploaded(PNG, "dot.png", "image/png")
        etag = self.get(f"/media/{media_id}").headers["ETag"]
        got = self.get(f"/media/{media_id}", headers={"If-None-Match": etag})
        self.assertEqual((got.status_code, got.data), (304, b""))

    def test_what_there_is_not_is_404(self) -> None:
        self.assertEqual(self.get("/media/" + "A" * 32).status_code, 404)
        self.assertEqual(self.get("/media/x%20y").status_code, 400)

    def test_an_upload_that_takes_too_long_is_given_up(self) -> None:
        class Held(io.BytesIO):
            gate = threading.Event()

            def read(self, size: int | None = -1) -> bytes:
                if size:
                    self.gate.wait(PATIENCE)
                return super().read(size)

        self.addCleanup(Held.gate.set)
        with self.app.app_context(), self.assertRaises(TimeoutError):
            self.rtm.upload(Blob.from_file(Held(b"bytes"), name="held.bin"), timeout=0.1)
        Held.gate.set()

    def test_errors_have_statuses(self) -> None:
        for error, status in (
            (UploadMediaError.named("SIZE_OVERFLOW", ""), 413),
            (DownloadMediaError.named("NOT_EXIST", ""), 404),
            (DownloadMediaError.named("TIMEOUT", ""), 504),
            (UploadMediaError.named("FAILURE", ""), 502),
        ):
            self.assertEqual(status_of(error), status)


class TokenBlueprintTest(RtmTestCase):
    def app(self, **settings: object) -> Flask:
        rtm = Rtm()
        app = photo_app(rtm, **settings)
        app.register_blueprint(
            rtm.token_blueprint(
                lambda: session.get("user"),
                ttl=60,
                privileges_of=lambda uid: Privileges(upload=uid != "guest"),
            )
        )

        @app.post("/sign-in/<uid>")
        def sign_in(uid: str) -> str:
            session["user"] = uid
            return uid

        return app

    def test_the_logged_in_user_gets_a_token_and_nobody_else(self) -> None:
        http = self.app(RTM_SECRET=SECRET).test_client()
        self.assertEqual(http.get("/rtm/token").status_code, 401)
        for uid, may_upload in (("alice", True), ("guest", False)):
            http.post(f"/sign-in/{uid}")
            answer = http.get("/rtm/token")
            self.assertEqual(answer.headers["Cache-Control"], "no-store")
            given = answer.json
            self.assertEqual((given["app_id"], given["uid"]), ("photos", uid))
            grant = JwtVerifier("photos", SECRET).verify(given["token"], uid)
            self.assertEqual(grant.expires_at, given["expires_at"])
            self.assertIs(grant.privileges.upload, may_upload)

    def test_without_a_secret_the_setting_is_named(self) -> None:
        http = self.app().test_client()
        http.post("/sign-in/alice")
        with self.assertRaisesRegex(RuntimeError, "RTM_SECRET"):
            http.get("/rtm/token")


class EventsBlueprintTest(AppTest):
    def test_the_processs_events_come_to_the_browser_and_go_on(self) -> None:
        self.app.register_blueprint(self.rtm.events_blueprint(seconds=PATIENCE))
        stream = self.http.get("/rtm/events")
        self.assertEqual(stream.content_type, "text/event-stream")
        body = stream.iter_encoded()
        beginning = next(body).decode()
        self.assertIn('event: ready\ndata: {"recovered": true}', beginning)
        last = beginning.partition("id: ")[2].splitlines()[0]
        alice = self.peer()
        with self.app.app_context():
            uid = str(self.rtm.client.uid)
        alice.send_message_to_peer("hi", uid)
        awaited(body, "MessageFromPeer")
        stream.close()
        for asked in (
            {"headers": {"Last-Event-ID": last}},
            {"query_string": {"last_event_id": last}},
        ):
            again = self.http.get("/rtm/events", **asked)  # type: ignore[arg-type]
            body = again.iter_encoded()
            self.assertIn('{"recovered": true}', next(body).decode())
            self.assertIn('"text":"hi"', awaited(body, "MessageFromPeer"))
            again.close()

    def test_a_response_that_the_server_drops_holds_no_connection(self) -> None:
        self.app.register_blueprint(self.rtm.events_blueprint(seconds=PATIENCE))
        browser, connection = socket.socketpair()
        with browser, connection, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", ResourceWarning)
            environ = create_environ("/rtm/events") | {"werkzeug.socket": connection}
            body = iter(self.app(environ, lambda *_: None))
            self.assertIn(b"event: ready", next(body))
            del body  # as Werkzeug does when the connection was reset
            connection.close()
            self.assertEqual(browser.recv(1), b"")
        self.assertEqual([str(warning.message) for warning in warned], [])

    def test_whose_events_they_are_is_for_the_app_to_say(self) -> None:
        self.app.register_blueprint(self.rtm.events_blueprint(lambda: None))
        self.assertEqual(self.http.get("/rtm/events").status_code, 401)


class CommandTest(AppTest):
    def run_command(self, *arguments: str) -> tuple[int, str]:
        done = self.app.test_cli_runner().invoke(args=["rtm", *arguments])
        return done.exit_code, done.output

    def test_check_tells_who_is_logged_in_where(self) -> None:
        code, output = self.run_command("check")
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"web-.*-\d+ of photos is logged in at memory://")

    def test_token_prints_a_token(self) -> None:
        self.app.config["RTM_SECRET"] = SECRET
        code, output = self.run_command("token", "alice", "--ttl", "60")
        self.assertEqual(code, 0, output)
        JwtVerifier("photos", SECRET).verify(output.strip(), "alice")
        self.assertEqual(self.run_command("token", "a/b")[0], 1)

    def test_send_sends(self) -> None:
        arriving = self.peer().events("MessageFromPeer")
        self.assertEqual(self.run_command("send", "alice", "hi"), (0, "received\n"))
        self.assertEqual(next(arriving.until(PATIENCE)).args[0].text, "hi")
        self.assertEqual(self.run_command("send", "bob", "hi"), (0, "kept\n"))

    def test_what_goes_wrong_is_one_line(self) -> None:
        self.app.config["RTM_APP_ID"] = ""
        code, output = self.run_command("check")
        self.assertEqual((code, output.count("\n")), (1, 1))
        self.assertIn("RTM_APP_ID", output)


class KitTest(RtmTestCase):
    """The kit for authors of apps."""

    def setUp(self) -> None:
        self.rtm = Rtm()
        self.app = photo_app(self.rtm)

        @self.rtm.on("MessageFromPeer")
        def answer(message: RtmTextMessage, peer_id: str, _: object) -> None:
            self.rtm.client.send_message_to_peer(message.text.upper(), peer_id)

    def test_scripted_users_expect_and_answer(self) -> None:
        with FlaskKit(self.app) as kit, kit.peer("alice") as alice, kit.peer("bob") as bob:
            self.rtm.start(self.app)
            with self.app.app_context():
                uid = str(self.rtm.client.uid)
                self.assertTrue(self.rtm.sender.query_peers_presence(["alice"]))
            alice.send_message_to_peer("hello", uid)
            message, sender, _ = alice.expect("MessageFromPeer")
            self.assertEqual((message.text, sender), ("HELLO", uid))
            self.assertEqual(bob.unexpected(), [])

    def test_seven_days_pass_in_a_moment(self) -> None:
        with FlaskKit(self.app) as kit:
            sent = kit.http.post("/upload", data={"photo": (io.BytesIO(PNG), "dot.png")})
            path = f"/media/{sent.json['media_id']}"
            self.assertEqual(kit.http.get(path).data, PNG)
            kit.clock.advance(7 * 24 * 3600 + 1)
            self.assertEqual(kit.http.get(path).status_code, 404)

    def test_nothing_stays(self) -> None:
        for _ in range(2):
            with FlaskKit(self.app) as kit, kit.peer("alice") as alice:
                self.rtm.start(self.app)
                alice.send_message_to_peer("x", "alice")
                alice.expect("MessageFromPeer")
