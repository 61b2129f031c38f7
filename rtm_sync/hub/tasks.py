"""Background tasks and loops on an event loop: their supervision, and their end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, TypeAlias, TypeVar

from ..errors import RtmError
from ..rules.idempotency import IdempotencyCache, ShareFull, key_digest
from ..rules.timing import Backoff, Clock, Deadline
from ..supervision import BACKOFF, Supervisor

T = TypeVar("T")
Outcomes: TypeAlias = IdempotencyCache[Any]
"""The outcome of each request, or the future of its outcome."""

logger = logging.getLogger(__name__)


async def supervised(
    name: str,
    work: Callable[[], Awaitable[object]],
    *,
    backoff: Backoff = BACKOFF,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Run a loop until it returns. After an exception: log it, count it, back off, run it again.

    Args:
        name: the loop's name, for the log and for `loop_failures`.
        work: runs the loop; called again after each failure.
        backoff: the waits between a failure and the next run.
        clock, sleep: measure and spend time, in seconds; tests pass their own.
    """
    supervisor = Supervisor(name, backoff, clock)
    while True:
        supervisor.begin()
        try:
            await work()
        except Exception:
            await sleep(supervisor.failed())
        else:
            return


async def once(
    outcomes: Outcomes,
    sender: Hashable,
    key: str,
    work: Callable[[], Awaitable[T]],
    family: type[RtmError],
    is_final: Callable[[T], bool] = lambda outcome: True,
) -> T:
    """Do the work, or wait for the outcome of the same key's earlier work and return that.

    Work that failed, or whose outcome is not final, is forgotten: it is done again when it is asked
    for again. Those who wait meanwhile get its outcome or exception.

    Args:
        outcomes: the outcomes of finished work, and the futures of work that is being done.
        sender: whose share the key takes.
        key: names the work among the sender's.
        work: called unless its outcome is known.
        family: the class of a refusal.
        is_final: whether an outcome is remembered.

    Raises:
        RtmError: TOO_OFTEN: no more keys of the sender can be remembered; the work was not done.
    """
    loop = asyncio.get_running_loop()
    digest = key_digest(key)
    known = outcomes.get(sender, digest, loop.time())
    if known is not None:
        shared: T = (await asyncio.shield(known)) if isinstance(known, asyncio.Future) else known
        return shared
    future: asyncio.Future[T] = loop.create_future()
    try:
        outcomes.put(sender, digest, future, loop.time())
    except ShareFull as full:
        raise family.named("TOO_OFTEN", str(full)) from None
    try:
        outcome = await work()
    except BaseException as error:
        outcomes.forget(sender, digest, future)
        future.set_exception(error)
        future.exception()  # it is retrieved, whether anybody waits or not
        raise
    if is_final(outcome):
        outcomes.replace(sender, digest, future, outcome)  # which is smaller
    else:
        outcomes.forget(sender, digest, future)
    future.set_result(outcome)
    return outcome


async def shielded(work: Awaitable[T]) -> T:
    """Await the work, which goes on to its end even if the caller is cancelled."""
    task = asyncio.ensure_future(work)
    # After a cancellation nobody awaits the task: its exception counts as retrieved.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


class BackgroundTasks:
    """Owns tasks on one event loop, from `start`, `spawn` or `run_loop` to `close`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # each ends by itself
        self._is_closed = False
        self._loops: list[asyncio.Task[None]] = []  # each ends when it is cancelled

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a task and return the task; the caller awaits it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as a task that nobody awaits, and log its exception.

        After `close` the coroutine is closed and does not run.
        """
        if self._is_closed:
            work.close()
        else:
            self.start(work).add_done_callback(_log_failure)

    def run_loop(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Run a supervised loop until `close`."""
        self._loops.append(asyncio.get_running_loop().create_task(supervised(name, work)))

    async def close(self, timeout: float) -> None:
        """Cancel the loops, give the tasks `timeout` seconds to finish, and cancel the rest.

        Tasks that are spawned during the wait are awaited too.
        """
        for loop in self._loops:
            loop.cancel()
        deadline = Deadline(timeout, asyncio.get_running_loop().time)
        while self._tasks and not deadline.has_passed:
            # Remove finished tasks here: a wait for tasks that are all done need not yield to the
            # loop, and then the callbacks that discard the tasks never run.
            done, _ = await asyncio.wait(self._tasks, timeout=deadline.left)
            self._tasks -= done
        self._is_closed = True
        rest = [*self._tasks, *self._loops]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        self._tasks.clear()
        self._loops.clear()


async def cancel_other_tasks() -> None:
    """Cancel every other task of the running loop and wait for its end; before the loop closes."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a task of the hub failed", exc_info=error)
