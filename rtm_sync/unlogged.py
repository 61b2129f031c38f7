"""What a user must see though the program has not configured logging.

The package's logger has a `NullHandler`, as a library's logger should. With it, Python does not
print warnings and errors that no other handler takes.
"""

from __future__ import annotations

import logging
import sys


def print_unless_logged(logger: logging.Logger, level: int, text: str) -> None:
    """Write a text to standard error, unless the logger writes such records, or is told not to.

    Args:
        logger: where the same was logged.
        level: the level of the record.
        text: the text, without the name of the package and the end of its last line.
    """
    if logger.isEnabledFor(level) and not _has_output(logger) and sys.stderr:
        sys.stderr.write(f"rtm_sync: {text}\n")


def _has_output(logger: logging.Logger | None) -> bool:
    """Whether a record of this logger reaches a handler that may write it."""
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
