"""The registry of a client's open invitations: it sends their steps, and ends them on time."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ..errors import InvitationApiCallError, RtmError
from ..protocol.ids import id_problem
from ..protocol.requests import InvitationFromPeer, SendInvitation
from ..protocol.values import InvitationReceipt, InvitationStep
from ..rules.timing import Deadline
from ..supervision import BackgroundThread, start_thread, supervised_thread
from .calls import Caller
from .invitation_states import CalleeEnd, CallerEnd, InvitationEnd, InvitationTimes
from .invitations import LocalInvitation, RemoteInvitation

MAX_OPEN = 1000
"""Invitations of one client that are not over, in each direction. Ours."""

SENDERS = 32
"""Steps of one client that are sent at the same time: a callee that does not answer takes 2 s."""

_CALL_TIMEOUT = 5.0

logger = logging.getLogger(__name__)
_Key = tuple[bool, str, str]  # whether it is ours, the peer, the invitation's id


class InvitationRegistry:
    """Keeps one client's open invitations, sends their steps, and fails those that time out.

    Owns one daemon thread, alive only while an invitation is open. That thread starts another one
    for each step, at most `SENDERS` at once, because a step takes as long as its peer's receipt.
    Thread-safe.

    Args:
        call: makes a request and waits for the answer.
        emit: queues a call for the client's dispatcher.
        received: called through `emit` with each new `RemoteInvitation`.
        on_error: called with the exception of a handler.
        is_logged_in: whether the client has a login.
        times: the time limits of an invitation.
        now: the monotonic clock, seconds.
    """

    def __init__(
        self,
        call: Caller,
        emit: Callable[[Callable[[], object]], object],
        received: Callable[[RemoteInvitation], object],
        on_error: Callable[[BaseException], object],
        is_logged_in: Callable[[], bool],
        times: InvitationTimes | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call = call
        self._emit = emit
        self._received = received
        self._on_error = on_error
        self._is_logged_in = is_logged_in
        self._times = times or InvitationTimes()
        self._now = now
        self._lock = threading.Lock()  # guards all ends and the attributes below
        self._changed = threading.Condition(self._lock)
        self._open: dict[_Key, InvitationEnd] = {}
        self._over: OrderedDict[_Key, InvitationStep | None] = OrderedDict()  # the last steps
        self._news: list[Callable[[], object]] = []
        self._senders: set[threading.Thread] = set()
        self._sending = 0  # the ends of which a step is being sent
        self._closed = False
        self._stopping = threading.Event()
        self._thread = BackgroundThread(
            "rtm-sync-invitations",
            lambda: supervised_thread("invitations", self._run, self._stopping),
        )

    def local(self, callee_id: str) -> LocalInvitation:
        """A new invitation, not sent yet.

        Raises:
            InvitationApiCallError: INVALID_ARGUMENT, the id is not valid.
        """
        problem = id_problem("callee_id", callee_id)
        if problem is not None:
            raise InvitationApiCallError.named("INVALID_ARGUMENT", problem)
        return LocalInvitation(CallerEnd(self, callee_id))

    def take(self, step: InvitationFromPeer) -> bool:
        """Process a step of the other end; False when it is too late or the limit is reached."""
        ours = step.step in (InvitationStep.ACCEPT, InvitationStep.REFUSE)
        key = (ours, step.peer_id, step.invitation_id)
        with self.changing() as now:
            known = self._open.get(key)
            if known is not None:
                return known.received(step.step, step.content)
            if key in self._over:  # a repetition of a processed step
                return step.step in (InvitationStep.INVITE, self._over[key])
            if step.step is not InvitationStep.INVITE:
                return False
            if self._closed or sum(not key[0] for key in self._open) >= MAX_OPEN:
                return False
            try:
                self._thread.start()
            except RuntimeError as error:  # False: the caller gets no receipt
                logger.error("an invitation was not accepted for delivery: %s", error)  # noqa: TRY400
                return False
            self._open[key] = end = CalleeEnd(self, step, now)
            invitation = RemoteInvitation(end)
            self._news.append(lambda: self._received(invitation))
        return True

    def abandon(self) -> None:
        """Fail every open invitation: the session has ended."""
        with self.changing():
            for end in list(self._open.values()):
                end.abandon()
            self._open.clear()

    def close(self) -> None:
        """End the threads. Idempotent; does not wait for the thread that calls it."""
        self.abandon()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._stopping.set()
        deadline = Deadline(_CALL_TIMEOUT)
        self._thread.join(deadline.timeout)
        with self._lock:
            senders = self._senders - {threading.current_thread()}
        for thread in senders:
            thread.join(deadline.timeout)

    # -- Registry: for the ends --

    @property
    def times(self) -> InvitationTimes:
        return self._times

    def is_logged_in(self) -> bool:
        return self._is_logged_in()

    @contextlib.contextmanager
    def changing(self) -> Iterator[float]:
        """Hold the lock for a block, with the time; then queue the events and wake the thread."""
        news: list[Callable[[], object]] = []
        try:
            with self._lock:
                try:
                    yield self._now()
                finally:
                    news, self._news = self._news, []
                    self._changed.notify_all()
        finally:
            for tell in news:
                self._emit(tell)

    def keep(self, end: InvitationEnd) -> None:
        if self._closed or sum(key[0] for key in self._open) >= MAX_OPEN:
            raise InvitationApiCallError.named(
                "INVALID_ARGUMENT",
                "The client is closed."
                if self._closed
                else f"{MAX_OPEN:,} invitations are open, which is the limit; cancel one or wait.",
            )
        try:
            self._thread.start()
        except RuntimeError as error:
            message = f"The invitation needs a thread: {error}. Send it again later."
            raise InvitationApiCallError.named("NOT_STARTED", message, error) from error
        self._open[_key(end)] = end

    def drop(self, end: InvitationEnd, by: InvitationStep | None = None) -> None:
        key = _key(end)
        if self._open.pop(key, None) is not None:
            self._over[key] = by
            if len(self._over) > MAX_OPEN:
                self._over.popitem(last=False)

    def tell(self, end: InvitationEnd, event: str, *args: object) -> None:
        self._news.append(lambda: end.emitter.emit(event, *args, on_error=self._on_error))

    # -- the threads --

    def _run(self) -> None:
        """Act on each end when it is due, until none is open."""
        while True:
            with self._changed:
                if self._closed or not self._open:
                    self._thread.retire()
                    return
                end = self._next()
                if end is None:
                    continue
                end.due = None
                if end.outgoing:
                    end.is_sending = True
                    self._sending += 1
            if end.is_sending:
                self._start_sending(end)
            else:
                with self.changing() as now:
                    end.check_times(now)

    def _next(self) -> InvitationEnd | None:
        """Wait for the next due end and return it; None when the wait ended without one."""
        now = self._now()
        is_full = self._sending >= SENDERS
        due = [
            (end.due, end)
            for end in self._open.values()
            if end.due is not None and not end.is_sending and not (is_full and end.outgoing)
        ]
        first = min(due, key=lambda pair: pair[0], default=None)
        if first is not None and first[0] <= now:
            return first[1]
        self._changed.wait(None if first is None else first[0] - now)
        return None

    def _start_sending(self, end: InvitationEnd) -> None:
        """Send the end's steps on a thread of their own, or on this one when none can start."""

        def work() -> None:
            try:
                supervised_thread("invitations", lambda: self._send_steps(end), self._stopping)
            finally:
                with self.changing():
                    end.is_sending = False
                    self._sending -= 1
                    self._senders.discard(threading.current_thread())

        try:
            with self._lock:
                self._senders.add(start_thread("rtm-sync-invitation-step", work))
        except RuntimeError as error:
            logger.warning("other invitations wait for the step of %r: %s", end.emitter, error)
            work()

    def _send_steps(self, end: InvitationEnd) -> None:
        with self._lock:
            steps, end.outgoing = end.outgoing, []
        try:
            for step in steps:
                receipt = self._send(end, step)
                with self.changing() as now:
                    end.delivered(receipt, now)
                    if step is InvitationStep.CANCEL:
                        self.drop(end)
        except BaseException:
            with self._lock:
                end.outgoing = end.outgoing or steps  # the next run sends them
            raise
        finally:
            with self.changing() as now:
                end.check_times(now)

    def _send(self, end: InvitationEnd, step: InvitationStep) -> InvitationReceipt:
        answer = step in (InvitationStep.ACCEPT, InvitationStep.REFUSE)
        request = SendInvitation(
            end.peer_id,
            end.id,
            step,
            end.response if answer else end.content,
            end.channel_id,
        )
        try:
            return self._call(request, _CALL_TIMEOUT).receipt
        except RtmError as error:
            logger.info("%s of %r failed: %s", step.value, end.emitter, error)
            return InvitationReceipt.UNCONFIRMED


def _key(end: InvitationEnd) -> _Key:
    return end.is_ours, end.peer_id, end.id
