"""What commands print: results on standard output, everything else on standard error.

One `Output` for a command knows whether people or programs read it. As JSON, every result is one
line on standard output and every error one on standard error.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import click

from ..errors import DownloadMediaError, LoginError, RtmError
from ..messages import RtmImageMessage, RtmMessage, RtmRawMessage, RtmTextMessage
from ..plugins.report import PluginDescription, PluginStatus
from ..transfers.control import MediaOperationProgress, ProgressCallback

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_INTERVAL = 5.0  # seconds between two progress lines of one transfer, without a terminal
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_EXIST = 5
    NOT_RECEIVED = 6
    INTERRUPTED = 130


def exit_code(error: RtmError) -> ExitCode:
    """Which status tells of this error."""
    if error.reason == "INVALID_ARGUMENT":
        return ExitCode.USAGE
    if error.reason == "TIMEOUT":
        return ExitCode.UNREACHABLE
    if isinstance(error, LoginError):
        unreachable = error.reason in ("UNKNOWN", "TOO_OFTEN")
        return ExitCode.UNREACHABLE if unreachable else ExitCode.REFUSED
    if isinstance(error, DownloadMediaError) and error.reason == "NOT_EXIST":
        return ExitCode.NOT_EXIST
    return ExitCode.FAILED


def printable(text: str) -> str:
    """A stranger's text on one line, without what would command a terminal or turn its writing."""
    return "".join(
        repr(char)[1:-1]
        if char in _BIDI or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        else char
        for char in text
    )


def byte_count(size: float) -> str:
    """Bytes for people: "30,985 bytes", "4.2 MB"."""
    return f"{size:,.0f} bytes" if size < 100_000 else f"{size / 1_000_000:,.1f} MB"


def message_record(message: RtmMessage) -> dict[str, object]:
    """A message as JSON has it; bytes are base64."""
    record: dict[str, object] = {"type": str(message.message_type)}
    if isinstance(message, RtmTextMessage):
        record["text"] = message.text
    elif isinstance(message, RtmRawMessage):
        record["raw"] = base64.b64encode(message.raw_message).decode()
    else:
        record |= {
            "media_id": message.media_id,
            "file_name": message.file_name,
            "size": message.size,
            "expires_at": message.expires_at,
        }
        if isinstance(message, RtmImageMessage):
            record |= {"width": message.width, "height": message.height}
        if message.thumbnail:
            record["thumbnail"] = base64.b64encode(message.thumbnail).decode()
    return record | {"description": message.description}


def message_line(message: RtmMessage) -> str:
    """A message for people, on one line."""
    if isinstance(message, RtmTextMessage):
        text = message.text
    elif isinstance(message, RtmRawMessage):
        text = f"RAW {byte_count(len(message.raw_message))}"
    else:
        text = f"{message.message_type} {message.file_name or 'without a name'}"
        if message.size:
            text += f", {byte_count(message.size)}"
        if isinstance(message, RtmImageMessage) and message.width:
            text += f", {message.width} × {message.height}"
        text += f", {message.media_id}"
    return printable(text + (f" ({message.description})" if message.description else ""))


FAILED_PLUGINS = (PluginStatus.FAILED, PluginStatus.INCOMPATIBLE)
"""What is wrong; a plugin that is switched off is as somebody wants it."""


def plugin_record(plugin: PluginDescription) -> dict[str, object]:
    """A plugin as JSON has it."""
    return asdict(plugin) | {"status": str(plugin.status), "hooks": list(plugin.hooks)}


class Output:
    """What one command has to say. Thread-safe.

    Args:
        as_json: for programs: one JSON object a line.
        quiet: results and errors only.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self._lock = threading.Lock()  # one line at a time
        self._live: _TerminalBars | None = None  # bars that a line must not run into

    def result(self, record: Mapping[str, object], text: str) -> None:
        """Print a result: the record as JSON, or the text."""
        line = json.dumps(record) if self.as_json else text
        self._write(line, err=False)

    def note(self, text: str) -> None:
        """Tell people something that is no result."""
        if not (self._quiet or self.as_json):
            self._complain(text)

    def error(self, error: Exception, subject: str = "") -> ExitCode:
        """Report an error and return its exit status.

        Args:
            subject: which of several things it is about.
        """
        if isinstance(error.cause if isinstance(error, RtmError) else error, BrokenPipeError):
            # Whoever read our output has left, as `head` does. What is still to be flushed when the
            # interpreter ends has to go somewhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.FAILED
        code, text = ExitCode.FAILED, str(error)
        details: dict[str, object] = {"type": type(error).__name__, "message": text}
        if isinstance(error, RtmError):
            code = exit_code(error)
            details |= {"code": int(error.code), "name": error.code.name, "message": error.message}
        elif isinstance(error, click.ClickException):
            code = ExitCode(error.exit_code)
            text = details["message"] = error.format_message()
        if subject:
            details["subject"] = subject
            text = f"{subject}: {text}"
        details["exit_code"] = int(code)
        self._complain(json.dumps({"error": details}) if self.as_json else f"Error: {text}")
        return code

    def bars(self) -> Bars:
        """Progress of transfers: bars on a terminal, a line now and then elsewhere."""
        if self._quiet or self.as_json:
            return _NoBars()
        if not sys.stderr.isatty():
            return _LineBars(self.note)
        self._live = _TerminalBars()
        return self._live

    def _complain(self, text: str) -> None:
        self._write(text, err=True)

    def _write(self, line: str, *, err: bool) -> None:
        stream = sys.stderr if err else sys.stdout
        with self._lock:
            if self._live is not None and self._live.print(line, stream.isatty()):
                return
            print(line, file=stream, flush=True)  # click's own would ignore the stream's encoding


class Bars(Protocol):
    """Progress of several transfers, while its `with` block runs."""

    def __enter__(self) -> Bars:
        """Start showing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop showing."""

    def of(self, label: str) -> ProgressCallback | None:
        """The progress callback of one more transfer."""


class _NoBars:
    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def of(self, label: str) -> ProgressCallback | None:
        return None


class _TerminalBars:
    """A bar a transfer, with rate and remaining time; gone when the block ends."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def print(self, line: str, is_terminal: bool) -> bool:
        """Write a line of the same terminal above the bars; False when there are none on it."""
        is_ours = is_terminal and self._bars.live.is_started
        if is_ours:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        return is_ours

    def of(self, label: str) -> ProgressCallback | None:
        task: TaskID | None = None

        def show(progress: MediaOperationProgress) -> None:
            nonlocal task
            done, total = progress.current_size, progress.total_size
            if task is None:  # what waits for its turn takes no room on the screen
                task = self._bars.add_task(printable(label), total=total)
            self._bars.update(task, completed=done, refresh=done == total)
            if done == total:
                self._bars.remove_task(task)

        return show


class _LineBars:
    """A line every five seconds a transfer: a log, a pipe and a build server can show those."""

    def __init__(
        self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def of(self, label: str) -> ProgressCallback | None:
        started = told = self._clock()

        def show(progress: MediaOperationProgress) -> None:
            nonlocal told
            now = self._clock()
            if now - told < _LINE_INTERVAL:
                return
            told = now
            done, total = progress.current_size, progress.total_size
            rate = done / (now - started)
            left = (total - done) / rate if rate else 0.0
            self._write(
                f"{printable(label)}: {byte_count(done)} of {byte_count(total)}, "
                f"{byte_count(rate)}/s, {left:.0f} s left"
            )

        return show
