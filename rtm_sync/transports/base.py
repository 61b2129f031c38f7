"""The Transport contract: the methods that connect a client to a hub or its substitute."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from ..blob import Blob
from ..errors import LoginError, LoginErrorCode, PluginError
from ..protocol.events import Event
from ..protocol.requests import PeerCall, RenewToken, Request
from ..protocol.values import ConnectionChangeReason, ConnectionState, MediaInfo
from ..transfers.control import TransferControl
from ..transfers.sink import PartSink, Sink

if TYPE_CHECKING:
    from ..hub.engine.contract import Engine
    from ..hub.media.store import MediaStore

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user that logs in, with the user's token.

    Attributes:
        app_id, uid: the app and the user.
        token: a token that the app's server issued; None when the hub requires none.
        token_provider: called for a fresh token before every attempt to connect; wins over `token`.
    """

    app_id: str
    uid: str
    token: str | None = field(default=None, repr=False)
    token_provider: Callable[[], str] | None = field(default=None, repr=False)

    def current_token(self) -> str | None:
        """The token to present now, without the line end that it may have from a file.

        Raises:
            LoginError: UNKNOWN, the provider failed.
        """
        if self.token_provider is None:
            return _stripped(self.token)
        try:
            return _stripped(self.token_provider())
        except (Exception, SystemExit) as error:  # the application's code may raise anything
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_UNKNOWN, f"The token provider failed: {error!r}.", error
            ) from error


def _not_given(url: str) -> NoReturn:
    """The default of a factory that was not given."""
    raise PluginError(
        "These TransportOptions have no factory for engines and media stores. RtmClient gives them "
        "its own; elsewhere pass make_engine=… and make_media_store=…."
    )


def _stripped(token: str | None) -> str | None:
    return token.strip() if isinstance(token, str) else token


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """The settings that the application chose for its connection. All times are seconds.

    Attributes:
        login_timeout: for the first connection and login (reference 1.3: 12 s).
        connect_timeout: for the TCP connection, all addresses of the name together, and then for
            each wait of the handshakes.
        ping_interval: the time between two signs of life from the transport.
        ping_timeout: the time without a frame after which a connection counts as lost.
        reconnecting_after: the time after which a lost connection is reported as RECONNECTING
            (reference 1.3: 4 s).
        retry_timeout: the time that failing attempts of a transfer may take without progress.
        proxy: URL of an HTTP proxy, "" for none, None to read the environment.
        ca_file: certificates to trust, a PEM file; None to read the environment.
        media: URL of the media store for a transport without a gateway; others ignore it.
        make_media_store: makes the media store of a URL. Raises `PluginError`, or any exception of
            the store's plugin.
        make_engine: makes the engine of a URL, likewise.
    """

    login_timeout: float = 12.0
    connect_timeout: float = 10.0
    ping_interval: float = 2.0
    ping_timeout: float = 10.0
    reconnecting_after: float = 4.0
    retry_timeout: float = 30.0
    proxy: str | None = field(default=None, repr=False)  # it may have a password
    ca_file: str | None = None
    media: str | None = None
    make_media_store: Callable[[str], MediaStore] = field(
        default=_not_given, repr=False, compare=False
    )
    make_engine: Callable[[str], Engine] = field(default=_not_given, repr=False, compare=False)

    @property
    def plugins(self) -> _Factories:
        """Deprecated, and gone in the next release: use `make_media_store` and `make_engine`."""
        warnings.warn(
            "TransportOptions.plugins is deprecated; call make_media_store(url) or "
            "make_engine(url) of the options.",
            DeprecationWarning,
            stacklevel=2,
        )
        return _Factories(self.make_media_store, self.make_engine)


@dataclass(frozen=True, slots=True)
class _Factories:
    """The factories under their old names, for `TransportOptions.plugins`."""

    media_store: Callable[[str], MediaStore]
    engine: Callable[[str], Engine]


class Listener(Protocol):
    """Receives events and state changes. Called on the transport's threads; no method blocks."""

    def on_event(self, event: Event | PeerCall) -> bool:
        """Handle an event. Returns False when the event queue is full."""

    def on_state(self, state: ConnectionState, reason: ConnectionChangeReason) -> None:
        """Handle a change of the connection's state."""

    def on_reconnected(self, channel_id: str | None, *, recovered: bool) -> None:
        """Handle the recovery of the session, or of one channel, after a lost connection.

        Called after `on_state` and before the missed events.

        Args:
            channel_id: the channel; None for the session.
            recovered: False when some of the missed events are lost.
        """

    @property
    def backlog(self) -> int:
        """The number of events that wait for their handlers."""


class Transport(ABC):
    """Connects one client to a hub. Thread-safe.

    A transport is made without I/O, opened at login and closed at logout, and may be opened again.
    The transport keeps the session alive and reports through the listener. `rtm_sync.testing` has
    the contract as a test case.
    """

    @abstractmethod
    def open(self, credentials: Credentials, listener: Listener) -> None:
        """Log in, and report CONNECTING, then CONNECTED or the failure.

        After any exception, an interruption (Ctrl-C) included, nothing of the login remains: no
        session on the hub, no thread, and the state is DISCONNECTED.

        Raises:
            LoginError: refused, unreachable or not done within the login time-out;
                ABORTED_BY_LOGOUT when `close` is called meanwhile; ALREADY_LOGIN when it is open.
        """

    @abstractmethod
    def call(self, request: Request[R], timeout: float) -> R:
        """Make a request and block until the hub answered it.

        While the connection is being restored the request waits, within its time-out.

        Raises:
            RtmError: of the request's family; TIMEOUT after `timeout` seconds.
        """

    @abstractmethod
    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        """Upload a blob; returns when any peer can download it. Called on a transfer's thread.

        Args:
            resume_key: names the upload beyond this process. An upload with the same key resumes
                the earlier one; a transport that cannot resume starts over.

        Raises:
            RtmError: UploadMediaError, or the transfer's end as `control.check` raises it; nothing
                of the upload stays behind, except bytes that a `resume_key` can go on with.
        """

    @abstractmethod
    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        """Write a medium's bytes into `sink`, checked by digest. Called on a transfer's thread.

        Bytes already in the sink are kept if its `whole` is the medium's digest. Otherwise the
        download starts over. `Sink.resume` makes the decision.

        Raises:
            RtmError: DownloadMediaError, or the transfer's end as `control.check` raises it.
        """

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        """The record of a medium, without its bytes. Called on a transfer's thread.

        Raises:
            RtmError: DownloadMediaError: NOT_EXIST, or FAILURE from a transport that does not offer
                this; or the transfer's end as `control.check` raises it.
        """
        raise control.kind.error(
            "FAILURE", f"{type(self).__name__} cannot ask for a medium's record without its bytes."
        )

    def download_part(self, media_id: str, part: PartSink, control: TransferControl) -> MediaInfo:
        """Write a part of a medium into `part`, unchecked. Called on a transfer's thread.

        This implementation downloads the whole medium. A transport that can ask for a part
        overrides it.

        Raises:
            RtmError: as `download`; INVALID_ARGUMENT if the part begins beyond the medium's end.
        """
        return self.download(media_id, part.of_whole(), control)

    @abstractmethod
    def close(self) -> None:
        """End the session and everything the transport owns. Idempotent, never hangs.

        Any thread may call it, also while another thread is in `open` or `close`; after an
        interruption (Ctrl-C) another call completes the work.
        """

    def renew_token(self, token: str, timeout: float) -> None:
        """Use another token, in this session and for every later connection.

        Raises:
            RtmError: RenewTokenError.
        """
        self.call(RenewToken(token), timeout)

    def set_listening(self, listens: bool) -> None:  # noqa: B027  an optional capability
        """Note whether the application takes peer messages now; it may change at any time.

        Called before the first `open` as well. A transport whose hub stores messages until they are
        handled tells the hub, which keeps them while nobody takes them. Never blocks.
        """

    def messages_handled(self, keys: Sequence[int]) -> None:  # noqa: B027  an optional capability
        """Report stored messages (`MessageFromPeer.key`) that the application has handled.

        The hub deletes them. The report survives reconnects. Never blocks.

        Args:
            keys: 1 to 1,000 keys.
        """

    def event_handled(self) -> None:  # noqa: B027  an optional capability
        """Note that the application has handled one more event. Used for flow control."""
