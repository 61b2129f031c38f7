"""The journal of an upload, with which another process can resume the upload."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from ..blob import atomic_write


class Journal:
    """Keeps an upload's key in a small file, so that the next process can resume the upload.

    Args:
        path: the journal; it need not exist.
        size: bytes of the payload. The key of a payload of another size is not used.

    Attributes:
        key: the upload's key, from the file or new.

    Raises:
        ValueError: the file is not a journal.
    """

    _LINE = re.compile(r"rtm_sync upload ([A-Za-z0-9_-]{32}) of (\d+) bytes\n")

    def __init__(self, path: str | os.PathLike[str], size: int) -> None:
        self._path = Path(path)
        self.key = secrets.token_urlsafe(24)
        if not self._path.exists():
            return
        match = self._LINE.fullmatch(self._path.read_text("utf-8", "replace")[:200])
        if match is None:
            raise ValueError(
                f"resume_from is {self._path}, which is not the journal of an upload. Pass another "
                "path."
            )
        if int(match[2]) == size:  # a payload of another size is another upload
            self.key = match[1]

    def write(self, size: int) -> None:
        """Write the journal. Raises OSError."""
        with atomic_write(self._path) as file:
            file.write(f"rtm_sync upload {self.key} of {size} bytes\n".encode())

    def forget(self) -> None:
        """Remove the journal. Raises OSError."""
        self._path.unlink(missing_ok=True)
