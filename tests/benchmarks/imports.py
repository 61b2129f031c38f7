"""`import rtm_sync` against importing its two network libraries alone."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.benchmarks.table import Row, alternately, at_most

RUNS = 15


def run() -> list[Row]:
    def importing(what: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {what}"], check=True)
        return time.perf_counter() - start

    bare = importing("sys")
    ours, theirs = alternately(
        RUNS,
        lambda: importing("rtm_sync") - bare,
        lambda: importing("requests, websocket") - bare,
    )
    return [at_most("import rtm_sync, s (against requests, websocket)", ours, theirs, 1.25, "s")]
