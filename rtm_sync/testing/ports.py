"""Ports on loopback that the system does not give to clients."""

from __future__ import annotations

import contextlib
import random
import socket

_FIRST, _LAST = 18_000, 30_000
_TRIES = 200


def free_port() -> int:
    """A free port outside the range that the system gives to clients.

    Clients keep trying to connect while a server is down. If the server's port were in the range
    of the system's ephemeral ports, a client could get it as its own port and connect to itself.
    The server could then not listen on the port again.

    Raises:
        OSError: no port is free.
    """
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"{_TRIES} ports between {_FIRST} and {_LAST} were tried; all are in use.")
