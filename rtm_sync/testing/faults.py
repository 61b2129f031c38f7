"""A network that fails on demand: a TCP proxy on loopback for tests of what must survive it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

_CHUNK = 64 * 1024
_BUFFER = 64 * 1024  # of the kernel; megabytes in it would hide from a sender that it is stalled
_CONNECT_TIMEOUT = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds


class _EachWay(NamedTuple):
    """A place in what a connection carries, counted in bytes; None is nowhere."""

    sent: int | None = None
    received: int | None = None


class _Pipe:
    """One direction of a connection: what `source` said, until `target` has taken it."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.limit: int | None = None
        self.damage_at: int | None = None
        self.passed = 0
        self._waiting = bytearray()
        self._ended = False  # the source will say no more
        self.finished = False  # and the target knows

    @property
    def wants_to_read(self) -> bool:
        return not self._ended and self._room() > 0

    @property
    def wants_to_write(self) -> bool:
        return not self.finished and not self.is_held and (bool(self._waiting) or self._ended)

    @property
    def is_held(self) -> bool:
        """Whether it has forwarded all that it may."""
        return self.limit is not None and self.passed >= self.limit

    def move(self) -> int:
        """Take what there is and give what fits; returns how much was given. Raises OSError."""
        if self.wants_to_read:
            with contextlib.suppress(BlockingIOError):
                data = self.source.recv(self._room())
                self._waiting += data
                self._ended = not data
        return self._give() if self.wants_to_write else 0

    def _give(self) -> int:
        if not self._waiting:
            self.target.shutdown(socket.SHUT_WR)
            self.finished = True
            return 0
        left = None if self.limit is None else self.limit - self.passed
        data = self._waiting[:left]
        place = -1 if self.damage_at is None else self.damage_at - self.passed
        if 0 <= place < len(data):
            data[place] ^= 1
        given = 0
        with contextlib.suppress(BlockingIOError):
            given = self.target.send(data)
        self.passed += given
        del self._waiting[:given]
        return given

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

    def limit(self, limits: _EachWay) -> None:
        self.sent.limit, self.received.limit = limits

    def reset(self) -> None:
        """Vanish without a goodbye."""
        for sock in self.sockets:
            _reset(sock)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


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
        self._listener: socket.socket | None = _listening(0)
        self._port: int = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=f"127.0.0.1:{self._port}").geturl()
        self._lock = threading.Lock()  # guards all below, and every socket while it is used
        self._connections: list[_Connection] = []
        self._limits = _EachWay()  # of connections to come
        self._rate: float | None = None
        self._damage: _EachWay = _EachWay()  # places in connections to come
        self._accepted = self._bytes_sent = self._bytes_received = 0
        self._ending = threading.Event()
        self._wakes, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="rtm-sync-fault-proxy", daemon=True)

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
                any(pipe.limit and pipe.is_held for pipe in (connection.sent, connection.received))
                for connection in self._connections
            )

    # -- what it does --

    def stall(
        self, *, sent: int | None = None, received: int | None = None, only_new: bool = False
    ) -> None:
        """Keep connections open, and connectable, but forward no more: nothing, or as given.

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
        """Reset all present connections; new ones are served."""
        with self._changing():
            while self._connections:
                self._connections.pop().reset()

    def refuse(self) -> None:
        """Refuse new connections; present ones stay."""
        with self._changing():
            self._refuse()

    def slow_down(self, bytes_per_second: float) -> None:
        """Forward no faster than that, all connections and directions together."""
        with self._changing():
            self._rate = bytes_per_second

    def damage(self, *, sent: int | None = None, received: int | None = None) -> None:
        """Flip one bit of the byte at that place of each connection that begins from now on."""
        with self._changing():
            self._damage = _EachWay(sent, received)

    def restore(self) -> None:
        """Forward everything at full speed, what was held up as well, and accept connections."""
        with self._changing():
            self._limits = self._damage = _EachWay()
            self._rate = None
            for connection in self._connections:
                connection.limit(self._limits)
            if self._listener is None:
                self._listener = _listening(self._port)

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
                selector = self._selector(listener)
            with selector:
                ready = [key.data for key, _ in selector.select()]
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

    def _selector(self, listener: socket.socket | None) -> selectors.BaseSelector:
        """Waits for what can be done now; a socket of which nothing is wanted is not in it."""
        selector = selectors.DefaultSelector()
        selector.register(self._woken, selectors.EVENT_READ)
        if listener is not None:
            selector.register(listener, selectors.EVENT_READ, listener)
        for connection in self._connections:
            for sock in connection.sockets:
                events = 0
                for pipe in (connection.sent, connection.received):
                    if pipe.source is sock and pipe.wants_to_read:
                        events |= selectors.EVENT_READ
                    if pipe.target is sock and pipe.wants_to_write:
                        events |= selectors.EVENT_WRITE
                if events:
                    selector.register(sock, events, connection)
        return selector

    def _forward(self, connection: _Connection) -> None:
        """Move what can be moved (the lock is held)."""
        sent, received = connection.sent, connection.received
        try:
            self._bytes_sent += sent.move()
            self._bytes_received += received.move()
        except OSError:
            connection.reset()
        else:
            if not (sent.finished and received.finished):
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
            connection.sent.damage_at, connection.received.damage_at = self._damage
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
