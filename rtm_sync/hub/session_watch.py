"""Looks at every session each second: reachability, credentials, frames to acknowledge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..protocol.events import TokenPrivilegeWillExpire
from ..protocol.frames import encode_notice
from ..rules.limits import Limits
from .auth.policy import LoginPolicy
from .dispatch import Dispatcher
from .engine.directory import Directory
from .registry import Registry, SessionEnd
from .services.administration import AdministrationService
from .session import Session
from .tasks import BackgroundTasks

_INTERVAL = 1.0

logger = logging.getLogger(__name__)


class SessionWatch:
    """The loop of one hub that looks at its sessions.

    Args:
        registry: the sessions with connections.
        administration: has the service sessions.
        login_policy: says which credentials are still valid.
        dispatcher: acknowledges frames.
        directory: is told which users are reachable.
        limits: times.
        now: the wall clock, seconds since the epoch.
        tasks: runs what tells the directory.
        end: ends a session.
    """

    def __init__(
        self,
        registry: Registry[Session],
        administration: AdministrationService,
        login_policy: LoginPolicy,
        dispatcher: Dispatcher,
        directory: Directory,
        limits: Limits,
        now: Callable[[], float],
        tasks: BackgroundTasks,
        end: Callable[[Session, SessionEnd], object],
    ) -> None:
        self._registry = registry
        self._administration = administration
        self._login_policy = login_policy
        self._dispatcher = dispatcher
        self._directory = directory
        self._limits = limits
        self._now = now
        self._tasks = tasks
        self._end = end

    async def run(self) -> None:
        """Look at all sessions, again and again."""
        while True:
            now = asyncio.get_running_loop().time()
            for session in self._registry:
                reachable = session.silence(now) <= self._limits.unreachable_after
                if reachable is not session.reachable:
                    session.reachable = reachable
                    self._tasks.spawn(self._report_reachability(session, reachable=reachable))
                self._check_credentials(session)
                self._dispatcher.acknowledge(session)
            self._administration.sweep()
            await asyncio.sleep(_INTERVAL)

    async def _report_reachability(self, session: Session, *, reachable: bool) -> None:
        try:
            await self._directory.set_reachable(*session.user, session.id, reachable=reachable)
        except OSError as error:
            logger.warning("the reachability of %r was not reported: %s", session, error)

    def _check_credentials(self, session: Session) -> None:
        left = session.token_time_left(self._now())
        if left <= 0:
            self._end(session, SessionEnd.TOKEN_EXPIRED)
        elif not self._login_policy.holds(session.app_id, session.grant):
            self._end(session, SessionEnd.KEY_REMOVED)
        elif left <= self._limits.token_warning and not session.token_warning_sent:
            session.token_warning_sent = True
            session.push(encode_notice(TokenPrivilegeWillExpire()))
