"""The state of one session: its call rates and the ids of delivered messages. No I/O."""

from __future__ import annotations

import json
import threading
import time

from rtm_sync.errors import RtmError
from rtm_sync.rules.idempotency import RecentIds
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.requests import CallRates

_KEPT_IDS = 500  # recently delivered ids, stored for the user's next session
_PEER_KEY = 2  # fields of a peer message's key: sender, message id; channel keys are longer


class Budget:
    """Enforces the reference's call frequencies for one session. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()  # guards _rates
        self._rates = CallRates(limits)

    def check_rate(self, name: str, family: type[RtmError]) -> None:
        """Count one call against the limit of that name. Raises TOO_OFTEN."""
        with self._lock:
            refusal = self._rates.refusal(name, time.monotonic())
        if refusal is not None:
            raise family.named(*refusal)


class Delivered:
    """The ids of recently delivered messages, which are used to drop duplicates. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        # The wall clock is used, because the user's next session may be on another machine.
        self._ids = RecentIds(limits.remembered_sends_of_sender, limits.duplicate_window)
        self._lock = threading.Lock()  # guards _ids

    def add(self, key: tuple[str, ...]) -> bool:
        """Add a message's key. Returns False when the message was delivered before."""
        with self._lock:
            return self._ids.add(key, time.time(), key[:-1])

    def remove(self, key: tuple[str, ...]) -> None:
        with self._lock:
            self._ids.remove(key, key[:-1])

    def dump(self) -> bytes:
        """The newest keys of peer messages as JSON, for the user's next session."""
        with self._lock:
            items = self._ids.items()
        peer = [(*key, at) for key, at in items if isinstance(key, tuple) and len(key) == _PEER_KEY]
        return json.dumps(peer[-_KEPT_IDS:]).encode()

    def load(self, dumped: bytes) -> None:
        """Add the keys that an earlier session dumped. Raises ValueError, TypeError."""
        for sender, message_id, at in json.loads(dumped)[:_KEPT_IDS]:
            with self._lock:
                self._ids.restore((str(sender), str(message_id)), float(at), (str(sender),))
