"""The base of the five engine contracts: start and stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from .node import Node


class QuotaExceeded(Exception):
    """The sender, or the app, has too many bytes stored; the message was not stored."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many bytes of messages are stored, in mailboxes and the history together.

    A part may measure them in its own form.

    Attributes:
        sender: of one user's messages; None for no quota.
        app: of all messages of an app; None for no quota.
    """

    sender: int | None = None
    app: int | None = None


NO_QUOTAS = Quotas()


class EnginePart(ABC):
    """The base class of the five engine contracts.

    A part owns its background work (timers, subscriptions, connections) and ends it in `stop`.
    """

    @abstractmethod
    async def start(self, node: Node) -> None:
        """Start. From now on the part may call the node. Raises OSError when it cannot start."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop. When this returns, acknowledged data is safe and all background work has ended.

        Idempotent. Every other method raises `OSError` afterwards.
        """

    async def problem(self) -> str | None:
        """The sentence that says why the part cannot do its work for now, or None.

        It makes the gateway's `/readyz` answer 503. Everybody may read it: it names no path, host
        or user. A part that has nothing to add keeps this one, which answers None.

        Raises:
            OSError: the back end failed.
        """
        return None
