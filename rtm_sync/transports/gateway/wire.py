"""What websocket-client is given to read and mask frames faster."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator


class ReadAhead:
    """A socket whose small reads are served from one large one.

    websocket-client reads a frame's header, its length and its payload one by one, each a system
    call or two that lets go of the interpreter lock.
    """

    _SIZE = 64 * 1024

    def __init__(self, sock: socket.socket) -> None:
        self.plain = sock
        self._ahead = b""
        self._at = 0
        self.send = sock.send
        self.gettimeout = sock.gettimeout

    def recv(self, size: int) -> bytes:
        if self._at == len(self._ahead):
            self._ahead = self.plain.recv(self._SIZE)
            self._at = 0
        taken = self._ahead[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def __getattr__(self, name: str) -> object:
        return getattr(self.plain, name)


class _MaskKeys:
    """Masking keys (RFC 6455, section 5.3) from the system's randomness, fetched many at a time.

    Asking for four bytes at every frame is a system call that lets go of the interpreter lock just
    before the frame is sent: on the receiving side the handlers' thread then ran first, and the
    receipt was late by as much.
    """

    _POOL = 4096

    def __init__(self) -> None:
        self._keys: Iterator[bytes] = iter(())

    def __call__(self, size: int) -> bytes:
        while True:
            key = next(self._keys, None)  # one step of an iterator is atomic: no lock
            if key is not None:
                return key
            pool = os.urandom(self._POOL)
            self._keys = iter([pool[at : at + size] for at in range(0, self._POOL, size)])


mask_keys = _MaskKeys()
