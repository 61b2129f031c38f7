"""The gateway's log: lines for people, or JSON objects for programs.

A line has names, numbers and the ids of users, apps and channels. Message texts, file names,
tokens and media ids are never logged. Whatever a stranger sends, it fakes no line: a record is one
line of at most 2,000 characters, and the lines of a traceback are indented.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from ..printable import printable
from ..rules.timing import Deadline
from ..supervision import BackgroundThread, supervised_thread
from .guard.request_context import RequestContext, request_context

_BROKEN_REQUEST = (HttpProcessingError, web.RequestPayloadError)
_WAITING_LIMIT = 10_000  # lines
_FLUSH_PATIENCE = 2.0  # seconds to write the last lines to a slow reader
_MESSAGE_LIMIT = 2000  # characters of a message, and of each value beside it
_TRACEBACK_LIMIT = 16_000  # characters
# A random id of 32 characters has small and capital letters; other ids of this length have not.
_MEDIA_ID = re.compile(r"(?<![\w-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{32}(?![\w-])", re.ASCII)

server_logger = logging.getLogger("rtm_sync.gateway.server")
"""The logger of aiohttp's server, without its records of broken requests: they repeat the request's
bytes, with a traceback. The access log has the status of these requests."""

server_logger.addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], _BROKEN_REQUEST))
)

access_logger = logging.getLogger(__name__)


class _Writer(logging.Handler):
    """Writes lines from a thread of its own, which runs from `start` to `stop`.

    A slow reader of the log, or a disk that hangs, must not block the gateway. Lines that do not
    fit into the queue are dropped and counted.

    `logging.handlers.QueueHandler` with a `QueueListener` is no substitute. On CPython 3.11 a call
    takes 90 µs for a line of text and 278 µs for one of JSON, with this class 64 and 144 µs: they
    copy the record and format its message twice. When the reader of the log is stuck,
    `QueueListener.stop` raises `queue.Full` if the queue is full, and else never returns (3.11 and
    3.13). Dropped lines are not counted; each is printed with a traceback.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(_WAITING_LIMIT)
        self._dropped = 0
        self._given_up = threading.Event()
        self._thread = BackgroundThread(
            "rtm-sync-log", lambda: supervised_thread("log", self._write, self._given_up)
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write the waiting lines, for two seconds at most, and end the thread."""
        deadline = Deadline(_FLUSH_PATIENCE)
        try:
            self._waiting.put(None, timeout=_FLUSH_PATIENCE)
        except queue.Full:
            self._given_up.set()
        self._thread.join(deadline.left)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # an error of formatting must not reach the caller
            self.handleError(record)
            return
        try:
            if self._dropped:
                self._waiting.put_nowait(f"… {self._dropped:,} lines were dropped: slow reader")
                self._dropped = 0
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while not self._given_up.is_set() and (line := self._waiting.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # the reader is gone
                self._stream.write(line + "\n")
                self._stream.flush()


@contextlib.contextmanager
def logged(level: str, form: str, stream: TextIO = sys.stderr) -> Iterator[None]:
    """Write this process's log to a stream while the block runs.

    Args:
        level: "debug", "info", "warning" or "error"; other libraries' records are written from
            "warning" up.
        form: "text", or "json" for one object a line.
    """
    writer = _Writer(stream)
    writer.setFormatter(_formatter(form))
    root, ours = logging.getLogger(), logging.getLogger("rtm_sync")
    before = ours.level
    writer.start()
    ours.setLevel(level.upper())
    root.addHandler(writer)
    try:
        yield
    finally:
        root.removeHandler(writer)
        ours.setLevel(before)
        writer.stop()


def _bounded(text: str, limit: int) -> str:
    """A text with a name for each media id, cut to a number of characters."""
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit:,} characters more)"
    return _MEDIA_ID.sub(_name_of_medium, text)


def _name_of_medium(found: re.Match[str]) -> str:
    """A name by which lines about one medium can be found, and from which the id does not follow.

    An id that is known opens the medium to every user of the app.
    """
    return f"medium-{hashlib.sha256(found[0].encode()).hexdigest()[:8]}"


class _TextFormatter(logging.Formatter):
    """One line for each record, and indented ones for its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        record.message = printable(_bounded(record.message, _MESSAGE_LIMIT))
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        head, *traceback = super().format(record).split("\n")
        if not traceback:
            return head
        lines = _bounded("\n".join(traceback), _TRACEBACK_LIMIT).split("\n")
        return "\n".join([head, *(f"    {printable(line)}" for line in lines)])


def _formatter(form: str) -> logging.Formatter:
    formatter: logging.Formatter
    if form == "json":
        from pythonjsonlogger.json import JsonFormatter

        class BoundedJsonFormatter(JsonFormatter):
            """One object for each record. JSON has escapes for all that could fake a line."""

            def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
                return {
                    name: _bounded(
                        value, _TRACEBACK_LIMIT if name == "exc_info" else _MESSAGE_LIMIT
                    )
                    if isinstance(value, str)
                    else value
                    for name, value in log_data.items()
                }

        formatter = BoundedJsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    else:
        formatter = _TextFormatter("%(asctime)s %(levelname)-7s %(message)s")
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    return formatter


class AccessLog(AbstractAccessLogger):
    """Logs a line for each HTTP request, and for each WebSocket when it ends.

    The line has the route, never the path: a path may have a media id or a secret.
    """

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        present, route = request_context.get(None), "no route"
        request_context.set(None)
        if present is None:  # the request was not valid HTTP
            present = RequestContext(request.remote or "")
        elif isinstance(request, web.Request) and request.match_info.route.resource is not None:
            route = request.match_info.route.resource.canonical
        method = request.method if request.method in hdrs.METH_ALL else "?"
        sent = max(0, response.body_length)
        self.logger.info(
            "%s %s@%s %s %s %d, %s bytes in %.0f ms",
            present.address or "-",
            present.uid or "-",
            present.app_id or "-",
            method,
            route,
            response.status,
            f"{sent:,}",
            1000 * time,
            extra={
                "event": "request",
                "address": present.address,
                "app_id": present.app_id,
                "uid": present.uid,
                "method": method,
                "route": route,
                "status": response.status,
                "bytes": sent,
                "seconds": round(time, 4),
            },
        )
