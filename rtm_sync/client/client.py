"""RtmClient: the face. Checks arguments, builds requests, hands them to the transport."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, TypeAlias, TypeVar, cast, overload

from ..blob import Blob, Payload
from ..errors import (
    CreateChannelError,
    CreateInstanceError,
    DownloadMediaError,
    GetChannelMemberCountError,
    HistoryError,
    LoginError,
    LogoutError,
    PeerMessageError,
    PeerSubscriptionStatusError,
    PluginError,
    QueryPeersOnlineStatusError,
    RenewTokenError,
    RtmError,
    UploadMediaError,
)
from ..messages import (
    MessageType,
    RtmFileMessage,
    RtmImageMessage,
    RtmMessage,
    RtmRawMessage,
    RtmTextMessage,
    as_message,
)
from ..plugins.loader import plugin_manager
from ..protocol.events import (
    AttributesUpdated,
    ChannelMessage,
    Event,
    MemberCountUpdated,
    MemberJoined,
    MemberLeft,
    PeersOnlineStatusChanged,
    TokenExpired,
    TokenPrivilegeWillExpire,
)
from ..protocol.ids import app_id_problem, id_problem
from ..protocol.requests import (
    ChangeChannelAttributes,
    ChangeUserAttributes,
    GetChannelAttributes,
    GetChannelMemberCount,
    GetHistory,
    GetUserAttributes,
    InvitationFromPeer,
    Logout,
    MessageFromPeer,
    PeerCall,
    QueryPeersBySubscriptionOption,
    QueryPeersOnlineStatus,
    Request,
    SendMessageToPeer,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
)
from ..protocol.values import (
    AttributeChange,
    ChannelAttribute,
    ConnectionChangeReason,
    ConnectionState,
    HistoricalMessage,
    PeerMessageSendResult,
    PeerSubscriptionOption,
)
from ..rules.timing import Deadline
from ..transfers.control import STALL_TIMEOUT, ProgressCallback, TransferControl, TransferKind
from ..transfers.download import Destination, DownloadWork, checked_media_id
from ..transfers.pool import TransferPool
from ..transfers.stream import MediaStream, StreamSink
from ..transfers.transfer import Transfer
from ..transfers.upload import Dimensions, ThumbnailSource, UploadWork
from ..transports.base import Credentials, Transport, TransportOptions
from .arguments import as_list, checked_attributes, checked_id, checked_keys, seconds_problem
from .channel import CALL_TIMEOUT, SEND_TIMEOUT, RtmChannel, chosen_message_id
from .events import Dispatcher
from .handlers import ClientEvents
from .history import Moment, read_history
from .invitation_registry import InvitationRegistry
from .invitations import LocalInvitation, RemoteInvitation

R = TypeVar("R")
logger = logging.getLogger(__name__)

_LOGOUT_TIMEOUT = 1.0
_LOGIN_PATIENCE = 5.0  # how long a logout waits for a login on another thread to fail
_CLOSE_AGAIN = 0.02
_open_clients: weakref.WeakSet[RtmClient] = weakref.WeakSet()


def _close_all() -> None:
    for client in list(_open_clients):
        client.close()


# `atexit` comes too late: before it, the interpreter waits until every executor's threads have done
# all their work, and a script would not end before its transfers. Executors themselves are ended by
# this hook of `threading`, the last registered first.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


_CHANNEL_EVENTS = (ChannelMessage, MemberJoined, MemberLeft, AttributesUpdated, MemberCountUpdated)
_ChannelEvent: TypeAlias = (
    ChannelMessage | MemberJoined | MemberLeft | AttributesUpdated | MemberCountUpdated
)


class LogFilter(str, Enum):
    """How much is logged (reference 1.3)."""

    OFF = "OFF"
    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"
    DEBUG = "DEBUG"

    @property
    def level(self) -> int:
        """The level of `logging`."""
        return logging.CRITICAL + 1 if self is LogFilter.OFF else logging.getLevelName(self.value)


class _Login:
    """One login of a client, from the attempt to the logout.

    Attributes:
        uid: who logs in.
        must_end: `logout` or `close` was called.
        hub_was_told: of the logout, as well as it could be.
        has_failed: it did not succeed, and its transport is being closed.
        is_done: set when `login` is about to return or to raise.
    """

    __slots__ = ("has_failed", "hub_was_told", "is_done", "must_end", "uid")

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.must_end = False
        self.hub_was_told = False
        self.has_failed = False
        self.is_done = threading.Event()


class RtmClient(ClientEvents):
    """One user's session, seen from Python. Thread-safe; close it, or use it in `with`.

    Events: `MessageFromPeer(message, peer_id, message_props)`,
    `ConnectionStateChanged(new_state, reason)`, `PeersOnlineStatusChanged(states)`,
    `RemoteInvitationReceived(remote_invitation)`,
    `TokenPrivilegeWillExpire()` 30 s before the token ends, `TokenExpired()`, and (ours)
    `Reconnected(recovered)`: a lost connection is back. `recovered` says that the session went on
    and nothing was missed; without, each channel says for itself what it could recover.

    Args:
        app_id: names the app; users of different apps never meet. 1 to 64 characters.
        url: where the hub is: `memory://` (default; a hub in this process), `ws://host:8765` or
            `wss://…` (a gateway), or what an installed transport plugin serves.
        token_provider: called for a token before each attempt to connect.
        transfer_backlog: transfers that may wait while nine run; 0 refuses the tenth, as the
            reference does.
        stall_timeout: seconds without a byte that end a transfer with TIMEOUT (reference 1.3: 120).
        login_timeout: seconds for a login (reference 1.3: 12).
        ping_interval, ping_timeout: seconds between signs of life, and of silence after which the
            connection counts as lost. A gateway expects a sign every 10 seconds (`silence`).
        proxy: URL of an HTTP proxy for WebSocket and HTTP, `http://user:pass@host:3128`; "" for
            none, None for what `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` say.
        ca_file: a PEM file of certificates to trust for `wss://`; None for what
            `REQUESTS_CA_BUNDLE` or `SSL_CERT_FILE` say, or else certifi's.
        auto_thumbnails: make a thumbnail for every upload that has none, where a plugin can.
        on_handler_error: called with what a handler or progress callback raised; it is logged too.
        media: URL of the media store where the transport needs one: an embedded hub's (memory by
            default).
        plugins: plugin objects for this client only; they are asked before all others.

    Raises:
        CreateInstanceError: an argument is not valid, or nobody serves the URL.
    """

    EVENTS = frozenset(
        {
            "MessageFromPeer",
            "ConnectionStateChanged",
            "PeersOnlineStatusChanged",
            "RemoteInvitationReceived",
            "TokenPrivilegeWillExpire",
            "TokenExpired",
            "Reconnected",
        }
    )

    def __init__(
        self,
        app_id: str,
        *,
        url: str = "memory://",
        token_provider: Callable[[], str] | None = None,
        transfer_backlog: int = 1000,
        stall_timeout: float = STALL_TIMEOUT,
        login_timeout: float = 12.0,
        ping_interval: float = 2.0,
        ping_timeout: float = 10.0,
        proxy: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        auto_thumbnails: bool = False,
        on_handler_error: Callable[[BaseException], object] | None = None,
        media: str | None = None,
        plugins: Iterable[object] = (),
    ) -> None:
        super().__init__()
        problem = app_id_problem(app_id)
        if problem is None and not isinstance(url, str):
            problem = f"url must be a str, not {type(url).__name__}."
        if problem is None and not (
            isinstance(transfer_backlog, int) and 0 <= transfer_backlog <= 1_000_000
        ):
            problem = f"transfer_backlog is {transfer_backlog!r}; it must be 0 to 1,000,000."
        for name, seconds in (
            ("stall_timeout", stall_timeout),
            ("login_timeout", login_timeout),
            ("ping_interval", ping_interval),
            ("ping_timeout", ping_timeout),
        ):
            problem = problem or seconds_problem(name, seconds)
        if problem is not None:
            raise CreateInstanceError.named("INVALID_ARGUMENT", problem)
        self.app_id = app_id
        self._token_provider = token_provider
        self._auto_thumbnails = auto_thumbnails
        self._on_handler_error = on_handler_error
        try:
            self._plugins = plugin_manager.extended(plugins) if plugins else plugin_manager
        except PluginError as error:
            raise CreateInstanceError.named("INVALID_ARGUMENT", str(error), error) from error
        options = TransportOptions(
            login_timeout=login_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            proxy=proxy,
            ca_file=None if ca_file is None else os.fspath(ca_file),
            media=media,
            make_media_store=self._plugins.media_store,
            make_engine=self._plugins.engine,
        )
        try:
            self._transport: Transport = self._plugins.transport(url, options)
        except (PluginError, ValueError) as error:
            raise CreateInstanceError.named("INVALID_ARGUMENT", str(error), error) from error
        self._lock = threading.Lock()  # guards _login, _channels, _closed, _has_ended
        self._login: _Login | None = None
        self._state = ConnectionState.DISCONNECTED
        self._closed = False
        self._has_ended = False
        self._pid = os.getpid()
        self._channels: dict[str, RtmChannel] = {}
        self._dispatcher = Dispatcher()
        self._invitations = InvitationRegistry(
            self._call,
            self._dispatcher.submit,
            self._invited,
            self._handler_failed,
            lambda: self._login is not None,
        )
        self._transfers = TransferPool(
            backlog=transfer_backlog, stall_timeout=stall_timeout, on_error=self._handler_failed
        )
        _open_clients.add(self)

    def __repr__(self) -> str:
        return f"<RtmClient {self.app_id!r} {self.uid!r} {self._state}>"

    def __enter__(self) -> RtmClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- session --

    @property
    def uid(self) -> str | None:
        """The logged-in user, or None."""
        login = self._login
        return None if login is None else login.uid

    @property
    def connection_state(self) -> ConnectionState:
        """The connection's state now."""
        return self._state

    def login(self, uid: str, token: str | None = None) -> None:
        """Log in; blocks until CONNECTED.

        Args:
            uid: 1 to 64 of ASCII letters, digits, space and some punctuation.
            token: from the app's server; not needed where the hub runs without a secret.

        Raises:
            LoginError: refused (and why), unreachable, or not done within the login time-out.
        """
        problem = id_problem("uid", uid)
        if problem is None and token is not None and not isinstance(token, str):
            problem = f"token must be a str, not {type(token).__name__}."
        if problem is not None:
            raise LoginError.named("INVALID_ARGUMENT", problem)
        self._check_process(LoginError)
        login = _Login(uid)
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
            self._transport.open(Credentials(self.app_id, uid, token, self._token_provider), self)
            with self._lock:
                if login.must_end:
                    raise LoginError.named(
                        "ABORTED_BY_LOGOUT", "logout() or close() ended the login."
                    )
            login.is_done.set()
        except BaseException:  # an interruption (Ctrl-C) too ends like a login that was refused
            self._give_up(login)
            raise

    def logout(self) -> None:
        """Log out: ends transfers (INTERRUPTED), channels and the connection.

        Raises:
            LogoutError: USER_NOT_LOGGED_IN.
        """
        self._check_process(LogoutError)
        with self._lock:
            login = self._login
        if login is None:
            raise LogoutError.named("USER_NOT_LOGGED_IN", "Nobody is logged in.")
        self._log_out(login)

    @staticmethod
    def set_parameters(*, log_filter: LogFilter | str) -> None:
        """Say how much the package logs, for the whole process: the level of logger `rtm_sync`.

        Raises:
            ValueError: there is no such filter.
        """
        logging.getLogger("rtm_sync").setLevel(LogFilter(log_filter).level)

    update_config = set_parameters
    """The reference's later name for it (1.4.2)."""

    def renew_token(self, token: str, *, timeout: float = CALL_TIMEOUT) -> None:
        """Replace the token, before or after it has expired (see `TokenPrivilegeWillExpire`).

        Args:
            token: a fresh one from the app's server.
            timeout: seconds.

        Raises:
            RenewTokenError: not logged in, not valid, expired, too often, or timed out.
        """
        if not isinstance(token, str) or not token:
            raise RenewTokenError.named("INVALID_ARGUMENT", "token must be a str, not empty.")
        problem = seconds_problem("timeout", timeout)
        if problem is not None:
            raise RenewTokenError.named("INVALID_ARGUMENT", problem)
        self._check_logged_in(RenewTokenError)
        self._transport.renew_token(token, timeout)

    def close(self) -> None:
        """Log out and end every thread of the client. Idempotent; may be called from a handler."""
        if os.getpid() != self._pid:
            return  # the parent's sockets and threads are the parent's
        try:
            self._close()
        except BaseException:  # interrupted: each step may be taken again
            self._close()
            raise

    def _close(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._closed = True
            login = self._login
        try:
            if login is not None:
                self._log_out(login)
        finally:
            self._invitations.close()
            self._transfers.close()
            self._dispatcher.close()
            with self._lock:
                channels = list(self._channels.values())
            for emitter in (self, *channels):
                emitter._end_streams()
            _open_clients.discard(self)
        self._has_ended = True

    def _log_out(self, login: _Login) -> None:
        try:
            self._end(login)
        except BaseException:  # interrupted: each step may be taken again
            self._end(login)
            raise

    def _end(self, login: _Login) -> None:
        """End a login, done or under way. Several threads may do so at once."""
        with self._lock:
            if self._login is not login:
                return
            login.must_end = True
        self._transfers.interrupt("The client logged out.")
        self._invitations.abandon()
        if self._state is ConnectionState.CONNECTED and not login.hub_was_told:
            try:
                self._transport.call(Logout(), _LOGOUT_TIMEOUT)
            except LogoutError as error:
                logger.info("the hub was not told of the logout: %s", error)
            login.hub_was_told = True
        self._transport.close()
        deadline = Deadline(_LOGIN_PATIENCE)
        while not login.is_done.wait(_CLOSE_AGAIN) and not deadline.has_passed:
            self._transport.close()  # the other thread may just have been about to open it
        self._forget(login)

    def _give_up(self, login: _Login) -> None:
        """Leave nothing of a login that did not succeed."""
        try:
            if self._login is login:
                login.has_failed = True
                self._transport.close()
        finally:
            self._forget(login)
            login.is_done.set()

    def _forget(self, login: _Login) -> None:
        with self._lock:
            if self._login is login:
                self._login = None

    def _start_dispatcher(self) -> None:
        """Without its thread, events would be acknowledged and handled by nobody."""
        try:
            self._dispatcher.start()
        except RuntimeError as error:
            raise LoginError.named(
                "UNKNOWN", f"The login needs a thread: {error}.", error
            ) from error

    # -- messages --

    def send_message_to_peer(
        self,
        message: RtmMessage | str | bytes,
        peer_id: str,
        *,
        enable_offline_messaging: bool = False,
        enable_historical_messaging: bool = False,
        message_id: str | None = None,
        timeout: float = SEND_TIMEOUT,
    ) -> PeerMessageSendResult:
        """Send a message to one user; blocks until the user's client has it, or is offline.

        Args:
            message: a message; a `str` is a text message, bytes a raw one. At most 32 KB.
            peer_id: the receiver's uid.
            enable_offline_messaging: where the receiver is offline, keep it for the next login
                (200 messages a receiver, seven days).
            enable_historical_messaging: keep it in the history for seven days.
            message_id: names the message, so that sending it again cannot duplicate it.
            timeout: seconds.

        Raises:
            PeerMessageError: not logged in, a bad id, too large, too often, or timed out.
        """
        problem = id_problem("peer_id", peer_id)
        if problem is not None:
            raise PeerMessageError.named("INVALID_USERID", problem)
        try:
            checked = as_message(message)
        except (TypeError, ValueError) as error:
            raise PeerMessageError.named("INVALID_MESSAGE", str(error), error) from error
        chosen = chosen_message_id(
            message_id, lambda problem: PeerMessageError.named("INVALID_MESSAGE", problem)
        )
        return self._call(
            SendMessageToPeer(
                peer_id, checked, chosen, enable_offline_messaging, enable_historical_messaging
            ),
            timeout,
        )

    def get_peer_history(
        self,
        peer_id: str,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int = 100,
        newest_first: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> list[HistoricalMessage]:
        """Messages to and from a user, sent with `enable_historical_messaging`. Ours.

        Args:
            peer_id: the other user.
            start, end: from when to when (the end not included); None is as far as it goes, seven
                days at most. A `datetime`, or seconds since the epoch.
            limit: messages, 1 to 100,000.
            newest_first: the order, and which end a `limit` cuts off.
            timeout: seconds.

        Raises:
            HistoryError: not logged in, a bad argument, too often, or timed out.
        """
        problem = id_problem("peer_id", peer_id)
        if problem is not None:
            raise HistoryError.named("INVALID_ARGUMENT", problem)
        return read_history(
            self._call,
            GetHistory(peer_id=peer_id),
            start=start,
            end=end,
            limit=limit,
            newest_first=newest_first,
            timeout=timeout,
        )

    def create_local_invitation(self, callee_id: str) -> LocalInvitation:
        """An invitation to a user, not sent yet; no network.

        Raises:
            InvitationApiCallError: the id is not valid.
        """
        return self._invitations.local(callee_id)

    # -- presence --

    def query_peers_online_status(
        self, peer_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, bool]:
        """Who of these users is logged in, in the order given.

        Args:
            peer_ids: 1 to 256 uids (reference 1.3).
            timeout: seconds.

        Raises:
            QueryPeersOnlineStatusError: not logged in, a bad argument, too often, or timed out.
        """
        ids = as_list("peer_ids", peer_ids, QueryPeersOnlineStatusError)
        return self._call(QueryPeersOnlineStatus(ids), timeout).online

    def subscribe_peers_online_status(
        self, peer_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Be told of these users by `PeersOnlineStatusChanged`, the first time at once.

        The subscription outlives lost connections and ends with the logout.

        Args:
            peer_ids: uids; at most 512 in all (reference 1.3). Repeating some is harmless.
            timeout: seconds.

        Raises:
            PeerSubscriptionStatusError: not logged in, a bad argument, OVERFLOW, too often, or
                timed out.
        """
        ids = as_list("peer_ids", peer_ids, PeerSubscriptionStatusError)
        self._call(SubscribePeersOnlineStatus(ids), timeout)

    def unsubscribe_peers_online_status(
        self, peer_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Not be told of these users any more.

        Raises:
            PeerSubscriptionStatusError: not logged in, a bad argument, too often, or timed out.
        """
        ids = as_list("peer_ids", peer_ids, PeerSubscriptionStatusError)
        self._call(UnsubscribePeersOnlineStatus(ids), timeout)

    def query_peers_by_subscription_option(
        self,
        option: PeerSubscriptionOption | str = PeerSubscriptionOption.ONLINE_STATUS,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> list[str]:
        """The users this client is subscribed to.

        Raises:
            ValueError: there is no such option.
            QueryPeersBySubscriptionOptionError: not logged in, too often, or timed out.
        """
        request = QueryPeersBySubscriptionOption(PeerSubscriptionOption(option))
        return list(self._call(request, timeout).user_ids)

    # -- attributes --

    def set_local_user_attributes(
        self, attributes: Mapping[str, str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Replace this user's attributes; they live while the user is logged in.

        Args:
            attributes: at most 32; keys of 1 to 32 bytes, values of 1 byte to 8 KB, 16 KB in all
                (reference 1.3).
            timeout: seconds.

        Raises:
            AttributeOperationError: not logged in, a bad argument, too large, too often, timed out.
        """
        self._change_user(AttributeChange.SET, timeout, attributes=attributes)

    def add_or_update_local_user_attributes(
        self, attributes: Mapping[str, str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Add or replace some of this user's attributes. As `set_local_user_attributes`."""
        self._change_user(AttributeChange.UPDATE, timeout, attributes=attributes)

    def delete_local_user_attributes_by_keys(
        self, keys: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Remove some of this user's attributes; unknown keys are ignored."""
        self._change_user(AttributeChange.DELETE, timeout, keys=keys)

    def clear_local_user_attributes(self, *, timeout: float = CALL_TIMEOUT) -> None:
        """Remove all of this user's attributes."""
        self._change_user(AttributeChange.CLEAR, timeout)

    def get_user_attributes(self, user_id: str, *, timeout: float = CALL_TIMEOUT) -> dict[str, str]:
        """All attributes of a user who is logged in.

        Raises:
            AttributeOperationError: not logged in, USER_NOT_FOUND, too often, or timed out.
        """
        checked_id("user_id", user_id)
        return self._call(GetUserAttributes(user_id), timeout).attributes

    def get_user_attributes_by_keys(
        self, user_id: str, keys: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, str]:
        """Those of a user's attributes that have these keys. As `get_user_attributes`."""
        checked_id("user_id", user_id)
        return self._call(GetUserAttributes(user_id, checked_keys(keys)), timeout).attributes

    def set_channel_attributes(
        self,
        channel_id: str,
        attributes: Mapping[str, str],
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Replace a channel's attributes; one need not have joined it.

        They are forgotten a couple of minutes after the last member left.

        Args:
            channel_id: the channel.
            attributes: at most 32; keys of 1 to 32 bytes, values of 1 byte to 8 KB, 32 KB in all
                (reference 1.3).
            enable_notification_to_channel_members: tell the members by `AttributesUpdated`.
            timeout: seconds.

        Raises:
            AttributeOperationError: not logged in, a bad argument, too large, too often, timed out.
        """
        notify = enable_notification_to_channel_members
        change = AttributeChange.SET
        self._change_channel(channel_id, change, notify, timeout, attributes=attributes)

    def add_or_update_channel_attributes(
        self,
        channel_id: str,
        attributes: Mapping[str, str],
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Add or replace some of a channel's attributes. As `set_channel_attributes`."""
        notify = enable_notification_to_channel_members
        change = AttributeChange.UPDATE
        self._change_channel(channel_id, change, notify, timeout, attributes=attributes)

    def delete_channel_attributes_by_keys(
        self,
        channel_id: str,
        keys: Sequence[str],
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Remove some of a channel's attributes; unknown keys are ignored."""
        notify = enable_notification_to_channel_members
        self._change_channel(channel_id, AttributeChange.DELETE, notify, timeout, keys=keys)

    def clear_channel_attributes(
        self,
        channel_id: str,
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Remove all of a channel's attributes."""
        notify = enable_notification_to_channel_members
        self._change_channel(channel_id, AttributeChange.CLEAR, notify, timeout)

    def get_channel_attributes(
        self, channel_id: str, *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, ChannelAttribute]:
        """All attributes of a channel; one need not have joined it.

        Raises:
            AttributeOperationError: not logged in, a bad argument, too often, or timed out.
        """
        checked_id("channel_id", channel_id)
        return self._call(GetChannelAttributes(channel_id), timeout).attributes

    def get_channel_attributes_by_keys(
        self, channel_id: str, keys: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, ChannelAttribute]:
        """Those of a channel's attributes that have these keys. As `get_channel_attributes`."""
        checked_id("channel_id", channel_id)
        request = GetChannelAttributes(channel_id, checked_keys(keys))
        return self._call(request, timeout).attributes

    # -- channels --

    def get_channel_member_count(
        self, channel_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, int]:
        """How many members each of these channels has; one that nobody joined has none.

        Args:
            channel_ids: 1 to 32 ids (reference 1.3).
            timeout: seconds.

        Raises:
            GetChannelMemberCountError: not logged in, a bad argument, EXCEED_LIMIT, too often, or
                timed out.
        """
        ids = as_list("channel_ids", channel_ids, GetChannelMemberCountError)
        return self._call(GetChannelMemberCount(ids), timeout).counts

    def create_channel(self, channel_id: str) -> RtmChannel:
        """The channel object of that id (always the same one); no network, allowed before login.

        Raises:
            CreateChannelError: the id is not valid.
        """
        problem = id_problem("channel_id", channel_id)
        if problem is not None:
            raise CreateChannelError.named("INVALID_ARGUMENT", problem)
        with self._lock:
            channel = self._channels.get(channel_id)
            if channel is None:
                channel = self._channels[channel_id] = RtmChannel(channel_id, self._call)
        return channel

    def create_message(
        self,
        *,
        text: str | None = None,
        raw_message: bytes | None = None,
        media_id: str | None = None,
        message_type: MessageType | str | None = None,
        file_name: str = "",
        description: str = "",
        thumbnail: bytes = b"",
        size: int = 0,
        width: int = 0,
        height: int = 0,
        thumbnail_width: int = 0,
        thumbnail_height: int = 0,
    ) -> RtmMessage:
        """Make a message from its parts; no network, nothing is checked with the hub.

        Exactly one of `text`, `raw_message` and `media_id` (an earlier upload's) says what it is;
        with `media_id`, `message_type` is FILE unless it says IMAGE.

        Raises:
            ValueError: none or several of them, a message type that does not fit, or over 32 KB.
        """
        given = [
            name
            for name, value in (
                ("text", text),
                ("raw_message", raw_message),
                ("media_id", media_id),
            )
            if value is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"Give exactly one of text, raw_message and media_id, not {given or 'none'}."
            )
        kind = None if message_type is None else MessageType(message_type)
        message: RtmMessage
        if text is not None:
            message = RtmTextMessage(text, description)
        elif raw_message is not None:
            message = RtmRawMessage(raw_message, description)
        else:
            named = (cast(str, media_id), file_name, description, size, thumbnail)
            if kind is MessageType.IMAGE:
                message = RtmImageMessage(
                    *named,
                    width=width,
                    height=height,
                    thumbnail_width=thumbnail_width,
                    thumbnail_height=thumbnail_height,
                )
            else:
                message = RtmFileMessage(*named)
        if kind is not None and kind is not message.message_type:
            raise ValueError(f"{given[0]} makes a {message.message_type} message, not {kind}.")
        return message

    # -- media --

    @overload
    def create_media_message_by_uploading(
        self,
        payload: Payload,
        *,
        message_type: Literal["IMAGE", MessageType.IMAGE],
        file_name: str | None = ...,
        description: str = ...,
        thumbnail: ThumbnailSource | None = ...,
        width: int | None = ...,
        height: int | None = ...,
        thumbnail_width: int | None = ...,
        thumbnail_height: int | None = ...,
        resume_from: str | os.PathLike[str] | None = ...,
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[RtmImageMessage]: ...
    @overload
    def create_media_message_by_uploading(
        self,
        payload: Payload,
        *,
        message_type: MessageType | str = ...,
        file_name: str | None = ...,
        description: str = ...,
        thumbnail: ThumbnailSource | None = ...,
        width: int | None = ...,
        height: int | None = ...,
        thumbnail_width: int | None = ...,
        thumbnail_height: int | None = ...,
        resume_from: str | os.PathLike[str] | None = ...,
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[RtmFileMessage]: ...
    def create_media_message_by_uploading(
        self,
        payload: Payload,
        *,
        message_type: MessageType | str = MessageType.FILE,
        file_name: str | None = None,
        description: str = "",
        thumbnail: ThumbnailSource | None = None,
        width: int | None = None,
        height: int | None = None,
        thumbnail_width: int | None = None,
        thumbnail_height: int | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        cancel_signal: threading.Event | None = None,
        on_operation_progress: ProgressCallback | None = None,
    ) -> Transfer[RtmFileMessage] | Transfer[RtmImageMessage]:
        """Upload a file or picture and make the message that points to it.

        Args:
            payload: a path, bytes, a binary file or a `Blob`; 1 byte to 30 MB.
            message_type: FILE or IMAGE.
            file_name: shown to the receiver; the source's own name when not given.
            description: free text; description + file name + thumbnail are at most 32 KB.
            thumbnail: the preview's bytes (bytes, `Path`, file, `Blob`), a callable
                `(blob, max_bytes) -> bytes`, "auto", or the name of an installed generator.
            width, height, thumbnail_width, thumbnail_height: pixels; read from the pictures'
                headers when not given. Accepted and ignored with FILE.
            resume_from: a file in which the upload's name is kept until it is done or cancelled. A
                process that was killed, or an upload that failed, goes on where it stopped when
                the same source is uploaded with the same journal within ten minutes.
            cancel_signal: set it to cancel the upload.
            on_operation_progress: called with `MediaOperationProgress`, on the transfer's thread:
                one call at a time, about ten a second, the last one at 100 %.

        Returns:
            A future of the message; by the time it has a result, any peer can download the medium.

        Raises:
            UploadMediaError: at once for bad arguments, a missing or oversize source, not being
                logged in, or (with `transfer_backlog=0`) a tenth transfer; the rest from
                `result()`.
        """
        dimensions = Dimensions(width, height, thumbnail_width, thumbnail_height)
        work = UploadWork(
            payload,
            message_type,
            file_name,
            description,
            thumbnail,
            dimensions,
            self._plugins.thumbnail_generators,
            auto=self._auto_thumbnails,
            resume_from=resume_from,
        )
        self._check_logged_in(UploadMediaError)
        return self._transfers.submit(
            TransferKind.UPLOAD,
            lambda control: work.run(self._transport, control),
            cancel_signal=cancel_signal,
            on_progress=on_operation_progress,
        )

    @overload
    def download_media(
        self,
        media_id: str,
        *,
        to: None = ...,
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[Blob]: ...
    @overload
    def download_media(
        self,
        media_id: str,
        *,
        to: str | os.PathLike[str],
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[Path]: ...
    @overload
    def download_media(
        self,
        media_id: str,
        *,
        to: IO[bytes],
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[IO[bytes]]: ...
    def download_media(
        self,
        media_id: str,
        *,
        to: Destination = None,
        cancel_signal: threading.Event | None = None,
        on_operation_progress: ProgressCallback | None = None,
    ) -> Transfer[Blob] | Transfer[Path] | Transfer[IO[bytes]]:
        """Download a medium; every byte is checked by SHA-256.

        A lost connection is tried again for half a minute without progress, and the download goes
        on where it was; bytes that were damaged on their way are fetched again, twice at most.

        A download to a path or a folder writes to a hidden file in the same folder,
        `.rtm-….part`. When the process is killed, or the connection stays lost or silent, it stays,
        and the next download of that medium into that folder goes on from it, in whichever process.
        It is gone after success, cancellation, and an error that trying again does not mend:
        NOT_EXIST, bytes that stay damaged, a disk that is full. Downloads of one medium at the same
        time each have their own.

        Args:
            media_id: from a received message.
            to: None for a `Blob` in memory; a path, which appears whole or not at all and replaces
                an older file; an existing folder, into which it goes under the sender's file name
                (made safe, never over another file); or a binary file to write into.
            cancel_signal, on_operation_progress: as for uploads.

        Returns:
            A future of the `Blob`, of the path written, or of the file given.

        Raises:
            DownloadMediaError: at once for bad arguments or not being logged in; the rest, such as
                NOT_EXIST for an unknown or expired id, or FAILURE with what the operating system
                says of the destination, from `result()`.
        """
        work = DownloadWork(media_id, to)
        self._check_logged_in(DownloadMediaError)
        transfer = self._transfers.submit(
            TransferKind.DOWNLOAD,
            lambda control: work.run(self._transport, control),
            cancel_signal=cancel_signal,
            on_progress=on_operation_progress,
        )
        return cast("Transfer[Blob]", transfer)  # the overloads say which of the three

    def open_media(self, media_id: str) -> MediaStream:
        """Download a medium as a binary file that can be read from its first bytes on.

        For those who pass it on, such as a web server: nothing waits for the whole, and seeking
        serves parts of it. Use it in `with`: closing ends the download. Counts as one of the nine.

        Args:
            media_id: from a received message.

        Returns:
            The stream; its `info` tells size, type and file name.

        Raises:
            DownloadMediaError: at once for a bad argument or not being logged in; the rest, such as
                NOT_EXIST, from the stream.
        """
        checked_media_id(media_id)
        self._check_logged_in(DownloadMediaError)
        stream = MediaStream()

        def work(control: TransferControl) -> None:
            control.complete(self._transport.download(media_id, StreamSink(stream), control).size)

        try:
            stream.follow(self._transfers.submit(TransferKind.DOWNLOAD, work))
        except BaseException:
            stream.close()
            raise
        return stream

    # -- inside --

    def _change_user(
        self,
        change: AttributeChange,
        timeout: float,
        *,
        attributes: Mapping[str, str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        given = None if attributes is None else checked_attributes(attributes)
        named = None if keys is None else checked_keys(keys)
        self._call(ChangeUserAttributes(change, given, named), timeout)

    def _change_channel(
        self,
        channel_id: str,
        change: AttributeChange,
        notify: bool,
        timeout: float,
        *,
        attributes: Mapping[str, str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        checked_id("channel_id", channel_id)
        given = None if attributes is None else checked_attributes(attributes)
        named = None if keys is None else checked_keys(keys)
        request = ChangeChannelAttributes(channel_id, change, given, named, notify)
        self._call(request, timeout)

    def _call(self, request: Request[R], timeout: float) -> R:
        self._check_logged_in(request.ERROR)
        problem = seconds_problem("timeout", timeout)
        if problem is not None:
            raise request.ERROR.named(request.INVALID, problem)
        return self._transport.call(request, timeout)

    def _check_logged_in(self, family: type[RtmError]) -> None:
        self._check_process(family)
        if self._login is None:
            raise family.named("USER_NOT_LOGGED_IN", "Log in first.")

    def _check_process(self, family: type[RtmError]) -> None:
        if os.getpid() != self._pid:
            raise family.named(
                "USER_NOT_LOGGED_IN",
                f"This client was made in process {self._pid} and does not work after a fork; "
                "make a new one in each process.",
            )

    def _dispatch(self, event: Event | PeerCall) -> None:
        if isinstance(event, MessageFromPeer):
            arguments = (event.message, event.peer_id, event.message_props)
            self.emit("MessageFromPeer", *arguments, on_error=self._handler_failed)
        elif isinstance(event, PeersOnlineStatusChanged):
            states = event.states
            self.emit("PeersOnlineStatusChanged", states, on_error=self._handler_failed)
        elif isinstance(event, (TokenPrivilegeWillExpire, TokenExpired)):
            self.emit(type(event).__name__, on_error=self._handler_failed)
        elif isinstance(event, _CHANNEL_EVENTS):
            with self._lock:
                channel = self._channels.get(event.channel_id)
            if channel is not None:
                self._dispatch_to(channel, event)
        self._transport.event_handled()

    def _dispatch_to(self, channel: RtmChannel, event: _ChannelEvent) -> None:
        arguments: tuple[object, ...]
        if isinstance(event, ChannelMessage):
            arguments = (event.message, event.member_id, event.message_props)
        elif isinstance(event, AttributesUpdated):
            arguments = (event.attributes,)
        elif isinstance(event, MemberCountUpdated):
            arguments = (event.member_count,)
        else:
            arguments = (event.member_id,)
        channel.emit(type(event).__name__, *arguments, on_error=self._handler_failed)

    def _invited(self, invitation: RemoteInvitation) -> None:
        self.emit("RemoteInvitationReceived", invitation, on_error=self._handler_failed)

    def _handler_failed(self, error: BaseException) -> None:
        logger.error("a handler raised", exc_info=error)
        if self._on_handler_error is not None:
            try:
                self._on_handler_error(error)
            except BaseException:
                logger.exception("on_handler_error itself raised")

    # -- Listener: called by the transport --

    def on_event(self, event: Event | PeerCall) -> bool:
        """Take an event from the transport (not for applications)."""
        if isinstance(event, InvitationFromPeer):
            return self._invitations.take(event)
        return self._dispatcher.submit(lambda: self._dispatch(event))

    def on_reconnected(self, channel_id: str | None, *, recovered: bool) -> None:
        """Take the news of a restored session or channel (not for applications)."""

        def tell() -> None:
            with self._lock:
                emitter = self if channel_id is None else self._channels.get(channel_id)
            if emitter is not None:
                emitter.emit("Reconnected", recovered, on_error=self._handler_failed)

        self._dispatcher.submit(tell)

    def on_state(self, state: ConnectionState, reason: ConnectionChangeReason) -> None:
        """Take a state change from the transport (not for applications)."""
        login = self._login
        if reason is ConnectionChangeReason.LOGOUT and login is not None and login.has_failed:
            reason = ConnectionChangeReason.LOGIN_FAILURE  # it was interrupted when it had opened
        self._state = state
        if state is ConnectionState.ABORTED:
            self._transfers.interrupt(f"The session was ended: {reason.name}.")
            self._invitations.abandon()
        self._dispatcher.submit(
            lambda: self.emit(
                "ConnectionStateChanged", state, reason, on_error=self._handler_failed
            )
        )

    @property
    def backlog(self) -> int:
        """Events that wait for their handlers."""
        return self._dispatcher.backlog
