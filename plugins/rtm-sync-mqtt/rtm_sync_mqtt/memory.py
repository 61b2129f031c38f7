"""What a session remembers: how often it called, and which messages it has had. No I/O."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict

from rtm_sync.errors import RtmError
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import Rate, SlidingWindow

_KEPT_IDS = 500  # of messages delivered lately, for the user's next session
_PEER_KEY = 2  # a sender and a message id; keys of channel messages are longer


class Budget:
    """Keeps a session to the reference's call frequencies. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()  # guards _windows
        self._windows: dict[str, SlidingWindow] = {}

    def check_rate(self, name: str, family: type[RtmError]) -> None:
        """Count one more call of the limit with that name. Raises TOO_OFTEN."""
        rate: Rate = getattr(self._limits, name)
        with self._lock:
            window = self._windows.setdefault(name, SlidingWindow(rate))
            allowed = window.allow(time.monotonic())
        if not allowed:
            raise family.named("TOO_OFTEN", f"{name.replace('_', ' ')}: more than {rate}.")


class Delivered:
    """Ids of messages delivered lately: one that comes again is not delivered again.

    Not thread-safe.
    """

    def __init__(self, limits: Limits) -> None:
        self._window = limits.duplicate_window
        self._most = limits.remembered_sends
        self._at: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def add(self, key: tuple[str, ...]) -> bool:
        """Note a message; False when it was delivered already."""
        now = time.time()
        while self._at and next(iter(self._at.values())) < now - self._window:
            self._at.popitem(last=False)
        if key in self._at:
            return False
        self._at[key] = now
        if len(self._at) > self._most:
            self._at.popitem(last=False)
        return True

    def remove(self, key: tuple[str, ...]) -> None:
        self._at.pop(key, None)

    def dump(self) -> bytes:
        """The latest peer messages' ids, for the next session."""
        peer = [(*key, at) for key, at in self._at.copy().items() if len(key) == _PEER_KEY]
        return json.dumps(peer[-_KEPT_IDS:]).encode()

    def load(self, dumped: bytes) -> None:
        """Learn what an earlier session knew. Raises ValueError, TypeError."""
        for sender, message_id, at in json.loads(dumped)[:_KEPT_IDS]:
            self._at.setdefault((str(sender), str(message_id)), float(at))
