"""The log's lines about logins and the ends of sessions. They have no secrets."""

from __future__ import annotations

import logging

from ..protocol.ids import app_id_problem, id_problem
from ..protocol.requests import Login
from .registry import SessionEnd
from .session import Session

logger = logging.getLogger(__name__)


def log_login(login: Login, outcome: str) -> None:
    """Log a login that was answered.

    Args:
        login: the request. Ids that are not valid are not logged: a client may send any text.
        outcome: "new", "resumed", or the name of the error in lower case.
    """
    app_id = login.app_id if app_id_problem(login.app_id) is None else "?"
    uid = login.uid if id_problem("uid", login.uid) is None else "?"
    logger.info(
        "login of %s@%s: %s",
        uid,
        app_id,
        outcome,
        extra={"event": "login", "app_id": app_id, "uid": uid, "outcome": outcome},
    )


def log_session_end(session: Session, end: SessionEnd) -> None:
    """Log why a session has ended."""
    logger.info(
        "session of %s@%s ended: %s",
        session.uid,
        session.app_id,
        end.value,
        extra={
            "event": "session_ended",
            "app_id": session.app_id,
            "uid": session.uid,
            "reason": end.value,
        },
    )
