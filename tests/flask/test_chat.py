"""The photo chat of docs/examples/flask_chat, used by people with browsers: headless Chromium.

With RTM_SYNC_PICTURES=FOLDER a picture of each screen is left in the folder. Where the package
axe-playwright-python is there, axe-core looks at each screen too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import requests
from flask import Flask
from PIL import Image, ImageDraw
from werkzeug.serving import WSGIRequestHandler, make_server

from rtm_sync.flask.sessions import running
from rtm_sync.testing.flask_kit import FlaskKit
from tests.cli.support import child_environment
from tests.support import PATIENCE, RtmTestCase, Stopwatch, wait_until

try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ImportError:
    sync_playwright = None  # type: ignore[assignment]

try:
    import axe_playwright_python

    AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
except ImportError:
    AXE = ""

REPOSITORY = Path(__file__).parent.parent.parent
CHAT = REPOSITORY / "docs" / "examples" / "flask_chat" / "app.py"
CAT = REPOSITORY / "tests" / "data" / "cat.jpg"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PICTURES = os.environ.get("RTM_SYNC_PICTURES")
RED, BLUE = (200, 30, 30), (30, 60, 200)
SLOW = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000}


def loaded() -> ModuleType:
    """The example app, as `python app.py` runs it."""
    spec = importlib.util.spec_from_file_location("flask_chat_app", CHAT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def picture(*halves: tuple[int, int, int]) -> bytes:
    """A PNG of 600 × 400 with two halves."""
    image = Image.new("RGB", (600, 400), halves[0])
    ImageDraw.Draw(image).rectangle((300, 0, 600, 400), fill=halves[1])
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


@contextlib.contextmanager
def forms_may_be_left() -> Iterator[None]:
    """Ignore a warning: Werkzeug does not close the file of a form that it refuses midway."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unclosed file <tempfile.Spooled", ResourceWarning)
        yield


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_request(self, *_: object) -> None:
        pass


class ServerTest(RtmTestCase):
    """The app without a browser."""

    def test_one_command_starts_it_and_says_where_it_is(self) -> None:
        log = self.folder() / "log"
        with (
            log.open("w") as file,
            subprocess.Popen(
                [sys.executable, str(CHAT)],
                stdout=file,
                stderr=file,
                env=child_environment(PORT="0"),
            ) as server,
        ):
            try:
                wait_until(lambda: "Open http" in log.read_text(), PATIENCE)
                [url] = re.findall(r"Open (\S+)", log.read_text())
                with requests.Session() as http:
                    self.assertIn("Photo chat", http.get(url, timeout=PATIENCE).text)
                    self.assertEqual(http.get(f"{url}/media/x", timeout=PATIENCE).status_code, 401)
                    http.post(f"{url}/api/sign-in", data={"uid": "alice"}, timeout=PATIENCE)
                    told = http.get(f"{url}/api/me", timeout=PATIENCE).json()
                    self.assertEqual((told["uid"], told["online"]), ("alice", ["alice"]))
            finally:
                server.send_signal(signal.SIGINT)
                server.wait(PATIENCE)
        self.assertNotIn("Traceback", log.read_text())

    def test_what_was_said_outlives_the_logout_of_all_who_said_it(self) -> None:
        app: Flask = loaded().create_app(RTM_URL="memory://memory-test", RTM_USER_LINGER=0.2)
        lobby = {"kind": "channel", "id": "lobby"}
        with running(app):
            for name in ("alice", "bob", "carol"):  # each new session ends the idle ones
                http = app.test_client()
                http.post("/api/sign-in", data={"uid": name})
                http.post(
                    "/api/text", data={**lobby, "text": f"{name} was here", "message_id": name}
                )
                told = http.get("/api/messages", query_string=lobby).json
                idle = time.monotonic() + 0.2
                wait_until(lambda moment=idle: time.monotonic() > moment)
        assert told is not None
        said = [one["message"]["text"] for one in told["messages"]]
        self.assertEqual(said, ["alice was here", "bob was here", "carol was here"])

    def test_an_upload_cancelled_before_it_is_sent_reaches_nobody(self) -> None:
        app: Flask = loaded().create_app(RTM_URL="memory://cancel-test")
        lobby = {"kind": "channel", "id": "lobby"}
        with running(app):
            http = app.test_client()
            http.post("/api/sign-in", data={"uid": "alice"})
            http.post("/api/cancel", data={"message_id": "1"})
            for message_id, status in (("1", 502), ("2", 200)):
                form = {
                    **lobby,
                    "message_id": message_id,
                    "file": (io.BytesIO(b"x" * 1000), "a.bin"),
                }
                answer = http.post("/api/media", data=form)
                self.assertEqual(answer.status_code, status, answer.json)
            told = http.get("/api/messages", query_string=lobby).json
        assert told is not None
        self.assertEqual([one["message_id"] for one in told["messages"]], ["2"])

    def test_what_it_refuses_it_refuses_in_json(self) -> None:
        app: Flask = loaded().create_app(RTM_URL="memory://refusal-test", MAX_CONTENT_LENGTH=10_000)
        with running(app), forms_may_be_left():
            http = app.test_client()
            for path, form, status, reason in (
                ("/api/text", {}, 401, "USER_NOT_LOGGED_IN"),
                ("/api/sign-in", {"uid": "a/b"}, 400, "INVALID_ARGUMENT"),
                ("/api/sign-in", {"uid": "alice"}, 200, None),
                ("/api/open", {"kind": "cellar", "id": "x"}, 400, "FAILURE"),
                ("/api/open", {"kind": "channel", "id": "x/y"}, 400, "INVALID_ARGUMENT"),
                ("/api/media", {"file": (io.BytesIO(bytes(20_000)), "a")}, 413, "SIZE_OVERFLOW"),
            ):
                answer = http.post(path, data=form)
                assert answer.json is not None
                found = (answer.status_code, answer.json.get("reason"))
                self.assertEqual(found, (status, reason), path)
            self.assertEqual(http.get(f"/media/{'x' * 32}").status_code, 404)


@unittest.skipUnless(
    sync_playwright is not None and CHROMIUM,
    "the chat is tested in a browser: install playwright (pip) and chromium",
)
class ChatTest(RtmTestCase):
    """Alice and Bob at two browsers."""

    module: ClassVar[ModuleType]
    browser: ClassVar[Browser]
    _stack: ClassVar[contextlib.ExitStack]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.module = loaded()
        cls._stack = contextlib.ExitStack()
        playwright = cls._stack.enter_context(sync_playwright())
        cls.browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        cls._stack.callback(cls.browser.close)
        expect.set_options(timeout=1000 * PATIENCE)  # in milliseconds

    @classmethod
    def tearDownClass(cls) -> None:
        cls._stack.close()
        super().tearDownClass()

    def setUp(self) -> None:
        self.entered(forms_may_be_left())
        app_id = f"chat-{random.randrange(10**9)}"  # its hub is this process's
        self.app: Flask = self.module.create_app(RTM_APP_ID=app_id, TESTING=True)
        self.entered(running(self.app))
        self.url = self.entered(self.served())

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        server = make_server("127.0.0.1", 0, self.app, threaded=True, request_handler=Quiet)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def page(
        self, viewport: dict[str, int] | None = None, *, uid: str = "", **options: Any
    ) -> Page:
        """A page in a new browser, with `uid` signed in. Its errors fail the test."""
        context = self.browser.new_context(
            viewport=viewport or DESK,
            locale=options.pop("locale", "en-GB"),
            reduced_motion="reduce",
            **options,
        )
        self.addCleanup(context.close)
        if uid:
            context.request.post(f"{self.url}/api/sign-in", form={"uid": uid}).dispose()
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)  # in milliseconds
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(f"{error}"))
        page.on(
            "console", lambda line: problems.append(line.text) if "olicy" in line.text else None
        )
        self.addCleanup(lambda: self.assertEqual(problems, []))
        page.goto(self.url)
        return page

    def signed_in(self, name: str) -> Page:
        page = self.page(uid=name)
        expect(page.locator("#self")).to_contain_text(name)
        expect(page.locator("#room-state")).to_contain_text("here")
        expect(page.locator("#text")).to_be_focused()
        return page

    def say(self, page: Page, text: str) -> None:
        page.locator("#text").fill(text)
        page.locator("#text").press("Enter")
        expect(page.locator(".mine .words").last).to_have_text(text)

    def send(self, page: Page, *files: tuple[str, str, bytes], text: str = "") -> None:
        chosen = [{"name": name, "mimeType": kind, "buffer": data} for name, kind, data in files]
        page.locator("#file").set_input_files(chosen)
        expect(page.locator("#tray li")).to_have_count(len(files))
        page.locator("#text").fill(text)
        page.get_by_role("button", name=re.compile("^(Send|发送)$")).click()

    def shot(self, page: Page, name: str) -> None:
        """Check the page: it is not blank, not wider than its window, and axe finds no problem."""
        self.until(page, "[...document.images].every((image) => image.complete)")
        self.assertFalse(page.evaluate("document.documentElement.scrollWidth > innerWidth"), name)
        image = Image.open(io.BytesIO(page.screenshot()))
        self.assertGreater(len(image.convert("RGB").getcolors(1 << 24) or ()), 20, name)
        if PICTURES:
            image.save(Path(PICTURES) / f"{name}.png", optimize=True)
        if AXE:
            page.evaluate(AXE)
            found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
            told = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
            self.assertEqual(told, [], name)

    def until(self, page: Page, expression: str) -> None:
        wait_until(lambda: page.evaluate(expression), PATIENCE, expression)

    def assert_halves(self, page: Page, selector: str) -> None:
        """Check that the element is red at a quarter of its width, and blue at three quarters."""
        self.until(page, f"document.querySelector('{selector}')?.complete")
        shown = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
        for quarter, wanted in ((1, RED), (3, BLUE)):
            seen = shown.getpixel((shown.width * quarter // 4, shown.height // 2))
            assert isinstance(seen, tuple)
            for one, other in zip(seen, wanted, strict=True):
                self.assertLess(abs(one - other), 40, (seen, wanted))

    def test_a_photo_of_one_appears_for_the_other(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        expect(alice.locator("#room-state")).to_have_text("2 people here")
        self.send(alice, ("halves.png", "image/png", picture(RED, BLUE)), text="two halves")
        expect(bob.locator(".photo + .words")).to_have_text("two halves")
        self.assertTrue(
            bob.locator(".photo img").evaluate("image => image.src.startsWith('data:')")
        )
        self.assert_halves(bob, ".theirs .photo img")
        self.assert_halves(alice, ".mine .photo img")
        bob.get_by_role("button", name="Photo halves.png from alice").click()
        expect(bob.get_by_role("dialog")).to_be_visible()
        expect(bob.locator("#viewer-photo[data-full]")).to_be_visible()
        self.assertEqual(bob.locator("#viewer-photo").evaluate("image => image.naturalWidth"), 600)
        self.assert_halves(bob, "#viewer-photo")
        self.assertIn("kept until", bob.locator("#viewer-about").inner_text())
        self.shot(bob, "viewer")
        bob.keyboard.press("Escape")
        expect(bob.get_by_role("dialog")).to_be_hidden()

    def test_a_page_of_another_origin_sends_nothing_in_her_name(self) -> None:
        alice = self.page(uid="alice")
        expect(alice.locator("#self")).to_contain_text("alice")
        evil = Flask("evil")
        form = "".join(
            f'<input name="{name}" value="{value}">'
            for name, value in (("kind", "channel"), ("id", "lobby"), ("text", "forged"))
        )
        evil.add_url_rule(
            "/",
            view_func=lambda: (
                f'<form method="post" action="{self.url}/api/text">{form}'
                '<input name="message_id" value="1"></form><script>document.forms[0].submit()'
                "</script>"
            ),
        )
        server = make_server("127.0.0.1", 0, evil, request_handler=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            forged = alice.context.new_page()  # another port of the same host: her cookie is sent
            with forged.expect_response(f"{self.url}/api/text") as answered:
                forged.goto(f"http://127.0.0.1:{server.port}/")
            self.assertEqual(answered.value.status, 403)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        self.say(alice, "genuine")
        expect(alice.locator(".words")).to_have_text(["genuine"])

    def test_text_goes_to_channels_and_people_and_is_never_markup(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        self.say(alice, "<img src=x onerror=alert(1)> & more")
        expect(bob.locator(".words")).to_have_text("<img src=x onerror=alert(1)> & more")
        bob.locator("#people").get_by_role("link", name="alice").click()
        self.say(bob, "only for you")
        expect(bob.locator(".foot").last).to_contain_text("Received")
        expect(alice).to_have_title("(1) Everyone · Photo chat")
        alice.get_by_role("link", name=re.compile("bob online 1 unread")).click()
        expect(alice.locator(".words")).to_have_text("only for you")
        expect(alice).to_have_title("bob · Photo chat")
        alice.get_by_role("button", name="New channel").click()
        alice.get_by_label("Name of the channel").fill("a/b照")
        alice.get_by_role("button", name="Open").click()
        expect(alice.locator("#room-name")).to_have_text("a/b照")
        expect(alice.locator("#room-state")).to_have_text("Only you are here")

    def test_who_is_away_finds_what_was_sent(self) -> None:
        alice = self.signed_in("alice")
        alice.get_by_role("button", name="Write to a person").click()
        alice.get_by_label("Name of the person").fill("bob")
        alice.keyboard.press("Enter")
        expect(alice.locator("#room-state")).to_have_text("offline")
        self.say(alice, "see you")
        expect(alice.locator(".foot").last).to_contain_text("Will be there")
        bob = self.signed_in("bob")
        expect(alice.locator("#room-state")).to_have_text("online")
        bob.get_by_role("link", name=re.compile("alice online 1 unread")).click()
        expect(bob.locator(".words")).to_have_text("see you")

    def test_an_upload_shows_its_progress_and_can_be_cancelled(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        network = alice.context.new_cdp_session(alice)
        network.send("Network.emulateNetworkConditions", SLOW)
        noise = random.Random(1).randbytes(4_000_000)
        self.send(alice, ("film.bin", "application/octet-stream", noise))
        bar = alice.get_by_role("progressbar", name="Sending film.bin")
        expect(bar).to_be_visible()
        self.until(alice, "document.querySelector('progress')?.value > 0.05")
        self.shot(alice, "uploading")
        watch = Stopwatch()
        alice.get_by_role("button", name="Cancel film.bin").click()
        expect(bar).to_have_count(0)
        self.assertLess(watch.seconds(), 3.0)
        expect(alice.get_by_text("Cancelled; nothing was sent.")).to_be_visible()
        self.say(alice, "never mind")
        expect(bob.locator(".words")).to_have_text("never mind")
        expect(bob.locator(".message")).to_have_count(1)  # the cancelled video was not sent

    def test_what_could_not_be_sent_can_be_sent_again(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        alice.context.set_offline(True)
        self.send(alice, ("halves.png", "image/png", picture(RED, BLUE)))
        expect(alice.get_by_role("alert").get_by_text("Not sent.")).to_be_visible()
        self.shot(alice, "failed")
        alice.context.set_offline(False)
        alice.get_by_role("button", name="Try again").click()
        expect(bob.locator(".theirs .photo")).to_have_count(1)
        expect(alice.locator(".mine button.photo")).to_have_count(1)

    def test_a_reload_keeps_the_history_and_the_connection_goes_on(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        self.send(alice, ("halves.png", "image/png", picture(RED, BLUE)))
        expect(bob.locator(".photo")).to_be_visible()
        bob.reload()
        self.assert_halves(bob, ".theirs .photo img")
        self.say(alice, "after the reload")
        expect(bob.locator(".words")).to_have_text("after the reload")
        bob.context.set_offline(True)
        self.say(alice, "while away")
        bob.context.set_offline(False)
        expect(bob.locator(".words").last).to_have_text("while away")
        expect(bob.locator(".message")).to_have_count(3)

    def test_older_messages_come_when_asked_for(self) -> None:
        with self.app.test_request_context():
            channel = self.module.rtm.join("lobby")
            for number in range(120):
                channel.send_message(f"number {number}", enable_historical_messaging=True)
        alice = self.signed_in("alice")
        expect(alice.locator(".message")).to_have_count(50)
        earlier = alice.get_by_role("button", name="Earlier messages")
        earlier.click()
        expect(alice.locator(".words").first).to_have_text(re.compile("number 2."))
        earlier.click()
        expect(earlier).to_be_hidden()
        told = alice.locator(".words").all_inner_texts()
        self.assertEqual(told, [f"number {number}" for number in range(120)])

    def test_a_file_is_offered_and_comes_back_byte_for_byte(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        data = random.Random(2).randbytes(300_000)
        self.send(alice, ("notes.zip", "application/zip", data))
        link = bob.get_by_role("link", name="Download notes.zip, 300 kB")
        expect(link).to_be_visible()
        with bob.expect_download() as waiting:
            link.click()
        self.assertEqual(waiting.value.suggested_filename, "notes.zip")
        self.assertEqual(Path(waiting.value.path()).read_bytes(), data)

    def test_what_is_over_is_shown_as_such(self) -> None:
        alice = self.signed_in("alice")
        self.send(
            alice,
            ("halves.png", "image/png", picture(RED, BLUE)),
            ("notes.zip", "application/zip", bytes(1000)),
        )
        expect(alice.locator("a.file")).to_be_visible()
        expect(alice.locator("button.photo")).to_be_visible()
        alice.clock.install()
        alice.clock.fast_forward(8 * 24 * 3600 * 1000)
        alice.locator("#people-title").click()
        alice.get_by_role("button", name="中文").click()
        alice.get_by_role("button", name="English").click()
        expect(alice.get_by_text("No longer available")).to_be_visible()
        expect(alice.locator(".file .size")).to_have_text("Expired")
        expect(alice.locator("button.photo, a.file")).to_have_count(0)
        self.shot(alice, "expired")

    def test_what_the_hub_has_no_more_is_shown_as_such(self) -> None:
        with FlaskKit(self.app) as kit:
            kit.peer("carol")
            alice = self.signed_in("alice")
            self.send(alice, ("halves.png", "image/png", picture(RED, BLUE)))
            expect(alice.locator("button.photo")).to_be_visible()
            kit.clock.advance(7 * 24 * 3600 + 1)  # the hub's clock; the page still shows the photo
            alice.locator("button.photo").click()
            expect(alice.locator("#viewer-gone")).to_contain_text("No longer available")
            alice.keyboard.press("Escape")
            expect(alice.locator(".photo.over")).to_be_visible()
            alice.context.close()

    def test_files_are_dropped_and_what_is_too_large_is_told(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        drop = """([size, kinds]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(size)], "dropped.bin"));
            for (const kind of kinds)
                document.getElementById("log").dispatchEvent(
                    new DragEvent(kind, {dataTransfer: data, bubbles: true}));
        }"""
        alice.evaluate(drop, [1000, ["dragenter"]])
        expect(alice.locator("#drop")).to_be_visible()
        self.shot(alice, "drop")
        alice.evaluate(drop, [1000, ["drop"]])
        expect(alice.locator("#drop")).to_be_hidden()
        alice.keyboard.press("Enter")
        expect(bob.get_by_role("link", name="dropped.bin")).to_be_visible()
        alice.evaluate(drop, [30 * 1024 * 1024 + 1, ["drop"]])
        expect(alice.get_by_text("dropped.bin is larger than 30 MB.")).to_be_visible()
        alice.evaluate(drop, [0, ["drop"]])
        expect(alice.get_by_text("dropped.bin is empty.")).to_be_visible()

    def test_it_can_be_used_by_keyboard_alone(self) -> None:
        self.signed_in("bob")
        page = self.signed_in("alice")
        link = page.locator("#people").get_by_role("link", name="bob")
        expect(link).to_be_visible()
        for _ in range(30):
            page.keyboard.press("Tab")
            if link.evaluate("node => node === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(page.locator("#room-name")).to_have_text("bob")
        expect(page.locator("#text")).to_be_focused()
        page.keyboard.type("by hand")
        page.keyboard.press("Enter")
        expect(page.locator(".mine .words")).to_have_text("by hand")

    def test_a_name_that_cannot_be_is_refused_in_words(self) -> None:
        page = self.page()
        page.get_by_label("Your name").fill("x" * 64 + "你")
        page.get_by_label("Your name").fill("你" * 30)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert").first).to_contain_text("This name does not work")
        self.shot(page, "sign-in")

    def test_every_screen_on_a_desk_and_a_phone(self) -> None:
        ming = self.page(PHONE, locale="zh-CN", color_scheme="dark")
        expect(ming.get_by_label("你的名字")).to_be_visible()
        self.shot(ming, "phone-sign-in-zh-dark")
        alice = self.signed_in("Alice")
        ming.get_by_label("你的名字").fill("小明")
        ming.get_by_role("button", name="进入").click()
        expect(ming.locator("#self")).to_contain_text("小明")
        self.shot(ming, "phone-list-zh-dark")
        ming.get_by_role("link", name="大厅").click()
        expect(alice.locator("#room-state")).to_have_text("2 people here")
        self.say(alice, "Look who came by this morning")
        self.send(
            alice, ("cat.jpg", "image/jpeg", CAT.read_bytes()), text="She stayed for breakfast."
        )
        expect(ming.locator(".theirs .photo")).to_be_visible()
        self.say(ming, "哇！是谁家的猫？")
        expect(alice.locator(".theirs .words")).to_be_visible()
        self.send(alice, ("vet-report.pdf", "application/pdf", bytes(90_000)))
        expect(ming.locator("a.file")).to_be_visible()
        self.shot(alice, "desk")
        self.shot(ming, "phone-zh-dark")
        alice.get_by_role("button", name="中文").click()
        expect(alice.locator("#room-name")).to_have_text("大厅")
        self.shot(alice, "desk-zh")
        alice.emulate_media(color_scheme="dark")
        self.shot(alice, "desk-zh-dark")
        self.send(ming, ("halves.png", "image/png", picture(RED, BLUE)))
        expect(alice.locator(".theirs .photo")).to_be_visible()
        ming.get_by_role("button", name="成员").click()
        expect(ming.locator("#members")).to_be_visible()
        self.shot(ming, "phone-members-zh-dark")
        alice.locator(".theirs .photo").click()
        expect(alice.locator("#viewer-photo[data-full]")).to_be_visible()
        alice.keyboard.press("ArrowLeft")
        expect(alice.locator("#viewer-name")).to_have_text("cat.jpg")
        expect(alice.locator("#viewer-photo[data-full]")).to_be_visible()
        self.shot(alice, "desk-viewer")
        alice.keyboard.press("Escape")
        alice.get_by_role("button", name="新建频道").click()
        self.shot(alice, "desk-new-channel")
        alice.keyboard.press("Escape")
        alice.set_viewport_size(PHONE)
        alice.emulate_media(color_scheme="light")
        self.shot(alice, "phone-zh")
        alice.get_by_role("link", name="全部会话").click()
        expect(alice.locator("#places")).to_be_visible()
        self.shot(alice, "phone-list-zh")
        alice.get_by_role("button", name="退出").click()
        expect(alice.locator("#name")).to_be_focused()
