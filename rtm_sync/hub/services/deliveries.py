"""The order of one session's peer messages: stored ones by their keys, others behind them.

What the client has no room for waits here, and the senders take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from ...protocol.requests import MessageFromPeer
from ...rules.limits import Limits
from ...rules.shares import FairQueue, Owner
from ..engine.mailbox import Mailbox, StoredMessage
from ..engine.node import Delivery
from ..session import Session
from ..tasks import BackgroundTasks, supervised

_PAGE = 100  # stored messages in one read
_RECEIPT_TIME = 2.0
"""Seconds that the sender of a stored message waits for its receipt. Less than `receipt_timeout`,
because without a receipt the answer is certain too: the message is kept."""

_SHARE = 8  # a sender has at most an eighth of the messages that wait and are not stored

_PAUSE = 1.0  # seconds until a refused message is offered again, or a failed mailbox is read again

logger = logging.getLogger(__name__)


class _Waiting:
    """A message that is not stored, and waits for stored ones or for room."""

    __slots__ = ("is_offered", "message", "receipt")

    def __init__(self, message: MessageFromPeer, receipt: asyncio.Future[Delivery]) -> None:
        self.message = message
        self.receipt = receipt
        self.is_offered = False


class Deliveries:
    """Offers a session its user's peer messages, in order. Used on the hub's loop only.

    While the client listens, stored messages are offered in the order of their keys, as long as the
    client keeps up: see `_has_room`. A new message that is next in order is offered at once. When
    messages wait, one task reads them from the mailbox. Messages that are not stored wait until
    that task is done, so that no message of a sender overtakes another, and until there is room in
    the client's outbox. They wait no longer than for a receipt.

    Args:
        session: the receiver's session.
        mailbox: has the stored messages.
        limits: sizes and times.
        tasks: runs the reading task, which ends with the session.
        listens: whether the client takes stored messages now.
        reported: the keys of the user's messages that were reported and are not deleted yet.
    """

    def __init__(
        self,
        session: Session,
        mailbox: Mailbox,
        limits: Limits,
        tasks: BackgroundTasks,
        *,
        listens: bool,
        reported: Callable[[], Collection[int]],
    ) -> None:
        self._session = session
        self._mailbox = mailbox
        self._limits = limits
        self._tasks = tasks
        self._reported = reported
        self._listens = False
        self._cursor = 0  # all stored messages up to this key were offered, or are gone
        self._newest = 0  # the newest key that the bus brought
        self._first_live: int | None = None  # the first key that it brought to a listening client
        # Keys that were offered and are not reported, with the client's answers, also late ones.
        self._unhandled: dict[int, asyncio.Future[Delivery]] = {}
        self._handled: set[int] = set()  # keys that were reported while the task reads
        self._refusals = 0
        self._was_refused = False  # since the task last waited
        self._is_reading = False  # the task runs: stored messages may wait
        self._has_failed = False  # the mailbox has, at the task's last look
        most = limits.outbox_frames
        self._others: FairQueue[_Waiting] = FairQueue(max(1, most // _SHARE), most, most)
        self.set_listening(listens)

    @property
    def listens(self) -> bool:
        """Whether the session's client takes stored messages now."""
        return self._listens and self._session.lives

    def set_listening(self, listens: bool) -> None:
        """The client has begun or stopped to take stored messages."""
        if listens is self._listens:
            return
        self._listens = listens
        if listens:
            self._read()
        self._session.notice_change()

    def handled(self, keys: Iterable[int]) -> None:
        """The client has reported these messages as handled."""
        if self._is_reading:
            self._handled.update(keys)
        for key in keys:
            answer = self._unhandled.pop(key, None)
            if answer is not None and not answer.done():
                answer.set_result(Delivery.RECEIVED)
        self._session.notice_change()

    async def deliver(self, message: MessageFromPeer) -> Delivery:
        """Offer a message, and wait for its receipt.

        Returns OFFLINE for a message that was not offered; a stored one is offered later.
        """
        if message.key is not None:
            return await self._deliver_stored(message, message.key)
        is_next = not self._others and (not self._is_reading or self._has_failed)
        if is_next and self._session.has_room_for_peers():
            return await self._session.call(message)
        waiting = _Waiting(message, self._session.new_receipt(self._limits.receipt_timeout))
        sender = Owner(self._session.app_id, message.peer_id)
        if self._others.put(sender, waiting) is not None:
            self._others.discard(lambda one: one.receipt.done())
            if self._others.put(sender, waiting) is not None:
                return Delivery.OFFLINE
        self._read()
        delivery = await waiting.receipt
        return delivery if waiting.is_offered else Delivery.OFFLINE

    def end(self) -> None:
        """The session has ended: nothing more is offered."""
        self._release_others()
        self._session.notice_change()

    async def _deliver_stored(self, message: MessageFromPeer, key: int) -> Delivery:
        if not self.listens:
            return Delivery.OFFLINE
        self._newest = max(self._newest, key)
        if key <= self._cursor:  # sent again under its id
            return Delivery.OFFLINE
        is_marked = not message.message_props.is_offline_message
        if is_marked and self._first_live is None:
            self._first_live = key
        if is_marked and not self._is_reading and self._has_room():
            return await self._offer(message, key)
        self._read()
        return Delivery.OFFLINE

    def _offer(self, message: MessageFromPeer, key: int) -> asyncio.Future[Delivery]:
        self._cursor = max(self._cursor, key)
        time = min(_RECEIPT_TIME, self._limits.receipt_timeout)
        receipt = self._session.new_receipt(time)
        answer: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: self._note_answer(key, done.result(), receipt))
        self._unhandled[key] = answer
        self._session.call(message, answer)
        return receipt

    def _note_answer(self, key: int, answer: Delivery, receipt: asyncio.Future[Delivery]) -> None:
        if not receipt.done():
            receipt.set_result(answer)
        if answer is Delivery.OFFLINE and self.listens and key in self._unhandled:
            del self._unhandled[key]  # the client's queue is full
            self._cursor = min(self._cursor, key - 1)
            self._refusals += 1
            self._was_refused = True
            self._read()

    def _has_room(self) -> bool:
        is_full = len(self._unhandled) >= self._limits.unhandled_messages
        return not is_full and self._session.has_room_for_peers()

    # -- the task that reads --

    def _read(self) -> None:
        """Have the task offer the stored messages after the cursor."""
        if not self._is_reading:
            self._is_reading = True
            self._tasks.spawn(self._read_all())

    async def _read_all(self) -> None:
        try:
            await supervised("stored messages", self._read_pages)
        finally:
            self._is_reading = False
            self._handled.clear()
            self._release_others()

    async def _read_pages(self) -> None:
        while True:
            while self.listens and not await self._is_at_end():
                pass
            self._release_others()
            if self._others:
                await self._session.wait_until(self._session.has_room_for_peers)
            elif not self.listens or self._newest <= self._cursor:
                return

    async def _is_at_end(self) -> bool:
        """Offer the next page. Returns whether there was none."""
        if self._was_refused:  # until the client has dealt with something
            self._was_refused = False
            await self._session.wait_for_change(_PAUSE)
        await self._wait_for_room()
        if not self.listens:
            return True
        after, newest, refusals = self._cursor, self._newest, self._refusals
        # A message that is deleted during the read may be on the page.
        self._handled = {key for key in self._handled if key > after}.union(self._reported())
        user = self._session.user
        try:
            page = await self._mailbox.waiting(*user, after, _PAGE)
            fresh = [item for item in page.messages if self._is_due(item)]
            unmarked = [item.key for item in fresh if not item.was_offered]
            if unmarked:
                await self._mailbox.mark_offered(*user, unmarked)
        except Exception as error:
            self._has_failed = True  # no reason to keep back those that are not stored
            self._release_others()
            if not isinstance(error, OSError):
                raise
            logger.warning("stored messages of %r cannot be read; they stay: %s", user, error)
            await self._session.wait_for_change(_PAUSE)
            return False
        self._has_failed = False
        if page.last_key is None:
            if self._newest != newest or self._refusals != refusals:
                return False
            self._cursor = max(after, newest)  # the newest one is gone
            return True
        for item in fresh:
            await self._wait_for_room()
            if not self.listens:
                return True
            if self._refusals != refusals:
                break
            if self._is_due(item):
                self._offer(self._as_offered(item), item.key)
        if self._refusals == refusals:
            self._cursor = max(self._cursor, page.last_key)
        return False

    async def _wait_for_room(self) -> None:
        await self._session.wait_until(lambda: not self._listens or self._has_room())

    def _is_due(self, item: StoredMessage) -> bool:
        """Whether a message of a page is neither with the client nor handled."""
        return item.key not in self._unhandled and item.key not in self._handled

    def _as_offered(self, item: StoredMessage) -> MessageFromPeer:
        """A message of the mailbox as the client gets it.

        What this session's time brought counts as offered since it was stored, and was not offered.
        """
        props = item.message.message_props
        is_live = (
            self._first_live is not None
            and item.key >= self._first_live
            and not props.is_offline_message
        )
        props = replace(
            props,
            is_offline_message=not is_live,
            is_redelivered=item.was_offered and not is_live,
        )
        return replace(item.message, message_props=props, key=item.key)

    def _release_others(self) -> None:
        """Offer the messages that waited, as far as there is room. Their senders take turns."""
        while self._others and (self._session.has_room_for_peers() or not self._session.lives):
            sender, waiting = self._others.take()
            self._others.charge(sender, 1.0, asyncio.get_running_loop().time())
            if not waiting.receipt.done():
                waiting.is_offered = True
                self._session.call(waiting.message, waiting.receipt)
