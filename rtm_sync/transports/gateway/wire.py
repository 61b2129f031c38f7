"""Overrides of urllib3: all addresses of a name are tried, and a transfer can be cancelled.

urllib3 tries a name's addresses one after the other, each for the whole time-out
(`happy_eyeballs.py`), and has no way to be given a connected socket.

urllib3 has no public way to shut a connection down while it connects, sends or waits for an answer.
Without one, a cancelled transfer would end at its time-out: 120 s instead of the promised
100 ms. Three of its names are overridden or called: `HTTPConnection._new_conn`, `_dns_host`
and `PoolManager.pool_classes_by_scheme`. `tests/transports/test_wire.py` fails with urllib3's
version when one of them is removed or no longer used.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ...blob import CHUNK
from ...transfers.control import TransferControl
from ...version import __version__
from .happy_eyeballs import Address, is_public, open_socket, resolve
from .proxy_settings import ProxySettings

_UNSENT = 256 * 1024  # bytes; the limit of unsent data in the kernel, which is not progress yet
_SOCKET_OPTIONS = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
if hasattr(socket, "TCP_NOTSENT_LOWAT"):
    # Otherwise megabytes may wait there on a slow line, and look like a stall.
    _SOCKET_OPTIONS.append((socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT))


class Wire:
    """The current socket of a transfer's thread, which another thread can shut down.

    Attributes:
        public_only: new connections are made to addresses of the internet only.
        address: that of the other end of the newest request; "" when it is not known.
        refused: the host that `public_only` has refused, if any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both below
        self._socket: socket.socket | None = None
        self._cut = False
        self.public_only = False
        self.address = ""
        self.refused = ""

    @property
    def is_cut(self) -> bool:
        """Whether the transfer has ended."""
        return self._cut

    @property
    def in_use(self) -> socket.socket | None:
        """The socket in use; None before there is one."""
        return self._socket

    def use(self, sock: socket.socket | None) -> None:
        """Record the socket. Raises OSError if the wire was cut already."""
        with self._lock:
            self._socket = sock
            if self._cut and sock is not None:
                raise ConnectionAbortedError("the transfer has ended")

    def cut(self) -> None:
        """Wake the thread that is connecting, sending or waiting for an answer."""
        with self._lock:
            self._cut = True
            sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                # The plain socket's method also for TLS: no closing handshake, no waiting.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


# By thread. No threading.local: where gevent patches after this module was imported, as under
# gunicorn --preload, all greenlets would share one, and one transfer's cancellation cut another's.
_wires: dict[int, Wire] = {}


@contextlib.contextmanager
def wired(control: TransferControl) -> Iterator[Wire]:
    """While the block talks over a `WiredAdapter` on this thread, cancelling cuts its socket.

    The block then raises the transfer's end.
    """
    wire = Wire()
    _wires[threading.get_ident()] = wire
    try:
        with control.interruptible(wire.cut):
            yield wire
    finally:
        _wires.pop(threading.get_ident(), None)


class _WiredConnection(HTTPConnection):
    """Tries all addresses of its host, and registers its socket with the thread's wire."""

    def _new_conn(self) -> socket.socket:
        wire = _wires.get(threading.get_ident())
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else None
        with contextlib.ExitStack() as owner:  # closes the socket on every path but success
            try:
                sock = owner.enter_context(
                    open_socket(
                        self._addresses(wire),
                        timeout,
                        lambda: wire is not None and wire.is_cut,
                        _SOCKET_OPTIONS,
                    )
                )
            except socket.gaierror as error:
                raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
            except TimeoutError as error:
                raise urllib3.exceptions.ConnectTimeoutError(
                    self, f"Cannot connect to {self.host}:{self.port}: {error}"
                ) from error
            except OSError as error:
                raise urllib3.exceptions.NewConnectionError(
                    self, f"Cannot connect to {self.host}:{self.port}: {error}"
                ) from error
            if wire is not None:
                owner.callback(wire.use, None)
                wire.use(self._handle(sock))
                wire.address = sock.getpeername()[0]
            owner.pop_all()
            return sock

    def _addresses(self, wire: Wire | None) -> list[Address]:
        """The addresses to try. They are checked here, where a name cannot change any more."""
        found = resolve(self._dns_host, self.port)
        if wire is None or not wire.public_only:
            return found
        public = [address for address in found if is_public(str(address))]
        if not public:
            wire.refused = self.host
            raise OSError(f"{self.host!r} has no public address")
        return public

    def _handle(self, sock: socket.socket) -> socket.socket:
        """The socket that a wire can shut down, until the connection is made."""
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        wire: Wire | None = _wires.get(threading.get_ident())
        if wire is not None and self.sock is not None:
            wire.use(self.sock)  # a kept-alive connection
            wire.address = self.sock.getpeername()[0]
        super().request(*args, **kwargs)


class _WiredTlsConnection(_WiredConnection, HTTPSConnection):
    """The same over TLS."""

    _duplicate: socket.socket | None = None

    def _handle(self, sock: socket.socket) -> socket.socket:
        # TLS takes the descriptor over before its handshake, which would leave the wire without.
        self._duplicate = sock.dup()
        return self._duplicate

    def connect(self) -> None:
        wire = _wires.get(threading.get_ident())
        with contextlib.ExitStack() as owner:
            owner.callback(self._close_duplicate)
            if wire is not None:
                # Before the duplicate is closed; `request` registers the TLS socket.
                owner.callback(wire.use, None)
            super().connect()

    def _close_duplicate(self) -> None:
        duplicate, self._duplicate = self._duplicate, None
        if duplicate is not None:
            duplicate.close()


class _WiredPool(HTTPConnectionPool):
    ConnectionCls = _WiredConnection


class _WiredTlsPool(HTTPSConnectionPool):
    ConnectionCls = _WiredTlsConnection


class WiredAdapter(HTTPAdapter):
    """An adapter of `requests` whose connections can be cut, through proxies as well."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, blocksize=CHUNK, **kwargs)
        self._wire(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, blocksize=CHUNK, **kwargs)
        self._wire(manager)
        return manager

    def close(self) -> None:
        """Close idle connections now: urllib3 itself does when the pools are garbage, but the
        traceback of a failed transfer, which an application may keep, refers to them."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  it cannot be iterated itself
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    @staticmethod
    def _wire(manager: urllib3.PoolManager) -> None:
        manager.pool_classes_by_scheme = {"http": _WiredPool, "https": _WiredTlsPool}


def http_session(settings: ProxySettings, connections: int) -> requests.Session:
    """A `requests` session for a gateway, over `WiredAdapter`. Threads may share it.

    Args:
        settings: the HTTP proxy and the trusted certificates.
        connections: how many idle connections are kept.
    """
    session = requests.Session()
    settings.for_requests(session)
    session.headers["User-Agent"] = f"rtm_sync/{__version__}"
    adapter = WiredAdapter(pool_connections=2, pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
