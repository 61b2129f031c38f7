"""The suite: `python -m unittest` from the repository's top. Mirrors the house."""

import logging
import os
import signal

# In the debug mode of tests, asyncio logs slow callbacks, of which a busy machine has many.
logging.getLogger("asyncio").addFilter(lambda record: " took " not in record.msg)

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
