"""The house keeps its directions: imports point down, and importing it costs what it must."""

from __future__ import annotations

import ast
import subprocess
import sys
import unittest
from pathlib import Path

import rtm_sync

ROOT = Path(rtm_sync.__file__).parent
VALUES = {
    *("attributes", "errors", "messages", "blob", "image_header", "protocol", "outbox"),
    "portable",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """The package's own modules that a module imports when it is imported itself."""
    package = path.relative_to(ROOT).parent.parts
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join((*base, name)) for name in names if name}
    return found


MODULES = {module_name(path): imports_of(path) for path in ROOT.rglob("*.py")}


class DirectionTest(unittest.TestCase):
    def assert_imports_only(self, module: str, *allowed: str) -> None:
        for imported in MODULES[module]:
            room = imported.partition(".")[0]
            self.assertIn(room, allowed, f"{module} imports {imported}")

    def test_values_import_nothing_but_values(self) -> None:
        for module in VALUES:
            self.assert_imports_only(module, *VALUES)

    def test_the_hub_knows_neither_transports_nor_gateway_nor_client(self) -> None:
        for module in MODULES:
            if module.startswith("hub"):
                self.assert_imports_only(module, *VALUES, "hub", "transfers", "plugins")

    def test_the_gateway_knows_the_hub_and_the_values(self) -> None:
        for module in MODULES:
            if module.startswith("gateway"):
                self.assert_imports_only(
                    module, *VALUES, "hub", "gateway", "plugins", "transports", "version"
                )

    def test_only_the_embedded_transport_meets_the_hub_and_flask_its_tokens(self) -> None:
        meeting = {
            module
            for module, imported in MODULES.items()
            if any(name.startswith(("hub", "gateway")) for name in imported)
            and not module.startswith(("hub", "gateway", "cli", "testing", "default_plugins"))
        }
        self.assertEqual(meeting, {"transports.embedded", "flask"})
        of_flask = {name for name in MODULES["flask"] if name.startswith(("hub", "gateway"))}
        self.assertEqual(of_flask, {"hub.tokens"})

    def test_there_are_no_cycles(self) -> None:
        done: set[str] = set()

        def visit(module: str, above: tuple[str, ...]) -> None:
            self.assertNotIn(module, above, " -> ".join((*above, module)))
            if module not in done:
                for imported in MODULES.get(module, ()):
                    visit(imported, (*above, module))
                done.add(module)

        for module in MODULES:
            visit(module, ())


class CostTest(unittest.TestCase):
    def loaded_by(self, statement: str) -> set[str]:
        code = f"{statement}\nimport sys\nprint(*sys.modules)"
        return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())

    def test_importing_loads_no_server_no_database_and_no_plugin(self) -> None:
        loaded = self.loaded_by("import rtm_sync")
        own = loaded - self.loaded_by("import requests, websocket, pluggy, tenacity")
        for name in ("aiohttp", "sqlite3", "jwt", "uvloop", "click", "rich", "PIL", "flask"):
            self.assertNotIn(name, loaded)
        for name in ("asyncio", "rtm_sync.hub.hub", "rtm_sync.default_plugins", "rtm_sync_pillow"):
            self.assertNotIn(name, own)

    def test_every_public_name_is_there(self) -> None:
        for name in rtm_sync.__all__:
            self.assertTrue(hasattr(rtm_sync, name), name)
        self.assertEqual(sorted(set(rtm_sync.__all__)), sorted(rtm_sync.__all__))
