"""One user's session on a hub: the state that outlives a connection. Does no I/O."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import RtmError
from ..protocol.frames import encode_call
from ..protocol.requests import Request
from ..rules.limits import Limits
from ..rules.rates import KeyedWindows
from ..rules.requests import Refusal, UserRates
from ..rules.sequence import Outbox, OutboxFull
from .auth.tokens import Grant, Privileges
from .engine.node import Delivery
from .registry import Connection, Life, SessionState

_NEARLY_FULL = 7 / 8
_PEERS_SHARE = 3 / 4
_EVERYTHING = Privileges()


class Session:
    """A logged-in user: outbox, receipts, channels, rate limits. Used on the hub's loop only.

    Attributes:
        id: names the session and is its bearer token; secret.
        life: its state, which only the registry changes.
        received: the number of numbered frames that the hub has received from the client.
        acknowledged: how many of those frames the hub has acknowledged to the client.
        channels: joined channels.
        memberships: channels in which the engine may hold a membership of the session; its end
            leaves them all. A join or leave that failed may have taken effect.
        subscriptions: users whose presence is sent to the client.
        reachable: the last reported state of the user: True is ONLINE, False is UNREACHABLE.
        grant: the privileges and the expiry of its token; None where no token is required.
        token_warning_sent: the client has been warned that its token expires soon.
        transfers: one permit for each concurrent upload or download.
        cancelled_uploads: keys of uploads that were cancelled before their request arrived.

    Args:
        rates: the rates of all users.
        on_overflow: called when the client does not acknowledge its frames; ends the session.
    """

    def __init__(
        self,
        app_id: str,
        uid: str,
        limits: Limits,
        rates: UserRates,
        on_overflow: Callable[[Session], object] = lambda _: None,
    ) -> None:
        self.app_id = app_id
        self.uid = uid
        self.id = secrets.token_urlsafe(32)
        self.life = Life()
        self.received = 0
        self.acknowledged = 0
        self.channels: dict[str, None] = {}
        self.memberships: set[str] = set()
        self.transfers = asyncio.Semaphore(limits.transfers)
        self.cancelled_uploads: deque[str] = deque(maxlen=1000)
        self.subscriptions: set[str] = set()
        self.reachable = True
        self.grant: Grant | None = None
        self.token_warning_sent = False
        self._rates = rates
        self._last_seen = asyncio.get_running_loop().time()
        self.same_channel_joins = KeyedWindows(limits.same_channel_joins, max_keys=1000)
        self.outbox = Outbox(limits.outbox_frames, limits.outbox_bytes)
        self._held_channels: dict[str, list[str]] = {}
        self._calls: dict[int, asyncio.Future[Delivery]] = {}
        self._next_call = 1
        self._on_overflow = on_overflow
        self._changed = asyncio.Event()  # see `wait_until`
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Session of {self.uid!r} in {self.app_id!r}>"

    @property
    def user(self) -> tuple[str, str]:
        """(app_id, uid) of the user."""
        return self.app_id, self.uid

    @property
    def lives(self) -> bool:
        """Whether the session has not ended; check again after every `await`."""
        return self.life.state is not SessionState.ENDED

    def require_life(self, family: type[RtmError]) -> None:
        """Raise when the session has ended. Call it after an `await`, before registering anything.

        Raises:
            RtmError: NOT_LOGGED_IN, of that family.
        """
        if not self.lives:
            raise family.named("NOT_LOGGED_IN", "The session has ended; log in again.")

    @property
    def connection(self) -> Connection | None:
        """The connection that carries its frames, or None while the client is disconnected."""
        return self.life.connection if self.life.state is SessionState.ATTACHED else None

    def check_rate(self, name: str, family: type[RtmError]) -> None:
        """Count one more call against a rate limit of the user.

        Args:
            name: the attribute of `Limits` that has the rate.
            family: the class of the error.

        Raises:
            RtmError: TOO_OFTEN, of that family.
        """
        refusal = self.refusal(name)
        if refusal is not None:
            raise family.named(*refusal)

    def refusal(self, name: str) -> Refusal | None:
        """As `check_rate`, but return the refusal."""
        now = asyncio.get_running_loop().time()
        return self._rates.of(self.user, now).refusal(name, now)

    def set_grant(self, grant: Grant | None) -> None:
        """Set the grant of the session's newest token."""
        self.grant = grant
        self.token_warning_sent = False

    @property
    def privileges(self) -> Privileges:
        """The privileges of its token; all privileges without a token."""
        return _EVERYTHING if self.grant is None else self.grant.privileges

    def token_time_left(self, now: float) -> float:
        """Seconds until the session's token expires; `now` is seconds since the epoch."""
        return float("inf") if self.grant is None else self.grant.expires_at - now

    def silence(self, now: float) -> float:
        """Seconds since the last frame or ping from the client. `now` is the loop's time."""
        if self.connection is None:
            return now - self._last_seen
        self._last_seen = now - self.connection.silence
        return self.connection.silence

    def push(self, frame: str) -> None:
        """Queue a frame for the client. The session of a client that is too far behind ends."""
        if not self.lives:
            return
        try:
            self.outbox.push(frame)
        except OutboxFull:
            self._on_overflow(self)
            return
        if self.connection is not None:
            self.connection.wake()

    def call(
        self, request: Request[Any], receipt: asyncio.Future[Delivery] | None = None
    ) -> asyncio.Future[Delivery]:
        """Call the client, and return the future of its receipt.

        Args:
            request: what the client is asked.
            receipt: a future of `new_receipt`, whose time began earlier; None for a new one.
        """
        answered = receipt or self.new_receipt(self._limits.receipt_timeout)
        call_id = self._next_call
        self._next_call += 1
        self._calls[call_id] = answered
        answered.add_done_callback(lambda _: self._calls.pop(call_id, None))
        self.push(encode_call(call_id, request))
        if not self.lives:
            self.answer(call_id, accepted=False)
        return answered

    def new_receipt(self, timeout: float) -> asyncio.Future[Delivery]:
        """A future that is UNCONFIRMED after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Delivery] = loop.create_future()
        timer = loop.call_later(timeout, self._time_out, answered)
        answered.add_done_callback(lambda _: timer.cancel())
        return answered

    def push_to_member(self, channel_id: str, frame: str) -> None:
        """As `push`, but after the frames that `catch_up` still has to send for that channel."""
        waiting = self._held_channels.get(channel_id)
        if waiting is None:
            self.push(frame)
        elif len(waiting) < self._limits.outbox_frames:
            waiting.append(frame)
        else:
            self._on_overflow(self)

    def hold_channel(self, channel_id: str) -> None:
        """Hold back the channel's new frames until `catch_up` has sent the missed ones."""
        self._held_channels[channel_id] = []

    def release_channel(self, channel_id: str) -> None:
        """Push the frames that `hold_channel` held back, if any."""
        for frame in self._held_channels.pop(channel_id, ()):
            self.push(frame)

    async def catch_up(self, channel_id: str, missed: Iterable[str]) -> None:
        """Send the frames that a member missed, no faster than the client acknowledges them."""
        held = self._held_channels.get(channel_id)
        for frame in missed:
            await self.wait_until(self.has_room)
            if not self.lives or held is None or self._held_channels.get(channel_id) is not held:
                return  # the user has left meanwhile, and perhaps joined again
            self.push(frame)
        self.release_channel(channel_id)

    def has_room(self) -> bool:
        """Whether more than an eighth of the outbox is free.

        The eighth is reserved for the frames that are pushed meanwhile. Catching up cannot get
        stuck: a client acknowledges at least every 32 frames, and 32 of the largest messages take
        less than the other seven eighths.
        """
        return self.outbox.fullness < _NEARLY_FULL

    def has_room_for_peers(self) -> bool:
        """Whether more than a quarter of the outbox is free.

        Other users' messages wait otherwise: they must not end the session of a slow client.
        """
        return self.outbox.fullness < _PEERS_SHARE

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition, or for the session's end.

        The condition is looked at when the client has acknowledged frames, and after
        `notice_change`.
        """
        while self.lives and not condition():
            self._changed.clear()
            await self._changed.wait()

    async def wait_for_change(self, timeout: float) -> None:
        """Wait until the client acknowledges frames, `notice_change`, or for `timeout` seconds."""
        self._changed.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def notice_change(self) -> None:
        """Have those that wait for a change look again."""
        self._changed.set()

    def acknowledge(self, received: int) -> None:
        """The client has received this many frames. Raises ValueError for an impossible count."""
        self.outbox.acknowledge(received)
        self._changed.set()

    def rewind(self, received: int) -> None:
        """The client resumes with this many frames. Raises ValueError for an impossible count."""
        self.outbox.rewind(received)
        self._changed.set()

    def answer(self, call_id: int, *, accepted: bool) -> None:
        """The client has answered a call."""
        future = self._calls.pop(call_id, None)
        if future is not None and not future.done():
            future.set_result(Delivery.RECEIVED if accepted else Delivery.OFFLINE)

    def end(self) -> None:
        """Resolve all pending receipts as OFFLINE. Called once the session has ended."""
        for future in list(self._calls.values()):
            if not future.done():
                future.set_result(Delivery.OFFLINE)
        self._calls.clear()
        self._changed.set()

    @staticmethod
    def _time_out(answered: asyncio.Future[Delivery]) -> None:
        if not answered.done():
            answered.set_result(Delivery.UNCONFIRMED)
