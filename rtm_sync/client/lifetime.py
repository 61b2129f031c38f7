"""The lifetime of a client: login, logout, close, and the end of the process."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable

from ..errors import LoginError, LogoutError, RtmError
from ..protocol.requests import Logout
from ..protocol.values import ConnectionChangeReason, ConnectionState
from ..rules.timing import Deadline
from ..transfers.at_exit import call_afterwards, is_ended_by_ctrl_c
from ..transfers.pool import WAITING_ADVICE, TransferPool
from ..transports.base import Credentials, Listener, Transport
from .events import Dispatcher
from .invitation_registry import InvitationRegistry
from .peer_messages import PeerMessages

_LOGOUT_TIMEOUT = 1.0
_LOGIN_PATIENCE = 5.0  # seconds a logout waits for another thread's login to fail
_CLOSE_AGAIN = 0.02
_DRAIN = 1.0  # seconds that `close` gives the handlers of waiting messages before the logout
_HANDLER_TIME = 5.0  # seconds that the handlers of one message have before a logout
_THREAD_TIME = 6.0  # seconds from the beginning of `close` until it leaves the handlers' thread
_LAST_BEGIN = 0.8  # of this time: what begins later would not be done in time
_HANDLER_TIME_AFTER_CTRL_C = 0.3  # seconds that the handlers have, in which others have five

logger = logging.getLogger(__name__)
_open: weakref.WeakSet[ClientLifetime] = weakref.WeakSet()


def _close_all() -> None:
    for lifetime in list(_open):
        lifetime.close()


call_afterwards(_close_all)


class _Login:
    """One login of a client, from the attempt to the logout.

    Attributes:
        uid: the user.
        must_end: `logout` or `close` was called.
        logout_was_tried: the logout was sent to the hub, or sending it failed.
        has_failed: the login did not succeed, and its transport is being closed.
        handlers_have: the time that the handlers of a message have left, once the logout waits.
    """

    __slots__ = (
        "_running",
        "handlers_have",
        "has_failed",
        "logout_was_tried",
        "must_end",
        "uid",
    )

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.must_end = False
        self.logout_was_tried = False
        self.has_failed = False
        self.handlers_have: Deadline | None = None
        # A lock and not an Event: a signal within Event.set() can leave the event's own lock taken.
        self._running = threading.Lock()
        self._running.acquire()

    def done(self) -> None:
        """Tell the waiting threads that `log_in` is about to return or to raise. Idempotent."""
        with contextlib.suppress(RuntimeError):  # released already
            self._running.release()

    def wait(self, timeout: float) -> bool:
        """Wait for `done`, at most `timeout` seconds. Returns False when the time is over."""
        if not self._running.acquire(timeout=timeout):
            return False
        self.done()
        return True


class ClientLifetime:
    """Logs one client in and out, and ends its threads and connections. Thread-safe.

    When the interpreter exits, a client that is still open finishes its transfers and is closed.
    After a fork, the child must not use the client of its parent: every method refuses, and `close`
    does nothing.

    Args:
        transport, dispatcher, transfers, invitations: the client's parts, ended by `close`.
        messages: is told when a session begins and ends.
        end_events: ends the event streams of the client and of its channels.
    """

    def __init__(
        self,
        transport: Transport,
        dispatcher: Dispatcher,
        transfers: TransferPool,
        invitations: InvitationRegistry,
        messages: PeerMessages,
        end_events: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._dispatcher = dispatcher
        self._transfers = transfers
        self._invitations = invitations
        self._messages = messages
        self._end_events = end_events
        self._lock = threading.Lock()  # guards _login, _closed and _has_ended
        self._login: _Login | None = None
        self._state = ConnectionState.DISCONNECTED
        self._closed = False
        self._has_ended = False
        self._drain: Deadline | None = None  # of the handlers, from the first `close`
        self._pid = os.getpid()
        _open.add(self)

    @property
    def uid(self) -> str | None:
        """The user who is logged in or logging in, or None."""
        login = self._login
        return None if login is None else login.uid

    @property
    def state(self) -> ConnectionState:
        """The connection's state now."""
        return self._state

    def check_logged_in(self, family: type[RtmError]) -> None:
        """Refuse a call without a login, or after a fork.

        Raises:
            RtmError: of the family: USER_NOT_LOGGED_IN.
        """
        self._check_process(family)
        if self._login is None:
            raise family.named("USER_NOT_LOGGED_IN", "Log in first.")

    def log_in(self, credentials: Credentials, listener: Listener) -> None:
        """Open the transport; returns when the state is CONNECTED.

        Raises:
            LoginError: refused, unreachable, timed out, or ended by another thread.
        """
        self._check_process(LoginError)
        login = _Login(credentials.uid)
        try:
            with self._lock:
                if self._closed:
                    raise LoginError.named("REJECTED", "The client is closed; make a new one.")
                if self._login is not None:
                    raise LoginError.named(
                        "ALREADY_LOGIN",
                        f"{self._login.uid!r} is logged in (or ABORTED); log out first.",
                    )
                self._login = login
            self._start_dispatcher()
            self._messages.begin_session(credentials.uid)
            self._transport.open(credentials, listener)
            with self._lock:
                if login.must_end:
                    raise LoginError.named(
                        "ABORTED_BY_LOGOUT", "logout() or close() ended the login."
                    )
            login.done()
        except BaseException:  # an interruption (Ctrl-C) too ends like a login that was refused
            self._give_up(login)
            raise

    def log_out(self) -> None:
        """End the login, its transfers and its invitations, when running handlers have returned.

        Raises:
            LogoutError: USER_NOT_LOGGED_IN.
        """
        self._check_process(LogoutError)
        with self._lock:
            login = self._login
        if login is None:
            raise LogoutError.named("USER_NOT_LOGGED_IN", "The client is not logged in.")
        self._end_login(login, "The client logged out.")

    def close(self, *, wait: bool = False) -> None:
        """Log out and end every thread of the client. Idempotent; a handler may call it.

        Args:
            wait: whether to wait for the transfers first; Ctrl-C ends the wait.
        """
        if os.getpid() != self._pid:
            return  # sockets and threads belong to the parent process
        try:
            if wait:
                self._transfers.wait()
            self._close()
        except BaseException:  # an interruption; each step may be repeated
            self._close()
            raise

    def state_changed(
        self, state: ConnectionState, reason: ConnectionChangeReason
    ) -> ConnectionChangeReason:
        """Process the transport's new state; returns the reason for the application's event."""
        login = self._login
        if reason is ConnectionChangeReason.LOGOUT and login is not None and login.has_failed:
            reason = ConnectionChangeReason.LOGIN_FAILURE  # `log_in` was interrupted after `open`
        self._state = state
        if state is ConnectionState.ABORTED:
            self._transfers.interrupt(f"The session was ended: {reason.name}.")
            self._invitations.abandon()
            self._messages.end_session()
        return reason

    def _check_process(self, family: type[RtmError]) -> None:
        if os.getpid() != self._pid:
            raise family.named(
                "USER_NOT_LOGGED_IN",
                f"This client was made in process {self._pid} and does not work after a fork; "
                "make a new one in each process.",
            )

    def _close(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._closed = True
            login = self._login
        patience = Deadline(_THREAD_TIME)
        try:
            if login is not None:
                if self._state is ConnectionState.CONNECTED:
                    self._run_waiting_handlers()
                self._end_login(login, "The client was closed.", WAITING_ADVICE)
        finally:
            self._invitations.close()
            self._transfers.close()
            if is_ended_by_ctrl_c():
                limit = _HANDLER_TIME_AFTER_CTRL_C
                self._dispatcher.close(drain=limit, timeout=limit)
            else:
                self._dispatcher.close(_DRAIN, max(_DRAIN, patience.left))
            self._end_events()
            _open.discard(self)
        self._has_ended = True

    def _run_waiting_handlers(self) -> None:
        """Give the handlers a second, so that what they finish is reported before the logout."""
        limit = _HANDLER_TIME_AFTER_CTRL_C if is_ended_by_ctrl_c() else _DRAIN
        if self._drain is None:  # a `close` that was interrupted is called again
            self._drain = Deadline(limit)
            self._messages.stop_soon(_LAST_BEGIN * limit)
        self._dispatcher.drain(min(limit, self._drain.left))

    def _end_login(self, login: _Login, message: str, advice: str = "") -> None:
        try:
            self._end_login_once(login, message, advice)
        except BaseException:  # an interruption; each step may be repeated
            self._end_login_once(login, message, advice)
            raise

    def _end_login_once(self, login: _Login, message: str, advice: str) -> None:
        """End a finished or running login. Several threads may call it at once."""
        with self._lock:
            if self._login is not login:
                return
            login.must_end = True
        if self._state is ConnectionState.CONNECTED and not login.logout_was_tried:
            self._wait_for_handlers(login)
        self._transfers.interrupt(message, advice)
        self._invitations.abandon()
        self._messages.end_session()
        if self._state is ConnectionState.CONNECTED and not login.logout_was_tried:
            try:
                self._transport.call(Logout(), _LOGOUT_TIMEOUT)
            except LogoutError as error:
                logger.info("the logout was not sent to the hub: %s", error)
            login.logout_was_tried = True
        self._transport.close()
        deadline = Deadline(_LOGIN_PATIENCE)
        while not login.wait(_CLOSE_AGAIN) and not deadline.has_passed:
            self._transport.close()  # the other thread may have opened the transport since
        self._forget(login)

    def _wait_for_handlers(self, login: _Login) -> None:
        """Let the handlers of one message return, so that it is reported before the logout."""
        if login.handlers_have is None:  # a logout that was interrupted is called again
            login.handlers_have = Deadline(_HANDLER_TIME)
            self._messages.stop_soon(0.0)
        limit = _HANDLER_TIME_AFTER_CTRL_C if is_ended_by_ctrl_c() else _HANDLER_TIME
        self._messages.wait_for_handlers(min(limit, login.handlers_have.left))

    def _give_up(self, login: _Login) -> None:
        """Close the transport of a failed login, and forget the login."""
        try:
            if self._login is login:
                login.has_failed = True
                self._messages.end_session()
                self._transport.close()
        finally:
            self._forget(login)
            login.done()

    def _forget(self, login: _Login) -> None:
        with self._lock:
            if self._login is login:
                self._login = None

    def _start_dispatcher(self) -> None:
        """Start the dispatcher before events arrive.

        Without its thread, the client would acknowledge events that no handler receives.
        """
        try:
            self._dispatcher.start()
        except RuntimeError as error:
            raise LoginError.named(
                "UNKNOWN", f"The login needs a thread: {error}.", error
            ) from error
