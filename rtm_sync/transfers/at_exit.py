"""The end of the interpreter: running and waiting transfers are finished, then clients are closed.

An `atexit` hook runs too late: before it, the interpreter ends the executors, which take no new
work from then on, and the threads of a forked `multiprocessing` child get no such hook at all.
Executors are ended by hooks of a private function of `threading`, which run in reverse order.
Where that function is missing, `atexit` is used: what runs is finished, and what waits is refused.
"""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from ..portable import after_fork_in_child


class Pool(Protocol):
    """What has transfers that the interpreter must finish."""

    def wait(self) -> None: ...
    def interrupt(self, message: str) -> None: ...


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_afterwards: list[Callable[[], object]] = []


def finish_at_exit(pool: Pool) -> None:
    """Have the interpreter finish the transfers of a pool before it exits."""
    _pools.add(pool)


def call_afterwards(callback: Callable[[], object]) -> None:
    """Call a function at exit, after the transfers."""
    _afterwards.append(callback)


def is_ended_by_ctrl_c() -> bool:
    """Whether Ctrl-C is what the program ends with: an exception that nothing, or not yet, handles.

    In an interactive session the latest Ctrl-C has only ended one statement.
    """
    if isinstance(sys.exc_info()[1], KeyboardInterrupt):
        return True
    return getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")


def _exit() -> None:
    try:
        if not is_ended_by_ctrl_c():
            for pool in list(_pools):
                pool.wait()
    finally:  # also after Ctrl-C
        for pool in list(_pools):
            pool.interrupt("The interpreter exits.")
        for callback in _afterwards:
            callback()


getattr(threading, "_register_atexit", atexit.register)(_exit)
after_fork_in_child(_pools.clear)  # the parent's transfers do not run here
