"""Text from others, shown on one line: in a terminal, a log or a file name."""

from __future__ import annotations

import re

INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, line separators, half characters, and the controls of bidirectional text,
which make "exe.gpj" look like "jpg.exe"."""


def printable(text: str) -> str:
    """Untrusted text on one line, with the invisible characters escaped as Python does."""
    return INVISIBLE.sub(lambda found: repr(found[0])[1:-1], text)
