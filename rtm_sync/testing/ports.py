"""Ports on loopback that stay ours while nobody listens on them."""

from __future__ import annotations

import contextlib
import random
import socket

_FIRST, _LAST = 18_000, 30_000
_TRIES = 200


def free_port() -> int:
    """A port on which nobody listens, and which the system gives to no client.

    A server that is down for a while keeps clients trying. Were its port one of those that the
    system hands to clients, one of them would some day get it as its own, be connected to itself,
    and keep the server from coming back.

    Raises:
        OSError: no port is free.
    """
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"{_TRIES} ports between {_FIRST} and {_LAST} were tried; all are in use.")
