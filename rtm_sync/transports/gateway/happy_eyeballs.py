"""Opens a TCP connection to a name with several addresses ("Happy Eyeballs", RFC 8305).

websocket-client and urllib3 try the addresses one after the other, and each may take the whole
time-out: an address that swallows packets would hide a gateway at the next one. Here the next
attempt starts a quarter of a second after the last one, or as soon as that one has failed. The
first connection counts, and the others are closed.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

from ...rules.timing import Deadline

ATTEMPT_DELAY = 0.25
"""Seconds between two attempts, as RFC 8305 recommends."""

_LOOK_AGAIN = 0.05  # seconds until a canceller is noticed; the promise is 100 ms


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a name, as `socket.getaddrinfo` returns it."""

    family: int
    kind: int
    protocol: int
    address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

    def __str__(self) -> str:
        return str(self.address[0])


def connection_order(addresses: Iterable[Address]) -> list[Address]:
    """The order of the attempts: IPv6 and IPv4 alternate, beginning with the resolver's first."""
    families: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, []).append(address)
    rounds = zip_longest(*families.values())
    return [address for chosen in rounds for address in chosen if address is not None]


def next_attempt_at(now: float, last_at: float | None, *, has_failed: bool) -> float:
    """The time of the next attempt: a quarter of a second after the last one at `last_at`.

    The first attempt, and the one after an attempt that `has_failed`, start now.
    """
    return now if last_at is None or has_failed else last_at + ATTEMPT_DELAY


def resolve(host: str, port: int) -> list[Address]:
    """All addresses of a name, in the order of the attempts. Waits for the resolver.

    Raises:
        socket.gaierror: the name is not known, or is not a name.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a host's name") from error
    return connection_order(
        Address(family, kind, protocol, address) for family, kind, protocol, _, address in found
    )


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, and not of a machine or a private network."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(known, ipaddress.IPv6Address):
        known = known.ipv4_mapped or known.sixtofour or known
    return known.is_global and not known.is_multicast


def open_socket(
    addresses: Iterable[Address],
    timeout: float | None,
    is_ended: Callable[[], bool] = lambda: False,
    options: Iterable[tuple[int, int, int]] = (),
) -> socket.socket:
    """Connect to the first of a name's addresses that answers.

    Args:
        addresses: the addresses, as `resolve` returns them.
        timeout: seconds for all attempts together; None for the system's time-out. The socket that
            is returned has it as its time-out.
        is_ended: asked every 50 ms; the attempts end when it returns True.
        options: the sockets' options, each a level, a name and a value.

    Raises:
        ConnectionAbortedError: `is_ended` returned True.
        TimeoutError: no address answered in time.
        OSError: all addresses failed; the error names each.
    """
    deadline = Deadline(timeout)
    with contextlib.ExitStack() as owner:  # closes the sockets on every path
        attempts = _Attempts(
            list(addresses), options, owner, owner.enter_context(selectors.DefaultSelector())
        )
        while not is_ended():
            winner = attempts.step(min(_LOOK_AGAIN, deadline.left))
            if winner is not None:
                winner.settimeout(timeout)
                attempts.close_all_but(winner)
                owner.pop_all()  # from now on the caller owns the winner
                return winner
            if deadline.has_passed:
                raise TimeoutError(f"no answer within {timeout} seconds{attempts.summary()}")
    raise ConnectionAbortedError("connecting was ended")


@dataclass(slots=True)
class _Attempts:
    """The attempts to connect to the addresses of one name, on sockets that `owner` closes."""

    waiting: list[Address]
    options: Iterable[tuple[int, int, int]]
    owner: contextlib.ExitStack
    selector: selectors.BaseSelector
    opened: list[socket.socket] = field(default_factory=list)
    running: dict[socket.socket, Address] = field(default_factory=dict)
    failures: list[tuple[Address, OSError]] = field(default_factory=list)
    last_at: float | None = None
    has_failed: bool = False  # an attempt since `last_at`, so that the next one need not wait

    def step(self, wait: float) -> socket.socket | None:
        """Start the next attempt if its time has come, or wait for one to end.

        Returns:
            The socket that is connected, or None.

        Raises:
            OSError: all addresses have failed.
        """
        now = time.monotonic()
        due = next_attempt_at(now, self.last_at, has_failed=self.has_failed)
        if self.waiting and due <= now:
            self._start(self.waiting.pop(0), now)
            return None
        if not self.running:
            raise self._error()
        if self.waiting:
            wait = min(wait, due - now)
        for key, _ in self.selector.select(wait):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return sock
            self.selector.unregister(sock)
            sock.close()
            self._failed(self.running.pop(sock), OSError(code, os.strerror(code)))
        return None

    def close_all_but(self, winner: socket.socket) -> None:
        """Close what is no longer needed, the selector as well."""
        self.selector.close()
        for sock in self.opened:
            if sock is not winner:
                sock.close()

    def summary(self) -> str:
        """What became of each address, where there is more than one."""
        listed = [f"{address}: {_reason(error)}" for address, error in self.failures]
        listed += [f"{address}: no answer" for address in self.running.values()]
        listed += [f"{address}: not tried" for address in self.waiting]
        return f" ({', '.join(listed)})" if len(listed) > 1 else ""

    def _start(self, address: Address, now: float) -> None:
        self.last_at, self.has_failed = now, False
        try:
            sock = self.owner.enter_context(
                socket.socket(address.family, address.kind, address.protocol)
            )
            self.opened.append(sock)
            for option in self.options:
                sock.setsockopt(*option)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address.address)
            self.selector.register(sock, selectors.EVENT_WRITE)
            self.running[sock] = address
        except OSError as error:  # this family is missing here, or there is no route
            self._failed(address, error)

    def _failed(self, address: Address, error: OSError) -> None:
        self.failures.append((address, error))
        self.has_failed = True

    def _error(self) -> OSError:
        """The error of the only address, or one for all of them."""
        codes = {error.errno for _, error in self.failures}
        if len(codes) == 1:
            code = codes.pop()
            return OSError(code, f"{_reason(self.failures[0][1])}{self.summary()}")
        return OSError(errno.EHOSTUNREACH, f"no address can be reached{self.summary()}")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
