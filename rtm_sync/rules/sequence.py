"""The outbox of unacknowledged frames, with which a session outlives its connection. No I/O.

Both ends of a session own one `Outbox`. Frames are counted, not labelled (the idea of XMPP's
XEP-0198): each end counts the numbered frames that it received and acknowledges the count from time
to time. After a lost connection the other end replays exactly the unacknowledged frames. The number
is not in the frame, so that one encoded text serves every receiver of a channel message.
"""

from __future__ import annotations

from collections import deque


class OutboxFull(Exception):
    """The other end has too many unacknowledged frames; the outbox accepts no more."""


class Outbox:
    """An ordered, bounded store of unacknowledged frames, with a cursor behind the sent ones.

    Not thread-safe.

    Args:
        max_frames: the most unacknowledged frames.
        max_bytes: the most unacknowledged bytes, as they are sent: in UTF-8.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[str] = deque()
        self._bytes = 0
        self._acknowledged = 0  # frames acknowledged since the session's start
        self._taken = 0  # how many of _frames were sent on the current connection
        self._sent = 0  # frames sent on any connection since the session's start

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def fullness(self) -> float:
        """The used fraction, 0 to 1, of frames or of bytes; the larger one."""
        return max(len(self._frames) / self._max_frames, self._bytes / self._max_bytes)

    @property
    def unsent(self) -> int:
        """The number of frames that `take` has not returned yet."""
        return len(self._frames) - self._taken

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """All frames in the outbox, oldest first."""
        return tuple(self._frames)

    def push(self, frame: str) -> None:
        """Append a frame.

        Raises:
            OutboxFull: the frame exceeds a limit; it was not appended.
        """
        size = _size(frame)
        if len(self._frames) >= self._max_frames or self._bytes + size > self._max_bytes:
            raise OutboxFull(
                f"{len(self._frames):,} frames ({self._bytes:,} bytes) are not acknowledged; "
                f"the limit is {self._max_frames:,} frames or {self._max_bytes:,} bytes."
            )
        self._frames.append(frame)
        self._bytes += size

    def take(self) -> str | None:
        """The next frame to send, or None. The frame stays in the outbox until acknowledged."""
        if self._taken == len(self._frames):
            return None
        # Indexing a deque is fast near its ends, and the cursor is nearly always at an end.
        frame = self._frames[self._taken]
        self._sent = max(self._sent, self._acknowledged + self._taken + 1)
        self._taken += 1  # last: an interruption (Ctrl-C) before this leaves the frame unsent
        return frame

    def put_back(self) -> None:
        """The last taken frame was not sent: `take` returns it again."""
        self._taken -= 1

    def acknowledge(self, received: int) -> None:
        """Remove the acknowledged frames. `received` counts from the session's start.

        Raises:
            ValueError: the count is impossible; the two ends disagree and need a new session.
        """
        fresh = received - self._acknowledged
        if not 0 <= fresh <= self._sent - self._acknowledged:
            raise ValueError(
                f"{received} frames are acknowledged; possible are {self._acknowledged} to "
                f"{self._sent}."
            )
        for _ in range(fresh):
            self._bytes -= _size(self._frames.popleft())
        self._acknowledged = received
        self._taken = max(0, self._taken - fresh)

    def rewind(self, received: int) -> None:
        """Continue on a new connection: remove the received frames, and send the others again."""
        self.acknowledge(received)
        self._taken = 0


def _size(frame: str) -> int:
    """The frame's bytes in UTF-8. A frame in ASCII, as most are, is not encoded for it."""
    return len(frame) if frame.isascii() else len(frame.encode(errors="surrogatepass"))
