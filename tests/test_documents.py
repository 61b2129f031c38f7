"""The documents are right: their code runs, frames decode, commands exist, and links work."""

from __future__ import annotations

import ast
import contextlib
import http.client
import http.server
import importlib
import importlib.util
import inspect
import io
import json
import re
import shlex
import subprocess
import sys
import textwrap
import threading
import time
import unittest
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree

import websocket
from PIL import Image

import rtm_sync
import rtm_sync.testing
from rtm_sync import LoginError, RtmChannel, RtmClient, RtmError
from rtm_sync.cli.commands import rtm_sync as command_line
from rtm_sync.client.events import EventEmitter
from rtm_sync.errors import ERROR_FAMILIES
from rtm_sync.flask.extension import SETTINGS
from rtm_sync.gateway.config import GatewayConfig, load_config
from rtm_sync.hub.auth.tokens import JwtVerifier, Privileges, make_token
from rtm_sync.protocol.codec import decode_result
from rtm_sync.protocol.events import EVENTS
from rtm_sync.protocol.frames import (
    Call,
    Failure,
    Notice,
    Reply,
    decode,
    encode_call,
    encode_failure,
    encode_notice,
    encode_reply,
)
from rtm_sync.protocol.requests import REQUESTS, Request
from rtm_sync.transports.base import Listener
from tests.cli.support import REPOSITORY, child_environment, with_pillow_plugin
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

CAT = REPOSITORY / "tests" / "data" / "cat.jpg"
DOCS = REPOSITORY / "docs"
READMES = (REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "plugins/*/*.md", "tests/data/*.md")
    for path in REPOSITORY.glob(pattern)
)
GIVEN = {
    "guide": "from pathlib import Path; folder: Path; web: str; alice: RtmClient; bob: RtmClient",
    "http_api": "gateway: str",
    "flask": "from flask import Flask; app: Flask",
    "migration": "from pathlib import Path; folder: Path; url: str",
    "migration_zh": "from pathlib import Path; folder: Path; url: str",
    "plugins": "from rtm_sync.hub.media import MediaStore; MyStore: Callable[[object], MediaStore]",
    **dict.fromkeys(
        (f"rtm-sync-{name}" for name in ("pdf", "pillow", "video", "vips")), "client: RtmClient"
    ),
}
"""The names that code may use without defining them, by document or by a README's folder."""

EXAMPLE_URL = "ws://127.0.0.1:8765"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    text: str
    line: int

    def without_comments(self) -> str:
        return "\n".join(re.sub(r"\s*(?<!\S)#.*", "", line) for line in self.text.splitlines())


def blocks(document: Path, *languages: str) -> list[Block]:
    text = document.read_text()
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for found in _BLOCK.finditer(text)
        if not languages or found[1] in languages
    ]


def run_block(document: Path, block: Block, names: dict[str, object]) -> None:
    """Run a block. A traceback shows the line of the document."""
    source = "\n" * (block.line - 1) + block.text
    exec(compile(source, str(document), "exec"), names)


_RELAXED = (
    "# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, "
    "allow-redefinition, no-strict-optional, disable-error-code=import-untyped"
)
"""Rules for the code of documents, which has no annotations and no checks for None."""


def as_module(code: list[Block], given: str) -> str:
    """The blocks as one program, with the line numbers of the document; `given` comes first."""
    imports = "from rtm_sync import RtmClient; from collections.abc import Callable"
    lines = [_RELAXED, f"{imports}; {given}"]  # in place of the title and an empty line
    for block in code:
        lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


def with_gateway(code: str, url: str) -> str:
    """The code, with the running gateway in place of the example's."""
    return code.replace(EXAMPLE_URL, url)


class LanguageTest(unittest.TestCase):
    def test_every_block_is_of_a_kind_that_is_checked_or_cannot_be(self) -> None:
        checked = {"python", "sh", "json", "toml", "http", "js"}
        pictures = {"text"}
        for document in DOCUMENTS:
            with self.subTest(document.name):
                kinds = {block.language for block in blocks(document)}
                self.assertLessEqual(kinds, checked | pictures)

    def test_what_is_indented_is_no_python(self) -> None:
        for document in DOCUMENTS:
            text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
            for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE):
                with self.subTest(document.name, block=block), self.assertRaises(SyntaxError):
                    ast.parse(textwrap.dedent(block))

    def test_every_fence_names_its_language(self) -> None:
        for document in DOCUMENTS:
            fences = re.findall(r"^ *```(.*)$", document.read_text(), re.MULTILINE)
            with self.subTest(document.name):
                self.assertNotIn("", fences[::2])
                self.assertEqual(set(fences[1::2]) - {""}, set())


@unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed")
class PythonTest(RtmTestCase):
    maxDiff = None

    def test_all_python_of_every_document_fits_together_and_to_the_package(self) -> None:
        """Also of documents that no other test runs, so that new documents are checked at once."""
        written = {}
        for number, document in enumerate(DOCUMENTS):
            if code := blocks(document, "python"):
                file = f"document_{number}.py"
                written[file] = document.relative_to(REPOSITORY)
                given = GIVEN.get(self.name(document), "")
                (self.checked / file).write_text(as_module(code, given))
        self.assertGreater(len(written), 10)
        said = self.mypy_says(*written)
        for file, document in written.items():
            said = said.replace(f"{file}:", f"{document}:")
        self.assertEqual(said.splitlines(), [])

    def test_a_mistake_in_a_document_is_found_on_its_line(self) -> None:
        document = self.checked / "document.md"
        fenced = "```python\n{}\n```\n"
        blocks_of = (
            "from rtm_sync import RtmClient\n\nclient = RtmClient('a')",
            "client.log_in(uid)",
        )
        document.write_text("# A document\n\n" + "\n".join(map(fenced.format, blocks_of)))
        (self.checked / "wrong.py").write_text(as_module(blocks(document, "python"), "uid: str"))
        [error] = self.mypy_says("wrong.py").splitlines()
        self.assertIn('wrong.py:10: error: "RtmClient" has no attribute "log_in"', error)

    def setUp(self) -> None:
        self.checked = self.folder()

    @staticmethod
    def name(document: Path) -> str:
        return document.parent.name if document.stem == "README" else document.stem

    def mypy_says(self, *files: str) -> str:
        # With the options of the package's own check, so that mypy's cache can be used.
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
                *(str(self.checked / file) for file in files),
            ],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        self.assertEqual(done.stderr, "")
        # The cache contains earlier results with their folders.
        return re.sub(r"^\S+/(?=\w+\.py:)", "", done.stdout, flags=re.MULTILINE)


class ReadmeTest(RtmTestCase):
    def run_script(self, code: str, folder: Path, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=child_environment(**environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_the_script_without_a_server_prints_what_it_says(self) -> None:
        for readme in READMES:
            with self.subTest(readme.name):
                printed = self.run_script(blocks(readme, "python")[0].text, self.folder())
                self.assertIn("alice sends RtmFileMessage(", printed)
                self.assertIn("has_peer_received=True", printed)
                self.assertIn("b'any bytes, a path or a file'", printed)

    def test_the_two_clients_find_each_other_in_any_order(self) -> None:
        for readme in READMES:
            _, bob, alice = (block.text for block in blocks(readme, "python"))
            with self.subTest(readme.name), local_gateway() as url:
                home, plugin = self.folder(), with_pillow_plugin(self.folder())
                (home / "alice").mkdir()
                (home / "bob").mkdir()
                (home / "alice" / "cat.jpg").write_bytes(CAT.read_bytes())
                self.run_script(with_gateway(alice, url), home / "alice", **plugin)
                printed = self.run_script(with_gateway(bob, url), home / "bob")
                self.assertEqual(printed, "cat.jpg\n")
                self.assertEqual((home / "bob" / "cat.jpg").read_bytes(), CAT.read_bytes())

    def test_both_languages_have_the_same_commands_and_the_same_code(self) -> None:
        english, chinese = (
            [(block.language, block.without_comments()) for block in blocks(readme)]
            for readme in READMES
        )
        self.assertEqual(english, chinese)

    def test_both_languages_name_the_same_things_and_lead_to_the_same_places(self) -> None:
        texts = [_BLOCK.sub("", readme.read_text()) for readme in READMES]
        self.assertEqual(*(Counter(_CODE.findall(text)) for text in texts))
        each_other = {readme.name for readme in READMES}
        self.assertEqual(*(set(_LINK.findall(text)) - each_other for text in texts))
        self.assertEqual(*(re.findall(r"^#+ ", text, re.MULTILINE) for text in texts))


class CommandTest(RtmTestCase):
    def lines(self) -> Iterator[str]:
        """Every shell command of every document."""
        for document in DOCUMENTS:
            for block in blocks(document, "sh"):
                yield from block.without_comments().splitlines()
            outside = _BLOCK.sub("", document.read_text())
            yield from (code for code in _CODE.findall(outside) if code.startswith("rtm-sync "))

    def test_every_command_and_option_in_the_documents_exists(self) -> None:
        seen = set()
        for line in self.lines():
            for words in map(shlex.split, filter(None, line.split("&&"))):
                if Path(words[0]).name != "rtm-sync":
                    continue
                with self.subTest(line):
                    self.assertIn(words[1], command_line.commands)
                    command = command_line.commands[words[1]]
                    options = {name for item in command.params for name in item.opts}
                    used = {word for word in words[2:] if word.startswith("--")}
                    self.assertLessEqual(used, options)
                    seen.add(words[1])
        self.assertEqual(seen, set(command_line.commands))

    def test_no_secret_is_on_a_command_line(self) -> None:
        """Where every user of the machine could read it."""
        given = [
            word
            for line in self.lines()
            for option, word in re.findall(r"--(app-secret|token)[ =](\S+)", line)
            if not re.match(r"-$|file:|jwks:", word)
        ]
        self.assertEqual(given, [])

    def test_the_two_commands_install_what_is_there(self) -> None:
        extras = set(re.findall(r"^(\w+) =$", (REPOSITORY / "setup.cfg").read_text(), re.MULTILINE))
        for line in self.lines():
            for extra in re.findall(r'"\.\[([\w,]+)\]"', line):
                with self.subTest(line):
                    self.assertLessEqual(set(extra.split(",")), extras)
            for folder in re.findall(r"\./plugins/[\w-]+", line):
                with self.subTest(line):
                    self.assertTrue((REPOSITORY / folder / "setup.cfg").is_file())

    def test_the_table_of_settings_is_complete_and_its_defaults_are_true(self) -> None:
        text = (DOCS / "quickstart.md").read_text()
        rows = re.findall(r"^\| `(--[\w-]+)` \| `(\w+)` \| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
        self.assertEqual(
            {row[2] for row in rows}, {item.name for item in fields(GatewayConfig)} - {"apps"}
        )
        for option, variable, name, default in rows:
            with self.subTest(name):
                self.assertEqual(option, "--" + name.replace("_", "-"))
                self.assertEqual(variable, "RTM_SYNC_" + name.upper())
                real = str(getattr(GatewayConfig(), name)).removesuffix(".0")
                shown = _CODE.match(default) if real else None
                self.assertEqual(shown[1] if shown else "", real)

    def test_the_examples_of_a_file_are_some(self) -> None:
        found = {}
        for name in ("quickstart", "tokens"):
            [block] = blocks(DOCS / f"{name}.md", "toml")
            path = self.folder() / "gateway.toml"
            path.write_text(block.text)
            found[name] = load_config(path, {}, {})
        quickstart, tokens = found["quickstart"], found["tokens"]
        self.assertEqual((quickstart.host, quickstart.app_id), ("0.0.0.0", "my-app"))
        self.assertEqual(set(tokens.secrets), {"shop", "game", "forum"})
        self.assertEqual(tokens.secrets["forum"], ("jwks:forum.jwks.json",))
        self.assertFalse(any(config.is_open for config in found.values()))


class GuideTest(RtmTestCase):
    def web(self, folder: Path) -> str:
        """Serve a folder by HTTP. Returns its URL."""

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        handler = partial(Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def pillow_plugin(self) -> object:
        """This repository's Pillow plugin, installed or not."""
        folder = str(REPOSITORY / "plugins" / "rtm-sync-pillow")
        sys.path.append(folder)
        self.addCleanup(sys.path.remove, folder)
        return importlib.import_module("rtm_sync_pillow")

    def run_guide(self, url: str) -> tuple[dict[str, Any], list[BaseException]]:
        """Run all blocks in order. Returns their names, and the exceptions of their handlers."""
        errors: list[BaseException] = []
        folder = self.folder()
        with Image.open(CAT) as cat:
            cat.resize((640, 480)).save(folder / "cat.jpg")
        names: dict[str, Any] = {"folder": folder, "web": self.web(folder)}
        plugins = (self.pillow_plugin(),)
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for uid in ("alice", "bob"):
                client = RtmClient("g", url=url, plugins=plugins, on_handler_error=errors.append)
                names[uid] = stack.enter_context(client)
                client.login(uid)
            for block in blocks(DOCS / "guide.md", "python"):
                run_block(DOCS / "guide.md", block, names)
            # The handlers that it registered must also work as documented.
            names["alice"].send_message_to_peer(names["message"], "bob")
            wait_until((names["inbox"] / "cat.jpg").is_file, PATIENCE)
        return names, errors

    def test_every_snippet_runs_in_order_over_both_transports(self) -> None:
        for url in ("memory://guide", self.entered(local_gateway())):
            with self.subTest(url.partition(":")[0]):
                names, errors = self.run_guide(url)
                self.assertEqual(errors, [])
                self.assertEqual(len(names["uploads"]), 30)
                self.assertEqual(
                    sorted(path.name for path in names["folder"].iterdir()),
                    ["cat (1).jpg", "cat.jpg", "copy.jpg", "inbox", "saved.jpg", "stream"],
                )

    def test_the_senders_snippet_runs(self) -> None:
        gateway = self.entered(local_gateway())
        [block] = blocks(DOCS / "http_api.md", "python")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            run_block(DOCS / "http_api.md", block, {"gateway": gateway})
        self.assertIn("OFFLINE", printed.getvalue())

    def test_the_flask_snippets_run_one_after_the_other(self) -> None:
        start, blueprints, protection, kit = blocks(DOCS / "flask.md", "python")
        names: dict[str, Any] = {"__name__": "tests"}
        run_block(DOCS / "flask.md", start, names)
        names["app"] = names["create_app"]()
        run_block(DOCS / "flask.md", blueprints, names)
        run_block(DOCS / "flask.md", protection, names)
        foreign = {"Host": "evil.example"}
        self.assertEqual(names["app"].test_client().get("/", headers=foreign).status_code, 400)
        self.assertEqual(names["app"].test_client().get("/rtm/events").status_code, 401)
        cat = self.folder() / "cat.jpg"
        cat.write_bytes(CAT.read_bytes())
        text = kit.text.replace('"cat.jpg", "rb"', f'"{cat}", "rb"')
        run_block(DOCS / "flask.md", kit._replace(text=text), names)

    def test_the_table_of_flask_settings_is_complete(self) -> None:
        text = (DOCS / "flask.md").read_text()
        rows = re.findall(r"^\| `(RTM_\w+)` \| .+ \| ?(.*) ?\|$", text, re.MULTILINE)
        real = {name: f"{value}" for name, value in SETTINGS.items()}
        self.assertEqual({name: shown.strip("` ") for name, shown in rows}, real)

    def test_the_tokens_snippet_makes_good_tokens(self) -> None:
        [block] = blocks(DOCS / "tokens.md", "python")
        names: dict[str, object] = {}
        run_block(DOCS / "tokens.md", block, names)
        verifier = JwtVerifier("my-app", str(names["SECRET"]))
        self.assertEqual(verifier.verify(str(names["token"]), "alice").privileges, Privileges())
        allowed = verifier.verify(str(names["visitor"]), "guest-17").privileges
        self.assertTrue(allowed.may_join("room-1") and allowed.may_publish("lobby"))
        self.assertFalse(allowed.may_join("shop") or allowed.may_publish("room-1"))

    def test_the_security_snippets_do_what_they_say(self) -> None:
        secret = "a secret of thirty-two bytes, or more"
        url = self.entered(local_gateway(app_id="my-app", app_secret=secret))
        names: dict[str, Any] = {}
        for block in blocks(DOCS / "security.md", "python"):
            here = block._replace(text=block.text.replace("https://rtm.example", url))
            run_block(DOCS / "security.md", here, names)
        token = make_token("my-app", "mallory", secret)
        client = names["client"] = self.entered(RtmClient("my-app", url=url))
        inbox = names["inbox"] = self.folder()
        client.login("mallory", token)
        upload = client.create_media_message_by_uploading(b"x", file_name="../../escaped.txt")
        self.assertEqual(names["save"](upload.result(PATIENCE)).parent, inbox)
        names["lock_out"]("mallory", secret)
        wait_until(lambda: client.connection_state == "ABORTED", PATIENCE)
        with RtmClient("my-app", url=url) as again, self.assertRaises(LoginError):
            again.login("mallory", token)

    def test_the_quick_start_runs(self) -> None:
        snippets = blocks(DOCS / "quickstart.md", "python")
        for block in snippets:
            names: dict[str, Any] = {}
            run_block(DOCS / "quickstart.md", block, names)
            self.assertEqual(names["message"].text, "hello")
        self.assertEqual(len(snippets), 1)


class TestingTest(unittest.TestCase):
    def test_every_test_of_the_document_passes(self) -> None:
        document = DOCS / "testing_your_app.md"
        names: dict[str, Any] = {"__name__": "testing_your_app"}
        for block in blocks(document, "python"):
            run_block(document, block, names)
        cases = [
            value
            for value in names.values()
            if isinstance(value, type) and value.__module__ == "testing_your_app"
        ]
        load = unittest.defaultTestLoader.loadTestsFromTestCase
        result = unittest.TestResult()
        unittest.TestSuite(map(load, cases)).run(result)
        self.assertEqual([text for _, text in (*result.errors, *result.failures)], [])
        self.assertEqual(result.testsRun, document.read_text().count("    def test_"))


class ProtocolTest(RtmTestCase):
    PROTOCOL = DOCS / "protocol.md"

    def frames(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for block in blocks(self.PROTOCOL, "json"):
            for line in block.text.splitlines():
                yield line, json.loads(line)

    def encoded(self, line: str, calls: dict[int, Request[Any]]) -> str:
        """The frame, encoded again by our codec; `calls` are the requests without a response."""
        frame = decode(line)
        if isinstance(frame, Call):
            calls[frame.id] = frame.request
            return encode_call(frame.id, frame.request)
        if isinstance(frame, Notice):
            return encode_notice(frame.event)
        if isinstance(frame, Reply):
            return encode_reply(frame.id, decode_result(calls[frame.id].RESULT, frame.result))
        self.assertIsInstance(frame, Failure)
        self.assertIsInstance(frame.error, RtmError)
        return encode_failure(frame.id, frame.error)

    def assert_within(self, shown: object, real: object) -> None:
        """Check that the shown fields exist; optional fields may be missing."""
        if isinstance(shown, dict) and isinstance(real, dict):
            self.assertLessEqual(shown.keys(), real.keys())
            for name, value in shown.items():
                self.assert_within(value, real[name])
        else:
            self.assertEqual(shown, real)

    def test_every_frame_is_one_and_says_nothing_that_is_not_read(self) -> None:
        calls: dict[int, Request[Any]] = {}
        for line, shown in self.frames():
            with self.subTest(line):
                self.assert_within(shown, json.loads(self.encoded(line, calls)))

    def test_every_method_has_an_example(self) -> None:
        shown = {frame["method"] for _, frame in self.frames() if "method" in frame}
        self.assertEqual(shown, {*REQUESTS, *EVENTS})

    def test_the_tables_name_every_method_and_all_its_parameters(self) -> None:
        text = self.PROTOCOL.read_text()
        rows = {
            method: row
            for row in re.findall(r"^\| (`.+) \|$", text, re.MULTILINE)
            for method in _CODE.findall(row.partition(" | ")[0])
        }
        for method in ("send_message_to_peer", "send_channel_message", "channel_message"):
            kind: type[Any] = {**REQUESTS, **EVENTS}[method]
            with self.subTest(method):
                shown = _CODE.findall(rows[method].split(" | ")[1])
                self.assertEqual(sorted(shown), sorted(item.name for item in fields(kind)))
        for method, request in REQUESTS.items():
            if method in rows:
                with self.subTest(method):
                    self.assertIn(f"`{request.ERROR.__name__}`", rows[method])

    def test_every_error_in_the_table_has_the_number_it_says(self) -> None:
        table = self.PROTOCOL.read_text().partition("names and numbers the hub sends")[2]
        rows = re.findall(r"^\| `(\w+Error)` \| (.+) \|$", table, re.MULTILINE)
        self.assertGreater(len(rows), 6)
        for family, listed in rows:
            codes: type[IntEnum] = ERROR_FAMILIES[family].Code
            known = {code.name: code.value for code in codes}
            prefix = ""
            for name, number in re.findall(r"`(\w+)` (\d+)", listed):
                prefix = prefix or name.partition("_ERR_")[0] + "_ERR"  # only the first has one
                with self.subTest(family, name=name):
                    self.assertIn(int(number), (known.get(name), known.get(prefix + name)))

    def test_a_stranger_with_a_websocket_and_http_can_follow_it(self) -> None:
        url = self.entered(local_gateway())
        login, answer = (frame for _, frame in list(self.frames())[:2])
        socket = websocket.create_connection(f"{url}/v1/signalling", timeout=PATIENCE)
        self.addCleanup(socket.shutdown)
        socket.send(json.dumps(login))
        real = json.loads(socket.recv())
        self.assertEqual(real["result"].keys(), answer["result"].keys())
        self.assertEqual(
            real["result"] | {"session": ""}, answer["result"] | {"session": ""}, "but the secret"
        )
        token = real["result"]["session"]
        exchanges = [block.text for block in blocks(self.PROTOCOL, "http")]
        upload, created, downloaded, elsewhere = exchanges
        self.assertIn("307", elsewhere)  # only stores of plugins redirect
        head, _, body = upload.partition("\n\n")
        status, headers, _ = self.exchange(url, head.replace("kX…", token), body.strip())
        self.assert_answer(
            created, status, headers, {"Location", "Upload-Expires", "Rtm-Expires-At"}
        )
        media_id = headers["Location"].rpartition("/")[2]
        self.assertEqual(len(media_id), len(self.header(created, "Location").rpartition("/")[2]))
        get = f"GET /v1/media/{media_id} HTTP/1.1\nAuthorization: Bearer {token}"
        status, headers, content = self.exchange(url, get)
        self.assert_answer(downloaded, status, headers, {"Rtm-Expires-At"})
        self.assertEqual(content, b"hello")
        week = float(headers["Rtm-Expires-At"]) - time.time()
        self.assertAlmostEqual(week, 7 * 24 * 3600, delta=60)

    @staticmethod
    def exchange(url: str, head: str, body: str = "") -> tuple[str, dict[str, str], bytes]:
        """Send a documented request. Returns status line, headers and body."""
        request, *lines = head.splitlines()
        method, path, _ = request.split(" ")
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
        with contextlib.closing(connection):
            headers = dict(line.split(": ", 1) for line in lines)
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            line = f"HTTP/1.1 {response.status} {response.reason}"
            return line, dict(response.getheaders()), response.read()

    @staticmethod
    def header(answer: str, name: str) -> str:
        return next(line for line in answer.splitlines() if line.startswith(name)).split(": ")[1]

    def assert_answer(
        self, shown: str, status: str, headers: dict[str, str], varying: set[str]
    ) -> None:
        first, *lines = shown.splitlines()
        self.assertEqual(status, first)
        for line in lines:
            name, value = line.split(": ", 1)
            with self.subTest(name):
                self.assertIn(name, headers)
                if name not in varying:
                    self.assertEqual(headers[name], value)


class LinkTest(unittest.TestCase):
    def test_every_relative_link_leads_to_a_file(self) -> None:
        found = 0
        for document in DOCUMENTS:
            for link in _LINK.findall(_BLOCK.sub("", document.read_text())):
                if "://" in link or link.startswith(("#", "mailto:")):
                    continue
                found += 1
                with self.subTest(f"{document.name}: {link}"):
                    self.assertTrue((document.parent / link.partition("#")[0]).exists())
        self.assertGreater(found, 10)

    def test_the_index_lists_every_document_once_in_the_order_of_a_reader(self) -> None:
        trees = re.findall(
            r"^```{toctree}\n(.+?)^```$", (DOCS / "index.md").read_text(), re.M | re.S
        )
        listed = [line for tree in trees for line in tree.splitlines() if re.match(r"\w", line)]
        self.assertEqual(
            sorted(listed), sorted({path.stem for path in DOCS.glob("*.md")} - {"index"})
        )
        begin = ["quickstart", "guide", "flask", "reference", "protocol", "architecture"]
        self.assertEqual([name for name in listed if name in begin], begin)
        self.assertEqual(listed[-2:], ["reliability", "benchmarks"])


class PictureTest(unittest.TestCase):
    SVG = "{http://www.w3.org/2000/svg}"

    def test_every_picture_is_shown_with_words_for_who_cannot_see_it(self) -> None:
        shown = {
            picture: words
            for document in DOCUMENTS
            for words, picture in re.findall(r"!\[(.*?)\]\(pictures/(.+?)\)", document.read_text())
        }
        drawn = {path.name for path in (DOCS / "pictures").glob("*.svg")}
        self.assertLessEqual(drawn, set(shown))
        self.assertEqual([name for name, words in shown.items() if len(words) < 20], [])

    def test_every_drawing_has_title_description_and_colours_for_light_and_dark(self) -> None:
        for path in (DOCS / "pictures").glob("*.svg"):
            with self.subTest(path.name):
                drawing = ElementTree.parse(path).getroot()
                for name in ("title", "desc"):
                    self.assertTrue(drawing.findtext(f"{self.SVG}{name}"))
                style = drawing.findtext(f"{self.SVG}style") or ""
                light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
                self.assertIn(".card", dark)  # its own background: readable on any page
                coloured = set(re.findall(r"\.(\w+)(?=[^{}]*\{[^}]*#)", light))
                self.assertLessEqual(coloured, set(re.findall(r"\.(\w+)", dark)))


class ReferenceTest(unittest.TestCase):
    TEXT = (DOCS / "reference.md").read_text()

    def test_every_public_name_is_in_the_reference(self) -> None:
        listed = re.findall(r"^\.\. (?:auto)?(?:class|data|function):: ([\w.]+)", self.TEXT, re.M)
        listed += re.findall(r"\w+", " ".join(re.findall(r":members: (.+)", self.TEXT)))
        names = {name.rpartition(".")[2] for name in listed}
        public = {*rtm_sync.__all__, *rtm_sync.testing.__all__} - {"__version__"}
        self.assertEqual(public - names, set())

    def test_every_public_method_of_clients_and_channels_is_in_the_reference(self) -> None:
        for kind in (RtmClient, RtmChannel):
            with self.subTest(kind.__name__):
                listed = re.search(rf"autoclass:: {kind.__name__}\n +:members: (.+)", self.TEXT)
                assert listed is not None
                public = {
                    name
                    for name, value in inspect.getmembers(kind)
                    if not name.startswith("_")
                    and not hasattr(EventEmitter, name)  # listed there
                    and not hasattr(Listener, name)  # for transports
                    and (callable(value) or isinstance(value, property))
                }
                self.assertEqual(public, set(listed[1].split(", ")))
