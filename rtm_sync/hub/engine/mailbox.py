"""The Mailbox contract: offline messages, which wait for a user's next login."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from ...protocol.requests import MessageFromPeer
from .part import EnginePart


@dataclass(frozen=True, slots=True)
class OfflineMessage:
    """A stored peer message. `key` names it for `discard_offline`; keys grow with time."""

    key: int
    message: MessageFromPeer


class Mailbox(EnginePart):
    """Stores the peer messages that wait for a user's next login."""

    @abstractmethod
    async def store_offline(
        self, app_id: str, uid: str, message: MessageFromPeer, keep: int, retention: float
    ) -> None:
        """Store a message durably for `retention` seconds.

        At most `keep` messages of a user are stored; the oldest are dropped. Storing a message id
        of the same sender again while the message waits changes nothing.
        """

    @abstractmethod
    async def offline(self, app_id: str, uid: str, now: float) -> list[OfflineMessage]:
        """The user's messages that have not expired, in the order in which they were stored.

        The answer includes every message that was stored before this call, except those that
        cannot be decoded: they are logged, and keep back no other.
        """

    @abstractmethod
    async def discard_offline(self, app_id: str, uid: str, keys: list[int]) -> None:
        """Forget these messages of the user durably; unknown keys are ignored."""
