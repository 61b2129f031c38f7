"""Every limit that a hub enforces, each with its source. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from ..blob import MEDIA_LIMIT
from ..protocol.ids import RETENTION_SECONDS
from .rates import Rate, positive

MAX_TRANSFERS = 9
"""The most concurrent transfers of a client, uploads and downloads together (reference 1.3)."""

_LARGEST = {
    **dict.fromkeys(
        ("queried_peers", "subscribed_peers", "counted_channels", "announced_members"), 3000
    ),
    "invitation_content": 32 * 1024,
}
"""The largest values of the limits that bound a frame: an answer with as many of the longest ids,
or with an invitation of control characters, is no larger than a frame may be."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one hub. Sizes are in bytes, times in seconds.

    The defaults are the reference's Linux server tier (reference 1.3, call frequency);
    `Limits.web()` is the other tier. Limits marked "Ours" are not in the reference.

    Attributes:
        media_size: the size of one medium (reference 1.3: 30 MB).
        transfers: concurrent uploads and downloads per session (reference 1.3: nine).
        retention: the lifetime of media and offline messages (reference 1.3: seven days).
        joined_channels: joined channels per session (reference 1.3: 20).
        offline_messages: messages that were sent to a user who was offline and that no client was
            offered yet; the oldest are dropped (reference 1.3: 200).
        mailbox_messages, mailbox_bytes: all stored messages of one user that are not handled, and
            the size of their JSON; further messages are refused. Ours.
        mailbox_sender_messages, mailbox_sender_bytes: those of one sender. Ours.
        unhandled_messages: stored messages that a session has been offered and has not handled;
            further ones wait. Ours.
        sends: peer and channel messages together, per user (Linux: 1,500 in 3 s).
        joins: joins per user (reference 1.3: 50 in 3 s).
        same_channel_joins: joins of one channel, per session (reference 1.3: 2 in 5 s).
        logins: logins per user (reference 1.3: 2 a second).
        notices: notifications of a client, per user: cancelled uploads, reports of handled
            messages, and changes of listening. The connection of one that sends more is closed.
            Ours.
        history_reads: pages of up to 100 messages, per user. Ours.
        token_renewals, member_lists, member_counts, presence_queries, presence_subscriptions,
            presence_unsubscriptions, subscription_queries, user_attribute_writes,
            user_attribute_reads, channel_attribute_writes, channel_attribute_reads: calls, per
            user (reference 1.3, call frequency).
        queried_peers, counted_channels: ids in one query (reference 1.3: 256; 32).
        subscribed_peers: presence subscriptions per session (reference 1.3: 512).
        announced_members: in channels with more members, joins and leaves are not announced, and
            member lists are a random selection of this size (reference 1.3: 512).
        invitation_content: the content of an invitation or its answer (reference 1.3: 8 KB).
        unreachable_after: the silence after which a user is UNREACHABLE (reference 1.3: 6 s).
        token_warning: the time from the warning to the expiry of a session's token (reference 1.5:
            30 s).
        receipt_timeout: the time that a receiver has to confirm a message (reference 1.3: sends end
            in 10 s).
        session_grace: the time that a session survives without a connection (reference 1.3: 30 s).
        unfinished_uploads: unfinished uploads per user, running ones included. Ours.
        upload_idle: the time that an unfinished upload is kept without a new byte. Ours.
        duplicate_window: the time for which a message id is remembered: a message that is sent
            again with its id is not delivered again. Ours.
        remembered_sends: message ids remembered for one sender, of 200 bytes each; a sender with
            more in the window is refused. None is enough for what `sends` allows. Ours.
        outbox_frames, outbox_bytes: unacknowledged frames and bytes of a client, beyond which it is
            a slow consumer and its session ends. Ours.
        sessions, app_sessions: sessions on this node, and those of one app. Ours.
        user_message_bytes, app_message_bytes: bytes of the messages that a user, or an app, has
            sent and that are stored, in mailboxes and the history together; further messages that
            would be stored are refused. Ours.
        user_bytes, app_bytes: bytes of media of a user, or an app, including unfinished uploads;
            None is no quota. Ours.
        user_uploads, app_uploads: uploads that a user, or an app, may begin; None is no quota.
            Ours.

    Raises:
        ValueError: a limit allows answers that do not fit into one frame.
    """

    media_size: int = MEDIA_LIMIT
    transfers: int = MAX_TRANSFERS
    retention: float = RETENTION_SECONDS
    joined_channels: int = 20
    offline_messages: int = 200
    mailbox_messages: int = 20_000
    mailbox_bytes: int = 128 * 1024 * 1024
    mailbox_sender_messages: int = 10_000
    mailbox_sender_bytes: int = 64 * 1024 * 1024
    unhandled_messages: int = 1000
    sends: Rate = Rate(1500, 3.0)
    joins: Rate = Rate(50, 3.0)
    same_channel_joins: Rate = Rate(2, 5.0)
    logins: Rate = Rate(2, 1.0)
    notices: Rate = Rate(10_000, 5.0)
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
    remembered_sends: int | None = None
    outbox_frames: int = 2048
    outbox_bytes: int = 8 * 1024 * 1024
    sessions: int = 10_000
    app_sessions: int = 9_000
    user_message_bytes: int = 1_000_000_000
    app_message_bytes: int = 10_000_000_000
    user_bytes: int | None = None
    app_bytes: int | None = None
    user_uploads: Rate | None = None
    app_uploads: Rate | None = None

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value: int = getattr(self, name)
            if value > largest:
                raise ValueError(
                    f"{name} is {value:,}; it must be at most {largest:,}, because one frame holds "
                    "no more"
                )

    @property
    def remembered_sends_of_sender(self) -> int:
        """The most message ids that are remembered for one sender.

        If it is not given, there is room for all that `sends` allows in `duplicate_window`, and
        half as many, because a user who goes to another gateway is counted anew there.
        """
        if self.remembered_sends is not None:
            return self.remembered_sends
        periods = math.ceil(self.duplicate_window / self.sends.seconds)
        return self.sends.count * periods * 3 // 2

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Parse a tier and changes to it: `web sends=500/3 user_bytes=1_000_000_000`.

        Rates are COUNT/SECONDS. The tier is "linux" or "web", and "linux" when it is left out.

        Raises:
            ValueError: an unknown limit or an invalid value; the message names it.
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
                raise ValueError(f"{name!r} is not a limit; the limits are {', '.join(kinds)}")
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
