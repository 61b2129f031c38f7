"""The gateway's log: lines for people, or JSON objects for programs. No secret, nobody's words.

What happened is told by names, numbers and the ids of users, apps and channels. Texts, file names,
tokens and media ids are not logged, at any level.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TextIO

from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from ..rules.timing import Deadline
from ..supervision import BackgroundThread, supervised_thread
from .guard.connections import Addresses
from .guard.request_context import RequestContext, request_context

_WAITING_LIMIT = 10_000  # lines
_FLUSH_PATIENCE = 2.0  # seconds that a slow reader of the last lines gets

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

server_logger = logging.getLogger("rtm_sync.gateway.server")
"""What aiohttp's server says, but not of strangers' broken requests: it would repeat them, with
traces. The access log has their status."""

server_logger.addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
)

access_logger = logging.getLogger(__name__)


class _Writer(logging.Handler):
    """Writes from a thread of its own, which lives from `start` to `stop`.

    A reader that is slow, or a disk that hangs, must not hold the gateway up: what does not fit
    into the queue is dropped and counted.
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
        """Write what waits, within two seconds."""
        deadline = Deadline(_FLUSH_PATIENCE)
        try:
            self._waiting.put(None, timeout=_FLUSH_PATIENCE)
        except queue.Full:
            self._given_up.set()
        self._thread.join(deadline.left)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # a record that cannot be formatted must not harm who logged it
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
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                self._stream.write(line + "\n")
                self._stream.flush()


@contextlib.contextmanager
def logged(level: str, form: str, stream: TextIO = sys.stderr) -> Iterator[None]:
    """Write this process's log to a stream while the block runs.

    Args:
        level: "debug", "info", "warning" or "error"; of what other libraries say, warnings and
            errors.
        form: "text" or "json", an object a line.
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


def _formatter(form: str) -> logging.Formatter:
    formatter: logging.Formatter
    if form == "json":
        from pythonjsonlogger.json import JsonFormatter

        formatter = JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    return formatter


class RequestContextMiddleware:
    """A middleware that notes whose request it is, for all that asks `visit`."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    @web.middleware
    async def begin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request_context.set(
            RequestContext(self._addresses.of(request))
        )  # until `AccessLog` has told of it
        return await handler(request)


class AccessLog(AbstractAccessLogger):
    """A line for each HTTP request, and for each WebSocket when it ends.

    It names the route, never the path: a path may have a media id, or anything at all.
    """

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        present, route = request_context.get(None), "no route"
        request_context.set(None)
        if present is None:  # it was not even HTTP
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
