"""The history: the messages that were sent with `enable_historical_messaging`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...errors import ChannelMessageError, HistoryError, PeerMessageError
from ...protocol.codec import MAX_INTEGER, encode_json
from ...protocol.events import ChannelMessage
from ...protocol.frames import encode_reply
from ...protocol.ids import FRAME_LIMIT, id_problem
from ...protocol.requests import GetHistory, MessageFromPeer
from ...protocol.values import HistoricalMessage, HistoryPage
from ...rules.limits import Limits
from ..engine.archive import Archive, HistoryQuery
from ..engine.part import QuotaExceeded, Quotas
from ..session import Session

_PAGE = 100
"""The maximum number of messages in one answer."""

_ENVELOPE = len(encode_reply(MAX_INTEGER, HistoryPage((), MAX_INTEGER)))
"""The bytes of a page's frame without its messages, with the longest numbers."""


class HistoryService:
    """Stores messages in the history, and serves `get_history`.

    Args:
        archive: stores the messages.
        limits: rates, sizes and times.
        now: the wall clock, seconds since the epoch.
    """

    def __init__(self, archive: Archive, limits: Limits, now: Callable[[], float]) -> None:
        self._archive = archive
        self._limits = limits
        self._now = now
        self._quotas = Quotas(limits.user_message_bytes, limits.app_message_bytes)

    async def keep(
        self, session: Session, destination: str, sent: MessageFromPeer | ChannelMessage
    ) -> None:
        """Store a message that the session sends. It is durable when this returns.

        Raises:
            PeerMessageError, ChannelMessageError: FAILURE, a quota does not allow it.
            OSError: the archive failed.
        """
        message = HistoricalMessage(
            sent.message,
            session.uid,
            destination,
            isinstance(sent, ChannelMessage),
            sent.message_id,
            replace(sent.message_props, is_historical_message=True, is_offline_message=False),
        )
        try:
            await self._archive.store_history(
                session.app_id, message, self._limits.retention, self._quotas
            )
        except QuotaExceeded as error:
            family = ChannelMessageError if message.is_channel else PeerMessageError
            raise family.named("FAILURE", str(error), error) from error

    async def get(self, session: Session, request: GetHistory) -> HistoryPage:
        peer_id, channel_id = request.peer_id, request.channel_id
        if (peer_id is None) == (channel_id is None):
            raise HistoryError.named("INVALID_ARGUMENT", "Give a peer_id or a channel_id.")
        kind, value = ("channel_id", channel_id) if peer_id is None else ("peer_id", peer_id)
        problem = id_problem(kind, value)
        if problem is None and not 1 <= request.limit <= _PAGE:
            problem = f"limit is {request.limit}; it must be 1 to {_PAGE}."
        if problem is not None:
            raise HistoryError.named("INVALID_ARGUMENT", problem)
        if channel_id is not None and channel_id not in session.channels:
            raise HistoryError.named(
                "NOT_IN_CHANNEL", f"Join {channel_id!r} before reading its history."
            )
        session.check_rate("history_reads", HistoryError)
        query = HistoryQuery(
            source=None if peer_id is None else session.uid,
            destination=value,
            is_channel=peer_id is None,
            both_ways=peer_id is not None,
            start=request.start,
            end=request.end,
            newest_first=request.newest_first,
            after=request.after,
            limit=request.limit + 1,  # one more message shows that there is another page
            size=FRAME_LIMIT,
            asked_by=session.uid,
        )
        found = await self._archive.history(session.app_id, query, self._now())
        return _page(found, request.limit)

    async def find(self, app_id: str, query: HistoryQuery) -> list[HistoricalMessage]:
        """The messages that a query matches, of all users of an app; for its server processes."""
        return [item for _, item in await self._archive.history(app_id, query, self._now())]

    async def count(self, app_id: str, query: HistoryQuery) -> int:
        """The number of messages of an app that a query matches."""
        return await self._archive.history_count(app_id, query, self._now())


def _page(found: list[tuple[int, HistoricalMessage]], limit: int) -> HistoryPage:
    """A page of as many messages as fit in one frame with its envelope, and at least one.

    The largest message and its envelope fit.
    """
    page: list[HistoricalMessage] = []
    size, last = _ENVELOPE, None
    for key, message in found[:limit]:
        size += len(encode_json(message).encode()) + len(",")
        if page and size > FRAME_LIMIT:
            break
        page.append(message)
        last = key
    return HistoryPage(tuple(page), last if len(page) < len(found) else None)
