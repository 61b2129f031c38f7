"""What the five contracts of an engine share: their start and their end."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .node import Node


class EnginePart(ABC):
    """What each of the five contracts has: a beginning and an end.

    A part owns its background work (timers, subscriptions, connections) and ends it in `stop`.
    """

    @abstractmethod
    async def start(self, node: Node) -> None:
        """Begin; from now on the part may call the node. `OSError` when it cannot begin."""

    @abstractmethod
    async def stop(self) -> None:
        """End; what was acknowledged is safe and no work of the part goes on when this returns.

        Idempotent. Every other method raises `OSError` afterwards.
        """
