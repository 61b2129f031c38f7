"""The note of an upload that another process may resume."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from ..blob import atomic_write


class Journal:
    """Remembers an upload's key in a small file, so that the next process goes on with it.

    Raises:
        ValueError: the file is something else.
    """

    _LINE = re.compile(r"rtm_sync upload ([A-Za-z0-9_-]{32}) of (\d+) bytes\n")

    def __init__(self, path: str | os.PathLike[str], size: int) -> None:
        self._path = Path(path)
        self.key = secrets.token_urlsafe(24)
        if not self._path.exists():
            return
        match = self._LINE.fullmatch(self._path.read_text("utf-8", "replace")[:200])
        if match is None:
            raise ValueError(f"resume_from is {self._path}, which is no journal of an upload.")
        if int(match[2]) == size:  # of another size it is another upload
            self.key = match[1]

    def write(self, size: int) -> None:
        with atomic_write(self._path) as file:
            file.write(f"rtm_sync upload {self.key} of {size} bytes\n".encode())

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
