"""Exceptions of a media store: their texts go to the log, and clients get one sentence."""

from __future__ import annotations

import logging
import os

from ...errors import RtmError

logger = logging.getLogger(__name__)


def store_failure(family: type[RtmError], action: str, error: Exception) -> RtmError:
    """Log an exception of a media store or media index, and return the client's error: FAILURE.

    The exception's text may have paths, hosts and media ids. Therefore the client gets only the
    operating system's words for an error number.

    Args:
        family: the family of the error.
        action: what failed, for the log: "storing ID".
        error: the exception. One that stores may not raise is logged with its traceback.
    """
    log_failure(action, error)
    reason = ""
    if isinstance(error, OSError) and error.errno is not None:
        reason = f": {os.strerror(error.errno)}"
    return family.named("FAILURE", f"The media store failed{reason}.", error)


def log_failure(action: str, error: Exception) -> None:
    """Log an exception of a media store or media index, without the paths of the store."""
    is_expected = isinstance(error, (OSError, RtmError))
    logger.warning(
        "%s failed: %s", action, without_path(error), exc_info=None if is_expected else error
    )


def without_path(error: BaseException) -> str:
    """An exception's text; that of an operation on a file without the file's path."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{type(error).__name__}: {error.strerror}"
    return str(error) or repr(error)
