"""A program that imports the client, against one that imports two network libraries."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.benchmarks.table import Row, alternately, at_most, for_comparison

RUNS = 15
OURS = "from rtm_sync import RtmClient"
THEIRS = "import requests, websocket"


def run() -> list[Row]:
    # Programs have their bytecode cached; the warm-up writes what is not.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        return time.perf_counter() - start

    ours, theirs = alternately(RUNS, lambda: seconds(OURS), lambda: seconds(THEIRS))
    _, start = alternately(RUNS, lambda: 0.0, lambda: seconds("pass"))
    return [
        at_most(f"{OURS}, whole process (against {THEIRS})", ours, theirs, 1.2, "s"),
        for_comparison(
            "the same without the interpreter's start", ours - start, theirs - start, "s"
        ),
    ]
