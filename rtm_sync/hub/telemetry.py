"""What a hub tells of its work, for whoever counts it."""

from __future__ import annotations


class Telemetry:
    """Is told, and forgets; a gateway puts one here that counts. Called on the hub's loop."""

    def message(self, kind: str, outcome: str, seconds: float) -> None:
        """A message was sent.

        Args:
            kind: "peer", "channel" or "invitation".
            outcome: "received", "cached", "offline", "sent", or the error's reason.
            seconds: from the hub having it to the answer; for peers, the receipt included.
        """

    def login(self, outcome: str) -> None:
        """Somebody logged in: "new", "resumed", or the error's reason."""

    def session_ended(self, reason: str) -> None:
        """A session is over: "logout", "lost", "stopping", "slow_consumer", or what its client was
        told."""

    def uploaded(self, size: int) -> None:
        """A medium of so many bytes was stored."""

    def downloaded(self, size: int) -> None:
        """So many bytes of a medium were sent."""
