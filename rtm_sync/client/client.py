"""RtmClient, the public class: checks arguments, and sends requests by the transport."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import TypeAlias, TypeVar

from ..errors import (
    CreateChannelError,
    CreateInstanceError,
    DownloadMediaError,
    GetChannelMemberCountError,
    HistoryError,
    LoginError,
    PeerMessageError,
    PluginError,
    RenewTokenError,
    UploadMediaError,
)
from ..messages import RtmMessage, as_message
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
    GetChannelMemberCount,
    GetHistory,
    InvitationFromPeer,
    MessageFromPeer,
    PeerCall,
    Request,
    SendMessageToPeer,
)
from ..protocol.values import (
    ConnectionChangeReason,
    ConnectionState,
    HistoricalMessage,
    PeerMessageSendResult,
)
from ..thumbnails.contract import ThumbnailGenerator
from ..transfers.control import STALL_TIMEOUT, ProgressCallback, TransferControl, TransferKind
from ..transfers.pool import TransferPool
from ..transfers.sink import MediaCarrier
from ..transfers.transfer import Transfer
from ..transports.base import Credentials, Transport, TransportOptions
from .arguments import as_list, chosen_message_id, seconds_problem
from .attributes import AttributeCalls
from .blocked_peers import BlockedPeers
from .calls import CALL_TIMEOUT, SEND_TIMEOUT
from .channel import Channels, RtmChannel
from .events import Dispatcher
from .failures import HandlerFailures
from .handlers import ClientEvents
from .history import Moment, read_history
from .inbox import Entry
from .invitation_registry import InvitationRegistry
from .invitations import LocalInvitation, RemoteInvitation
from .lifetime import ClientLifetime
from .listeners import StreamQueue
from .media import MediaCalls
from .peer_messages import PeerMessages
from .presence import PresenceCalls

R = TypeVar("R")

_CHANNEL_EVENTS = (ChannelMessage, MemberJoined, MemberLeft, AttributesUpdated, MemberCountUpdated)
_ChannelEvent: TypeAlias = (
    ChannelMessage | MemberJoined | MemberLeft | AttributesUpdated | MemberCountUpdated
)


class LogFilter(str, Enum):
    """The levels of the log (reference 1.3)."""

    OFF = "OFF"
    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"
    DEBUG = "DEBUG"

    @property
    def level(self) -> int:
        """The level of `logging`."""
        return logging.CRITICAL + 1 if self is LogFilter.OFF else logging.getLevelName(self.value)


class RtmClient(ClientEvents, PresenceCalls, AttributeCalls, MediaCalls):
    """A client of one user. Thread-safe; close it, or use it in `with`.

    Events: `MessageFromPeer(message, peer_id, message_props)`,
    `ConnectionStateChanged(new_state, reason)`, `PeersOnlineStatusChanged(states)`,
    `RemoteInvitationReceived(remote_invitation)`,
    `TokenPrivilegeWillExpire()` 30 s before the token expires, `TokenExpired()`, and (ours)
    `Reconnected(recovered)`: a lost connection is back. When `recovered` is true, the session went
    on and no event was lost. When it is false, each channel has a `Reconnected` of its own.

    Args:
        app_id: the app's id, 1 to 64 characters. Users of different apps never meet.
        url: the hub's address: `memory://` (default; a hub in this process), `ws://host:8765` or
            `wss://…` (a gateway), or the URL of an installed transport plugin.
        token_provider: called for a token before each attempt to connect.
        transfer_backlog: transfers that may wait while nine run; 0 refuses the tenth, as the
            reference does.
        stall_timeout: seconds without a byte that end a transfer with TIMEOUT (reference 1.3: 120).
        login_timeout: seconds for a login (reference 1.3: 12).
        ping_interval, ping_timeout: seconds between pings, and seconds of silence after which the
            connection counts as lost. A gateway expects a frame every 10 seconds (`silence`).
        proxy: URL of an HTTP proxy for WebSocket and HTTP, `http://user:pass@host:3128`; "" for
            no proxy; None for the environment's `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`.
        ca_file: a PEM file of certificates to trust for `wss://`; None for the
            file that `REQUESTS_CA_BUNDLE` or `SSL_CERT_FILE` names, or else certifi's.
        auto_thumbnails: make a thumbnail for every upload that has none, where a plugin can.
        on_handler_error: called with the exception of a handler or progress callback, which is
            logged as well. Where it is None and the log has no handler, the traceback goes to
            standard error.
        media: URL of the media store of an embedded hub (default: in memory).
        plugins: plugin objects for this client only; their hooks come before those of all others.

    Raises:
        CreateInstanceError: an argument is not valid, or no plugin serves the URL.
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
        from ..plugins.loader import plugin_manager  # loads pluggy: with the first client

        self.app_id = app_id
        self._token_provider = token_provider
        self._auto_thumbnails = auto_thumbnails
        self._failures = HandlerFailures(on_handler_error)
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
        self._channels = Channels(self._call)
        self._blocked_peers = BlockedPeers()
        self._dispatcher = Dispatcher()
        self._peer_messages = PeerMessages(
            self._listeners, self._dispatcher, self._transport, self._handler_failed
        )
        self._invitations = InvitationRegistry(
            self._call,
            self._dispatcher.submit,
            self._invited,
            self._handler_failed,
            lambda: self.uid is not None,
        )
        self._transfers = TransferPool(
            backlog=transfer_backlog, stall_timeout=stall_timeout, on_error=self._handler_failed
        )
        self._lifetime = ClientLifetime(
            self._transport,
            self._dispatcher,
            self._transfers,
            self._invitations,
            self._peer_messages,
            self._end_streams_of_all,
        )

    def __repr__(self) -> str:
        return f"<RtmClient {self.app_id!r} {self.uid!r} {self.connection_state}>"

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
        return self._lifetime.uid

    @property
    def connection_state(self) -> ConnectionState:
        """The connection's state now."""
        return self._lifetime.state

    def login(self, uid: str, token: str | None = None) -> None:
        """Log in; blocks until CONNECTED.

        Args:
            uid: 1 to 64 of ASCII letters, digits, space and some punctuation.
            token: from the app's server; not needed where the hub runs without a secret.

        Raises:
            LoginError: refused (see `reason`), unreachable, or not done within the login
                time-out.
        """
        problem = id_problem("uid", uid)
        if problem is None and token is not None and not isinstance(token, str):
            problem = f"token must be a str, not {type(token).__name__}."
        if problem is not None:
            raise LoginError.named("INVALID_ARGUMENT", problem)
        credentials = Credentials(self.app_id, uid, token, self._token_provider)
        self._lifetime.log_in(credentials, self)

    def logout(self) -> None:
        """Log out: ends transfers (INTERRUPTED), channels and the connection.

        A message whose handler runs is handled first, if the handler returns within five seconds.
        Otherwise it comes again at the next login. A handler may call this method, and is not
        waited for.

        Raises:
            LogoutError: USER_NOT_LOGGED_IN.
        """
        self._lifetime.log_out()

    @staticmethod
    def set_parameters(*, log_filter: LogFilter | str) -> None:
        """Set the level of the logger `rtm_sync`, for the whole process.

        Raises:
            ValueError: the filter has no such value.
        """
        logging.getLogger("rtm_sync").setLevel(LogFilter(log_filter).level)

    update_config = set_parameters
    """The reference's later name of `set_parameters` (1.4.2)."""

    def renew_token(self, token: str, *, timeout: float = CALL_TIMEOUT) -> None:
        """Replace the token, before or after it expires (see `TokenPrivilegeWillExpire`).

        Args:
            token: a new token from the app's server.
            timeout: seconds.

        Raises:
            RenewTokenError: not logged in, not valid, expired, too often, or timed out.
        """
        if not isinstance(token, str) or not token:
            raise RenewTokenError.named("INVALID_ARGUMENT", "token must be a str, not empty.")
        problem = seconds_problem("timeout", timeout)
        if problem is not None:
            raise RenewTokenError.named("INVALID_ARGUMENT", problem)
        self._lifetime.check_logged_in(RenewTokenError)
        self._transport.renew_token(token, timeout)

    def close(self, *, wait: bool = False) -> None:
        """Log out and end every thread of the client. Idempotent; a handler may call it.

        For a second, handlers of waiting messages are begun; one that runs then gets five seconds.
        What they have not handled comes again at the next login. Running and waiting transfers are
        INTERRUPTED, and a warning says how many: in the log, or on standard error where logging is
        not configured.

        Args:
            wait: whether to wait until all transfers are done, with their callbacks.
        """
        self._lifetime.close(wait=wait)

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
        """Send a message to one user; blocks until the user's client has it, or does not take it.

        Args:
            message: a message; a `str` is a text message, bytes a raw one. At most 32 KB.
            peer_id: the receiver's uid.
            enable_offline_messaging: keep the message, seven days at the most, until the receiver's
                application has handled it: the result is `has_peer_received` when its client has
                the message, and `cached_by_server` otherwise. Of the messages for a receiver who is
                offline or does not listen, the newest 200 are kept.
            enable_historical_messaging: keep the message in the history for seven days.
            message_id: the message's id; the same message sent again with it is not a duplicate.
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
        """Messages to and from a user that were sent with `enable_historical_messaging`. Ours.

        Args:
            peer_id: the other user.
            start, end: the period, without its end: each a `datetime`, or seconds since the epoch.
                None is the oldest and the newest message; the history has seven days.
            limit: messages, 1 to 100,000.
            newest_first: newest messages first; `limit` then cuts off the oldest.
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

    def block_peer(self, peer_id: str) -> None:
        """Take no more messages and invitations from a user. No network; thread-safe.

        The sender gets no receipt. What was sent with `enable_offline_messaging` counts as
        received, and is discarded. What has arrived before still reaches your handlers. The block
        holds for this client, also after another login, until `unblock_peer`; keep the list
        yourself if it must outlive the process.

        Raises:
            PeerMessageError: INVALID_USERID; FAILURE, 10,000 users are blocked.
        """
        self._blocked_peers.block(peer_id)

    def unblock_peer(self, peer_id: str) -> None:
        """Take messages and invitations from a user again. Others are ignored."""
        self._blocked_peers.unblock(peer_id)

    @property
    def blocked_peers(self) -> frozenset[str]:
        """The users that `block_peer` has blocked."""
        return self._blocked_peers.all

    def create_local_invitation(self, callee_id: str) -> LocalInvitation:
        """Make an invitation to a user, without sending it. No network.

        Raises:
            InvitationApiCallError: the id is not valid.
        """
        return self._invitations.local(callee_id)

    # -- channels --

    def get_channel_member_count(
        self, channel_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, int]:
        """The number of members of each channel; 0 for a channel without members.

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
        """The channel object of an id. No network; allowed before login.

        It is always the same one while it has handlers or event streams, or is held anywhere. A
        channel without them is released.

        Raises:
            CreateChannelError: the id is not valid.
        """
        problem = id_problem("channel_id", channel_id)
        if problem is not None:
            raise CreateChannelError.named("INVALID_ARGUMENT", problem)
        return self._channels.of_id(channel_id)

    # -- inside --

    def _call(self, request: Request[R], timeout: float) -> R:
        self._lifetime.check_logged_in(request.ERROR)
        problem = seconds_problem("timeout", timeout)
        if problem is not None:
            raise request.ERROR.named(request.INVALID, problem)
        return self._transport.call(request, timeout)

    def _start_transfer(
        self,
        kind: TransferKind,
        work: Callable[[MediaCarrier, TransferControl], R],
        *,
        cancel_signal: threading.Event | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Transfer[R]:
        self._lifetime.check_logged_in(
            UploadMediaError if kind is TransferKind.UPLOAD else DownloadMediaError
        )
        return self._transfers.submit(
            kind,
            lambda control: work(self._transport, control),
            cancel_signal=cancel_signal,
            on_progress=on_progress,
        )

    def _thumbnail_generators(self) -> Sequence[ThumbnailGenerator]:
        return self._plugins.thumbnail_generators()

    def _end_streams_of_all(self) -> None:
        self.end_streams()
        self._channels.end_streams()

    def _listeners_changed(self) -> None:
        self._peer_messages.listeners_changed()

    def _stream_took(self) -> None:
        self._peer_messages.go_on()

    def _stream_handed_out(self, entry: Entry) -> None:
        self._peer_messages.handed_out(entry)

    def _stream_closed(self, waiter: StreamQueue, held: list[Entry]) -> None:
        self._peer_messages.close_stream(waiter, held)

    def _dispatch(self, event: Event | PeerCall) -> None:
        if isinstance(event, PeersOnlineStatusChanged):
            states = event.states
            self.emit("PeersOnlineStatusChanged", states, on_error=self._handler_failed)
        elif isinstance(event, (TokenPrivilegeWillExpire, TokenExpired)):
            self.emit(type(event).__name__, on_error=self._handler_failed)
        elif isinstance(event, _CHANNEL_EVENTS):
            channel = self._channels.find(event.channel_id)
            if channel is not None:
                self._dispatch_to(channel, event)
        self._transport.event_handled()

    def _dispatch_to(self, channel: RtmChannel, event: _ChannelEvent) -> None:
        arguments: tuple[object, ...]
        if isinstance(event, ChannelMessage):
            props = event.message_props
            if not props.message_id:
                props = replace(props, message_id=event.message_id)
            arguments = (event.message, event.member_id, props)
        elif isinstance(event, AttributesUpdated):
            arguments = (event.attributes,)
        elif isinstance(event, MemberCountUpdated):
            arguments = (event.member_count,)
        else:
            arguments = (event.member_id,)
        self._emit_to(channel, type(event).__name__, *arguments)

    def _emit_to(self, channel: RtmChannel, event: str, *arguments: object) -> None:
        channel.emit(event, *arguments, on_error=self._handler_failed)
        self._channels.handlers_changed(channel)  # those of `once` are gone

    def _invited(self, invitation: RemoteInvitation) -> None:
        self.emit("RemoteInvitationReceived", invitation, on_error=self._handler_failed)

    def _handler_failed(self, error: BaseException) -> None:
        self._failures.report(error)

    # -- Listener: called by the transport --

    def on_event(self, event: Event | PeerCall) -> bool:
        """Queue an event of the transport for its handlers (not for applications)."""
        if isinstance(event, InvitationFromPeer):
            is_blocked = event.peer_id in self._blocked_peers.all
            return not is_blocked and self._invitations.take(event)
        if isinstance(event, MessageFromPeer):
            if event.peer_id in self._blocked_peers.all:
                return self._peer_messages.discard(event)
            return self._peer_messages.arrived(event)
        return self._dispatcher.submit(lambda: self._dispatch(event))

    def on_reconnected(self, channel_id: str | None, *, recovered: bool) -> None:
        """Queue `Reconnected` of the client or of a channel (not for applications)."""

        if channel_id is None and not recovered:
            self._peer_messages.session_was_renewed()

        def tell() -> None:
            if channel_id is None:
                self.emit("Reconnected", recovered, on_error=self._handler_failed)
            elif (channel := self._channels.find(channel_id)) is not None:
                self._emit_to(channel, "Reconnected", recovered)

        self._dispatcher.submit(tell)

    def on_state(self, state: ConnectionState, reason: ConnectionChangeReason) -> None:
        """Process the transport's new state, and queue its event (not for applications)."""
        reason = self._lifetime.state_changed(state, reason)
        self._dispatcher.submit(
            lambda: self.emit(
                "ConnectionStateChanged", state, reason, on_error=self._handler_failed
            )
        )

    @property
    def backlog(self) -> int:
        """The number of events whose handlers have not run yet."""
        return self._dispatcher.backlog


create_instance = RtmClient
"""The reference's name for making a client."""
