"""The photo chat of docs/examples/flask_chat, used by people with browsers: headless Chromium.

With RTM_SYNC_PICTURES=FOLDER a picture of each screen is left in the folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import requests
from flask import Flask
from PIL import Image, ImageDraw
from werkzeug.serving import make_server

from rtm_sync.flask import running
from tests.cli.support import child_environment
from tests.support import RtmTestCase, wait_until

try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ImportError:
    sync_playwright = None  # type: ignore[assignment]

REPOSITORY = Path(__file__).parent.parent.parent
CHAT = REPOSITORY / "docs" / "examples" / "flask_chat" / "app.py"
CAT = REPOSITORY / "tests" / "data" / "cat.jpg"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PATIENCE = 15_000.0  # milliseconds
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PICTURES = os.environ.get("RTM_SYNC_PICTURES")
RED, BLUE = (200, 30, 30), (30, 60, 200)


def loaded() -> ModuleType:
    """The example, as a user's `python app.py` has it."""
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


class StartTest(RtmTestCase):
    """One command, as the README has it."""

    def test_it_starts_and_takes_people_in_without_a_browser(self) -> None:
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
                wait_until(lambda: "Running on" in log.read_text(), PATIENCE / 1000)
                [url] = re.findall(r"Running on (\S+)", log.read_text())
                with requests.Session() as http:
                    self.assertIn("Photo chat", http.get(url, timeout=10).text)
                    refused = http.post(f"{url}/session", json={"name": "alice"}, timeout=10)
                    self.assertEqual(refused.status_code, 400)  # another site's page
                    http.headers["X-Chat"] = "1"
                    self.assertEqual(http.get(f"{url}/people", timeout=10).status_code, 401)
                    http.post(f"{url}/session", json={"name": "alice"}, timeout=10)
                    told = http.get(f"{url}/talks/channel/lobby", timeout=10).json()
                    self.assertEqual((told["members"], told["messages"]), (["alice"], []))
            finally:
                server.terminate()
                server.wait(PATIENCE / 1000)
        self.assertNotIn("Traceback", log.read_text())


class MemoryTest(RtmTestCase):
    def test_what_was_said_outlives_the_logout_of_all_who_said_it(self) -> None:
        app: Flask = loaded().create_app(RTM_URL="memory://memory-test", RTM_USER_LINGER=0.2)
        with running(app):
            for name in ("alice", "bob", "carol"):  # each new one ends those who are idle
                http = app.test_client()
                http.environ_base["HTTP_X_CHAT"] = "1"
                http.post("/session", json={"name": name})
                http.post("/talks/channel/lobby/text", json={"text": f"{name} was here"})
                told = http.get("/talks/channel/lobby").json
                idle = time.monotonic() + 0.2
                wait_until(lambda moment=idle: time.monotonic() > moment)
        assert told is not None
        said = [one["message"]["text"] for one in told["messages"]]
        self.assertEqual(said, ["alice was here", "bob was here", "carol was here"])


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

    @classmethod
    def tearDownClass(cls) -> None:
        cls._stack.close()
        super().tearDownClass()

    def setUp(self) -> None:
        app_id = f"chat-{random.randrange(10**9)}"  # its hub is this process's
        self.app: Flask = self.module.create_app(RTM_APP_ID=app_id, TESTING=True)
        self.entered(running(self.app))
        self.url = self.entered(self.served())

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        server = make_server("127.0.0.1", 0, self.app, threaded=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def page(self, viewport: dict[str, int] | None = None, **options: Any) -> Page:
        """A browser of its own, whose errors fail the test."""
        context = self.browser.new_context(
            viewport=viewport or DESK, locale=options.pop("locale", "en-GB"), **options
        )
        self.addCleanup(context.close)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(f"{error}"))
        self.addCleanup(lambda: self.assertEqual(problems, []))
        page.goto(self.url)
        return page

    def signed_in(self, name: str, viewport: dict[str, int] | None = None, **options: Any) -> Page:
        page = self.page(viewport, **options)
        page.get_by_label("Your name").fill(name)
        page.get_by_label("Your name").press("Enter")
        expect(page.locator("#me")).to_have_text(name)
        expect(page.locator("#talk-note")).to_contain_text("here")
        return page

    def send_photo(self, page: Page, data: bytes, name: str = "halves.png") -> None:
        kind = "image/png" if name.endswith("png") else "image/jpeg"
        page.locator("#file").set_input_files([{"name": name, "mimeType": kind, "buffer": data}])

    def shot(self, page: Page, name: str) -> None:
        """Leave a picture of the screen where one is wanted; it must not be blank anyway."""
        image = Image.open(io.BytesIO(page.screenshot()))
        self.assertGreater(len(image.convert("RGB").getcolors(1 << 24) or ()), 20, name)
        if PICTURES:
            image.save(Path(PICTURES) / f"{name}.png", optimize=True)

    def until(self, page: Page, expression: str) -> None:
        wait_until(lambda: page.evaluate(expression), PATIENCE / 1000, expression)

    def colours(self, page: Page, selector: str) -> list[tuple[int, ...]]:
        """What is seen at a quarter and at three quarters of an element."""
        shown = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
        found = [shown.getpixel((shown.width * n // 4, shown.height // 2)) for n in (1, 3)]
        return [pixel for pixel in found if isinstance(pixel, tuple)]

    def assert_halves(self, page: Page, selector: str) -> None:
        for seen, wanted in zip(self.colours(page, selector), (RED, BLUE), strict=True):
            for one, other in zip(seen, wanted, strict=True):
                self.assertLess(abs(one - other), 40, (seen, wanted))

    def test_a_photo_of_one_appears_for_the_other(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        expect(alice.locator("#talk-note")).to_have_text("2 here")
        self.send_photo(alice, picture(RED, BLUE))
        thumb = bob.locator(".message .thumb img")
        expect(thumb).to_be_visible()
        self.until(bob, "document.querySelector('.thumb img').complete")
        self.assert_halves(bob, ".message .thumb img")
        self.assert_halves(alice, ".message.mine .thumb img")
        bob.get_by_role("button", name="Show halves.png in full").click()
        expect(bob.get_by_role("dialog")).to_be_visible()
        self.until(bob, "document.getElementById('picture-image').naturalWidth === 600")
        self.assertEqual(bob.locator("#picture-name").inner_text(), "halves.png, 2 KB")
        bob.keyboard.press("Escape")
        expect(bob.get_by_role("dialog")).to_be_hidden()

    def test_text_goes_to_channels_and_people_and_is_never_markup(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        alice.get_by_label("Write a message").fill("<img src=x onerror=alert(1)> & more")
        alice.get_by_label("Write a message").press("Enter")
        expect(bob.locator(".message p")).to_have_text("<img src=x onerror=alert(1)> & more")
        bob.get_by_role("button", name="alice, online").click()
        bob.get_by_label("Write a message").fill("only for you")
        bob.get_by_role("button", name="Send").click()
        alice.get_by_role("button", name="bob, online, 1 unread").click()
        expect(alice.locator(".message p")).to_have_text("only for you")
        expect(alice.get_by_role("button", name="unread")).to_have_count(0)

    def test_an_upload_shows_its_progress_and_can_be_cancelled(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        network = alice.context.new_cdp_session(alice)
        network.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000},
        )
        noise = random.Random(1).randbytes(4_000_000)
        alice.locator("#file").set_input_files(
            [{"name": "film.bin", "mimeType": "application/octet-stream", "buffer": noise}]
        )
        bar = alice.get_by_role("progressbar", name="film.bin")
        expect(bar).to_be_visible()
        self.until(alice, "document.querySelector('progress').value > 0.05")
        self.assertLess(float(bar.evaluate("bar => bar.value")), 1.0)
        self.shot(alice, "uploading")
        began = time.monotonic()
        alice.get_by_role("button", name="Cancel: film.bin").click()
        expect(bar).to_have_count(0)
        self.assertLess(time.monotonic() - began, 3.0)
        expect(alice.get_by_role("alert").first).to_have_text("film.bin was cancelled.")
        alice.get_by_label("Write a message").fill("never mind")
        alice.get_by_label("Write a message").press("Enter")
        expect(bob.locator(".message p")).to_have_text("never mind")
        expect(bob.locator(".message")).to_have_count(1)  # nothing of the film came

    def test_a_reload_keeps_the_history_and_the_connection_goes_on(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        self.send_photo(alice, picture(RED, BLUE))
        expect(bob.locator(".thumb")).to_be_visible()
        bob.reload()
        expect(bob.locator("#me")).to_have_text("bob")
        expect(bob.locator(".thumb")).to_have_count(1)
        alice.get_by_label("Write a message").fill("after the reload")
        alice.get_by_label("Write a message").press("Enter")
        expect(bob.locator(".message p")).to_have_text("after the reload")
        bob.context.set_offline(True)
        alice.get_by_label("Write a message").fill("while away")
        alice.get_by_label("Write a message").press("Enter")
        bob.context.set_offline(False)
        expect(bob.locator(".message p").last).to_have_text("while away")
        expect(bob.locator(".message")).to_have_count(3)

    def test_a_file_is_offered_and_comes_back_byte_for_byte(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        data = random.Random(2).randbytes(300_000)
        alice.locator("#file").set_input_files(
            [{"name": "notes.zip", "mimeType": "application/zip", "buffer": data}]
        )
        link = bob.get_by_role("link", name="notes.zip")
        expect(link).to_be_visible()
        with bob.expect_download() as waiting:
            link.click()
        self.assertEqual(waiting.value.suggested_filename, "notes.zip")
        self.assertEqual(Path(waiting.value.path()).read_bytes(), data)

    def test_what_is_over_is_shown_as_such(self) -> None:
        alice = self.signed_in("alice")
        self.send_photo(alice, picture(RED, BLUE))
        expect(alice.locator(".thumb")).to_be_visible()
        alice.clock.install()
        alice.clock.fast_forward(8 * 24 * 3600 * 1000)
        alice.evaluate("document.querySelector('#channels button').click()")
        expect(alice.get_by_text("No longer available: kept for seven days.")).to_be_visible()
        expect(alice.locator(".thumb")).to_be_disabled()
        self.shot(alice, "expired")

    def test_files_are_dropped_and_what_is_too_large_is_told(self) -> None:
        alice, bob = self.signed_in("alice"), self.signed_in("bob")
        drop = """(size) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(size)], "dropped.bin"));
            const target = document.querySelector("section");
            for (const kind of ["dragenter", "drop"])
                target.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true}));
        }"""
        alice.evaluate(drop, 1000)
        expect(bob.get_by_role("link", name="dropped.bin")).to_be_visible()
        alice.evaluate(drop, 30 * 1024 * 1024 + 1)
        expect(alice.locator("#problem")).to_have_text("dropped.bin is larger than 30 MB.")

    def test_it_speaks_chinese(self) -> None:
        page = self.page(PHONE, locale="zh-CN")
        expect(page.get_by_role("heading", name="图片聊天")).to_be_visible()
        self.shot(page, "sign-in-zh")
        page.get_by_label("你的名字").fill("xiaoming")
        page.get_by_role("button", name="登录").click()
        expect(page.get_by_role("heading", name="频道")).to_be_visible()
        page.get_by_role("button", name="English").click()
        expect(page.get_by_role("heading", name="Channels")).to_be_visible()
        self.assertEqual(page.locator("html").get_attribute("lang"), "en")

    def test_a_name_that_cannot_be_is_refused_in_words(self) -> None:
        page = self.page()
        page.get_by_label("Your name").fill("a/b")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert").first).to_contain_text("contains '/'")
        self.shot(page, "sign-in")

    def test_it_can_be_used_by_keyboard_alone(self) -> None:
        page = self.signed_in("alice")
        self.signed_in("bob")
        expect(page.get_by_role("button", name="bob, online")).to_be_visible()
        page.locator("#app-title").click()
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.innerText.startsWith('B')"):
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="bob", exact=True)).to_be_visible()
        expect(page.get_by_label("Write a message")).to_be_focused()
        page.keyboard.type("by hand")
        page.keyboard.press("Enter")
        expect(page.locator(".message.mine p")).to_have_text("by hand")

    def test_everything_that_can_be_touched_has_a_name_and_room(self) -> None:
        """What axe would find first: names, contrast, the size of targets."""
        for scheme in ("light", "dark"):
            page = self.signed_in(f"alice {scheme}", PHONE, color_scheme=scheme)
            page.get_by_role("button", name="lobby").click()
            page.get_by_label("Write a message").fill("hello")
            page.get_by_label("Write a message").press("Enter")
            expect(page.locator(".message p").last).to_have_text("hello")
            nameless = page.evaluate(
                """() => [...document.querySelectorAll("button, a[href], input, textarea")]
                    .filter((node) => node.checkVisibility() && !node.ariaHidden)
                    .filter((node) => !(
                        node.ariaLabel || node.innerText || node.labels?.[0]?.innerText))
                    .map((node) => node.outerHTML)"""
            )
            self.assertEqual(nameless, [])
            small = page.evaluate(
                """() => [...document.querySelectorAll("section button, section textarea")]
                    .filter((node) => node.checkVisibility())
                    .filter((node) => Math.min(node.offsetWidth, node.offsetHeight) < 40)
                    .map((node) => node.outerHTML)"""
            )
            self.assertEqual(small, [])
            for selector in ("#talk-note", ".message p", ".message time", "#talk-name"):
                self.assertGreater(self.contrast(page, selector), 4.5, (scheme, selector))

    def contrast(self, page: Page, selector: str) -> float:
        """The contrast of an element's text with what is behind it, as WCAG counts."""
        text, behind = page.locator(selector).last.evaluate(
            """(node) => {
                const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
                let behind = node;
                while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0)
                    behind = behind.parentElement;
                return [getComputedStyle(node).color, getComputedStyle(behind).backgroundColor]
                    .map((colour) => parse(colour).slice(0, 3));
            }"""
        )

        def luminance(colour: list[float]) -> float:
            parts = [part / 255 for part in colour]
            linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

        light, dark = sorted((luminance(text), luminance(behind)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    def test_every_screen_on_a_desk_and_a_phone(self) -> None:
        alice = self.signed_in("Alice")
        bob = self.signed_in("Bob", PHONE, color_scheme="dark")
        self.shot(bob, "phone-list-dark")
        bob.get_by_role("button", name="lobby").click()
        for page, text in ((alice, "Look who came by this morning"), (bob, "Oh! Whose is it?")):
            page.get_by_label("Write a message").fill(text)
            page.get_by_label("Write a message").press("Enter")
            expect(alice.locator(".message p").last).to_have_text(text)
            if page is alice:
                self.send_photo(alice, CAT.read_bytes(), "cat.jpg")
                expect(bob.locator(".thumb")).to_be_visible()
        alice.locator("#file").set_input_files(
            [{"name": "vet-report.pdf", "mimeType": "application/pdf", "buffer": bytes(90_000)}]
        )
        expect(bob.get_by_role("link", name="vet-report.pdf")).to_be_visible()
        expect(alice.locator(".message")).to_have_count(4)
        self.shot(alice, "desk")
        self.shot(bob, "phone-dark")
        for page in (alice, bob):
            wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
            self.assertFalse(wide, "the page is wider than its window")
        alice.locator(".thumb").click()
        self.until(alice, "document.getElementById('picture-image').naturalWidth > 0")
        self.shot(alice, "picture")
        alice.keyboard.press("Escape")
        bob.get_by_role("button", name="Back to channels and people").click()
        expect(bob.get_by_role("heading", name="Channels")).to_be_visible()
        alice.get_by_role("button", name="中文").click()
        expect(alice.locator("#nobody")).to_be_hidden()
        self.shot(alice, "desk-zh")
