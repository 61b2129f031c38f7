"""File names that come from other users: made safe to join to a folder, and to create there.

A name is text from outside. It may be a path, a device of Windows, or text that is displayed in
another order than it is stored.
"""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from ..printable import INVISIBLE

_LONGEST = 200  # bytes; file systems allow 255, and " (12)" may be appended
_SEPARATORS = re.compile(r"[/\\]+")
_DRIVES = re.compile(r"(?:.:)+", re.S)  # Windows takes any first character for a drive's letter
# Windows takes these names for devices in every folder, also with an extension.
_DEVICE = re.compile(
    r" *(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:[.:].*)?", re.I | re.S
)
_FORBIDDEN = re.compile(r'[:*?"<>|]')  # on Windows
_EXTENSIONS = re.compile(r"(?:\.[A-Za-z0-9]{1,4})?\.[^. ]{1,16}\Z")  # ".jpg", ".tar.gz"
_PARAMETER = re.compile(
    r"""; \s* ([^\s;="*]+\*?) \s*=\s* (?: "((?:[^"\\]|\\.)*)" | ([^;"]+) )""", re.X | re.S
)
_EXTENDED = re.compile(r"([A-Za-z0-9_-]+)'[A-Za-z0-9-]*'(.*)", re.S)


def plain_name(name: str) -> str:
    """The last part of a name or path, which stays inside every folder that it is joined to.

    Both kinds of separators and Windows drives count. Control characters, controls of bidirectional
    text and line separators become underscores, and a name that Windows reserves gets one in front.

    Returns:
        The name; "" if nothing is left, as of "" and "..".
    """
    parts = _SEPARATORS.split(name)
    last = next((part for part in reversed(parts) if part), "")
    drives = _DRIVES.match(last)
    if drives is not None:
        last = last[drives.end() :]
    last = INVISIBLE.sub("_", last)
    if not last.strip(" ."):
        return ""
    return f"_{last}" if _DEVICE.fullmatch(last) else last


def safe_file_name(name: str) -> str:
    """A name as `plain_name`, which can also be created on every operating system.

    It is not hidden, has at most 200 bytes in UTF-8, and keeps its extension.

    Returns:
        The name; "download" if nothing is left.
    """
    safe = plain_name(_FORBIDDEN.sub("_", plain_name(name)).strip(" ."))
    if len(safe.encode()) > _LONGEST:
        found = _EXTENSIONS.search(safe)
        extensions = "" if found is None else found[0]
        room = _LONGEST - len(extensions.encode())
        stem = safe.encode()[: len(safe.encode()) - len(extensions.encode())][:room]
        safe = stem.decode(errors="ignore").rstrip(" .") + extensions
    return safe.rstrip(" .") or "download"


def file_name_in(disposition: str) -> str:
    """The file name in a Content-Disposition header (RFC 6266), reduced to its last part; or "".

    `filename*` (RFC 8187) wins over `filename`, whose bytes are read as UTF-8 if they are.
    """
    plain = extended = ""
    for match in _PARAMETER.finditer(";" + disposition.partition(";")[2]):
        # Only these two are unescaped, because some servers send a Windows path with backslashes.
        quoted = re.sub(r'\\(["\\])', r"\1", match[2] or "")
        value = match[3].strip() if match[2] is None else quoted
        if match[1].lower() == "filename*":
            extended = extended or _decoded(value)
        elif match[1].lower() == "filename":
            plain = plain or _as_utf8(value)
    return plain_name(extended) or plain_name(plain)


def _decoded(value: str) -> str:
    """The text of an RFC 8187 value such as `UTF-8''na%C3%AFve.txt`; "" when it is not valid."""
    match = _EXTENDED.fullmatch(value)
    if match is None:
        return ""
    try:
        return urllib.parse.unquote_to_bytes(match[2]).decode(match[1])
    except (LookupError, ValueError):
        return ""


def _as_utf8(value: str) -> str:
    try:
        return value.encode("latin-1").decode()  # header bytes arrive as Latin-1
    except UnicodeError:
        return value


@contextlib.contextmanager
def reserved_path(folder: Path, name: str) -> Iterator[Path]:
    """Create an empty file with a safe form of `name`, or with a similar name if that one exists.

    The file reserves its name against other processes while the block fills or replaces it. It is
    removed if the block raises.

    Args:
        folder: an existing folder.
        name: the name that another user gave.

    Raises:
        OSError: the folder is not writable or full.
    """
    for candidate in _candidates(folder, safe_file_name(name)):
        try:
            candidate.touch(exist_ok=False)
        except FileExistsError:
            continue
        try:
            yield candidate
        except BaseException:
            candidate.unlink(missing_ok=True)
            raise
        return


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    path = Path(name)
    number = 1
    while True:
        yield folder / f"{path.stem} ({number}){path.suffix}"
        number += 1
