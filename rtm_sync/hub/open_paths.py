"""Notices when a path no longer names the file or folder that this process uses."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ..portable import file_identity

logger = logging.getLogger(__name__)


class OpenPaths:
    """Remembers what some paths name now, and compares it later. Thread-safe.

    A removed file that is open can still be written, and all of it is lost. The owner keeps the
    files open, so that no new file has the identity of a removed one.

    Args:
        name: names them in the sentence, which clients may read: "The database's file".
        paths: the files and folders.
    """

    def __init__(self, name: str, paths: Iterable[Path]) -> None:
        self._name = name
        self._identities = {path: file_identity(path) for path in paths}
        self._is_logged = False

    def problem(self) -> str | None:
        """The sentence about a path that names something else or nothing, or None.

        The first time, the log names the path.
        """
        for path, identity in self._identities.items():
            if file_identity(path) != identity:
                if not self._is_logged:
                    self._is_logged = True
                    logger.error(
                        "%s was removed or replaced while it is in use, and what would be written "
                        "now would be lost: put it back, or restart the gateway",
                        path,
                    )
                return f"{self._name} was removed or replaced; the gateway must be restarted."
        self._is_logged = False
        return None

    def require(self) -> None:
        """Raise OSError with the sentence of `problem`, if there is one."""
        problem = self.problem()
        if problem is not None:
            raise OSError(problem)
