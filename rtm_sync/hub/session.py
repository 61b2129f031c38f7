"""One user's session on a hub: what outlives the connection. No I/O; lives on the hub's loop."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import RtmError
from ..protocol.frames import encode_call
from ..protocol.requests import Request
from ..rules.limits import Limits
from ..rules.rates import KeyedWindows
from ..rules.requests import CallRates
from ..rules.sequence import Outbox, OutboxFull
from .auth.tokens import Grant, Privileges
from .engine.node import Delivery
from .registry import Connection, Life, SessionState

_CROWDED = 7 / 8
_EVERYTHING = Privileges()


class Session:
    """A logged-in user: outbox, receipts, channels, budgets.

    Attributes:
        id: names the session and is its bearer token; secret.
        life: its state, which only the registry changes.
        received: numbered frames the hub has from the client.
        acknowledged: how many of those the client was told.
        channels: joined channels.
        memberships: channels in which the engine may have the session, joined or not; what its end
            has to leave. A join or leave that failed may have been done.
        subscriptions: users whose presence the client is told of.
        reachable: what was last told of the user: ONLINE, or (False) UNREACHABLE.
        grant: what its token allows; None where no token is asked for.
        warned: the client was told that its token is about to end.
        transfers: one permit for each upload or download at once.

    Args:
        on_overflow: called when the client does not acknowledge for too long; ends the session.
    """

    def __init__(
        self,
        app_id: str,
        uid: str,
        limits: Limits,
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
        self.warned = False
        self._rates = CallRates(limits)
        self._lost_at = asyncio.get_running_loop().time()
        self.same_channel_joins = KeyedWindows(limits.same_channel_joins, max_keys=1000)
        self.outbox = Outbox(limits.outbox_frames, limits.outbox_bytes)
        self._held: list[Callable[[], object]] | None = []
        self._catching_up: dict[str, list[str]] = {}
        self._calls: dict[int, asyncio.Future[Delivery]] = {}
        self._next_call = 1
        self._on_overflow = on_overflow
        self._progress = asyncio.Event()  # set when outbox space frees up or the session ends
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Session of {self.uid!r} in {self.app_id!r}>"

    @property
    def user(self) -> tuple[str, str]:
        """The app's id and the user's."""
        return self.app_id, self.uid

    @property
    def lives(self) -> bool:
        """Whether it has not ended; ask again after every `await`."""
        return self.life.state is not SessionState.ENDED

    def require_life(self, family: type[RtmError]) -> None:
        """Go on only while it lives: called after an `await`, before anything is registered.

        Raises:
            RtmError: NOT_LOGGED_IN, of that family.
        """
        if not self.lives:
            raise family.named("NOT_LOGGED_IN", "The session has ended; log in again.")

    @property
    def connection(self) -> Connection | None:
        """What carries its frames now, or None while the client is away."""
        return self.life.connection if self.life.state is SessionState.ATTACHED else None

    def check_rate(self, name: str, family: type[RtmError]) -> None:
        """Count one more call of a kind that `Limits` has a rate for.

        Raises:
            RtmError: TOO_OFTEN, of that family.
        """
        refusal = self._rates.refusal(name, asyncio.get_running_loop().time())
        if refusal is not None:
            raise family.named(*refusal)

    def take_grant(self, grant: Grant | None) -> None:
        """What the session's newest token allows."""
        self.grant = grant
        self.warned = False

    @property
    def privileges(self) -> Privileges:
        """What its user may do."""
        return _EVERYTHING if self.grant is None else self.grant.privileges

    def token_time_left(self, now: float) -> float:
        """Seconds until the session's token ends; `now` is seconds since the epoch."""
        return float("inf") if self.grant is None else self.grant.expires_at - now

    def silence(self, now: float) -> float:
        """Seconds since the client was last heard of. `now` is the loop's time."""
        if self.connection is None:
            return now - self._lost_at
        self._lost_at = now - self.connection.silence
        return self.connection.silence

    def push(self, frame: str) -> None:
        """Queue a frame for the client; a client that is too far behind loses its session."""
        self._in_turn(lambda: self._push(frame))

    def call(self, request: Request[Any]) -> asyncio.Future[Delivery]:
        """Call the client; the future says whether it took the message, within the time-out."""
        answered = self._receipt()
        self._in_turn(lambda: self._call(request, answered))
        return answered

    def push_to_member(self, channel_id: str, frame: str) -> None:
        """As `push`, after what the member of that channel is catching up on."""
        waiting = self._catching_up.get(channel_id)
        if waiting is None:
            self.push(frame)
        elif len(waiting) < self._limits.outbox_frames:
            waiting.append(frame)
        else:
            self._on_overflow(self)

    def hold_channel(self, channel_id: str) -> None:
        """Keep what comes from the channel until `catch_up` has sent what went before."""
        self._catching_up[channel_id] = []

    def release_channel(self, channel_id: str) -> None:
        """Let go what was held, if anything was."""
        for frame in self._catching_up.pop(channel_id, ()):
            self.push(frame)

    async def catch_up(self, channel_id: str, missed: Iterable[str]) -> None:
        """Send frames that a held channel's member missed, no faster than the client keeps up."""
        held = self._catching_up.get(channel_id)
        await self._until(lambda: self._held is None)  # offline messages go before everything
        for frame in missed:
            await self._until(self._has_room)
            if not self.lives or held is None or self._catching_up.get(channel_id) is not held:
                return  # left meanwhile, and perhaps joined again
            self.push(frame)
        self.release_channel(channel_id)

    async def call_first(self, request: Request[Any]) -> asyncio.Future[Delivery]:
        """As `call`, before everything that is held, and no faster than the client keeps up."""
        await self._until(self._has_room)
        answered = self._receipt()
        self._call(request, answered)
        return answered

    def release(self) -> None:
        """Let go what was held since the session began (the offline messages go first)."""
        held, self._held = self._held or [], None
        for push in held:
            push()
        self._progress.set()

    def acknowledge(self, received: int) -> None:
        """The client has dealt with so many frames. Raises ValueError when it cannot have."""
        self.outbox.acknowledge(received)
        self._progress.set()

    def rewind(self, received: int) -> None:
        """The client is back and has so many frames. Raises ValueError when it cannot have."""
        self.outbox.rewind(received)
        self._progress.set()

    def answer(self, call_id: int, *, accepted: bool) -> None:
        """The client has answered a call."""
        future = self._calls.pop(call_id, None)
        if future is not None and not future.done():
            future.set_result(Delivery.RECEIVED if accepted else Delivery.OFFLINE)

    def end(self) -> None:
        """Answer what waits for the client; the session has ended, so that it hears of nothing."""
        self.release()
        for future in self._calls.values():
            if not future.done():
                future.set_result(Delivery.OFFLINE)
        self._calls.clear()

    def _in_turn(self, push: Callable[[], object]) -> None:
        """Do it now, or when what goes first has gone."""
        if self._held is None:
            push()
        elif len(self._held) < self._limits.outbox_frames:
            self._held.append(push)
        else:
            self._on_overflow(self)

    def _has_room(self) -> bool:
        """Whether more than an eighth of the outbox is left, for what else is sent meanwhile.

        A client acknowledges at the latest after 32 frames, and 32 of the largest messages are less
        than the rest.
        """
        return self.outbox.fullness < _CROWDED

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, or for the session's end."""
        while self.lives and not condition():
            self._progress.clear()
            await self._progress.wait()

    def _receipt(self) -> asyncio.Future[Delivery]:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Delivery] = loop.create_future()
        timer = loop.call_later(self._limits.receipt_timeout, self._give_up, answered)
        answered.add_done_callback(lambda _: timer.cancel())
        return answered

    def _call(self, request: Request[Any], answered: asyncio.Future[Delivery]) -> None:
        call_id = self._next_call
        self._next_call += 1
        self._calls[call_id] = answered
        answered.add_done_callback(lambda _: self._calls.pop(call_id, None))
        self._push(encode_call(call_id, request))
        if not self.lives:
            self.answer(call_id, accepted=False)

    @staticmethod
    def _give_up(answered: asyncio.Future[Delivery]) -> None:
        if not answered.done():
            answered.set_result(Delivery.UNCONFIRMED)

    def _push(self, frame: str) -> None:
        if not self.lives:
            return
        try:
            self.outbox.push(frame)
        except OutboxFull:
            self._on_overflow(self)
            return
        if self.connection is not None:
            self.connection.wake()
