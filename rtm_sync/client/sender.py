"""RtmSender: sends over HTTP, for server processes without a session of their own."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote, urlsplit

import requests
import urllib3

from ..blob import Blob, Payload
from ..errors import (
    ChannelMessageError,
    CreateInstanceError,
    HistoryError,
    PeerMessageError,
    QueryPeersOnlineStatusError,
    RtmError,
    SenderError,
    UploadMediaError,
)
from ..messages import MessageType, RtmFileMessage, RtmImageMessage, RtmMessage, as_message
from ..plugins.loader import plugin_manager
from ..portable import after_fork_in_child
from ..protocol.codec import decode_result, encode_json
from ..protocol.errors import ProtocolError
from ..protocol.ids import app_id_problem, id_problem
from ..protocol.values import HistoricalMessage, MediaInfo, PeerMessageSendResult, PeerOnlineState
from ..rules.timing import Backoff, Deadline
from ..thumbnails.contract import ThumbnailSource
from ..transfers.control import STALL_TIMEOUT, ProgressCallback, TransferControl, TransferKind
from ..transfers.pool import TransferPool
from ..transfers.sink import PartSink, Sink
from ..transfers.transfer import Transfer
from ..transfers.upload import Dimensions, UploadWork
from ..transports.gateway.answers import ERROR_LIMIT, BodyRefused, read_body
from ..transports.gateway.media_http import MediaHttp
from ..transports.gateway.proxy_settings import find_proxy_settings, gateway_url_problem
from ..transports.gateway.wire import http_session
from ..transports.retry import RetryPolicy
from .arguments import chosen_message_id
from .history import PAGE, Moment

SEND_TIMEOUT = 10.0
"""Seconds for one call, retries included (reference 1.3: 10 s)."""

_ANSWER_LIMIT = 64 * 1024 * 1024  # bytes; a page of the largest messages has 40 MB
_CONNECT_TIMEOUT = 5.0
_CONNECTIONS_KEPT = 16  # idle connections of one sender, whatever the number of its threads
_USERS_KEPT = 1024  # users whose tokens for media are kept
_BACKOFF = Backoff(first=0.1, longest=2.0)
_RETRIED = frozenset({429, 502, 503, 504})


class _Busy(Exception):
    """The gateway is unreachable or overloaded; the request may be repeated."""


class RtmSender:
    """Sends messages and media as any user of an app, over HTTP. Thread-safe.

    It holds no connection and receives nothing, so any number of processes may have one each: web
    workers, cron jobs. Its threads share at most 16 idle connections, and a forked process makes
    its own. Messages have ids, so a call that is repeated after a lost answer
    delivers once.

    Args:
        app_id: the app.
        secret: the app's secret, which allows acting as any user. None where the gateway runs
            without one.
        url: the gateway, `ws://host:8765` or `http://host:8765` (or `wss`, `https`).
        uid: the sending user, unless a call names another.
        timeout: seconds for one call, retries included.
        proxy, ca_file: as for `RtmClient`.

    Raises:
        CreateInstanceError: an argument is not valid.
    """

    def __init__(
        self,
        app_id: str,
        secret: str | None = None,
        *,
        url: str = "ws://127.0.0.1:8765",
        uid: str = "server",
        timeout: float = SEND_TIMEOUT,
        proxy: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        problem = app_id_problem(app_id) or id_problem("uid", uid) or gateway_url_problem(url)
        if problem is None and urlsplit(url).scheme not in ("ws", "wss", "http", "https"):
            problem = f"url must be like ws://host:8765, not {url!r}."
        if problem is None and not 0 < timeout <= threading.TIMEOUT_MAX:
            problem = f"timeout is {timeout!r}; it must be a number of seconds over 0."
        if problem is not None:
            raise CreateInstanceError.named("INVALID_ARGUMENT", problem)
        parts = urlsplit(url)
        secure = parts.scheme in ("wss", "https")
        base = f"{'https' if secure else 'http'}://{parts.netloc}{parts.path.rstrip('/')}"
        self.app_id = app_id
        self.uid = uid
        self._timeout = timeout
        self._project = f"{base}/dev/v2/project/{quote(app_id, safe='')}/rtm"
        self._media_url = f"{base}/v1/media"
        self._proxy_settings = find_proxy_settings(
            base, proxy, None if ca_file is None else os.fspath(ca_file)
        )
        self._auth = None if secret is None else (app_id, secret.rstrip("\r\n"))
        self._closed = False
        self._begin()
        _senders.add(self)

    def _begin(self) -> None:
        """Make what belongs to one process; a forked child does not use its parent's sockets."""
        self._lock = threading.Lock()  # guards _http, _bearers and _closed
        self._http: requests.Session | None = None
        self._bearers: OrderedDict[str, _Bearer] = OrderedDict()  # by user, the newest last
        self._transfers = TransferPool()

    def __repr__(self) -> str:
        return f"<RtmSender {self.app_id!r} as {self.uid!r}>"

    def __enter__(self) -> RtmSender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, *, wait: bool = False) -> None:
        """End transfers and connections. Idempotent.

        Args:
            wait: whether to wait until all transfers are done, as `RtmClient.close` does.
        """
        try:
            if wait:
                self._transfers.wait()
        finally:
            self._transfers.close()
        with self._lock:
            self._closed = True
            http, self._http = self._http, None
            self._bearers.clear()
        if http is not None:
            http.close()

    # -- messages --

    def send_message_to_peer(
        self,
        message: RtmMessage | str | bytes,
        peer_id: str,
        *,
        uid: str | None = None,
        enable_offline_messaging: bool = False,
        enable_historical_messaging: bool = False,
        message_id: str | None = None,
    ) -> PeerMessageSendResult:
        """Send a message to one user; returns when the user's client has it, or is offline.

        Args:
            uid: the sending user; the sender's own uid when not given.
            message, peer_id, enable_offline_messaging, enable_historical_messaging, message_id: as
                for `RtmClient.send_message_to_peer`.

        Raises:
            PeerMessageError: refused, or timed out; USER_NOT_LOGGED_IN when the gateway does not
                accept the secret.
        """
        problem = id_problem("peer_id", peer_id)
        if problem is not None:
            raise PeerMessageError.named("INVALID_USERID", problem)
        body = {
            "destination": peer_id,
            "message": _encoded(message, PeerMessageError),
            "message_id": _message_id(message_id, PeerMessageError),
            "enable_offline_messaging": enable_offline_messaging,
            "enable_historical_messaging": enable_historical_messaging,
        }
        path = self._user(uid, PeerMessageError) + "/peer_messages?wait_for_ack=true"
        answer = self._post(path, body, PeerMessageError)
        return PeerMessageSendResult(
            answer.get("code") == "message_delivered", bool(answer.get("cached_by_server"))
        )

    def send_message_to_channel(
        self,
        message: RtmMessage | str | bytes,
        channel_id: str,
        *,
        uid: str | None = None,
        enable_historical_messaging: bool = False,
        message_id: str | None = None,
    ) -> None:
        """Send a message to a channel's members, without being a member.

        Raises:
            ChannelMessageError: refused, or timed out.
        """
        problem = id_problem("channel_id", channel_id)
        if problem is not None:
            raise ChannelMessageError.named("INVALID_MESSAGE", problem)
        body = {
            "channel_name": channel_id,
            "message": _encoded(message, ChannelMessageError),
            "message_id": _message_id(message_id, ChannelMessageError),
            "enable_historical_messaging": enable_historical_messaging,
        }
        path = self._user(uid, ChannelMessageError) + "/channel_messages"
        self._post(path, body, ChannelMessageError)

    # -- media --

    def create_media_message_by_uploading(
        self,
        payload: Payload,
        *,
        message_type: MessageType | str = MessageType.FILE,
        uid: str | None = None,
        file_name: str | None = None,
        description: str = "",
        thumbnail: ThumbnailSource | None = None,
        width: int | None = None,
        height: int | None = None,
        thumbnail_width: int | None = None,
        thumbnail_height: int | None = None,
        cancel_signal: threading.Event | None = None,
        on_operation_progress: ProgressCallback | None = None,
    ) -> Transfer[RtmFileMessage] | Transfer[RtmImageMessage]:
        """Upload a file or picture and make the message that points to it.

        As `RtmClient.create_media_message_by_uploading`; at most nine run at once, the others wait.
        """
        user = self._user(uid, UploadMediaError)
        work = UploadWork(
            payload,
            message_type,
            file_name,
            description,
            thumbnail,
            Dimensions(width, height, thumbnail_width, thumbnail_height),
            plugin_manager.thumbnail_generators,
            auto=False,
        )
        carrier = _Carrier(lambda: self._media_of(user))
        return self._transfers.submit(
            TransferKind.UPLOAD,
            lambda control: work.run(carrier, control),
            cancel_signal=cancel_signal,
            on_progress=on_operation_progress,
        )

    # -- users and history --

    def query_peers_presence(self, peer_ids: Sequence[str]) -> dict[str, PeerOnlineState]:
        """The state of each of these users, in the order given.

        Args:
            peer_ids: 1 to 256 uids.

        Raises:
            QueryPeersOnlineStatusError: refused, or timed out.
        """
        family = QueryPeersOnlineStatusError
        for peer_id in peer_ids:
            problem = id_problem("peer_id", peer_id)
            if problem is not None:
                raise family.named("INVALID_ARGUMENT", problem)
        answer = self._post("/presence", {"user_ids": list(peer_ids)}, family)
        states = answer.get("states", {})
        return {uid: PeerOnlineState(states[uid]) for uid in peer_ids}

    def get_history(
        self,
        *,
        source: str | None = None,
        destination: str | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[HistoricalMessage]:
        """Messages of all users that were sent with `enable_historical_messaging`.

        Args:
            source: the sending user.
            destination: the receiving user or channel; `source` or `destination` is required.
            start, end: the period, to the second: each a `datetime`, or seconds since the epoch.
                None is the oldest and the newest message; the history has seven days.
            limit: messages, at least 1.
            newest_first: newest messages first; `limit` then cuts off the oldest.

        Raises:
            HistoryError: refused, or timed out.
        """
        named = {"source": source, "destination": destination}
        now = datetime.now(timezone.utc)
        asked = {
            "filter": {
                **{name: value for name, value in named.items() if value is not None},
                "start_time": _utc("start", start, now - timedelta(days=8)),
                "end_time": _utc("end", end, now + timedelta(days=1)),
            },
            "limit": PAGE,
            "order": "desc" if newest_first else "asc",
        }
        messages: list[HistoricalMessage] = []
        while len(messages) < limit:
            question = {**asked, "offset": len(messages)}
            told = self._post("/message/history/query", question, HistoryError)
            handle = str(told["location"]).rpartition("/")[2]
            page = self._ask("GET", f"/message/history/query/{handle}", None, HistoryError)
            messages += [_historical(item) for item in page["messages"]]
            if len(page["messages"]) < PAGE:
                break
        return messages[:limit]

    def kick(self, uid: str, *, ban_seconds: float = 0.0, revoke_tokens: bool = False) -> bool:
        """End a user's sessions (the client is ABORTED, BANNED_BY_SERVER).

        Args:
            uid: the user.
            ban_seconds: how long logins are refused; 0 ends a ban.
            revoke_tokens: also refuse, permanently, all tokens of the user that exist now.

        Returns:
            Whether the user was logged in.

        Raises:
            SenderError: refused, or timed out.
        """
        body = {"ban_seconds": ban_seconds, "revoke_tokens": revoke_tokens}
        answer = self._post(self._user(uid, SenderError) + "/kick", body, SenderError)
        return bool(answer.get("was_online"))

    def end_all_sessions(self, *, revoke_tokens: bool = False) -> int:
        """End all sessions of the app (the clients are ABORTED, BANNED_BY_SERVER).

        Their uploads and downloads end, too. For an app whose secret or key has leaked: remove that
        from the gateway first.

        Args:
            revoke_tokens: also refuse, permanently, all tokens of the app that exist now.

        Returns:
            The number of clients' sessions that ended.

        Raises:
            SenderError: refused, or timed out.
        """
        answer = self._post("/sessions/end", {"revoke_tokens": revoke_tokens}, SenderError)
        return int(answer.get("ended", 0))

    def get_bans(self) -> dict[str, float]:
        """The banned users, and the end of each ban in seconds since the epoch.

        The gateway is asked once for each 1,000 users.

        Raises:
            SenderError: refused, or timed out.
        """
        found: dict[str, float] = {}
        page = "/bans"
        while True:
            answer = self._ask("GET", page, None, SenderError)
            bans = {str(uid): float(until) for uid, until in answer.get("bans", {}).items()}
            after = answer.get("after")
            if not after or not bans.keys() - found.keys():
                return found | bans
            found |= bans
            page = f"/bans?after={quote(str(after), safe='')}"

    # -- inside --

    def _user(self, uid: str | None, family: type[RtmError]) -> str:
        chosen = self.uid if uid is None else uid
        problem = id_problem("uid", chosen)
        if problem is not None:
            raise family.named("INVALID_ARGUMENT", problem)
        return f"/users/{quote(chosen, safe='')}"

    def _post(self, path: str, body: dict[str, Any], family: type[RtmError]) -> dict[str, Any]:
        return self._ask("POST", path, body, family)

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, family: type[RtmError]
    ) -> dict[str, Any]:
        """One call, repeated while the gateway is unreachable or overloaded."""
        deadline = Deadline(self._timeout)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._ask_once(method, path, body, family, deadline)
            except _Busy as error:
                pause = _BACKOFF.wait(attempt)
                if pause >= deadline.left:
                    raise family.named(
                        "TIMEOUT",
                        f"{self._project} did not complete the call within "
                        f"{self._timeout:g} seconds: {error}",
                        error,
                    ) from error
                time.sleep(pause)

    def _ask_once(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        family: type[RtmError],
        deadline: Deadline,
    ) -> dict[str, Any]:
        left = max(0.1, deadline.left)
        try:
            response = self._shared_http().request(
                method,
                self._project + path,
                json=body,
                auth=self._auth,
                headers={"Accept-Encoding": "identity"},
                timeout=(min(_CONNECT_TIMEOUT, left), left),
                allow_redirects=False,
                stream=True,
            )
            with response:
                text = read_body(
                    response, _ANSWER_LIMIT if response.status_code == 200 else ERROR_LIMIT
                )
        except BodyRefused as error:
            if response.status_code in _RETRIED:  # such as the page of a proxy
                raise _Busy(f"{response.status_code} {response.reason}") from error
            raise family.named("FAILURE", f"The call failed: {error}", error) from error
        except urllib3.exceptions.HTTPError as error:  # the connection was lost in the body
            raise _Busy(f"{error}") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Busy(f"{error}") from error
        except requests.RequestException as error:
            raise family.named("FAILURE", f"The request failed: {error}", error) from error
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            answer = {"message": f"{response.status_code} {response.reason}, not JSON"}
        if response.status_code in _RETRIED:
            raise _Busy(str(answer.get("message")))
        if response.status_code != 200:
            raise _refusal(response.status_code, answer, family)
        return answer

    def _shared_http(self) -> requests.Session:
        """The HTTP session of all threads and users, made by the first call."""
        with self._lock:
            if self._closed:
                raise SenderError.named("FAILURE", "The sender is closed; make a new one.")
            if self._http is None:
                self._http = http_session(self._proxy_settings, _CONNECTIONS_KEPT)
            return self._http

    def _media_of(self, user: str) -> MediaHttp:
        """The HTTP side of a user's media, over the connections of all users."""
        http = self._shared_http()
        with self._lock:
            bearer = self._bearers.pop(user, None)
            if bearer is None:
                bearer = _Bearer(lambda: self._post(f"{user}/media_session", {}, UploadMediaError))
            self._bearers[user] = bearer
            if len(self._bearers) > _USERS_KEPT:
                self._bearers.popitem(last=False)
        return MediaHttp(
            self._media_url,
            self._proxy_settings,
            bearer,
            _CONNECT_TIMEOUT,
            STALL_TIMEOUT,
            RetryPolicy(),
            http,
        )


_senders: weakref.WeakSet[RtmSender] = weakref.WeakSet()


def _begin_again() -> None:
    for sender in list(_senders):
        sender._begin()


after_fork_in_child(_begin_again)


class _Bearer:
    """A media session's token, renewed before it can expire."""

    _GOOD_FOR = 5.0  # seconds; a restart of the gateway invalidates tokens

    def __init__(self, ask: Callable[[], dict[str, Any]]) -> None:
        self._ask = ask
        self._token = ""
        self._asked_at = float("-inf")

    def __call__(self) -> str:
        now = time.monotonic()
        if now - self._asked_at > self._GOOD_FOR:
            self._token = str(self._ask()["token"])
            self._asked_at = now
        return self._token


class _Carrier:
    """The `MediaCarrier` of a sender."""

    def __init__(self, http: Callable[[], MediaHttp]) -> None:
        self._http = http

    def upload(
        self, blob: Blob, control: TransferControl, resume_key: str | None = None
    ) -> MediaInfo:
        return self._http().upload(blob, control, resume_key or secrets.token_urlsafe(24))

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        return self._http().download(media_id, sink, control)

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        return self._http().media_info(media_id, control)

    def download_part(self, media_id: str, part: PartSink, control: TransferControl) -> MediaInfo:
        return self._http().download(media_id, part, control)


def _historical(item: dict[str, Any]) -> HistoricalMessage:
    try:
        return decode_result(
            HistoricalMessage,
            {
                "message": item.get("message"),
                "source": item.get("src"),
                "destination": item.get("dst"),
                "is_channel": item.get("message_type") == "channel_message",
                "message_id": item.get("message_id"),
                "message_props": {
                    "server_received_ts": item.get("ms"),
                    "is_historical_message": True,
                },
            },
        )
    except ProtocolError as error:
        raise HistoryError.named("FAILURE", f"The answer is not valid: {error}", error) from error


def _utc(name: str, moment: Moment | None, otherwise: datetime) -> str:
    try:
        if moment is None:
            moment = otherwise
        elif not isinstance(moment, datetime):
            moment = datetime.fromtimestamp(moment, timezone.utc)
        return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise HistoryError.named(
            "INVALID_ARGUMENT",
            f"{name} is {moment!r}; it must be a datetime or seconds since the epoch.",
            error,
        ) from error


def _message_id(given: str | None, family: type[RtmError]) -> str:
    return chosen_message_id(given, lambda problem: family.named("INVALID_MESSAGE", problem))


def _encoded(message: RtmMessage | str | bytes, family: type[RtmError]) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(encode_json(as_message(message))))
    except (TypeError, ValueError) as error:
        raise family.named("INVALID_MESSAGE", str(error), error) from error


def _refusal(status: int, answer: dict[str, Any], family: type[RtmError]) -> RtmError:
    name, message = str(answer.get("code")), str(answer.get("message"))
    member = family.Code.__members__.get(name)
    if member is not None:
        return family(member, message)
    if status == 401:
        return family.named("USER_NOT_LOGGED_IN", message)
    return family.named("INVALID_ARGUMENT" if status == 400 else "FAILURE", message)
