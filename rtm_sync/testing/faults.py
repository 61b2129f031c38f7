"""A network that fails on demand: a TCP proxy on loopback, for tests of reconnecting code."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from urllib.parse import urlsplit

from ..supervision import BackgroundThread, start_thread
from ..transports.gateway.proxy_settings import without_credentials
from .fault_pipes import CHUNK, EachWay, Manner, ProxiedConnection, reset
from .ports import free_port

_BUFFER = 64 * 1024  # of the kernel; with megabytes in it, a stalled sender would not notice
_CONNECT_TIMEOUT = 5.0


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
"""The faults of a network that change no bytes: all but `damage`."""


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
    """A TCP proxy between clients and a server on this machine, which makes faults on demand.

        with local_gateway() as gateway, FaultProxy(gateway) as proxy:
            client = RtmClient("app", url=proxy.url)
            …
            proxy.drop()

    It forwards every byte until a method makes a fault. The fault is in effect when the method
    returns, and `restore` ends it. Owns one thread, "rtm-sync-fault-proxy", in the `with`
    block. Thread-safe.

    Args:
        url: the server's, of any scheme: `ws://127.0.0.1:8765`.

    Attributes:
        url: the same with the proxy's own address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(
                f"url must have a host and a port, not be {without_credentials(url)!r}."
            )
        self._server = (parts.hostname, parts.port)
        self._port = free_port()
        self._listener: socket.socket | None = _listening(self._port)
        self.url = parts._replace(netloc=f"127.0.0.1:{self._port}").geturl()
        self._lock = threading.Lock()  # guards all below, and every socket while it is used
        self._connections: list[ProxiedConnection] = []
        self._limits = EachWay()  # of connections to come
        self._rate: float | None = None
        self._manner = Manner()
        self._damage = EachWay()  # places in connections to come
        self._cut = EachWay()  # the same
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

    # -- figures --

    @property
    def accepted(self) -> int:
        """Connections so far."""
        with self._lock:
            return self._accepted

    @property
    def bytes_sent(self) -> int:
        """Bytes forwarded from the clients to the server so far."""
        with self._lock:  # forwarded bytes are counted before it is released
            return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes forwarded from the server to the clients so far."""
        with self._lock:  # forwarded bytes are counted before it is released
            return self._bytes_received

    @property
    def held(self) -> int:
        """Open connections that are stalled because a limit above 0 was reached, either way."""
        with self._lock:
            return sum(
                any(pipe.limit and pipe.is_held for pipe in connection.pipes)
                for connection in self._connections
            )

    # -- faults --

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
            self._limits = EachWay(sent, received)
            if not only_new:
                for connection in self._connections:
                    connection.limit(self._limits)

    def drop(self) -> None:
        """Reset all present connections (RST); new ones are served."""
        with self._changing():
            while self._connections:
                self._connections.pop().reset()

    def hang_up(self) -> None:
        """End all present connections (FIN) both ways; new ones are served."""
        with self._changing():
            while self._connections:
                self._connections.pop().close()

    def refuse(self) -> None:
        """Refuse new connections; present ones stay."""
        with self._changing():
            self._refuse()

    def slow_down(self, bytes_per_second: float) -> None:
        """Limit the rate of all connections and directions together."""
        with self._changing():
            self._rate = bytes_per_second

    def delay(self, seconds: float) -> None:
        """Forward bytes that many seconds after they arrive; at most 64 KB wait at a time."""
        with self._changing():
            self._manner = replace(self._manner, delay=seconds)

    def split(self, size: int) -> None:
        """Forward in pieces of at most `size` bytes, each in a packet of its own, 1 ms apart."""
        with self._changing():
            self._manner = replace(self._manner, piece=size)

    def coalesce(self, seconds: float) -> None:
        """Collect bytes for that many seconds, then forward them in one piece."""
        with self._changing():
            self._manner = replace(self._manner, gather=seconds)

    def truncate(self, *, sent: int | None = None, received: int | None = None) -> None:
        """End each new connection (FIN) after that many of its bytes.

        Args:
            sent, received: bytes to the server and from it; the limit reached first counts.
        """
        with self._changing():
            self._cut = EachWay(sent, received)

    def damage(self, *, sent: int | None = None, received: int | None = None) -> None:
        """Flip one bit of the byte at that offset of each new connection."""
        with self._changing():
            self._damage = EachWay(sent, received)

    def restore(self) -> None:
        """Forward everything, waiting bytes too, at full speed, and accept connections."""
        with self._changing():
            self._limits = self._damage = self._cut = EachWay()
            self._rate = None
            self._manner = Manner()
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
            Exception: at the block's end, the exception of a step that failed; the script ended
                at that step.
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
            except Exception as error:  # the script is the caller's code
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
                    self._woken.recv(CHUNK)
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
        """A selector of the sockets that can be read or written now, and the seconds until the next
        waiting bytes are due; None when none wait for their time."""
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

    def _forward(self, connection: ProxiedConnection) -> None:
        """Move the bytes that are due (the lock is held)."""
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
        """Accept one connection. Connecting to the server may block, so the lock is not held."""
        try:
            client, _ = listener.accept()
        except OSError:  # refused in the meantime
            return
        try:
            server = socket.create_connection(self._server, _CONNECT_TIMEOUT)
        except OSError:
            reset(client)
            return
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        connection = ProxiedConnection(client, server)
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
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # accepted sockets inherit it
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    sock.setblocking(False)
    return sock
