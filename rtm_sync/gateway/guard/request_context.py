"""The context of the request that is being answered: its address, app and user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import web

from .addresses import Addresses

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class RequestContext:
    """The client that makes a request.

    Attributes:
        address: the client's address, behind trusted proxies.
        app_id, uid: the app and user of the request, once a token or secret has proved them.
        auth_failed: the request had a wrong token or secret.
    """

    address: str
    app_id: str = ""
    uid: str = ""
    auth_failed: bool = False


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


def note_auth_failure() -> None:
    """Record that the request in progress had a wrong token or secret."""
    present = request_context.get()
    if present is not None:
        present.auth_failed = True
