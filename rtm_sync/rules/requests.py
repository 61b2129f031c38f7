"""Checks of a request before it is handled. Pure: time is an argument.

A hub applies these rules, and so does a transport without a hub. Each message names the value, the
limit and the remedy. The caller raises it in the request's family of errors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ..protocol.ids import id_problem, message_id_problem
from ..protocol.requests import SendInvitation, SendMessageToPeer
from .limits import Limits
from .rates import KeyedWindows, Rate, SlidingWindow

Choose = Callable[[Sequence[str], int], Sequence[str]]


class Refusal(NamedTuple):
    """Why a request is refused.

    Attributes:
        reason: the error code's name without its prefix, such as "TOO_OFTEN".
        message: one readable sentence.
    """

    reason: str
    message: str


class CallRates:
    """The sliding windows of one user, one for each kind of call. Not thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._windows: dict[str, SlidingWindow] = {}

    def refusal(self, name: str, now: float) -> Refusal | None:
        """Count one more call, or refuse it. Refused calls do not count.

        Args:
            name: a field of `Limits` that is a rate, such as "sends".
            now: seconds of a monotonic clock.
        """
        rate: Rate = getattr(self._limits, name)
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = SlidingWindow(rate)
        if window.allow(now):
            return None
        return Refusal("TOO_OFTEN", f"More {name.replace('_', ' ')} than {rate}; slow down.")

    def are_idle(self, now: float) -> bool:
        """Whether no call counts any longer."""
        return all(window.is_idle(now) for window in self._windows.values())


class UserRates:
    """The call rates of the users, which outlive their sessions. Not thread-safe.

    A user who logs in again goes on with the same rates. Rates that have become idle are forgotten
    when many users are known.

    Args:
        limits: has the rates.
        most: the number of known users above which idle ones are forgotten.
    """

    def __init__(self, limits: Limits, most: int = 10_000) -> None:
        self._limits = limits
        self._most = self._forget_above = most
        self._rates: dict[tuple[str, str], CallRates] = {}

    def __len__(self) -> int:
        return len(self._rates)

    def of(self, user: tuple[str, str], now: float) -> CallRates:
        """The rates of a user.

        Args:
            user: app id and uid.
            now: seconds of a monotonic clock.
        """
        rates = self._rates.get(user)
        if rates is None:
            if len(self._rates) >= self._forget_above:
                self._rates = {
                    known: rates for known, rates in self._rates.items() if not rates.are_idle(now)
                }
                self._forget_above = max(self._most, 2 * len(self._rates))
            rates = self._rates[user] = CallRates(self._limits)
        return rates


def sessions_problem(sessions: int, of_app: int, limits: Limits) -> str | None:
    """Check the number of sessions before one more. Returns the problem, or None.

    Args:
        sessions: of all apps.
        of_app: of the app.
        limits: has the limits of both.
    """
    for owner, number, most in (
        ("app", of_app, limits.app_sessions),
        ("gateway", sessions, limits.sessions),
    ):
        if number >= most:
            return f"The {owner} has {number:,} sessions; the limit is {most:,}. Try again later."
    return None


def peer_message_refusal(request: SendMessageToPeer) -> Refusal | None:
    """Check the ids of a message to a peer. Returns None when they are valid."""
    problem = id_problem("peer_id", request.peer_id)
    if problem is not None:
        return Refusal("INVALID_USERID", problem)
    problem = message_id_problem(request.message_id)
    return None if problem is None else Refusal("INVALID_MESSAGE", problem)


def peers_problem(peer_ids: Sequence[str], limit: int | None) -> str | None:
    """Check the user ids of a request. Returns the problem, or None.

    Args:
        limit: how many one request may name; None for any number.
    """
    if not peer_ids:
        return "peer_ids is empty; name at least one user."
    if limit is not None and len(peer_ids) > limit:
        return f"{len(peer_ids)} peer_ids are too many for one call; the limit is {limit}."
    problems = (id_problem("peer_id", uid) for uid in peer_ids)
    return next(filter(None, problems), None)


def join_refusal(
    channel_id: str,
    joined: Collection[str],
    same_channel_joins: KeyedWindows,
    limits: Limits,
    now: float,
) -> Refusal | None:
    """Check whether a session may join a channel. Counts the join, unless it is refused.

    Args:
        joined: the channels of the session.
        same_channel_joins: the session's joins by channel.
        now: seconds of a monotonic clock.
    """
    if channel_id in joined:
        return Refusal("ALREADY_JOINED", f"The user has already joined {channel_id!r}.")
    if len(joined) >= limits.joined_channels:
        return Refusal(
            "EXCEED_LIMIT",
            f"The user has joined {len(joined)} channels; the limit is {limits.joined_channels}. "
            "Leave one first.",
        )
    if not same_channel_joins.allow(channel_id, now):
        return Refusal(
            "JOIN_SAME_CHANNEL_TOO_OFTEN",
            f"{channel_id!r} is joined more often than {limits.same_channel_joins}; "
            "try again later.",
        )
    return None


def invitation_problem(request: SendInvitation, limits: Limits) -> str | None:
    """Check a step of an invitation. Returns the problem, or None."""
    problem = id_problem("peer_id", request.peer_id)
    if problem is None and request.channel_id:
        problem = id_problem("channel_id", request.channel_id)
    problem = problem or message_id_problem(request.invitation_id)
    size, limit = len(request.content.encode()), limits.invitation_content
    if problem is None and size > limit:
        problem = f"content has {size:,} bytes; the limit is {limit:,}."
    return problem


def announces_members(count: int, limits: Limits) -> bool:
    """Whether a channel with that many members announces joins and leaves."""
    return count <= limits.announced_members


def listed_members(
    uids: Sequence[str], limits: Limits, choose: Choose = random.sample
) -> Sequence[str]:
    """The members to list: all of them, or a random sample of a large channel."""
    most = limits.announced_members
    return uids if len(uids) <= most else choose(uids, most)
