"""The output of commands: results on standard output, everything else on standard error.

Each command has one `Output`, which prints for people or for programs. For programs each result is
a line of JSON on standard output, and each error is one on standard error.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import click

from ..errors import DownloadMediaError, LoginError, RtmError
from ..messages import RtmImageMessage, RtmMessage, RtmRawMessage, RtmTextMessage
from ..plugins.report import PluginDescription, PluginStatus
from ..printable import printable
from ..transfers.control import MediaOperationProgress, ProgressCallback

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_INTERVAL = 5.0  # seconds between progress lines of one transfer, without a terminal


class ExitCode(IntEnum):
    """The exit status of a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_EXIST = 5
    NOT_RECEIVED = 6
    INTERRUPTED = 130


def exit_code(error: RtmError) -> ExitCode:
    """The exit status for an error."""
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


def byte_count(size: float) -> str:
    """A number of bytes for people: "30,985 bytes", "4.2 MB"."""
    return f"{size:,.0f} bytes" if size < 100_000 else f"{size / 1_000_000:,.1f} MB"


def message_record(message: RtmMessage) -> dict[str, object]:
    """A message as a JSON object. Bytes are base64."""
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
"""The states of a plugin that are errors. A disabled plugin is not an error."""


def plugin_record(plugin: PluginDescription) -> dict[str, object]:
    """A plugin as a JSON object."""
    return asdict(plugin) | {"status": str(plugin.status), "hooks": list(plugin.hooks)}


class Output:
    """The output of one command. Thread-safe.

    Args:
        as_json: print JSON objects for programs, one on each line.
        quiet: print only results and errors.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self._lock = threading.Lock()  # one line at a time
        self._live: _TerminalBars | None = None  # progress bars above which lines are printed

    def result(self, record: Mapping[str, object], text: str) -> None:
        """Print a result: the record as JSON, or the text."""
        line = json.dumps(record) if self.as_json else text
        self._write(line, err=False)

    def note(self, text: str) -> None:
        """Print a line for people that is not a result."""
        if not (self._quiet or self.as_json):
            self._write(text, err=True)

    def error(self, error: Exception, subject: str = "") -> ExitCode:
        """Report an error.

        Args:
            error: the exception.
            subject: the path, id or receiver that the error is about, when there are several.

        Returns:
            The exit status for the error.
        """
        if isinstance(error.cause if isinstance(error, RtmError) else error, BrokenPipeError):
            # The reader of our output has closed the pipe, as `head` does. The interpreter flushes
            # standard output at its end, so give it another target.
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
        line = json.dumps({"error": details}) if self.as_json else f"Error: {text}"
        self._write(line, err=True)
        return code

    def bars(self) -> Bars:
        """The progress display for transfers: bars on a terminal, and lines elsewhere."""
        if self._quiet or self.as_json:
            return _NoBars()
        if not sys.stderr.isatty():
            return _LineBars(self.note)
        self._live = _TerminalBars()
        return self._live

    def _write(self, line: str, *, err: bool) -> None:
        stream = sys.stderr if err else sys.stdout
        with self._lock:
            if self._live is not None and self._live.print(line, stream.isatty()):
                return
            print(line, file=stream, flush=True)  # click.echo ignores the stream's encoding


class Bars(Protocol):
    """A display of the progress of several transfers, during a `with` block."""

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
        """The progress callback for another transfer; None to show nothing."""


class _NoBars:
    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def of(self, label: str) -> ProgressCallback | None:
        return None


class _TerminalBars:
    """One bar for each transfer, with rate and remaining time, removed at the end of the block."""

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
        """Print a line above the bars. Returns False when the line's stream shows no bars."""
        has_bars = is_terminal and self._bars.live.is_started
        if has_bars:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        return has_bars

    def of(self, label: str) -> ProgressCallback | None:
        task: TaskID | None = None

        def show(progress: MediaOperationProgress) -> None:
            nonlocal task
            done, total = progress.current_size, progress.total_size
            if task is None:  # only now, so that waiting transfers have no bar
                task = self._bars.add_task(printable(label), total=total)
            self._bars.update(task, completed=done, refresh=done == total)
            if done == total:
                self._bars.remove_task(task)

        return show


class _LineBars:
    """A line every five seconds for each transfer, for logs, pipes and build servers."""

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
        started = reported = self._clock()

        def show(progress: MediaOperationProgress) -> None:
            nonlocal reported
            now = self._clock()
            if now - reported < _LINE_INTERVAL:
                return
            reported = now
            done, total = progress.current_size, progress.total_size
            rate = done / (now - started)
            left = (total - done) / rate if rate else 0.0
            self._write(
                f"{printable(label)}: {byte_count(done)} of {byte_count(total)}, "
                f"{byte_count(rate)}/s, {left:.0f} s left"
            )

        return show
