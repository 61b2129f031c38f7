"""Old names work for one release, with a DeprecationWarning that says the new one."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import rtm_sync
from rtm_sync.hub.engine import Bus
from rtm_sync.hub.engine.bus import Recovered
from rtm_sync.hub.media import Fragment, MediaStore, MediaWriter
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.protocol.values import ChannelPosition
from tests.support import RtmTestCase

MOVED = {
    "rtm_sync.event_relay": (["rtm_sync.flask.relay"], ["EventRelay"]),
    "rtm_sync.events": (["rtm_sync.client.events"], ["EventEmitter", "EventStream"]),
    "rtm_sync.hub.limits": (
        ["rtm_sync.rules.limits", "rtm_sync.rules.rates"],
        ["KeyedWindows", "Limits", "Rate", "SlidingWindow"],
    ),
    "rtm_sync.hub.tokens": (
        ["rtm_sync.hub.auth.tokens"],
        ["CLOCK_SKEW", "Grant", "Privileges", "TokenVerifier", "make_token"],
    ),
    "rtm_sync.media_stream": (["rtm_sync.transfers.stream"], ["MediaStream"]),
    "rtm_sync.thumbnail_process": (
        ["rtm_sync.thumbnails.subprocess"],
        ["Pixels", "decoded_apart"],
    ),
    "rtm_sync.thumbnail_tools": (
        ["rtm_sync.thumbnails.encoding"],
        ["LONGEST_SIDE", "bare_type", "best_fit", "encode_thumbnail", "read_content", "scaled"],
    ),
    "rtm_sync.transports.lifecycle": (["rtm_sync.rules.lifecycle"], ["Lifecycle", "StateChange"]),
}
"""Old modules, the new ones, and the names that documents or example plugins took from the old."""


class ModuleTest(RtmTestCase):
    def import_anew(self, name: str) -> object:
        """Import a module as if for the first time, by an import statement of this file."""
        before = sys.modules.pop(name, None)
        self.addCleanup(sys.modules.pop, name, None)
        if before is not None:
            self.addCleanup(sys.modules.__setitem__, name, before)
        exec(compile(f"import {name}", __file__, "exec"), {})
        return sys.modules[name]

    def test_each_old_module_has_the_new_names_and_warns_at_its_import(self) -> None:
        for old, (new, documented) in MOVED.items():
            with self.subTest(old):
                with self.assertWarns(DeprecationWarning) as caught:
                    module = self.import_anew(old)
                self.assertEqual(caught.filename, __file__)
                homes = [importlib.import_module(name) for name in new]
                self.assertEqual(
                    str(caught.warning),
                    f"{old} has moved to {' and '.join(new)}; "
                    "the old name goes in the next release",
                )
                names = vars(module)["__all__"]
                self.assertLessEqual(set(documented), set(names))
                for name in names:
                    same = [vars(home).get(name) is getattr(module, name) for home in homes]
                    self.assertTrue(any(same), name)

    def test_there_are_no_other_old_modules(self) -> None:
        root = Path(rtm_sync.__file__).parent
        old = {
            ".".join(path.relative_to(root.parent).with_suffix("").parts)
            for path in root.rglob("*.py")
            if path.read_text("utf-8").startswith('"""Deprecated')
        }
        self.assertEqual(old, set(MOVED))

    def test_the_changelog_names_them_all(self) -> None:
        changelog = Path(rtm_sync.__file__).parents[1] / "CHANGELOG.md"
        deprecated = changelog.read_text("utf-8").partition("### Deprecated")[2]
        for old, (new, _) in MOVED.items():
            with self.subTest(old):
                [line] = [line for line in deprecated.splitlines() if f"`{old}`" in line]
                for name in new:
                    self.assertIn(f"`{name}`", line)


class MethodTest(RtmTestCase):
    def test_a_store_that_has_settle_is_told_of_it_and_works(self) -> None:
        settled = []
        with self.assertWarns(DeprecationWarning) as caught:

            class Store(MediaStore):
                def create(self, media_id: str, note: str) -> MediaWriter:
                    raise NotImplementedError

                def open(self, media_id: str):  # type: ignore[no-untyped-def]
                    raise NotImplementedError

                def delete(self, media_id: str) -> None:
                    raise NotImplementedError

                def settle(self, media_id: str) -> None:
                    super().settle(media_id)
                    settled.append(media_id)

        self.assertEqual(caught.filename, __file__)
        self.assertIn("Store.settle must be called finalize", str(caught.warning))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            Store().finalize("A" * 32)
            Store().settle("B" * 32)
        self.assertEqual(settled, ["A" * 32, "B" * 32])

        with self.assertWarns(DeprecationWarning):

            class Later(Store):
                def settle(self, media_id: str) -> None:
                    settled.append(f"later {media_id}")

        Later().finalize("C")
        self.assertEqual(settled[2:], ["later C"])

    def test_settle_is_finalize_for_callers_too(self) -> None:
        finalized = []

        class Store(MemoryMediaStore):
            def finalize(self, media_id: str) -> None:
                finalized.append(media_id)

        with self.assertWarns(DeprecationWarning) as caught:
            Store().settle("A" * 32)
        self.assertEqual(caught.filename, __file__)
        self.assertEqual(finalized, ["A" * 32])

    def test_a_fragment_may_have_a_note(self) -> None:
        with self.assertWarns(DeprecationWarning) as caught:
            fragment = Fragment("A" * 32, note="x", size=1, is_whole=False)  # type: ignore[call-arg]
        self.assertEqual(caught.filename, __file__)
        self.assertEqual(fragment, Fragment("A" * 32, metadata="x", size=1, is_whole=False))
        with self.assertRaises(TypeError):
            Fragment("A" * 32, size=1, is_whole=False)  # type: ignore[call-arg]

    def test_a_bus_that_has_missed_is_told_of_it_and_works(self) -> None:
        with self.assertWarns(DeprecationWarning) as caught:

            class OldBus(Bus):
                async def missed(
                    self, app_id: str, channel_id: str, since: ChannelPosition | None
                ) -> Recovered:
                    return Recovered(ChannelPosition("epoch", 7), (), complete=True)

        self.assertEqual(caught.filename, __file__)
        self.assertIn("OldBus.missed must be called recover", str(caught.warning))
        self.assertIs(OldBus.recover, OldBus.missed)
        self.assertNotIn("recover", OldBus.__abstractmethods__)

    def test_a_class_that_has_the_new_name_is_not_told(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")

            class Store(MemoryMediaStore):
                def finalize(self, media_id: str) -> None:
                    pass

                def settle(self, media_id: str) -> None:
                    raise AssertionError("the old name is used")

            Store().finalize("A" * 32)
