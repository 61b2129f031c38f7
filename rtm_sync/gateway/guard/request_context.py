"""What is known of the request that is being answered."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class RequestContext:
    """Who makes a request.

    Attributes:
        address: where it comes from, proxies looked through.
        app_id, uid: whose it is, once that is proved.
        is_wrong: its token or secret was none of ours.
    """

    address: str
    app_id: str = ""
    uid: str = ""
    is_wrong: bool = False


request_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)
"""The context of the request that the present task answers."""


def note_user(app_id: str, uid: str = "") -> None:
    """The request is of this app, and user, as it has proved."""
    present = request_context.get()
    if present is not None:
        present.app_id, present.uid = app_id, uid


def note_wrong() -> None:
    """The request showed a token or secret that is none of ours."""
    present = request_context.get()
    if present is not None:
        present.is_wrong = True
