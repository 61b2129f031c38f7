"""The plugins of the documents: built, installed, found, tested by the kits, uninstalled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.cli.support import REPOSITORY
from tests.support import PATIENCE, RtmTestCase, at_once

EXAMPLES = REPOSITORY / "docs" / "examples" / "plugins"
LONG = 2 * PATIENCE  # seconds for pip to build and install

DESCRIBE = """
import json
from rtm_sync.plugins import plugin_manager
print(json.dumps([
    [item.name, item.distribution, item.version, item.hooks, str(item.status)]
    for item in plugin_manager.describe()
]))
"""


class Environment:
    """A virtual environment for a plugin, with the packages of this process."""

    def __init__(self, work: Path) -> None:
        self.work = work
        venv.create(work / "environment", with_pip=False)
        self.python = work / "environment" / "bin" / "python"
        (packages,) = work.glob("environment/lib/python*/site-packages")
        # The packages of this process, without a network. "System site packages" may be of another
        # Python.
        seen = [str(REPOSITORY), *filter(os.path.isdir, sys.path)]
        (packages / "parent.pth").write_text("\n".join(seen) + "\n")

    def run_in(self, folder: Path, *command: object) -> str:
        """The output of a command, which must succeed."""
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env={**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def pip(self, *arguments: object) -> None:
        self.run_in(self.work, sys.executable, "-m", "pip", "--python", self.python, *arguments)

    def described(self) -> dict[str, list[object]]:
        """The plugins' descriptions in the environment."""
        found = json.loads(self.run_in(self.work, self.python, "-c", DESCRIBE))
        return {item[0]: item[1:] for item in found}


class ExamplePluginTest(RtmTestCase):
    def lives_and_dies(self, name: str, hook: str, tests: int) -> None:
        """Install an example, find it, run its tests, uninstall it, and no longer find it."""
        environment = Environment(self.folder())
        distribution = f"rtm-sync-example-{name}"
        source = shutil.copytree(EXAMPLES / distribution, environment.work / distribution)
        self.assertNotIn(name, environment.described())
        environment.pip("install", "-q", "--no-index", "--no-deps", "--no-build-isolation", source)
        self.assertEqual(environment.described()[name], [distribution, "1.0", [hook], "loaded"])
        only_tests = shutil.copytree(source / "tests", environment.work / "apart" / "tests")
        out = environment.run_in(
            only_tests.parent, environment.python, "-W", "ignore", "-m", "unittest"
        )
        self.assertRegex(out, r"\nOK\n")
        ran = int(out.partition("Ran ")[2].partition(" ")[0])
        self.assertGreaterEqual(ran, tests)
        environment.pip("uninstall", "-q", "-y", distribution)
        self.assertNotIn(name, environment.described())

    def test_a_transport_and_a_thumbnail_generator_live_and_die_like_any_plugin(self) -> None:
        at_once(
            lambda: self.lives_and_dies("bus", "transport", 30),
            lambda: self.lives_and_dies("netpbm", "thumbnail", 20),
        )
