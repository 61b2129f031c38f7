"""One row a measurement: what, ours, theirs, the ratio and what it should be."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    what: str
    ours: str
    theirs: str
    ratio: float
    goal: str
    met: bool


def at_most(what: str, ours: float, theirs: float, goal: float, unit: str) -> Row:
    """A row whose ratio ours / theirs should not exceed the goal."""
    ratio = ours / theirs
    return Row(
        what, f"{ours:.3f} {unit}", f"{theirs:.3f} {unit}", ratio, f"≤ {goal:g}", ratio <= goal
    )


def at_least(what: str, ours: float, theirs: float, goal: float, unit: str) -> Row:
    """A row whose ratio ours / theirs should not be below the goal."""
    ratio = ours / theirs
    return Row(
        what, f"{ours:.0f} {unit}", f"{theirs:.0f} {unit}", ratio, f"≥ {goal:g}", ratio >= goal
    )


def for_comparison(what: str, ours: float, theirs: float, unit: str) -> Row:
    """A row without a goal: what a reader needs to judge another one."""
    return Row(what, f"{ours:.3f} {unit}", f"{theirs:.3f} {unit}", ours / theirs, "", met=True)


def alternately(
    runs: int, ours: Callable[[], float], theirs: Callable[[], float]
) -> tuple[float, float]:
    """Medians of both, run in turns so that the machine's moods hit both; one warm-up each."""
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(runs)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def print_table(rows: list[Row]) -> None:
    head = ("measurement", "ours", "against", "ratio", "goal", "")
    cells = [
        (row.what, row.ours, row.theirs, f"{row.ratio:.2f}", row.goal, "" if row.met else "missed")
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    for line in [head, tuple("-" * width for width in widths), *cells]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
