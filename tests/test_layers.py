"""The layers of the package: which room may import which, held against the imports in the code."""

from __future__ import annotations

import ast
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rtm_sync

PACKAGE = Path(rtm_sync.__file__).parent
REPOSITORY = PACKAGE.parent

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "version",
        "errors",
        "portable",
        "printable",
        "image_header",
        "lazy_names",
        "old_names",
        "rules.timing",
        "unlogged",
    ),
    ("supervision",),
    ("blob",),
    ("messages",),
    ("protocol",),
    ("rules",),
    ("thumbnails",),
    ("transfers",),
    ("hub.metrics_sink", "hub.tasks", "hub.auth.keys", "hub.open_paths"),
    ("hub.engine",),
    ("hub.auth", "hub.local"),
    ("hub.registry",),
    ("hub.session",),
    ("hub.service_sessions", "hub.media"),
    ("hub.services",),
    ("hub.dispatch",),
    ("hub",),
    ("transports",),
    ("plugins",),
    ("client",),
    ("gateway", "flask"),
    ("testing",),
    ("cli",),
    ("__main__",),
    # Old paths that forward to the new ones for one release.
    ("events", "event_relay", "media_stream", "thumbnail_tools", "thumbnail_process"),
)
"""The rooms of the package from the lowest floor up. A room imports from lower floors only.

A module belongs to the room with the longest name that is a part of its own.
"""

FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

MOST_LINES = 500
FACES = {"client/client.py": 700, "client/sender.py": 700}
"""Modules of which most lines are docstrings of the public API."""


@dataclass(frozen=True)
class Import:
    """One import: of `names` from `imported`, in `importer`; modules are named from the package."""

    importer: str
    imported: str
    names: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def imports_of(name: str, path: Path) -> Iterator[Import]:
    """Every import of one of our modules, those inside functions and for type checkers included."""
    package = name if name in PACKAGES else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                parts = package.split(".") if package else []
                base = parts[: len(parts) - (node.level - 1)]
                target = ".".join([*base, *([node.module] if node.module else [])])
            elif (node.module or "").split(".")[0] == "rtm_sync":
                target = (node.module or "").partition(".")[2]
            else:
                continue
            plain = []
            for alias in node.names:
                inner = f"{target}.{alias.name}" if target else alias.name
                if inner in MODULES:
                    yield Import(name, inner, (), node.lineno)
                else:
                    plain.append(alias.name)
            if plain:
                yield Import(name, target, tuple(plain), node.lineno)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "rtm_sync":
                    yield Import(name, alias.name.partition(".")[2], (), node.lineno)


IMPORTS = [item for name, path in MODULES.items() for item in imports_of(name, path)]


def room(module: str) -> str:
    """The room of a module; "" for the package itself and for modules without a floor."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOOR_OF), "")


class LayerTest(unittest.TestCase):
    def test_every_module_has_a_floor_and_every_room_its_modules(self) -> None:
        self.assertEqual([name for name in MODULES if name and not room(name)], [])
        self.assertEqual({room(name) for name in MODULES} - {""}, set(FLOOR_OF))

    def test_imports_run_down(self) -> None:
        wrong = []
        for item in IMPORTS:
            above, below = room(item.importer), room(item.imported)
            if above and below and above != below and FLOOR_OF[below] >= FLOOR_OF[above]:
                wrong.append(
                    f"{item}: {below} (floor {FLOOR_OF[below]}) is not below {above} "
                    f"(floor {FLOOR_OF[above]})"
                )
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_there_is_no_circle(self) -> None:
        below: dict[str, set[str]] = {name: set() for name in MODULES}
        for item in IMPORTS:
            if item.importer not in PACKAGES and item.imported in MODULES:
                below[item.importer].add(item.imported)
        state: dict[str, int] = {}
        path: list[str] = []

        def visit(name: str) -> None:
            if state.get(name) == 1:
                circle = [*path[path.index(name) :], name]
                self.fail("a circle of imports: " + " → ".join(circle))
            if name in state:
                return
            state[name] = 1
            path.append(name)
            for other in sorted(below[name]):
                visit(other)
            path.pop()
            state[name] = 2

        for name in MODULES:
            visit(name)

    def test_no_module_uses_underscore_names_of_another(self) -> None:
        wrong = [
            f"{item}: {name} is private there"
            for item in IMPORTS
            for name in item.names
            if name.startswith("_") and not name.startswith("__")
        ]
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_no_module_is_long(self) -> None:
        plugins = REPOSITORY / "plugins"
        paths = [*MODULES.values(), *plugins.glob("*/rtm_sync_*/**/*.py")]
        wrong = []
        for path in paths:
            lines = len(path.read_text("utf-8").splitlines())
            inside = path.relative_to(PACKAGE) if PACKAGE in path.parents else path
            most = FACES.get(inside.as_posix(), MOST_LINES)
            if lines > most:
                wrong.append(f"{inside} has {lines} lines; the bound is {most}.")
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_plugins_use_public_names_only(self) -> None:
        wrong = []
        for path in (REPOSITORY / "plugins").glob("*/rtm_sync_*/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rtm_sync."):
                    wrong += [
                        f"{path.name}:{node.lineno} imports {alias.name}"
                        for alias in node.names
                        if alias.name.startswith("_")
                    ]
        self.assertEqual(wrong, [], "\n".join(wrong))
