"""Where the exceptions of an application's handlers go."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from ..unlogged import print_unless_logged

logger = logging.getLogger(__name__)


class HandlerFailures:
    """Reports the exceptions of handlers and progress callbacks: nobody else would see them.

    They go to the log and to `on_handler_error`. Without this function and without a handler of the
    log, the traceback goes to standard error, as that of a thread does.

    Args:
        on_handler_error: the application's function, or None.
    """

    def __init__(self, on_handler_error: Callable[[BaseException], object] | None) -> None:
        self._on_handler_error = on_handler_error

    def report(self, error: BaseException) -> None:
        """Report an exception. Raises nothing."""
        logger.error("a handler raised", exc_info=error)
        if self._on_handler_error is not None:
            try:
                self._on_handler_error(error)
            except BaseException:
                logger.exception("on_handler_error itself raised")
        else:
            text = "".join(traceback.format_exception(error)).rstrip("\n")
            print_unless_logged(logger, logging.ERROR, f"a handler raised. {text}")
