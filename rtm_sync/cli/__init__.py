"""The command line: `rtm-sync serve`, `send`, `listen` and the others."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line; says what to install when its libraries are missing."""
    try:
        import click  # noqa: F401
    except ImportError:
        sys.exit('The command line needs more libraries: pip install "rtm-sync[cli]"')
    from .commands import rtm_sync

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a poor terminal shows "?", not a traceback
    rtm_sync(prog_name="rtm-sync")
