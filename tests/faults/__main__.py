"""A long chaos run: one life after another, each from its own seed, until the time is over."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.faults import chaos, killed_clients
from tests.faults.chaos import Plan

_RUNS = {**dict.fromkeys(chaos.MODES, chaos.run), "clients": killed_clients.run}
_LIFE = 60.0  # seconds; a failure is repeated from its own life's seed, not from the beginning


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long [default: 1]")
    parser.add_argument("--seed", type=int, help="of the first life [default: a fresh one]")
    parser.add_argument("--mode", choices=[*_RUNS, "all"], default="all")
    parser.add_argument("--clients", type=int, default=4, help="[default: 4]")
    chosen = parser.parse_args()
    seed = random.randrange(1_000_000) if chosen.seed is None else chosen.seed
    modes = tuple(_RUNS) if chosen.mode == "all" else (chosen.mode,)
    seconds = chosen.minutes * 60
    each = min(_LIFE, seconds / len(modes))
    ends = time.monotonic() + seconds
    while time.monotonic() < ends - each / 2:
        for mode in modes:
            plan = Plan(seed, each, mode, chosen.clients)
            report = _RUNS[mode](plan)
            print(report, flush=True)
            if report.problems:
                print(
                    f"FAILED. Again: python -m tests.faults --seed {seed} --mode {mode} "
                    f"--minutes {each / 60:g} --clients {chosen.clients}"
                )
                return 1
        seed += 1
    print("Zero lost, zero duplicated unannounced, zero reordered.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
