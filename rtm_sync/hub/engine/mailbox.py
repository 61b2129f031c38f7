"""The Mailbox contract: stored messages, which stay until their receiver has handled them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ...protocol.requests import MessageFromPeer
from .part import NO_QUOTAS, EnginePart, Quotas


class MailboxFull(Exception):
    """The receiver has too many stored messages, of all or of this sender; it was not stored."""


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """How much is stored for one user.

    Attributes:
        offline: messages that were stored while the user did not listen, and never offered. When
            there are more, the oldest of the sender with most of them is dropped.
        messages: all messages; more are refused.
        bytes: the size of all messages; more are refused. A mailbox may measure them in its own
            form.
        retention: seconds for which a message is stored.
        sender_messages, sender_bytes: those of one sender; more are refused, so that nobody takes
            all the room. None for no share.
        quotas: of the message's sender and app.
    """

    offline: int
    messages: int
    bytes: int
    retention: float
    sender_messages: int | None = None
    sender_bytes: int | None = None
    quotas: Quotas = NO_QUOTAS


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A stored message.

    Attributes:
        key: names it. The keys of a user grow with time, and are never used again.
        message: the message, without its key.
        was_offered: a client of the user may have been offered the message.
    """

    key: int
    message: MessageFromPeer
    was_offered: bool


@dataclass(frozen=True, slots=True)
class StoredMessages:
    """A page of a user's stored messages.

    Attributes:
        messages: in the order of their keys, without those that cannot be decoded.
        last_key: the key of the last message that the page covers, including those that cannot be
            decoded; None at the end, when there are no messages.
    """

    messages: tuple[StoredMessage, ...]
    last_key: int | None


class Mailbox(EnginePart):
    """Stores the peer messages that their receivers have not handled yet."""

    @abstractmethod
    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        """Store a message durably, and return its key.

        A copy, which has the id of a message from the same sender, is not stored. While that
        message waits, the answer is its key; None while it is remembered as handled: the sender did
        not get the answer, and the hub that forgot the message was restarted.

        Args:
            app_id, uid: the receiver.
            message: the message; its `key` is ignored.
            limits: how much may be stored for the receiver.
            is_offered: the message is about to be offered to a client of the receiver: it counts as
                offered from now on, and is not dropped.

        Raises:
            MailboxFull: the receiver, or the sender's share of the mailbox, has as many messages,
                or bytes, as may be stored.
            QuotaExceeded: a quota of the limits does not allow the message.
        """

    @abstractmethod
    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        """The user's messages after a key that have not expired, at most `limit`.

        The answer includes every message that was stored before this call. Messages that cannot be
        decoded are logged, and keep back no other.
        """

    @abstractmethod
    async def mark_offered(self, app_id: str, uid: str, keys: Sequence[int]) -> None:
        """Note durably that these messages are about to be offered; unknown keys are ignored."""

    @abstractmethod
    async def discard(self, app_id: str, uid: str, keys: Sequence[int], *, remember: float) -> None:
        """Remove these messages of the user durably; unknown keys are ignored.

        Args:
            app_id, uid: the receiver.
            keys: the messages that the receiver has handled.
            remember: seconds for which a copy of them is not stored.
        """
