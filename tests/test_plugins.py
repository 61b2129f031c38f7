"""Finding plugins: order, declining, disabling, and the one that cannot be loaded.

Strangers' plugins are real here: a folder on `sys.path` with a distribution's metadata in it.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from typing import Any
from unittest import mock

from rtm_sync.errors import PluginError
from rtm_sync.plugins import Hooks, PluginManager, _disabled_by_environment, hookimpl
from rtm_sync.thumbnails import Thumbnail, ThumbnailGenerator, choose_generator
from tests.support import RtmTestCase

ENGINE_HOOK = """
from rtm_sync.plugins import hookimpl

@hookimpl
def engine(url):
    return "{answer}" if url.startswith("{scheme}:") else None
"""


class Store:
    """A plugin that serves one scheme and remembers what it was asked."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.asked: list[str] = []

    @hookimpl
    def media_store(self, url: str) -> Any:
        self.asked.append(url)
        return self if url.startswith(f"{self.scheme}:") else None


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


class HookOrderTest(RtmTestCase):
    def test_the_built_ins_answer_through_the_same_hooks(self) -> None:
        plugins = PluginManager()
        self.assertIn("built-in", plugins.names())
        self.assertEqual(type(plugins.media_store("memory://")).__name__, "MemoryMediaStore")

    def test_a_plugin_that_is_given_twice_is_asked_once(self) -> None:
        tape = Store("tape")
        plugins = PluginManager(extra=[tape, tape])
        self.assertIs(plugins.media_store("tape://1"), tape)
        self.assertEqual(tape.asked, ["tape://1"])

    def test_the_last_registered_is_asked_first_and_its_answer_is_taken(self) -> None:
        first, last = Store("tape"), Store("tape")
        plugins = PluginManager(extra=[first, last])
        self.assertIs(plugins.media_store("tape://1"), last)
        self.assertEqual((first.asked, last.asked), ([], ["tape://1"]))

    def test_a_plugin_that_declines_passes_the_question_on(self) -> None:
        tape, cloud = Store("tape"), Store("cloud")
        plugins = PluginManager(extra=[tape, cloud])
        self.assertIs(plugins.media_store("tape://1"), tape)
        self.assertEqual(cloud.asked, ["tape://1"])

    def test_a_plugin_can_take_a_scheme_from_the_built_ins(self) -> None:
        memory = Store("memory")
        self.assertIs(PluginManager(extra=[memory]).media_store("memory://"), memory)

    def test_extra_plugins_belong_to_their_manager_alone(self) -> None:
        PluginManager(extra=[Store("tape")]).media_store("tape://1")
        with self.assertRaises(PluginError):
            PluginManager().media_store("tape://1")

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

    def test_every_hook_of_the_specification_is_asked_by_the_manager(self) -> None:
        hooks = {name for name in vars(Hooks) if not name.startswith("_")}
        self.assertEqual(
            hooks, {"transport", "engine", "media_store", "token_verifier", "thumbnail"}
        )


class EntryPointTest(RtmTestCase):
    def install(self, name: str, source: str) -> None:
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

    def test_an_installed_plugin_is_found_and_asked(self) -> None:
        self.install("good", ENGINE_HOOK.format(answer="my engine", scheme="mine"))
        plugins = PluginManager()
        self.assertEqual(plugins.engine("mine://"), "my engine")
        self.assertIn("good", plugins.names())
        self.assertEqual(plugins.failures, [])

    def test_an_extra_plugin_is_asked_before_an_installed_one(self) -> None:
        self.install("good", ENGINE_HOOK.format(answer="installed", scheme="mine"))

        class Extra:
            @hookimpl
            def engine(self, url: str) -> Any:
                return "extra"

        self.assertEqual(PluginManager(extra=[Extra()]).engine("mine://"), "extra")

    def test_a_plugin_that_cannot_be_loaded_leaves_the_others_working(self) -> None:
        spoiled = {
            "a_missing_import": ("import no_such_module_of_rtm", "no_such_module_of_rtm"),
            "raises": ("raise RuntimeError('out of tea')", "out of tea"),
            "no_python": ("def (", "invalid syntax"),
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
                "colour",
            ),
        }
        for name, (source, _) in spoiled.items():
            self.install(name, source)
        self.install("good", ENGINE_HOOK.format(answer="my engine", scheme="mine"))
        plugins = PluginManager()
        with self.assertLogs("rtm_sync.plugins", "WARNING") as logged:
            self.assertEqual(plugins.engine("mine://"), "my engine")
        self.assertEqual(len(logged.records), len(spoiled))
        self.assertEqual(type(plugins.media_store("memory://")).__name__, "MemoryMediaStore")

        with self.assertRaises(PluginError) as caught:
            plugins.engine("unknown://")
        for name, (_, why) in spoiled.items():
            with self.subTest(name):
                self.assertIn(name, {failure.name for failure in plugins.failures})
                self.assertNotIn(name, plugins.names())
                self.assertRegex(str(caught.exception), f"{name}: [^;]*{why}")

    def test_plugins_are_loaded_once_however_often_they_are_asked(self) -> None:
        self.install("raises", "raise RuntimeError('out of tea')")
        plugins = PluginManager()
        with self.assertLogs("rtm_sync.plugins", "WARNING"):
            plugins.names()
        plugins.names()
        self.assertEqual(len(plugins.failures), 1)

    def test_nothing_is_loaded_before_the_first_question(self) -> None:
        self.install("raises", "raise RuntimeError('out of tea')")
        with self.assertNoLogs("rtm_sync.plugins"):
            PluginManager()

    def test_a_disabled_plugin_is_not_even_imported(self) -> None:
        self.install("raises", "raise RuntimeError('out of tea')")
        self.install("good", ENGINE_HOOK.format(answer="my engine", scheme="mine"))
        plugins = PluginManager(disabled=["raises", "good"])
        with self.assertRaises(PluginError):
            plugins.engine("mine://")
        self.assertEqual(plugins.failures, [])
        self.assertNotIn("rtm_test_plugin_good", sys.modules)

    def test_the_environment_names_disabled_plugins(self) -> None:
        for value, names in {
            "": [],
            "pillow": ["pillow"],
            " pillow , ,video,": ["pillow", "video"],
        }.items():
            setting = mock.patch.dict("os.environ", {"RTM_SYNC_DISABLE_PLUGINS": value})
            with self.subTest(value), setting:
                self.assertEqual(_disabled_by_environment(), names)


class ThumbnailChoiceTest(RtmTestCase):
    def setUp(self) -> None:
        self.low = Generator("low", 10, "")
        self.pictures = Generator("pictures", 2_000, "image/")
        self.films = Generator("films", 1_000, "video/")
        # What may be installed beside must not decide these tests.
        self.entered(mock.patch("rtm_sync.plugins.entry_points", return_value=[]))
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
                self.assertIs(choose_generator(self.plugins, "auto", content_type), generator)

    def test_a_name_takes_that_one_whatever_the_content(self) -> None:
        self.assertIs(choose_generator(self.plugins, "low", "image/png"), self.low)

    def test_an_unknown_name_lists_what_is_installed(self) -> None:
        with self.assertRaisesRegex(PluginError, "'best'; installed: pictures, films, low"):
            choose_generator(self.plugins, "best", "image/png")

    def test_auto_without_a_capable_one_says_what_to_install(self) -> None:
        plugins = PluginManager(extra=[self.films])
        with self.assertRaisesRegex(PluginError, "pip install rtm-sync-pillow"):
            choose_generator(plugins, "auto", "image/png")
