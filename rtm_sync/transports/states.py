"""Telling a client the states of its connection, from any thread and in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..protocol.values import ConnectionChangeReason, ConnectionState
from ..rules.lifecycle import Lifecycle, StateChange


class StateListener(Protocol):
    """Is told each change of the state; a `Listener` is one."""

    def on_state(self, state: ConnectionState, reason: ConnectionChangeReason) -> None: ...


class StateReports:
    """Makes a `Lifecycle` thread-safe and tells a listener its changes. Thread-safe.

    When `report` returns, the listener has been told. An exception in the middle (Ctrl-C) loses no
    change: the next report begins with it, so that a listener may be told a change twice, but
    never misses one.
    """

    def __init__(self, lifecycle: Lifecycle, listener: StateListener) -> None:
        self._lifecycle = lifecycle
        self._listener = listener
        self._untold: deque[StateChange] = deque()
        # Guards all here, and is held while telling: a listener does not block, and whoever
        # decides later has to be heard later. The same thread may report from within.
        self._turn = threading.RLock()

    def report(self, decide: Callable[[Lifecycle], StateChange | None]) -> None:
        """Have the lifecycle decide about what happened, and tell what follows from it."""
        with self._turn:
            change = decide(self._lifecycle)
            if change is not None:
                self._untold.append(change)
            while self._untold:
                self._listener.on_state(*self._untold[0])
                self._untold.popleft()

    def lost(self, now: float) -> None:
        """The connection is gone; the session may still be saved."""
        with self._turn:
            self._lifecycle.lost(now)

    def quiet_time_left(self, now: float) -> float:
        """Seconds until a lost connection must be called RECONNECTING; infinite when not lost."""
        with self._turn:
            return self._lifecycle.quiet_time_left(now)
