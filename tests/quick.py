"""`python -m tests.quick`: the suite without browsers, web servers and commands as processes.

It needs a third of the time. Each Python must pass it, and one Python must pass the whole suite.
"""

from __future__ import annotations

import pkgutil
import unittest

import tests

WITHOUT = (
    "tests.cli.",
    "tests.faults.",
    "tests.flask.test_chat",
    "tests.flask.test_servers",
    "tests.gateway.test_abuse",
    "tests.gateway.test_kill",
    "tests.gateway.test_logs",
    "tests.test_documents",
    "tests.test_example_plugins",
    "tests.test_examples",
    "tests.test_preforked",
    "tests.test_processes",
    "tests.test_typing",
)
"""The beginnings of the names of modules that are left out."""


def modules() -> list[str]:
    """Names of the test modules that are not left out."""
    names = (module.name for module in pkgutil.walk_packages(tests.__path__, "tests."))
    return [
        name
        for name in names
        if name.rpartition(".")[2].startswith("test_") and not name.startswith(WITHOUT)
    ]


if __name__ == "__main__":
    unittest.main(module=None, argv=["python -m tests.quick", *modules()])
