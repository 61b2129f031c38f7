"""The two directions of a connection through `FaultProxy`, and how each forwards its bytes."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

CHUNK = 64 * 1024
"""Bytes that are read from a socket at once."""

_BETWEEN_PIECES = 0.001  # seconds, in which the receiver may read the last one
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds


class EachWay(NamedTuple):
    """A byte offset in each direction of a connection; None means no such place."""

    sent: int | None = None
    received: int | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How bytes are forwarded, on all connections and in both directions.

    Attributes:
        delay: seconds from arrival to departure.
        gather: seconds between two departures; with 0 every arrival is forwarded by itself.
        piece: the most bytes that are forwarded at once.
    """

    delay: float = 0.0
    gather: float = 0.0
    piece: int | None = None

    def departure(self, now: float) -> float:
        """The time at which bytes that arrive now are forwarded."""
        at = now + self.delay
        return math.ceil(at / self.gather) * self.gather if self.gather else at


class Pipe:
    """One direction of a connection: bytes read from `source` and not yet written to `target`."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.limit: int | None = None
        self.damage_at: int | None = None
        self.cut_at: int | None = None
        self.passed = 0
        self._waiting = bytearray()
        self._departures: deque[tuple[float, int]] = deque()  # of _waiting: (time, bytes)
        self._rests_until = 0.0  # between pieces
        self._ended = False  # the source has sent its end
        self.finished = False  # and the target was shut down

    @property
    def wants_to_read(self) -> bool:
        return not self._ended and self._room() > 0

    @property
    def is_held(self) -> bool:
        """Whether its limit of forwarded bytes is reached."""
        return self.limit is not None and self.passed >= self.limit

    @property
    def is_cut(self) -> bool:
        """Whether the offset at which the connection must end was reached."""
        return self.cut_at is not None and self.passed >= self.cut_at

    def writes_at(self) -> float | None:
        """When the next bytes are due at the target; None when no bytes may be sent."""
        if self.finished or self.is_held:
            return None
        if self._departures:
            return max(self._departures[0][0], self._rests_until)
        return 0.0 if self._ended else None

    def hurry(self) -> None:
        """Make all waiting bytes due now."""
        self._departures = deque([(0.0, len(self._waiting))] if self._waiting else [])
        self._rests_until = 0.0

    def move(self, now: float, manner: Manner) -> int:
        """Read and write without blocking; returns the bytes written. Raises OSError."""
        if self.wants_to_read:
            with contextlib.suppress(BlockingIOError):
                data = self.source.recv(self._room())
                self._waiting += data
                if data:
                    self._departures.append((manner.departure(now), len(data)))
                self._ended = not data
        at = self.writes_at()
        return self._give(now, manner.piece) if at is not None and at <= now else 0

    def _give(self, now: float, piece: int | None) -> int:
        if not self._waiting:
            self.target.shutdown(socket.SHUT_WR)
            self.finished = True
            return 0
        size = sum(count for at, count in self._departures if at <= now)
        for stop in (self.limit, self.cut_at):
            if stop is not None:
                size = min(size, stop - self.passed)
        data = self._waiting[: size if piece is None else min(size, piece)]
        place = -1 if self.damage_at is None else self.damage_at - self.passed
        if 0 <= place < len(data):
            data[place] ^= 1
        given = 0
        with contextlib.suppress(BlockingIOError):
            given = self.target.send(data)
        self._forget(given)
        if piece is not None:
            self._rests_until = now + _BETWEEN_PIECES
        return given

    def _forget(self, given: int) -> None:
        self.passed += given
        del self._waiting[:given]
        while given:
            at, count = self._departures.popleft()
            if count > given:
                self._departures.appendleft((at, count - given))
            given -= min(count, given)

    def _room(self) -> int:
        room = CHUNK
        if self.limit is not None:
            room = min(room, self.limit - self.passed)
        return room - len(self._waiting)


class ProxiedConnection:
    """A client's socket, the server's, and the two pipes between them."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = (client, server)
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = Pipe(client, server)
        self.received = Pipe(server, client)
        self.pipes = (self.sent, self.received)

    def limit(self, limits: EachWay) -> None:
        self.sent.limit, self.received.limit = limits

    def reset(self) -> None:
        """Reset both sockets (RST)."""
        for sock in self.sockets:
            reset(sock)

    def close(self) -> None:
        """End both sockets (FIN), also with bytes under way."""
        for sock in self.sockets:
            with contextlib.suppress(OSError):  # it may be gone
                sock.shutdown(socket.SHUT_WR)
            sock.close()


def reset(sock: socket.socket) -> None:
    """Close the socket with a reset (RST) instead of an orderly end (FIN)."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()
