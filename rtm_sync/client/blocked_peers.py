"""The users from whom an application wants to hear nothing."""

from __future__ import annotations

import threading

from ..errors import PeerMessageError
from ..protocol.ids import id_problem

_MOST = 10_000


class BlockedPeers:
    """A bounded set of user ids. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _peers, which is replaced and never changed
        self._peers: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        """The blocked users."""
        return self._peers

    def block(self, peer_id: str) -> None:
        """Add a user.

        Raises:
            PeerMessageError: INVALID_USERID; FAILURE, 10,000 users are blocked.
        """
        problem = id_problem("peer_id", peer_id)
        if problem is not None:
            raise PeerMessageError.named("INVALID_USERID", problem)
        with self._lock:
            if peer_id not in self._peers and len(self._peers) >= _MOST:
                raise PeerMessageError.named(
                    "FAILURE", f"{_MOST:,} users are blocked, which is the limit; unblock some."
                )
            self._peers |= {peer_id}

    def unblock(self, peer_id: str) -> None:
        """Remove a user, if it is there."""
        with self._lock:
            self._peers -= {peer_id}
