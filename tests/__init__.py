"""The suite: `python -m unittest` from the repository's top. Mirrors the house."""

import logging
import os
import signal

# In a test's debug mode, asyncio reports each callback that a busy machine has made slow.
logging.getLogger("asyncio").addFilter(lambda record: " took " not in record.msg)

# Compiled anew for each of hundreds of child processes, the package doubles the time of a start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell has what runs in its background ignore SIGINT, which our child processes would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The benchmarks are in this package, too, and need neither library.
try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass
else:
    # A busy machine is no reason to fail a property, and a failure is the same on every machine.
    settings.register_profile(
        "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("suite")

try:
    from tqdm import tqdm
except ImportError:
    pass
else:
    tqdm.monitor_interval = 0  # its monitor is a thread that never ends
