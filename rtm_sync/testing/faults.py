"""A network that fails on demand: a TCP proxy on loopback for tests of what must survive it."""

from __future__ import annotations

import contextlib
import math
import random
import selectors
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

from ..supervision import BackgroundThread, start_thread
from .ports import free_port

_CHUNK = 64 * 1024
_BUFFER = 64 * 1024  # of the kernel; megabytes in it would hide from a sender that it is stalled
_CONNECT_TIMEOUT = 5.0
_BETWEEN_PIECES = 0.001  # seconds, in which the receiver may read the last one
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds


TRUE_FAULTS = (
    "hang_up",
    "drop",
    "stall",
    "refuse",
    "delay",
    "slow_down",
    "split",
    "coalesce",
    "truncate",
)
"""What a network may do to a connection without changing its bytes: all but `damage`."""


class _EachWay(NamedTuple):
    """A place in what a connection carries, counted in bytes; None is nowhere."""

    sent: int | None = None
    received: int | None = None


@dataclass(frozen=True, slots=True)
class _Manner:
    """How bytes are forwarded, on all connections and both ways.

    Attributes:
        delay: seconds from arrival to departure.
        gather: seconds between two departures; 0 lets each arrival leave by itself.
        piece: bytes that leave at once at most.
    """

    delay: float = 0.0
    gather: float = 0.0
    piece: int | None = None

    def departure(self, now: float) -> float:
        """When leaves what arrives now."""
        at = now + self.delay
        return math.ceil(at / self.gather) * self.gather if self.gather else at


class _Pipe:
    """One direction of a connection: what `source` said, until `target` has taken it."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.limit: int | None = None
        self.damage_at: int | None = None
        self.cut_at: int | None = None
        self.passed = 0
        self._waiting = bytearray()
        self._departures: deque[tuple[float, int]] = deque()  # of _waiting: when, how many bytes
        self._rests_until = 0.0  # between pieces
        self._ended = False  # the source will say no more
        self.finished = False  # and the target knows

    @property
    def wants_to_read(self) -> bool:
        return not self._ended and self._room() > 0

    @property
    def is_held(self) -> bool:
        """Whether it has forwarded all that it may."""
        return self.limit is not None and self.passed >= self.limit

    @property
    def is_cut(self) -> bool:
        """Whether the connection is to end here."""
        return self.cut_at is not None and self.passed >= self.cut_at

    def writes_at(self) -> float | None:
        """When it has something to give to the target; None for not before it is told more."""
        if self.finished or self.is_held:
            return None
        if self._departures:
            return max(self._departures[0][0], self._rests_until)
        return 0.0 if self._ended else None

    def hurry(self) -> None:
        """What waits for its time leaves now."""
        self._departures = deque([(0.0, len(self._waiting))] if self._waiting else [])
        self._rests_until = 0.0

    def move(self, now: float, manner: _Manner) -> int:
        """Take what there is and give what fits; returns how much was given. Raises OSError."""
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
        room = _CHUNK
        if self.limit is not None:
            room = min(room, self.limit - self.passed)
        return room - len(self._waiting)


class _Connection:
    """A client's socket, the server's, and the two pipes between them."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = (client, server)
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = _Pipe(client, server)
        self.received = _Pipe(server, client)
        self.pipes = (self.sent, self.received)

    def limit(self, limits: _EachWay) -> None:
        self.sent.limit, self.received.limit = limits

    def reset(self) -> None:
        """Vanish without a goodbye."""
        for sock in self.sockets:
            _reset(sock)

    def close(self) -> None:
        """Say goodbye to both ends, whatever they still have to say."""
        for sock in self.sockets:
            with contextlib.suppress(OSError):  # it may be gone
                sock.shutdown(socket.SHUT_WR)
            sock.close()


@dataclass(frozen=True, slots=True)
class FaultStep:
    """One line of a script for `FaultProxy.play`: make this fault, then wait.

    Attributes:
        fault: the name of the proxy's method: "drop", "stall", "restore", …
        seconds: until the next step.
        options: the method's arguments by name.
    """

    fault: str
    seconds: float
    options: Mapping[str, float] = field(default_factory=dict)


def random_faults(
    seed: int,
    *,
    faults: Iterable[str] = TRUE_FAULTS,
    every: float = 0.3,
) -> Iterator[FaultStep]:
    """An endless script of faults, each followed by `restore`; the same for the same arguments.

    Args:
        seed: chooses faults, their options and their times.
        faults: names of the proxy's methods to choose from.
        every: seconds from one fault to the next, on average.
    """
    chance = random.Random(seed)
    chosen = sorted(set(faults))
    while True:
        fault = chance.choice(chosen)
        yield FaultStep(fault, chance.uniform(0, every), _options(fault, chance))
        yield FaultStep("restore", chance.uniform(0, every))


def _options(fault: str, chance: random.Random) -> dict[str, float]:
    if fault == "delay":
        return {"seconds": round(chance.uniform(0.001, 0.1), 4)}
    if fault == "coalesce":
        return {"seconds": round(chance.uniform(0.001, 0.05), 4)}
    if fault == "split":
        return {"size": chance.randint(1, 200)}
    if fault == "slow_down":
        return {"bytes_per_second": chance.randint(20_000, 1_000_000)}
    if fault in ("truncate", "damage"):
        return {chance.choice(["sent", "received"]): chance.randint(0, 100_000)}
    return {}


class FaultProxy:
    """Stands between clients and a server on this machine, and fails as it is told.

        with local_gateway() as gateway, FaultProxy(gateway) as proxy:
            client = RtmClient("app", url=proxy.url)
            …
            proxy.drop()

    It forwards faithfully until it is told otherwise; what a method says has happened when it
    returns, and `restore` undoes it. Owns one thread, "rtm-sync-fault-proxy", in the
    `with` block. Thread-safe.

    Args:
        url: the server's, of any scheme: `ws://127.0.0.1:8765`.

    Attributes:
        url: the same with the proxy's own address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"url must have a host and a port, not be {url!r}.")
        self._server = (parts.hostname, parts.port)
        self._port = free_port()
        self._listener: socket.socket | None = _listening(self._port)
        self.url = parts._replace(netloc=f"127.0.0.1:{self._port}").geturl()
        self._lock = threading.Lock()  # guards all below, and every socket while it is used
        self._connections: list[_Connection] = []
        self._limits = _EachWay()  # of connections to come
        self._rate: float | None = None
        self._manner = _Manner()
        self._damage = _EachWay()  # places in connections to come
        self._cut = _EachWay()  # the same
        self._accepted = self._bytes_sent = self._bytes_received = 0
        self._ending = threading.Event()
        self._wakes, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._thread = BackgroundThread("rtm-sync-fault-proxy", self._run)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changing():
            self._ending.set()
            self._refuse()
        self._thread.join()
        self.drop()
        self._wakes.close()
        self._woken.close()

    # -- what it has seen --

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return self._accepted

    @property
    def bytes_sent(self) -> int:
        """Bytes that the server's side took from all clients so far."""
        return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that the clients' side took from the server so far."""
        return self._bytes_received

    @property
    def held(self) -> int:
        """Open connections that are stalled because a limit above 0 was reached, either way."""
        with self._lock:
            return sum(
                any(pipe.limit and pipe.is_held for pipe in connection.pipes)
                for connection in self._connections
            )

    # -- what it does --

    def stall(
        self, *, sent: int | None = None, received: int | None = None, only_new: bool = False
    ) -> None:
        """Keep connections open (half-open), and connectable, but forward no more than given.

        Args:
            sent: only this direction, to the server, stalls, and after so many bytes of each
                connection, counted from its beginning.
            received: the same for the way back; both may be given.
            only_new: leave the present connections alone.
        """
        if sent is received is None:
            sent = received = 0
        with self._changing():
            self._limits = _EachWay(sent, received)
            if not only_new:
                for connection in self._connections:
                    connection.limit(self._limits)

    def drop(self) -> None:
        """Reset all present connections (RST); new ones are served."""
        with self._changing():
            while self._connections:
                self._connections.pop().reset()

    def hang_up(self) -> None:
        """End all present connections with a goodbye (FIN) both ways; new ones are served."""
        with self._changing():
            while self._connections:
                self._connections.pop().close()

    def refuse(self) -> None:
        """Refuse new connections; present ones stay."""
        with self._changing():
            self._refuse()

    def slow_down(self, bytes_per_second: float) -> None:
        """Forward no faster than that, all connections and directions together."""
        with self._changing():
            self._rate = bytes_per_second

    def delay(self, seconds: float) -> None:
        """Forward what arrives from now on so much later; at most 64 KB of it wait at a time."""
        with self._changing():
            self._manner = replace(self._manner, delay=seconds)

    def split(self, size: int) -> None:
        """Forward in pieces of at most `size` bytes, each in a packet of its own, 1 ms apart."""
        with self._changing():
            self._manner = replace(self._manner, piece=size)

    def coalesce(self, seconds: float) -> None:
        """Forward what arrives within so many seconds in one piece, at their end."""
        with self._changing():
            self._manner = replace(self._manner, gather=seconds)

    def truncate(self, *, sent: int | None = None, received: int | None = None) -> None:
        """End each connection that begins from now on, with a goodbye, after so many bytes of it.

        Args:
            sent, received: bytes to the server and from it; whichever is reached first.
        """
        with self._changing():
            self._cut = _EachWay(sent, received)

    def damage(self, *, sent: int | None = None, received: int | None = None) -> None:
        """Flip one bit of the byte at that place of each connection that begins from now on."""
        with self._changing():
            self._damage = _EachWay(sent, received)

    def restore(self) -> None:
        """Forward everything at full speed, what was held up as well, and accept connections."""
        with self._changing():
            self._limits = self._damage = self._cut = _EachWay()
            self._rate = None
            self._manner = _Manner()
            for connection in self._connections:
                connection.limit(self._limits)
                for pipe in connection.pipes:
                    pipe.cut_at = None
                    pipe.hurry()
            if self._listener is None:
                self._listener = _listening(self._port)

    @contextlib.contextmanager
    def play(self, script: Iterable[FaultStep]) -> Iterator[Counter[str]]:
        """In the block, make the script's faults, step by step; then `restore`.

        The block may end before the script, and the script before the block. Owns one thread,
        "rtm-sync-fault-script", in the block.

        Yields:
            How often each fault was made so far, by name.

        Raises:
            Exception: at the block's end, what a step raised; the script ended there.
        """
        made: Counter[str] = Counter()
        failed: list[Exception] = []
        over = threading.Event()

        def run() -> None:
            try:
                for step in script:
                    getattr(self, step.fault)(**step.options)
                    made[step.fault] += 1
                    if over.wait(step.seconds):
                        return
            except Exception as error:  # the script is somebody else's
                failed.append(error)

        thread = start_thread("rtm-sync-fault-script", run)
        try:
            yield made
        finally:
            over.set()
            thread.join()
            self.restore()
        if failed:
            raise failed[0]

    # -- inside --

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            yield
        self._wakes.send(b"!")

    def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._ending.is_set():
                    return
                listener = self._listener
                selector, due = self._selector(listener, time.monotonic())
            with selector:
                ready = [key.data for key, _ in selector.select(due)]
            with self._lock:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(_CHUNK)
                before = self._bytes_sent + self._bytes_received
                for connection in self._connections.copy():
                    if connection in ready:
                        self._forward(connection)
                moved = self._bytes_sent + self._bytes_received - before
                pause = moved / self._rate if self._rate else 0.0
            if listener is not None and listener in ready:
                self._accept(listener)
            if pause:
                self._ending.wait(pause)

    def _selector(
        self, listener: socket.socket | None, now: float
    ) -> tuple[selectors.BaseSelector, float | None]:
        """Waits for what can be done now; a socket of which nothing is wanted is not in it.

        And in how many seconds there is more that can be done, if there is.
        """
        selector = selectors.DefaultSelector()
        selector.register(self._woken, selectors.EVENT_READ)
        if listener is not None:
            selector.register(listener, selectors.EVENT_READ, listener)
        later: list[float] = []
        for connection in self._connections:
            writes = [(pipe, pipe.writes_at()) for pipe in connection.pipes]
            later += [at for _, at in writes if at is not None and at > now]
            for sock in connection.sockets:
                events = 0
                for pipe, at in writes:
                    if pipe.source is sock and pipe.wants_to_read:
                        events |= selectors.EVENT_READ
                    if pipe.target is sock and at is not None and at <= now:
                        events |= selectors.EVENT_WRITE
                if events:
                    selector.register(sock, events, connection)
        return selector, min(later) - now if later else None

    def _forward(self, connection: _Connection) -> None:
        """Move what can be moved (the lock is held)."""
        sent, received = connection.pipes
        now = time.monotonic()
        try:
            self._bytes_sent += sent.move(now, self._manner)
            self._bytes_received += received.move(now, self._manner)
        except OSError:
            connection.reset()
        else:
            is_over = sent.finished and received.finished
            if not (is_over or sent.is_cut or received.is_cut):
                return
            connection.close()
        self._connections.remove(connection)

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection. Connecting to the server may block, so the lock is not held."""
        try:
            client, _ = listener.accept()
        except OSError:  # refused in the meantime
            return
        try:
            server = socket.create_connection(self._server, _CONNECT_TIMEOUT)
        except OSError:
            _reset(client)
            return
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        connection = _Connection(client, server)
        with self._lock:
            if self._listener is not listener:
                connection.reset()
                return
            self._accepted += 1
            connection.limit(self._limits)
            for pipe, damage_at, cut_at in zip(
                connection.pipes, self._damage, self._cut, strict=True
            ):
                pipe.damage_at, pipe.cut_at = damage_at, cut_at
            self._connections.append(connection)


def _listening(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # of what it accepts, too
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    sock.setblocking(False)
    return sock


def _reset(sock: socket.socket) -> None:
    """Close, and send a reset instead of a goodbye."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()
