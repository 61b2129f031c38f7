"""Finding plugins: their order, declining, disabling, and plugins that misbehave.

Installed plugins are real here: a folder on `sys.path` with a distribution's metadata in it.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import itertools
import os
import re
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import pluggy

from rtm_sync import CreateInstanceError, LoginError, RtmClient, hookimpl
from rtm_sync.errors import PluginError
from rtm_sync.hub.media.store import MediaStore, MediaWriter
from rtm_sync.plugins.hookspecs import HOOKS_VERSION, Hooks
from rtm_sync.plugins.loader import PluginManager
from rtm_sync.plugins.report import PluginStatus
from rtm_sync.thumbnails.contract import Thumbnail, ThumbnailGenerator
from rtm_sync.thumbnails.selection import choose_generator
from rtm_sync.transports.base import Transport, TransportOptions
from tests.cli.support import REPOSITORY
from tests.support import PATIENCE, RtmTestCase

STORE = """
from rtm_sync import hookimpl
from rtm_sync.hub.media.memory import MemoryMediaStore

class Mine(MemoryMediaStore):
    scheme = "{scheme}"

@hookimpl
def media_store(url):
    return Mine() if url.startswith("{scheme}:") else None
"""


class Store(MediaStore):
    """A plugin that serves one scheme and remembers the URLs that it was asked for."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.asked: list[str] = []
        self.closed = 0

    @hookimpl
    def media_store(self, url: str) -> MediaStore | None:
        self.asked.append(url)
        return self if url.startswith(f"{self.scheme}:") else None

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        raise NotImplementedError

    def open(self, media_id: str) -> BinaryIO:
        return io.BytesIO(media_id.encode())

    def delete(self, media_id: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1


class Answering:
    """A plugin whose hooks return what `answer` returns."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    @hookimpl
    def media_store(self, url: str) -> Any:
        return self._answer()

    @hookimpl
    def thumbnail(self) -> Any:
        return self._answer()


class Generator(ThumbnailGenerator):
    def __init__(self, name: str, priority: int, handles: str) -> None:
        self.name = name
        self.priority = priority
        self._handles = handles

    def can_handle(self, content_type: str) -> bool:
        return content_type.startswith(self._handles)

    def generate(self, blob: Any, max_bytes: int) -> Thumbnail:
        raise NotImplementedError

    @hookimpl
    def thumbnail(self) -> ThumbnailGenerator:
        return self


class InstallingTest(RtmTestCase):
    def install(self, name: str, source: str) -> Path:
        """Make a distribution with one entry point `name` findable during the test."""
        folder = self.folder()
        module = f"rtm_test_plugin_{name}"
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
        metadata = folder / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[rtm_sync]\n{name} = {module}\n")
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        self.addCleanup(importlib.invalidate_caches)
        self.addCleanup(sys.modules.pop, module, None)
        self.addCleanup(sys.path.remove, str(folder))
        return folder


class OrderTest(RtmTestCase):
    def test_the_built_ins_answer_through_the_same_hooks(self) -> None:
        plugins = PluginManager()
        self.assertIn("built-in", plugins.names())
        self.assertEqual(type(plugins.media_store("memory://")).__name__, "MemoryMediaStore")

    def test_a_plugin_that_is_given_twice_is_asked_once(self) -> None:
        tape = Store("tape")
        plugins = PluginManager(extra=[tape, tape])
        self.assertIs(plugins.media_store("tape://1"), tape)
        self.assertEqual(tape.asked, ["tape://1"])

    def test_a_plugin_that_declines_passes_the_question_on(self) -> None:
        tape, cloud = Store("tape"), Store("cloud")
        plugins = PluginManager(extra=[tape, cloud])
        self.assertIs(plugins.media_store("tape://1"), tape)
        self.assertEqual(cloud.asked, ["tape://1"])

    def test_two_that_answer_are_named_and_neither_is_taken(self) -> None:
        first, last = Store("tape"), Store("tape")
        with self.assertRaisesRegex(PluginError, "'tape' as media store: Store, Store.*one of the"):
            PluginManager(extra=[first, last]).media_store("tape://1")
        self.assertEqual((first.closed, last.closed), (1, 1))

    def test_a_plugin_that_is_given_can_take_a_scheme_from_the_built_ins(self) -> None:
        memory = Store("memory")
        self.assertIs(PluginManager(extra=[memory]).media_store("memory://"), memory)

    def test_extra_plugins_belong_to_their_manager_alone(self) -> None:
        tape, cloud = Store("tape"), Store("cloud")
        plugins = PluginManager(extra=[tape])
        both = plugins.extended([cloud])
        self.assertIs(both.media_store("tape://1"), tape)
        self.assertIs(both.media_store("cloud://1"), cloud)
        for manager in (plugins, PluginManager()):
            with self.assertRaises(PluginError):
                manager.media_store("cloud://1")

    def test_a_question_nobody_answers_names_the_scheme_and_what_there_is(self) -> None:
        plugins = PluginManager()
        options: Any = None
        for what, ask in {
            "transport": lambda: plugins.transport("carrier-pigeon://roof", options),
            "engine": lambda: plugins.engine("carrier-pigeon://roof"),
            "media store": lambda: plugins.media_store("carrier-pigeon://roof"),
        }.items():
            with self.subTest(what):
                with self.assertRaises(PluginError) as caught:
                    ask()
                text = str(caught.exception)
                self.assertIn(f"No {what} serves 'carrier-pigeon'", text)
                self.assertIn("Built in: ", text)
                self.assertIn("built-in", text)

    def test_a_secret_in_a_url_is_not_repeated_in_the_error(self) -> None:
        with self.assertRaises(PluginError) as caught:
            PluginManager().engine("pigeon://user:hunter2@roof")
        self.assertNotIn("hunter2", str(caught.exception))

    def test_a_scheme_of_a_distribution_of_ours_names_it(self) -> None:
        with self.assertRaisesRegex(PluginError, "pip install rtm-sync-nats"):
            PluginManager(disabled=["nats"]).engine("nats://127.0.0.1")

    def test_every_hook_of_the_specification_is_asked_by_the_manager(self) -> None:
        hooks = {name for name in vars(Hooks) if not name.startswith("_")}
        self.assertEqual(
            hooks, {"transport", "engine", "media_store", "token_verifier", "thumbnail"}
        )


class TransportOptionsTest(RtmTestCase):
    """A transport gets factories for engines and stores, and does not know the plugin manager."""

    def setUp(self) -> None:
        self.options: list[TransportOptions] = []

    @hookimpl
    def transport(self, url: str, options: TransportOptions) -> Transport | None:
        self.options.append(options)
        return None

    def of_a_client_with(self, *plugins: object) -> TransportOptions:
        asking = types.SimpleNamespace(transport=self.transport)
        self.entered(RtmClient("app", url="memory://options", plugins=[*plugins, asking]))
        return self.options[-1]

    def test_they_make_stores_and_engines_by_the_clients_own_plugins(self) -> None:
        tape = Store("tape")
        options = self.of_a_client_with(tape)
        self.assertIs(options.make_media_store("tape:1"), tape)
        self.assertEqual(type(options.make_engine("local:")).__name__, "LocalEngine")

    def test_those_made_without_factories_say_who_has_them(self) -> None:
        for make in (TransportOptions().make_media_store, TransportOptions().make_engine):
            with self.assertRaisesRegex(PluginError, "no factory .* RtmClient gives them"):
                make("memory://")

    def test_their_plugins_go_on_for_one_release_with_a_warning(self) -> None:
        tape = Store("tape")
        options = self.of_a_client_with(tape)
        with self.assertWarnsRegex(DeprecationWarning, "call make_media_store") as caught:
            plugins = options.plugins
        self.assertEqual(caught.filename, __file__)
        self.assertIs(plugins.media_store("tape:1"), tape)
        self.assertEqual(type(plugins.engine("local:")).__name__, "LocalEngine")

    def test_what_plugins_are_made_of_does_not_import_the_manager(self) -> None:
        """Not even inside a function: the manager imports these modules."""
        for module in ("transports/base.py", "thumbnails/selection.py", "transfers/upload.py"):
            tree = ast.parse((REPOSITORY / "rtm_sync" / module).read_text())
            imported = {
                part
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for part in (*(node.module or "").split("."), *(one.name for one in node.names))
            }
            with self.subTest(module):
                self.assertNotIn("plugins", imported)


MARKS: dict[str, Callable[[Any], Any]] = {
    "first": hookimpl(tryfirst=True),
    "plain": hookimpl,
    "last": hookimpl(trylast=True),
}


def listed(name: str, mark: str, asked: list[str], scheme: str = "") -> object:
    """A plugin that adds its name to `asked` and serves one scheme, or none."""

    def media_store(url: str) -> MediaStore | None:
        asked.append(name)
        return Store(name) if scheme and url.startswith(f"{scheme}:") else None

    return types.SimpleNamespace(media_store=MARKS[mark](media_store))


LISTED = """
import builtins
from rtm_sync import hookimpl
from rtm_sync.hub.media.memory import MemoryMediaStore

@hookimpl({mark})
def media_store(url):
    builtins.rtm_test_asked.append("{name}")
    return MemoryMediaStore() if url.startswith("{scheme}:") else None
"""


class PluggyOrderTest(InstallingTest):
    """Within the given and within the installed plugins the order is pluggy's, marks included."""

    def setUp(self) -> None:
        self.asked: list[str] = []
        setting = mock.patch("builtins.rtm_test_asked", self.asked, create=True)
        self.entered(setting)

    def installed(self, name: str, mark: str = "", scheme: str = "nothing") -> None:
        self.install(name, LISTED.format(name=name, mark=mark, scheme=scheme))

    def ask(self, plugins: PluginManager, url: str = "unknown:") -> list[str]:
        self.asked.clear()
        with contextlib.suppress(PluginError):
            plugins.media_store(url)
        return self.asked[:]

    def test_it_is_the_very_order_of_pluggy_for_every_combination_of_marks(self) -> None:
        for marks in itertools.product(MARKS, repeat=3):
            given = [
                listed(name, mark, self.asked) for name, mark in zip("abc", marks, strict=True)
            ]
            theirs = pluggy.PluginManager("rtm_sync")
            theirs.add_hookspecs(Hooks)
            for plugin in given:
                theirs.register(plugin)
            self.asked.clear()
            theirs.hook.media_store(url="unknown:")
            expected = self.asked[:]
            with self.subTest(marks):
                self.assertEqual(self.ask(PluginManager(extra=given)), expected)

    def test_what_is_given_last_is_asked_first_in_one_list_or_in_two(self) -> None:
        a, b = listed("a", "plain", self.asked), listed("b", "plain", self.asked)
        self.assertEqual(self.ask(PluginManager(extra=[a, b])), ["b", "a"])
        self.assertEqual(self.ask(PluginManager(extra=[a]).extended([b])), ["b", "a"])

    def test_the_whole_order_and_it_is_the_same_before_and_after_the_import(self) -> None:
        for name, mark in {
            "one": "",
            "two": "",
            "eager": "tryfirst=True",
            "late": "trylast=True",
        }.items():
            self.installed(name, mark)
        plugins = PluginManager(
            extra=[listed(f"own {mark}", mark, self.asked) for mark in ("last", "plain", "first")]
        )
        whole = ["own first", "own plain", "eager", "one", "two", "late", "own last"]
        self.assertEqual(self.ask(plugins), whole)
        self.assertEqual(self.ask(plugins), whole)

    def test_an_eager_installed_plugin_takes_no_scheme_from_the_built_ins(self) -> None:
        self.installed("eager", "tryfirst=True", "memory")
        plugins = PluginManager()
        self.assertEqual(self.ask(plugins, "memory://"), [])
        self.assertIn("eager", plugins.names())  # it is imported now, which changes nothing
        self.assertEqual(self.ask(plugins, "memory://"), [])

    def test_an_own_plugin_that_would_be_last_leaves_built_in_schemes_alone(self) -> None:
        late = listed("late", "last", self.asked, "memory")
        self.assertEqual(self.ask(PluginManager(extra=[late]), "memory://"), [])

    def test_an_own_plugin_that_would_be_last_serves_what_no_installed_one_does(self) -> None:
        self.installed("one", scheme="mine")
        plugins = PluginManager(extra=[listed("late", "last", self.asked, "mine")])
        self.assertEqual(type(plugins.media_store("mine:")).__name__, "MemoryMediaStore")
        spare = PluginManager(disabled=["one"], extra=[listed("late", "last", self.asked, "mine")])
        self.assertIsInstance(spare.media_store("mine:"), Store)

    def test_two_that_serve_a_scheme_are_no_conflict_where_marks_say_who_is_first(self) -> None:
        for marks, winner in {("first", "plain"): "a", ("last", "plain"): "b"}.items():
            given = [
                listed(name, mark, self.asked, "x") for name, mark in zip("ab", marks, strict=True)
            ]
            found = PluginManager(extra=given).media_store("x:")
            with self.subTest(marks):
                self.assertEqual(found.scheme, winner)  # type: ignore[attr-defined]
        for mark in MARKS:
            given = [listed(name, mark, self.asked, "x") for name in "ab"]
            with self.subTest(mark), self.assertRaisesRegex(PluginError, "More than one plugin"):
                PluginManager(extra=given).media_store("x:")

    def test_two_functions_of_one_plugin_are_no_conflict(self) -> None:
        class Twice:
            @hookimpl(specname="media_store")
            def one(self, url: str) -> MediaStore:
                raise AssertionError("the other has answered")

            @hookimpl(specname="media_store")
            def two(self, url: str) -> MediaStore:
                return Store("two")

        with self.assertNoLogs("rtm_sync.plugins"):
            found = PluginManager(extra=[Twice()]).media_store("x:")
        self.assertEqual(found.scheme, "two")  # type: ignore[attr-defined]

    def test_the_built_in_token_verifier_is_asked_after_the_installed_ones(self) -> None:
        self.install(
            "verifier",
            """
            from rtm_sync import hookimpl
            from rtm_sync.hub.auth.tokens import JwtVerifier

            class Mine(JwtVerifier):
                pass

            @hookimpl
            def token_verifier(secret, app_id):
                assert (secret, app_id) == ("mine" * 8, "app")
                return Mine(app_id, secret)
            """,
        )
        plugins = PluginManager()
        self.assertEqual(type(plugins.token_verifier("app", "mine" * 8)).__name__, "Mine")
        others = PluginManager(disabled=["verifier"])
        self.assertEqual(type(others.token_verifier("app", "mine" * 8)).__name__, "JwtVerifier")

    def test_generators_of_one_priority_come_in_the_order_they_are_asked(self) -> None:
        class Eager(Generator):
            @hookimpl(tryfirst=True)
            def thumbnail(self) -> ThumbnailGenerator:
                return self

        eager = Eager("eager", 500_000, "")
        a, b = Generator("a", 500_000, ""), Generator("b", 500_000, "")
        names = [one.name for one in PluginManager(extra=[eager, a, b]).thumbnail_generators()]
        self.assertEqual(names[:3], ["eager", "b", "a"])


class Quit(BaseException):
    """An exception that `except Exception` does not catch; some libraries raise such ones."""


def raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


class DocumentTest(RtmTestCase):
    def test_every_hook_is_documented_with_its_parameters(self) -> None:
        text = (REPOSITORY / "docs" / "plugins.md").read_text()
        documented = re.findall(r"^### `(\w+\(.*\))`$", text, re.MULTILINE)
        hooks = [
            f"{name}({', '.join(list(inspect.signature(hook).parameters)[1:])})"
            for name, hook in vars(Hooks).items()
            if not name.startswith("_")
        ]
        self.assertEqual(documented, hooks)
        self.assertIn(f"## The hooks, version {HOOKS_VERSION}\n", text)
        for status in PluginStatus:
            self.assertIn(f"`{status}`", text)


class MisbehavingTest(RtmTestCase):
    """An error in a plugin names the plugin, and does not harm other plugins."""

    def test_what_a_hook_raises_is_said_with_its_plugins_name(self) -> None:
        plugins = PluginManager(extra=[Answering(lambda: 1 / 0)])
        with self.assertRaisesRegex(PluginError, "'Answering' failed: division by zero") as caught:
            plugins.media_store("tape://1")
        self.assertIsInstance(caught.exception.__cause__, ZeroDivisionError)

    def test_nonsense_is_an_answer_of_no_use(self) -> None:
        for nonsense in (7, "store", MediaStore, Thumbnail(b"", 1, 1, "")):
            plugins = PluginManager(extra=[Answering(lambda nonsense=nonsense: nonsense)])
            with (
                self.subTest(type(nonsense)),
                self.assertRaisesRegex(
                    PluginError, "'Answering' failed: its answer is of type .*, not MediaStore"
                ),
            ):
                plugins.media_store("tape://1")

    def test_a_plugin_that_raises_does_not_keep_another_from_serving(self) -> None:
        tape = Store("tape")
        plugins = PluginManager(extra=[Answering(lambda: 1 / 0), tape])
        with self.assertLogs("rtm_sync.plugins", "WARNING") as logged:
            self.assertIs(plugins.media_store("tape://1"), tape)
            self.assertEqual(type(plugins.media_store("memory://")).__name__, "MemoryMediaStore")
        self.assertRegex(logged.output[0], "'Answering' failed to make a media store: division by")

    def test_whatever_a_hook_raises_has_its_plugins_name(self) -> None:
        for error, text in (
            (SystemExit(3), "SystemExit: 3"),
            (Quit("enough"), "Quit: enough"),
            (GeneratorExit(), "GeneratorExit"),
            (StopIteration(), "StopIteration"),
            (ValueError(" of two\nlines. "), "of two lines"),
        ):
            answering = Answering(raising(error))
            with self.subTest(text):
                with self.assertRaisesRegex(PluginError, f"'Answering' failed: {text}\\.$"):
                    PluginManager(extra=[answering]).media_store("tape:")
                tape = Store("tape")
                with self.assertLogs("rtm_sync.plugins", "WARNING"):
                    plugins = PluginManager(extra=[tape, answering])
                    self.assertIs(plugins.media_store("tape:"), tape)

    def test_an_error_that_has_no_text_is_named_by_its_class(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        with self.assertRaisesRegex(PluginError, "'Answering' failed: Mute"):
            PluginManager(extra=[Answering(raising(Mute()))]).media_store("tape:")

    def test_ctrl_c_in_a_hook_is_the_users_and_what_others_made_is_closed(self) -> None:
        tape = Store("tape")
        plugins = PluginManager(extra=[Answering(raising(KeyboardInterrupt())), tape])
        with self.assertRaises(KeyboardInterrupt):
            plugins.media_store("tape:")
        self.assertEqual(tape.closed, 1)

    def test_a_client_is_told_what_is_wrong_with_its_own_plugin(self) -> None:
        class Newer:
            RTM_SYNC_HOOKS = HOOKS_VERSION + 1

            @hookimpl
            def media_store(self, url: str) -> None:
                raise AssertionError

        class Misspelt:
            @hookimpl
            def transprot(self, url: str) -> None:
                raise AssertionError

        class Wrapping:
            @hookimpl(wrapper=True)
            def media_store(self, url: str) -> Any:
                return (yield)

        class WrappingAsOfOld:
            @hookimpl(hookwrapper=True)
            def thumbnail(self) -> Any:
                yield

        class Torn:
            @hookimpl(tryfirst=True, trylast=True)
            def media_store(self, url: str) -> None:
                raise AssertionError

        class Curious:
            @hookimpl
            def media_store(self, url: str, colour: str) -> None:
                raise AssertionError

        class ByName:
            @hookimpl
            def media_store(self, *, url: str) -> None:
                raise AssertionError

        @dataclass
        class Equal:
            @hookimpl
            def media_store(self, url: str) -> None:
                raise AssertionError

        has = f"version {HOOKS_VERSION} has transport, engine"
        for plugins, why in (
            ([Newer()], f"'Newer' .* wants version {HOOKS_VERSION + 1} of the hooks"),
            ([Misspelt()], f"'Misspelt' .* implements the unknown hook 'transprot'; {has}"),
            ([Wrapping()], "'Wrapping' .* its media_store is a hook wrapper, .* None to decline"),
            ([WrappingAsOfOld()], "'WrappingAsOfOld' .* its thumbnail is a hook wrapper"),
            ([Torn()], "'Torn' .* its media_store is marked tryfirst and trylast"),
            ([Curious()], "'Curious' .* its media_store takes 'colour', .* not have; it has url"),
            ([Curious], "'Curious' .* its media_store takes 'self'"),
            ([ByName()], "'ByName' .* its media_store takes 'url' by keyword only"),
            ([object()], "'object' .* no function marked rtm_sync.hookimpl"),
            ([Equal(), Equal()], "'Equal' .* is the same object as plugin 'Equal'"),
        ):
            with self.subTest(why), self.assertRaisesRegex(CreateInstanceError, why):
                RtmClient("app", plugins=plugins)

    def test_what_fits_a_later_version_as_well_is_taken_as_far_as_it_fits(self) -> None:
        class Both(Store):
            @hookimpl(optionalhook=True)
            def teleport(self, url: str) -> None:
                raise AssertionError

        class Roomy(Store):
            @hookimpl
            def media_store(
                self, url: str, colour: str = "red", *more: str, **others: str
            ) -> MediaStore | None:
                self.asked += [colour, *more, *others]
                return super().media_store(url)

        for plugin, asked in ((Both("tape"), ["tape:"]), (Roomy("tape"), ["red", "tape:"])):
            plugins = PluginManager(extra=[plugin])
            with self.subTest(type(plugin).__name__):
                self.assertIs(plugins.media_store("tape:"), plugin)
                self.assertEqual(plugin.asked, asked)
                self.assertEqual(plugins.describe()[0].hooks, ("media_store",))

    def test_a_media_store_that_cannot_be_made_fails_the_login_with_its_name(self) -> None:
        client = self.entered(
            RtmClient(
                "app", url="memory://broken", media="tape:1", plugins=[Answering(lambda: 1 / 0)]
            )
        )
        for _ in range(2):  # the second attempt finds no leftovers of the first
            with self.assertRaisesRegex(LoginError, "'Answering' failed: division by zero"):
                client.login("alice")

    def test_a_clients_own_media_store_serves_its_embedded_hub(self) -> None:
        tape = Store("tape")
        client = self.entered(
            RtmClient("app", url="memory://own-store", media="tape:1", plugins=[tape])
        )
        client.login("alice")
        self.assertEqual(tape.asked, ["tape:1"])


class EntryPointTest(InstallingTest):
    def test_an_installed_plugin_is_found_and_asked(self) -> None:
        self.install("good", STORE.format(scheme="mine"))
        plugins = PluginManager()
        self.assertEqual(plugins.media_store("mine://").scheme, "mine")  # type: ignore[attr-defined]
        self.assertIn("good", plugins.names())

    def test_an_extra_plugin_is_asked_before_an_installed_one(self) -> None:
        self.install("good", STORE.format(scheme="mine"))
        mine = Store("mine")
        self.assertIs(PluginManager(extra=[mine]).media_store("mine://"), mine)

    def test_two_installed_plugins_of_one_scheme_are_named_with_the_way_out(self) -> None:
        for name in ("first", "second"):
            self.install(name, STORE.format(scheme="mine"))
        with self.assertRaisesRegex(PluginError, "first, second.*RTM_SYNC_DISABLE_PLUGINS=second"):
            PluginManager().media_store("mine://")
        self.assertTrue(PluginManager(disabled=["second"]).media_store("mine://"))

    def test_a_plugin_that_cannot_be_loaded_leaves_the_others_working(self) -> None:
        newer = HOOKS_VERSION + 1
        spoiled = {
            "a_missing_import": ("import no_such_module_of_rtm", "no_such_module_of_rtm"),
            "raises": ("raise RuntimeError('out of tea')", "out of tea"),
            "exits": ("raise SystemExit(3)", "SystemExit: 3"),
            "quits": ("class Quit(BaseException): pass\nraise Quit('enough')", "Quit: enough"),
            "no_python": ("def (", "invalid syntax"),
            "wraps": (
                """
                from rtm_sync.plugins import hookimpl

                @hookimpl(wrapper=True)
                def media_store(url):
                    return (yield)
                """,
                "its media_store is a hook wrapper",
            ),
            "no_hooks": ("", "no function marked rtm_sync.hookimpl"),
            "newer": (
                f"RTM_SYNC_HOOKS = {newer}\n" + STORE.format(scheme="mine"),
                f"it wants version {newer} of the hooks, and rtm_sync .* has version",
            ),
            "wrong_hook": (
                """
                from rtm_sync.plugins import hookimpl

                @hookimpl
                def media_store(url):
                    return "half a plugin"

                @hookimpl
                def engine(url, colour):
                    return "half a plugin"
                """,
                "its engine takes 'colour', which version 1 .* it has url$",
            ),
        }
        for name, (source, _) in spoiled.items():
            self.install(name, source)
        self.install("good", STORE.format(scheme="mine"))
        plugins = PluginManager()
        with self.assertLogs("rtm_sync.plugins", "WARNING") as logged:
            self.assertEqual(plugins.media_store("mine://").scheme, "mine")  # type: ignore[attr-defined]
        self.assertEqual(len(logged.records), len(spoiled))
        self.assertEqual(type(plugins.media_store("memory://")).__name__, "MemoryMediaStore")

        described = {item.name: item for item in plugins.describe()}
        with self.assertRaises(PluginError) as caught:
            plugins.engine("unknown://")
        for name, (_, why) in spoiled.items():
            with self.subTest(name):
                self.assertNotIn(name, plugins.names())
                self.assertRegex(described[name].reason, why)
                self.assertIn(f"Not used: {name}: {described[name].reason}.", str(caught.exception))
        self.assertEqual(described["newer"].status, PluginStatus.INCOMPATIBLE)
        self.assertEqual(described["wrong_hook"].status, PluginStatus.INCOMPATIBLE)
        self.assertEqual(described["exits"].status, PluginStatus.FAILED)

    def test_the_same_plugin_under_two_names_is_asked_once_and_told(self) -> None:
        folder = self.install("good", STORE.format(scheme="mine"))
        entries = folder / "rtm_test_plugin_good-1.0.dist-info" / "entry_points.txt"
        entries.write_text(entries.read_text() + "goodness = rtm_test_plugin_good\n")
        plugins = PluginManager()
        with self.assertLogs("rtm_sync.plugins", "WARNING") as logged:
            plugins.media_store("mine://")
        self.assertIn("'goodness' is not used: ", logged.output[0])
        self.assertIn("it is the same object as plugin 'good'", logged.output[0])

    def test_an_installed_plugin_may_be_given_to_a_client_as_well(self) -> None:
        self.install("good", STORE.format(scheme="mine"))
        module = importlib.import_module("rtm_test_plugin_good")
        plugins = PluginManager(extra=[module])
        for _ in range(2):  # before and after the installed plugins are imported
            self.assertEqual(plugins.media_store("mine://").scheme, "mine")  # type: ignore[attr-defined]
            with self.assertRaisesRegex(PluginError, "No media store serves 'unknown'"):
                plugins.media_store("unknown://")

    def test_a_plugin_that_asks_while_it_is_imported_does_not_hide_what_is_installed(self) -> None:
        self.install(
            "asks",
            """
            import builtins
            from rtm_sync import ThumbnailGenerator, hookimpl

            builtins.rtm_test_plugins.thumbnail_generators()

            class Mine(ThumbnailGenerator):
                name = "mine"
                can_handle = generate = None

            @hookimpl
            def thumbnail():
                return Mine()
            """,
        )
        plugins = PluginManager()
        with mock.patch("builtins.rtm_test_plugins", plugins, create=True):
            self.assertIn("mine", [one.name for one in plugins.thumbnail_generators()])

    def test_plugins_are_loaded_once_however_often_they_are_asked(self) -> None:
        self.install("raises", "raise RuntimeError('out of tea')")
        plugins = PluginManager()
        with self.assertLogs("rtm_sync.plugins", "WARNING"):
            plugins.names()
        with self.assertNoLogs("rtm_sync.plugins"):
            plugins.names()

    def test_what_a_built_in_serves_imports_no_installed_plugin(self) -> None:
        self.install("raises", "raise RuntimeError('out of tea')")
        with self.assertNoLogs("rtm_sync.plugins"):
            plugins = PluginManager()
            plugins.media_store("memory://")
            plugins.engine("local:")
            self.entered(RtmClient("app", url="ws://127.0.0.1:1", plugins=[Store("tape")]))
        self.assertNotIn("rtm_test_plugin_raises", sys.modules)

    def test_a_description_says_where_a_plugin_is_from_and_what_became_of_it(self) -> None:
        self.install("good", STORE.format(scheme="mine"))
        self.install("off", "raise RuntimeError('imported')")
        plugins = PluginManager(disabled=["off"], extra=[Store("tape")])
        described = {item.name: item for item in plugins.describe()}
        good, off = described["good"], described["off"]
        self.assertEqual(
            (good.version, good.distribution, good.hooks, good.status, good.reason),
            ("1.0", "rtm_test_plugin_good", ("media_store",), PluginStatus.LOADED, ""),
        )
        assert good.load_time is not None
        self.assertGreater(good.load_time, 0)
        self.assertEqual((off.status, off.hooks, off.load_time), (PluginStatus.DISABLED, (), None))
        self.assertEqual(described["built-in"].distribution, "rtm-sync")
        self.assertEqual(described["Store"].hooks, ("media_store",))
        self.assertEqual(f"{good.status}", "loaded")

    def test_a_disabled_plugin_is_not_even_imported_and_the_error_remembers_it(self) -> None:
        self.install("raises", "raise RuntimeError('out of tea')")
        self.install("good", STORE.format(scheme="mine"))
        plugins = PluginManager(disabled=["raises", "good"])
        with (
            self.assertNoLogs("rtm_sync.plugins"),
            self.assertRaisesRegex(PluginError, "good: RTM_SYNC_DISABLE_PLUGINS names it"),
        ):
            plugins.media_store("mine://")
        self.assertNotIn("rtm_test_plugin_good", sys.modules)

    def test_the_environment_names_disabled_plugins_for_every_client(self) -> None:
        self.install("good", STORE.format(scheme="mine"))
        for value, served in {"": True, "pillow": True, " video , ,good,": False}.items():
            setting = mock.patch.dict("os.environ", {"RTM_SYNC_DISABLE_PLUGINS": value})
            with self.subTest(value), setting:
                plugins = PluginManager().extended([Store("tape")])
                self.assertEqual("good" in plugins.names(), served)

    def test_nothing_is_locked_while_a_plugin_is_imported(self) -> None:
        """Other threads ask for plugins while one thread imports a plugin, which waits for them."""
        self.install(
            "waits",
            """
            import builtins
            builtins.rtm_test_importing()
            """
            + textwrap.indent(STORE.format(scheme="mine"), " " * 12),
        )
        plugins = PluginManager()
        answers: list[str] = []

        def ask_meanwhile() -> None:
            answers.append(type(plugins.media_store("memory://")).__name__)
            with self.assertRaises(PluginError):  # this thread would wait for its own import
                plugins.extended([]).media_store("mine://")

        def importing() -> None:
            other = threading.Thread(
                target=lambda: answers.append(type(plugins.media_store("memory://")).__name__)
            )
            other.start()
            other.join(PATIENCE)
            ask_meanwhile()

        with mock.patch("builtins.rtm_test_importing", importing, create=True):
            self.assertTrue(plugins.media_store("mine://"))
        self.assertEqual(answers, ["MemoryMediaStore"] * 2)

    def test_threads_that_ask_at_once_get_one_plugin(self) -> None:
        self.install("good", STORE.format(scheme="mine"))
        plugins = PluginManager()
        start = threading.Barrier(8)
        found: list[Any] = []

        def ask() -> None:
            start.wait(PATIENCE)
            plugins.media_store("mine://")
            found.extend(item for item in plugins.describe() if item.name == "good")

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(len(found), 8)
        self.assertEqual(len({id(item) for item in found}), 1)

    def test_a_process_starts_and_talks_without_importing_what_is_installed(self) -> None:
        folder = self.install("raises", "raise RuntimeError('out of tea')")
        code = """
            import sys
            from rtm_sync import RtmClient
            with RtmClient("app") as client:
                client.login("alice")
                print(client.create_media_message_by_uploading(b"x").result(10).size)
            assert "rtm_test_plugin_raises" not in sys.modules
        """
        path = os.pathsep.join([str(folder), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.stdout, done.returncode), ("1\n", 0), done.stderr)


class ThumbnailChoiceTest(RtmTestCase):
    def setUp(self) -> None:
        self.low = Generator("low", 10, "")
        self.pictures = Generator("pictures", 2_000, "image/")
        self.films = Generator("films", 1_000, "video/")
        # These tests must not depend on the plugins that are installed on the machine.
        self.entered(mock.patch("importlib.metadata.entry_points", return_value=[]))
        self.plugins = PluginManager(extra=[self.films, self.pictures, self.low])

    def test_generators_come_by_priority_and_not_by_registration(self) -> None:
        self.assertEqual(self.plugins.thumbnail_generators(), [self.pictures, self.films, self.low])

    def test_auto_takes_the_highest_that_can_handle_the_content(self) -> None:
        for content_type, generator in {
            "image/png": self.pictures,
            "video/mp4": self.films,
            "text/plain": self.low,
        }.items():
            with self.subTest(content_type):
                self.assertIs(
                    choose_generator(self.plugins.thumbnail_generators(), "auto", content_type),
                    generator,
                )

    def test_a_name_takes_that_one_whatever_the_content(self) -> None:
        self.assertIs(
            choose_generator(self.plugins.thumbnail_generators(), "low", "image/png"), self.low
        )

    def test_an_unknown_name_lists_what_is_installed(self) -> None:
        with self.assertRaisesRegex(PluginError, "'best'; installed: pictures, films, low"):
            choose_generator(self.plugins.thumbnail_generators(), "best", "image/png")

    def test_two_of_one_name_are_told_apart_by_their_classes(self) -> None:
        plugins = PluginManager(extra=[self.low, Generator("low", 5, "")])
        with self.assertRaisesRegex(PluginError, "named 'low': .*Generator, .*Generator"):
            choose_generator(plugins.thumbnail_generators(), "low", "image/png")

    def test_one_whose_can_handle_breaks_is_passed_over_with_a_warning(self) -> None:
        class Broken(Generator):
            def can_handle(self, content_type: str) -> bool:
                raise RuntimeError("out of tea")

        plugins = PluginManager(extra=[Broken("broken", 500, ""), self.low])
        with self.assertLogs("rtm_sync.thumbnails", "WARNING") as logged:
            self.assertIs(
                choose_generator(plugins.thumbnail_generators(), "auto", "image/png"), self.low
            )
        self.assertIn("broken: can_handle failed: out of tea", logged.output[0])

    def test_a_plugin_that_gives_no_generator_is_left_out_with_one_warning(self) -> None:
        nameless = Generator("", 1, "")
        nameless.name = None  # type: ignore[assignment]
        answers: tuple[Callable[[], Any], ...] = (
            lambda: 1 / 0,
            raising(SystemExit(3)),
            lambda: "generator",
            lambda: nameless,
        )
        for answer in answers:
            plugins = PluginManager(extra=[Answering(answer), self.low])
            with self.assertLogs("rtm_sync.plugins", "WARNING") as logged:
                self.assertEqual(plugins.thumbnail_generators(), [self.low])
            self.assertIn("'Answering' failed to make a thumbnail generator", logged.output[0])
            with self.assertNoLogs("rtm_sync.plugins"):
                plugins.thumbnail_generators()

    def test_auto_without_a_capable_one_says_what_to_install(self) -> None:
        plugins = PluginManager(extra=[self.films])
        with self.assertRaisesRegex(PluginError, "pip install rtm-sync-pillow"):
            choose_generator(plugins.thumbnail_generators(), "auto", "image/png")
