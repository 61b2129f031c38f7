"""Whether a long response must end: WSGI cannot say that the browser or the worker is gone."""

from __future__ import annotations

import _socket
import contextlib
import os
import signal
import socket
from collections.abc import Mapping

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class ClientDisconnectProbe:
    """Probes the connection and the worker of one request, in a `with` block. Not thread-safe.

    Without it, a closed connection is found only when the next bytes are sent, and the stream
    occupies a thread until then. A worker that must stop would wait for its streams and be killed.
    On Windows a closed connection cannot be found this way.

    Args:
        environ: the request's WSGI environment.
    """

    def __init__(self, environ: Mapping[str, object]) -> None:
        self._environ = environ
        self._copy: _socket.socket | None = None

    def __enter__(self) -> ClientDisconnectProbe:
        found = next((self._environ[name] for name in _SOCKETS if name in self._environ), None)
        # A TLS connection cannot be peeked at: decrypting takes the bytes.
        if found is not None and hasattr(socket, "MSG_DONTWAIT") and not hasattr(found, "cipher"):
            # The C socket, because Python's waits for its timeout, and gevent's for a byte.
            with contextlib.suppress(OSError):
                self._copy = _socket.socket(fileno=os.dup(found.fileno()))  # type: ignore[attr-defined]
        return self

    def __exit__(self, *exc: object) -> None:
        if self._copy is not None:
            self._copy.close()

    def is_over(self) -> bool:
        """Whether the browser has disconnected or the worker is stopping. Never blocks."""
        return self._is_disconnected() or _worker_is_stopping()

    def _is_disconnected(self) -> bool:
        if self._copy is None:
            return False
        try:
            return self._copy.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False  # connected, and nothing to read
        except OSError:
            return True


def _worker_is_stopping() -> bool:
    """Whether a gunicorn worker got SIGTERM: the signal handler is a method of the worker."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(worker, "alive", True) is False
