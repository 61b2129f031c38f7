"""Frames sent but not yet acknowledged: what makes a session outlive its socket. No I/O.

Both ends of a session own one `Outbox`. Frames are counted, not labelled (the idea of XMPP's
XEP-0198): each end counts the numbered frames it received and says that count now and then, and
when it comes back after a lost connection the other end replays exactly the rest. Because the
number is not in the frame, one encoded text serves every receiver of a channel message.
"""

from __future__ import annotations

from collections import deque


class OutboxFull(Exception):
    """The other end has not acknowledged for too long; no more is kept for it."""


class Outbox:
    """An ordered, bounded store of unacknowledged frames with a cursor for what was sent.

    Not thread-safe; its owner guards it.

    Args:
        max_frames: how many frames may wait.
        max_bytes: how many bytes (characters of text, near enough) may wait.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[str] = deque()
        self._bytes = 0
        self._acknowledged = 0  # frames the other end has, over the session's life
        self._taken = 0  # how many of _frames went to the present connection
        self._sent = 0  # frames that went to any connection, over the session's life

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def fullness(self) -> float:
        """How full it is, 0 to 1, by frames or by bytes, whichever is more."""
        return max(len(self._frames) / self._max_frames, self._bytes / self._max_bytes)

    @property
    def unsent(self) -> int:
        """Frames that `take` would still give."""
        return len(self._frames) - self._taken

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """The frames that wait, the oldest first."""
        return tuple(self._frames)

    def push(self, frame: str) -> None:
        """Append a frame.

        Raises:
            OutboxFull: it would not fit; nothing was appended.
        """
        if len(self._frames) >= self._max_frames or self._bytes + len(frame) > self._max_bytes:
            raise OutboxFull(
                f"{len(self._frames):,} frames ({self._bytes:,} bytes) wait unacknowledged; "
                f"the limit is {self._max_frames:,} frames or {self._max_bytes:,} bytes."
            )
        self._frames.append(frame)
        self._bytes += len(frame)

    def take(self) -> str | None:
        """The next frame to send, or None. It stays here until acknowledged."""
        if self._taken == len(self._frames):
            return None
        # Indexing is cheap at both ends of a deque, and the cursor is nearly always at an end.
        frame = self._frames[self._taken]
        self._taken += 1
        self._sent = max(self._sent, self._acknowledged + self._taken)
        return frame

    def put_back(self) -> None:
        """The frame that was taken last has not been sent: `take` gives it again."""
        self._taken -= 1

    def acknowledge(self, received: int) -> None:
        """Forget what the other end has; `received` counts from the session's start.

        Raises:
            ValueError: the count is impossible, so the two ends disagree and must start anew.
        """
        fresh = received - self._acknowledged
        if not 0 <= fresh <= self._sent - self._acknowledged:
            raise ValueError(
                f"{received} frames acknowledged, but only {self._acknowledged} to "
                f"{self._sent} is possible."
            )
        for _ in range(fresh):
            self._bytes -= len(self._frames.popleft())
        self._acknowledged = received
        self._taken = max(0, self._taken - fresh)

    def rewind(self, received: int) -> None:
        """Start over on a new connection: drop what the other end has, send the rest again."""
        self.acknowledge(received)
        self._taken = 0
