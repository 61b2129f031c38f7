"""What a web server knows of a long response, and WSGI has no word for."""

from __future__ import annotations

import _socket
import contextlib
import os
import signal
import socket
from collections.abc import Mapping

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class ClientDisconnectProbe:
    """One request's connection and worker. One thread at a time.

    A browser that has left is otherwise noticed with the next bytes, and its thread is taken until
    then; a worker that is told to stop would wait for its streams, and be killed with them. Windows
    cannot be asked whether a browser has left.

    Args:
        environ: the request's WSGI environment.
    """

    def __init__(self, environ: Mapping[str, object]) -> None:
        self._copy: _socket.socket | None = None
        found = next((environ[name] for name in _SOCKETS if name in environ), None)
        # TLS has nothing that could be looked at without reading it.
        if found is not None and hasattr(socket, "MSG_DONTWAIT") and not hasattr(found, "cipher"):
            # A bare socket: Python's would wait for its time-out, and gevent's for a byte.
            with contextlib.suppress(OSError):
                self._copy = _socket.socket(fileno=os.dup(found.fileno()))  # type: ignore[attr-defined]

    def is_over(self) -> bool:
        """Whether the browser has left, or the worker is to stop. Never blocks."""
        return self._has_left() or _worker_is_stopping()

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()

    def _has_left(self) -> bool:
        if self._copy is None:
            return False
        try:
            return self._copy.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False  # silent, as it should be
        except OSError:
            return True


def _worker_is_stopping() -> bool:
    """Gunicorn's workers handle SIGTERM with a method, and note it in their `alive`."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(worker, "alive", True) is False
