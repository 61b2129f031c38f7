"""What pages of other sites, copied cookies and odd file names can do to a Flask app: nothing."""

from __future__ import annotations

import threading
import unittest
import urllib.parse

import requests
from flask import Flask, Response
from werkzeug.serving import make_server

from rtm_sync import RtmClient
from rtm_sync.flask import Rtm, protect, running
from rtm_sync.testing import local_gateway
from tests.flask.test_chat import Quiet, loaded
from tests.support import PATIENCE, RtmTestCase, wait_until

OWN = {"Sec-Fetch-Site": "same-origin"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


class ProtectTest(unittest.TestCase):
    def setUp(self) -> None:
        app = Flask(__name__)
        protect(app, ["chat.example"])
        app.add_url_rule("/", view_func=lambda: "ok", methods=["GET", "POST"])
        self.http = app.test_client()

    def status(self, method: str, host: str = "chat.example", **headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.open("/", method=method, headers={"Host": host, **sent}).status_code

    def test_only_its_own_pages_and_programs_may_do_anything(self) -> None:
        for method, headers, status in (
            ("POST", {}, 200),  # no browser
            ("POST", {"Sec_Fetch_Site": "same-origin"}, 200),
            ("POST", {"Sec_Fetch_Site": "cross-site"}, 403),
            ("POST", {"Sec_Fetch_Site": "same-site"}, 403),  # another port of this machine
            ("POST", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 403),
            ("GET", {"Sec_Fetch_Site": "cross-site"}, 403),  # an image, a script, an event stream
            ("GET", {"Sec_Fetch_Site": "none"}, 200),
            ("GET", {name.replace("-", "_"): value for name, value in LINK.items()}, 200),
            ("POST", {name.replace("-", "_"): value for name, value in LINK.items()}, 403),
            ("POST", {"Origin": "https://chat.example"}, 200),  # an older browser
            ("POST", {"Origin": "https://evil.example"}, 403),
            ("POST", {"Origin": "https://chat.example:8443"}, 403),
            ("POST", {"Origin": "null"}, 403),
            ("POST", {"Origin": "https://[chat.example"}, 403),
        ):
            with self.subTest(method, **headers):
                self.assertEqual(self.status(method, **headers), status)

    def test_it_answers_under_its_own_names_only(self) -> None:
        for host, status in (
            ("chat.example", 200),
            ("CHAT.example:5000", 200),
            ("localhost:5000", 200),
            ("127.0.0.1", 200),
            ("[::1]:5000", 200),
            ("192.168.1.7:5000", 200),
            ("evil.example", 400),
            ("[::1", 400),
            ("127.0.0.1.evil.example", 400),
            ("localhost.evil.example", 400),
        ):
            with self.subTest(host):
                self.assertEqual(self.status("GET", host), status)


class SignOutTest(RtmTestCase):
    def test_a_sign_out_ends_the_session_on_the_server(self) -> None:
        app: Flask = loaded().create_app(RTM_URL="memory://sign-out-test", RTM_USER_LINGER=600)
        lobby = {"kind": "channel", "id": "lobby"}
        with running(app):
            http = app.test_client()
            http.post("/api/sign-in", data={"uid": "alice"}, headers=OWN)
            cookie = http.get_cookie("session")
            assert cookie is not None
            other = app.test_client()  # alice at another browser
            other.post("/api/sign-in", data={"uid": "alice"})
            bob = app.test_client()
            bob.post("/api/sign-in", data={"uid": "bob"})
            copied = app.test_client()
            copied.set_cookie("session", cookie.value)
            self.assertEqual(copied.get("/api/messages", query_string=lobby).status_code, 200)
            http.post("/api/sign-out", headers=OWN)
            self.assertEqual(copied.get("/api/messages", query_string=lobby).status_code, 401)
            self.assertIsNone(copied.get("/api/me").get_json()["uid"])
            self.assertEqual(other.get("/api/messages", query_string=lobby).status_code, 200)
            other.post("/api/sign-out")  # the last one: her client logs out at once
            shown = {"kind": "peer", "id": "alice"}

            def is_offline() -> bool:
                told = bob.post("/api/open", data=shown).get_json()
                return bool(told["online"] is False)

            wait_until(is_offline)

    def test_a_page_of_another_site_can_neither_sign_in_nor_send(self) -> None:
        app: Flask = loaded().create_app(RTM_URL="memory://csrf-test")
        form = {"kind": "channel", "id": "lobby", "text": "forged", "message_id": "1"}
        with running(app):
            http = app.test_client()
            http.post("/api/sign-in", data={"uid": "alice"}, headers=OWN)
            for site in ("cross-site", "same-site"):
                foreign = {"Sec-Fetch-Site": site}
                for path in ("/api/text", "/api/sign-in", "/api/sign-out", "/api/media"):
                    answer = http.post(path, data={**form, "uid": "eve"}, headers=foreign)
                    self.assertEqual(answer.status_code, 403, path)
                self.assertEqual(http.get("/api/events", headers=foreign).status_code, 403)
            rebound = http.get("/api/me", headers={"Host": "evil.example:5000"})
            self.assertEqual(rebound.status_code, 400)
            told = http.get("/api/messages", query_string={"kind": "channel", "id": "lobby"})
            self.assertEqual(told.get_json()["messages"], [])


class FileNameTest(RtmTestCase):
    """`send_media` with any name and type, over a real server."""

    NAMES = (
        'a"b.jpg',
        "a\r\nSet-Cookie: x=1.jpg",
        "ünï 猫.png",
        "../../etc/passwd",
        "a%2e%2fb.txt",
        f"{'x' * 200}.jpg",
        "a;b=c.txt",
        "\u202egnp.exe",
        "",
        "it's.html",
    )

    def test_any_name_arrives_as_a_name_on_every_transport(self) -> None:
        with local_gateway() as url:
            for where in (url, "memory://names-test"):
                with self.subTest(where):
                    self.try_names(where)

    def try_names(self, hub: str) -> None:
        rtm, app = Rtm(), Flask(__name__)
        app.config.update(RTM_APP_ID="app", RTM_URL=hub)
        rtm.init_app(app)

        @app.get("/<media_id>")
        def medium(media_id: str) -> Response:
            return rtm.send_media(media_id)

        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with running(app), RtmClient("app", url=hub) as alice:
                rtm.start(app)
                alice.login("alice")
                for name in self.NAMES:
                    sent = alice.create_media_message_by_uploading(b"bytes", file_name=name)
                    message = sent.result(PATIENCE)
                    answer = requests.get(
                        f"http://127.0.0.1:{server.port}/{message.media_id}", timeout=PATIENCE
                    )
                    self.assertEqual((answer.status_code, answer.content), (200, b"bytes"), name)
                    self.assertNotIn("Set-Cookie", answer.headers)
                    kind, _, told = answer.headers["Content-Disposition"].partition(
                        "; filename*=UTF-8''"
                    )
                    expected = message.file_name or message.media_id
                    self.assertEqual(urllib.parse.unquote(told), expected)
                    if name.endswith((".exe", ".html")):
                        self.assertEqual(kind, "attachment")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
