"""The command line: `rtm-sync serve`, `send`, `listen` and the others."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line. Without its libraries, exit with a line that names the extra."""
    try:
        import click  # noqa: F401
    except ImportError:
        sys.exit('The command line needs more libraries: pip install "rtm-sync[cli]"')
    from .commands import rtm_sync

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "?" for what the encoding lacks, no traceback
    rtm_sync(prog_name="rtm-sync")
