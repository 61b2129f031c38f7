"""The suite: `python -m unittest` from the repository's top. It has the shape of the package."""

from __future__ import annotations

import logging
import os
import signal
import unittest
from pathlib import Path

# In the debug mode of tests, asyncio logs slow callbacks, of which a busy machine has many.
logging.getLogger("asyncio").addFilter(lambda record: " took " not in record.msg)


class _Taken(logging.Handler):
    """Takes records, so that the library does not print them for want of a handler."""

    def emit(self, record: logging.LogRecord) -> None:
        pass


# Many tests close a client while it uploads. What a script sees then is tested in a process.
logging.getLogger("rtm_sync.transfers.pool").addHandler(_Taken())

# Compiled anew for each of hundreds of child processes, the package doubles the time of a start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A background job of a shell ignores SIGINT, and our child processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The benchmarks are in this package, too, but do not need these libraries.
try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass
else:
    # A property must not fail because a machine is busy, and it must fail equally everywhere.
    settings.register_profile(
        "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("suite")

try:
    from tqdm import tqdm
except ImportError:
    pass
else:
    tqdm.monitor_interval = 0  # tqdm's monitor thread never ends


def load_tests(
    loader: unittest.TestLoader, standard_tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """The whole suite, of which a second process runs a half. Called by `python -m unittest`."""
    folder = Path(__file__).parent
    found = loader.discover(str(folder), pattern or "test*.py", str(folder.parent))
    if loader.testNamePatterns:  # -k: a few tests, here
        return found
    from .beside import BESIDE, Beginning, End, Second

    here = unittest.TestSuite()
    beside: dict[str, None] = {}

    def sort(suite: unittest.TestSuite) -> None:
        for item in suite:
            if not isinstance(item, unittest.TestCase):
                sort(item)
            elif type(item).__module__.startswith(BESIDE):
                beside[type(item).__module__] = None
            else:
                here.addTest(item)

    sort(found)
    second = Second(list(beside))
    return unittest.TestSuite([Beginning(second), here, End(second)])
