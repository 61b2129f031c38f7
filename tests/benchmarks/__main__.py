"""Run all benchmarks (or those named), print a table, and fail nothing: numbers are for people."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tests.benchmarks import imports, isolation, media, messages
from tests.benchmarks.table import Row, print_table

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "media": media.run,
    "messages": messages.run,
    "imports": imports.run,
    "isolation": isolation.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    chosen = parser.parse_args().names or list(BENCHMARKS)
    rows = [row for name in chosen for row in BENCHMARKS[name]()]
    print_table(rows)


main()
