"""What a session remembers: how often it called, and which messages it has had. No I/O."""

from __future__ import annotations

import json
import threading
import time

from rtm_sync.errors import RtmError
from rtm_sync.rules.idempotency import RecentIds
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.requests import CallRates

_KEPT_IDS = 500  # of messages delivered lately, for the user's next session
_PEER_KEY = 2  # a sender and a message id; keys of channel messages are longer


class Budget:
    """Keeps a session to the reference's call frequencies. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()  # guards _rates
        self._rates = CallRates(limits)

    def check_rate(self, name: str, family: type[RtmError]) -> None:
        """Count one more call of the limit with that name. Raises TOO_OFTEN."""
        with self._lock:
            refusal = self._rates.refusal(name, time.monotonic())
        if refusal is not None:
            raise family.named(*refusal)


class Delivered:
    """Ids of messages delivered lately: one that comes again is not delivered again.

    Not thread-safe.
    """

    def __init__(self, limits: Limits) -> None:
        # By the wall clock, for the user's next session may be on another machine.
        self._ids = RecentIds(limits.remembered_sends, limits.duplicate_window)

    def add(self, key: tuple[str, ...]) -> bool:
        """Note a message; False when it was delivered already."""
        return self._ids.add(key, time.time())

    def remove(self, key: tuple[str, ...]) -> None:
        self._ids.remove(key)

    def dump(self) -> bytes:
        """The latest peer messages' ids, for the next session."""
        peer = [
            (*key, at)
            for key, at in self._ids.items()
            if isinstance(key, tuple) and len(key) == _PEER_KEY
        ]
        return json.dumps(peer[-_KEPT_IDS:]).encode()

    def load(self, dumped: bytes) -> None:
        """Learn what an earlier session knew. Raises ValueError, TypeError."""
        for sender, message_id, at in json.loads(dumped)[:_KEPT_IDS]:
            self._ids.restore((str(sender), str(message_id)), float(at))
