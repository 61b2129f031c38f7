"""The context of the request that is being answered: its address, app and user."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import web

from .addresses import Addresses

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TooManyGuesses(Exception):
    """An address has sent too many wrong tokens or secrets. The text is a sentence for it."""


@dataclass(slots=True)
class Guess:
    """One check of a token or secret.

    Attributes:
        is_wrong: the token or secret is wrong.
    """

    is_wrong: bool = False


@dataclass(slots=True)
class RequestContext:
    """The client that makes a request.

    Attributes:
        address: the client's address, behind trusted proxies.
        app_id, uid: the app and user of the request, once a token or secret has proved them.
        guess: checks a token or secret within the address's limit, as `guessing` does; None where
            wrong ones do not count.
    """

    address: str
    app_id: str = ""
    uid: str = ""
    guess: Callable[[], AbstractAsyncContextManager[Guess]] | None = None


request_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)
"""The context of the request that the present task answers."""


class RequestContextMiddleware:
    """A middleware that sets `request_context`; the access log resets it."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    @web.middleware
    async def begin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request_context.set(RequestContext(self._addresses.of(request)))
        return await handler(request)


def note_user(app_id: str, uid: str = "") -> None:
    """Record the authenticated app and user of the request in progress."""
    present = request_context.get()
    if present is not None:
        present.app_id, present.uid = app_id, uid


@contextlib.asynccontextmanager
async def guessing() -> AsyncIterator[Guess]:
    """Check a token or secret of the request in progress inside the block.

    The block sets `is_wrong` of the guess. Where too many of the address are being checked, it
    begins after them.

    Raises:
        TooManyGuesses: the address has sent too many wrong ones.
    """
    present = request_context.get()
    if present is None or present.guess is None:
        yield Guess()
        return
    async with present.guess() as guess:
        yield guess
