"""Every limit a hub enforces, each with its source, and the sliding window. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from ..blob import MEDIA_LIMIT
from ..protocol.ids import RETENTION_SECONDS
from .rates import Rate, positive

MAX_TRANSFERS = 9
"""Transfers at once per client, uploads and downloads together (reference 1.3: at most nine)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one hub allows. Sizes are bytes, times seconds. The defaults are the reference's Linux
    server tier (reference 1.3, call frequency); `Limits.web()` is the other one.

    Attributes:
        media_size: one medium (reference 1.3: 30 MB).
        transfers: uploads and downloads at once per session (reference 1.3: nine).
        retention: life of media and offline messages (reference 1.3: seven days).
        joined_channels: per session (reference 1.3: 20).
        offline_messages: waiting for one user, the oldest dropped (reference 1.3: 200).
        sends: peer and channel messages together, per session (Linux: 1,500 in 3 s).
        joins, same_channel_joins: per session (reference 1.3: 50 in 3 s; 2 in 5 s).
        logins: per user (reference 1.3: 2 a second).
        history_reads: pages of up to 100 messages, per session. Ours.
        token_renewals, member_lists, member_counts, presence_queries, presence_subscriptions,
            presence_unsubscriptions, subscription_queries, user_attribute_writes,
            user_attribute_reads, channel_attribute_writes, channel_attribute_reads: calls, per
            session (reference 1.3, call frequency).
        queried_peers, counted_channels: ids in one query (reference 1.3: 256; 32).
        subscribed_peers: users one session may watch (reference 1.3: 512).
        announced_members: in larger channels nobody is told who joins or leaves, and member lists
            are a random so many (reference 1.3: 512).
        invitation_content: of an invitation or its answer (reference 1.3: 8 KB).
        unreachable_after: silence after which a user is UNREACHABLE (reference 1.3: 6 s).
        token_warning: how long before its token ends a session is told (reference 1.5: 30 s).
        receipt_timeout: how long a receiver may take to confirm (reference 1.3: sends end in 10 s).
        session_grace: how long a session outlives its connection (reference 1.3: 30 s).
        unfinished_uploads: begun and not ended, per user, the nine that move included. Ours.
        upload_idle: how long an unfinished upload is kept without a byte. Ours.
        duplicate_window, remembered_sends: how long, and how many, message ids are remembered, so
            that a message sent again under its id is not delivered again. Ours.
        outbox_frames, outbox_bytes: unacknowledged by one client before it is too slow. Ours.
        sessions: at once on this node. Ours.
        user_bytes, app_bytes: media that a user, or an app, may keep at once, unfinished uploads
            included; None is no quota. Ours.
        user_uploads, app_uploads: uploads that a user, or an app, may begin; None is no quota.
            Ours.
    """

    media_size: int = MEDIA_LIMIT
    transfers: int = MAX_TRANSFERS
    retention: float = RETENTION_SECONDS
    joined_channels: int = 20
    offline_messages: int = 200
    sends: Rate = Rate(1500, 3.0)
    joins: Rate = Rate(50, 3.0)
    same_channel_joins: Rate = Rate(2, 5.0)
    logins: Rate = Rate(2, 1.0)
    history_reads: Rate = Rate(100, 5.0)
    token_renewals: Rate = Rate(2, 1.0)
    member_lists: Rate = Rate(5, 2.0)
    member_counts: Rate = Rate(1, 1.0)
    presence_queries: Rate = Rate(100, 5.0)
    presence_subscriptions: Rate = Rate(10, 5.0)
    presence_unsubscriptions: Rate = Rate(10, 5.0)
    subscription_queries: Rate = Rate(10, 5.0)
    user_attribute_writes: Rate = Rate(100, 5.0)
    user_attribute_reads: Rate = Rate(400, 5.0)
    channel_attribute_writes: Rate = Rate(100, 5.0)
    channel_attribute_reads: Rate = Rate(400, 5.0)
    queried_peers: int = 256
    subscribed_peers: int = 512
    counted_channels: int = 32
    announced_members: int = 512
    invitation_content: int = 8 * 1024
    unreachable_after: float = 6.0
    token_warning: float = 30.0
    receipt_timeout: float = 8.0
    session_grace: float = 30.0
    unfinished_uploads: int = 100
    upload_idle: float = 600.0
    duplicate_window: float = 120.0
    remembered_sends: int = 50_000
    outbox_frames: int = 2048
    outbox_bytes: int = 8 * 1024 * 1024
    sessions: int = 10_000
    user_bytes: int | None = None
    app_bytes: int | None = None
    user_uploads: Rate | None = None
    app_uploads: Rate | None = None

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Read a tier and what differs from it: `web sends=500/3 user_bytes=1_000_000_000`.

        Rates are COUNT/SECONDS; the tier, "linux" or "web", may be left out for "linux".

        Raises:
            ValueError: the sentence names what cannot be.
        """
        words = text.split()
        tier = cls.web() if words[:1] == ["web"] else cls()
        if words[:1] in (["web"], ["linux"]):
            words.pop(0)
        kinds = {item.name: str(item.type).partition(" ")[0] for item in fields(cls)}
        given: dict[str, object] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise ValueError(f'{word!r} is neither "linux", "web" nor NAME=VALUE')
            if name not in kinds:
                raise ValueError(f"{name!r} is no limit; there are {', '.join(kinds)}")
            read, form = _READERS[kinds[name]]
            try:
                given[name] = read(value)
            except ValueError:
                raise ValueError(f"{name} is {value!r}; it must be {form}") from None
        return replace(tier, **given)  # type: ignore[arg-type]  # each of its field's kind

    @classmethod
    def web(cls) -> Limits:
        """The reference's web, mobile and Windows tier."""
        return cls(
            sends=Rate(180, 3.0),
            presence_queries=Rate(10, 5.0),
            user_attribute_writes=Rate(10, 5.0),
            user_attribute_reads=Rate(40, 5.0),
            channel_attribute_writes=Rate(10, 5.0),
            channel_attribute_reads=Rate(10, 5.0),
        )


_READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "int": (lambda text: positive(int, text), "a whole number above 0"),
    "float": (lambda text: positive(float, text), "a number of seconds above 0"),
    "Rate": (Rate.parse, "COUNT/SECONDS, such as 180/3"),
}
