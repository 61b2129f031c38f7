"""How long cancelling takes: `python -m tests.faults.cancel_latency` prints p50 and p99.

Every state of a transfer × every way of cancelling, as `tests/transports/test_cancellation.py`
reaches them: seconds from the cancelling call to the future's done-callback. Client, gateway and
proxy share one process and its interpreter lock, so a client alone is no slower.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
import unittest
from collections.abc import Callable
from typing import Any

from rtm_sync.errors import TransferCancelled
from rtm_sync.transfers.transfer import Transfer
from tests.support import PATIENCE
from tests.transports import test_cancellation

WAYS = {
    "event set": "test_setting_the_event_ends_it",
    "transfer.cancel()": "test_calling_cancel_ends_it",
    "client.close()": "test_closing_the_client_ends_it",
}
PROMISE = 0.1  # seconds, of the 99th percentile


def states() -> dict[str, type[test_cancellation.Matrix]]:
    """The matrix's classes by what they are called in words."""
    return {
        " ".join(re.findall("[A-Z][a-z]+", name.removesuffix("Test"))).lower(): value
        for name, value in vars(test_cancellation).items()
        if isinstance(value, type)
        and issubclass(value, test_cancellation.Matrix)
        and issubclass(value, unittest.TestCase)
    }


def measure(state: type[test_cancellation.Matrix], way: str, runs: int) -> list[float]:
    """Seconds that each of so many cancellations took."""
    latencies: list[float] = []

    class Measured(state):  # type: ignore[misc, valid-type]
        def check(self, transfer: Transfer[Any], cancel: Callable[[], object]) -> None:
            ended: list[float] = []
            transfer.add_done_callback(lambda _: ended.append(time.monotonic()))
            began = time.monotonic()
            cancel()
            self.assertIsInstance(transfer.exception(PATIENCE), TransferCancelled)
            latencies.append(ended[0] - began)

    for _ in range(runs):
        result = unittest.TestResult()
        Measured(WAYS[way]).run(result)
        for _, problem in (*result.errors, *result.failures):
            raise AssertionError(problem)
    return latencies


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cancel_latency")
    parser.add_argument("--runs", type=int, default=20, help="of each cell [default: 20]")
    runs = parser.parse_args().runs
    everything: list[float] = []
    print(f"| state | {' | '.join(f'{way}: p50, p99' for way in WAYS)} |  milliseconds")
    print("|---" * (len(WAYS) + 1) + "|")
    for name, state in states().items():
        cells = []
        for way in WAYS:
            latencies = measure(state, way, runs)
            everything += latencies
            p50, p99 = (percentile(latencies, share) * 1000 for share in (0.5, 0.99))
            cells.append(f"{p50:.1f}, {p99:.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    p50, p99 = (percentile(everything, share) for share in (0.5, 0.99))
    met = p99 <= PROMISE
    print(
        f"All {len(everything):,}: p50 {p50 * 1000:.1f}, p99 {p99 * 1000:.1f}, "
        f"longest {max(everything) * 1000:.1f} ms; the promise is {PROMISE * 1000:g}: "
        f"{'kept' if met else 'MISSED'}."
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
