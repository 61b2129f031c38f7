"""The client's side of media over HTTP: tus uploads and ranged downloads, cancellable.

Blocking, one call a transfer, on the transfer's thread. Bytes are read, hashed and sent in one
pass; the gateway answers with its own digest, and the two must agree. `requests` does the HTTP. A
cancelled transfer wakes its thread by shutting the socket down, also while it connects (`wire.py`).
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException

import requests
import urllib3

from ...blob import CHUNK, MEDIA_LIMIT, Blob
from ...errors import RtmError
from ...protocol.errors import ProtocolError
from ...protocol.frames import Failure, decode
from ...protocol.values import MediaInfo
from ...rules.limits import MAX_TRANSFERS
from ...transfers.control import TransferControl, TransferKind
from ...transfers.sink import PartSink, Sink
from ...transfers.source import Source, opened_source
from ..retry import RetryPolicy, StartOver, Transient
from .answers import BodyRefused, digest_in, info_in, read_body
from .happy_eyeballs import is_public
from .proxy_settings import ProxySettings
from .wire import Wire, http_session, wired

_RETRIED_STATUS = frozenset({401, 408, 429, *range(500, 600)}) - {501, 505, 507}
"""401: the session may be reconnecting. 501, 505 and 507 (the store failed) are final."""

_LOST_UPLOAD_STATUS = frozenset({409, 410, 423})
"""An earlier request of the upload arrived late and has superseded this one (409, 423), or the
gateway has dropped the upload (410). Under a new key no request can interfere."""

_OFFSET_STREAM = "application/offset+octet-stream"
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class MediaHttp:
    """Uploads and downloads of one client over HTTP. Thread-safe.

    Args:
        url: the gateway's media URL, `http://host:port/v1/media`.
        proxy_settings: the HTTP proxy and the trusted certificates.
        token: returns the session's current bearer token.
        connect_timeout, read_timeout: seconds; the transfer's own stall time-out is tighter.
        retries: the retry policy; a retried transfer resumes where it stopped.
        http: a session of `http_session` that the caller shares and closes; None makes one.
    """

    def __init__(
        self,
        url: str,
        proxy_settings: ProxySettings,
        token: Callable[[], str],
        connect_timeout: float,
        read_timeout: float,
        retries: RetryPolicy,
        http: requests.Session | None = None,
    ) -> None:
        self._url = url
        self._retries = retries
        self._token = token
        self._timeout = (connect_timeout, read_timeout)
        self._has_proxy = proxy_settings.proxy is not None
        self._owns_http = http is None
        self._http = http or http_session(proxy_settings, MAX_TRANSFERS)

    def close(self) -> None:
        """Close the kept-alive connections, unless they are shared."""
        if self._owns_http:
            self._http.close()

    def upload(
        self,
        blob: Blob,
        control: TransferControl,
        key: str,
        give_up: Callable[[str], object] = lambda key: None,
        *,
        keep: bool = False,
    ) -> MediaInfo:
        """Upload a blob under an idempotency key; resume after a lost connection.

        If the gateway's bytes cannot be this upload's, or another request has taken the upload
        over, it starts again under another key.

        Args:
            give_up: called with the key of each abandoned upload. It is not called for `key` itself
                when that upload was the last: the caller handles it.
            keep: whether the upload may have begun earlier and must survive a logout.
        """
        upload = _Upload(blob, key, give_up, keep=keep)
        try:
            return self._retries.run(
                control.kind,
                lambda: self._try_upload(upload, control),
                lambda: upload.offset,
                control.pause,
            )
        except BaseException:
            if upload.key != key:
                give_up(upload.key)
            raise

    def download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        """Write a medium into a sink; resume after a lost connection."""
        return self._retries.run(
            control.kind,
            lambda: self._try_download(media_id, sink, control),
            lambda: sink.size,
            control.pause,
        )

    def media_info(self, media_id: str, control: TransferControl) -> MediaInfo:
        """Ask for a medium's record by HEAD."""

        def ask() -> MediaInfo:
            headers = {"Accept-Encoding": "identity"}
            answer = self._request(control, "HEAD", f"{self._url}/{media_id}", headers, None)
            if not digest_in(answer):
                raise self._no_gateway(answer, control.kind)
            return info_in(media_id, int(answer.headers.get("Content-Length", "0")), answer)

        return self._retries.run(control.kind, ask, lambda: 0, control.pause)

    # -- upload --

    def _try_upload(self, upload: _Upload, control: TransferControl) -> MediaInfo:
        try:
            return self._resume_upload(upload, control)
        except StartOver:
            upload.renew()
            raise

    def _resume_upload(self, upload: _Upload, control: TransferControl) -> MediaInfo:
        size = upload.blob.size
        with opened_source(upload.blob, control) as source:
            body = _Body(source, control)
            headers = {
                "Tus-Resumable": "1.0.0",
                "Upload-Length": str(size),
                "Upload-Metadata": upload.metadata,
                "Idempotency-Key": upload.key,
            }
            # A repeated creation carries no body: it asks how far the upload got.
            creation = None if upload.begun else body
            upload.begun = True
            if creation is not None:
                headers["Content-Type"] = _OFFSET_STREAM
            response = self._request(control, "POST", self._url, headers, creation)
            media_id, offset = self._upload_state(response, control.kind)
            upload.offset = offset
            if creation is None and offset <= size:
                body.skip_to(offset)
                if offset < size:
                    patch = {
                        "Tus-Resumable": "1.0.0",
                        "Upload-Offset": str(offset),
                        "Content-Type": _OFFSET_STREAM,
                    }
                    # Not to the Location: behind a TLS proxy the gateway does not know its scheme.
                    address = f"{self._url}/{media_id}"
                    response = self._request(control, "PATCH", address, patch, body)
                    _, offset = self._upload_state(response, control.kind)
        if offset > size:
            raise StartOver(f"the gateway has {offset:,} bytes of an upload of {size:,}")
        if offset < size:
            raise Transient(f"the gateway has {offset:,} of {size:,} bytes", is_answer=True)
        sha256 = body.sha256()
        if digest_in(response) != sha256:
            raise StartOver("the stored bytes do not have the digest of the sent ones")
        return MediaInfo(
            media_id,
            size,
            sha256,
            upload.blob.name,
            upload.blob.content_type,
            float(response.headers.get("Rtm-Expires-At", "0")),
        )

    def _upload_state(self, response: requests.Response, kind: TransferKind) -> tuple[str, int]:
        """The media id and the offset in the answer to an upload."""
        address = response.headers.get("Location", response.url)
        media_id = address.rpartition("/")[2]
        offset = response.headers.get("Upload-Offset", "")
        if not _MEDIA_ID.fullmatch(media_id) or not (offset.isascii() and offset.isdigit()):
            raise self._no_gateway(response, kind)
        return media_id, int(offset)

    # -- download --

    def _try_download(self, media_id: str, sink: Sink, control: TransferControl) -> MediaInfo:
        headers = {"Accept-Encoding": "identity"}
        if sink.size or sink.is_part:
            last = "" if sink.stop is None else max(sink.position, sink.stop - 1)
            headers["Range"] = f"bytes={sink.position}-{last}"
        if sink.size:
            headers["If-Range"] = f'"{sink.whole}"'  # its ETag
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(self._on_wire(control))
            answer = response = stack.enter_context(
                self._send(control, "GET", f"{self._url}/{media_id}", headers, None)
            )
            expected = digest_in(answer)
            if answer.status_code == 307 and expected:
                response = stack.enter_context(self._follow(control, wire, answer, headers))
            if response.status_code == 416:  # the sink already has all bytes
                info = info_in(media_id, _total(response, sink), answer)
                if sink.is_part:
                    sink.begin(info)
            else:
                self._raise_for_status(
                    response, control.kind, "gateway" if response is answer else "media store"
                )
                if not expected:
                    raise self._no_gateway(response, control.kind)
                info = info_in(media_id, _total(response, sink), answer)
                if info.size > MEDIA_LIMIT:
                    raise control.kind.error(
                        "FAILURE",
                        f"The medium is announced with {info.size:,} bytes; the limit is "
                        f"{MEDIA_LIMIT:,}.",
                    )
                _receive(response, sink, info, control)
            if sink.position < sink.end(info):
                raise Transient(f"{sink.position:,} of {sink.end(info):,} bytes arrived")
            if not sink.matches(info):
                if sink.restart():
                    raise StartOver("the received bytes do not have the stored ones' digest")
                raise control.kind.error("FAILURE", "The received bytes are damaged.")
            return info

    def _follow(
        self,
        control: TransferControl,
        wire: Wire,
        answer: requests.Response,
        headers: dict[str, str],
    ) -> requests.Response:
        """Request the bytes from the media store to which the gateway redirects.

        The store does not get the token and is not trusted: the medium's metadata, above all the
        digest, come from the gateway's answer. A gateway at a public address cannot send the client
        into its own network; where there is a proxy, it is the proxy that connects.
        """
        location = answer.headers.get("Location", "")
        secure = self._url.startswith("https:")
        if not location.startswith("https://" if secure else ("http://", "https://")):
            raise control.kind.error(
                "FAILURE",
                f"The gateway keeps its media at {location[:100]!r}, which is not "
                f"{'https://, as the gateway is' if secure else 'http:// or https://'}.",
            )
        wire.public_only = not self._has_proxy and is_public(wire.address)
        wanted = {"Accept-Encoding": "identity"}
        etag = answer.headers.get("ETag")
        if "Range" in headers and headers.get("If-Range", etag) == etag:
            wanted["Range"] = headers["Range"]  # the store's own ETag is another one
        return self._http.get(
            location, headers=wanted, stream=True, timeout=self._timeout, allow_redirects=False
        )

    # -- both --

    def _request(
        self,
        control: TransferControl,
        method: str,
        url: str,
        headers: dict[str, str],
        body: _Body | None,
    ) -> requests.Response:
        with (
            self._on_wire(control),
            self._send(control, method, url, headers, body) as response,
        ):
            self._raise_for_status(response, control.kind)
            _body(response, control.kind)  # so that the connection can be used again
            return response

    @contextlib.contextmanager
    def _on_wire(self, control: TransferControl) -> Iterator[Wire]:
        """In the block a cancellation shuts the socket down; a lost connection is `Transient`."""
        with wired(control) as wire:
            try:
                yield wire
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
                urllib3.exceptions.HTTPError,
                HTTPException,
                ConnectionError,
            ) as error:
                if wire.refused:
                    raise control.kind.error(
                        "FAILURE",
                        f"The gateway keeps its media at {wire.refused[:100]!r}, which has no "
                        "public address, unlike the gateway.",
                    ) from error
                raise Transient(f"{error}") from error

    def _send(
        self,
        control: TransferControl,
        method: str,
        url: str,
        headers: dict[str, str],
        body: _Body | None,
    ) -> requests.Response:
        control.check()
        return self._http.request(
            method,
            url,
            headers={"Accept-Encoding": "identity"} | headers,
            data=body,
            stream=True,
            auth=self._authorize,
            timeout=self._timeout,
            allow_redirects=False,
        )

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Used as `auth`, because requests lets the user's .netrc replace a plain header."""
        request.headers["Authorization"] = f"Bearer {self._token()}"
        return request

    def _no_gateway(self, response: requests.Response, kind: TransferKind) -> RtmError:
        return kind.error(
            "FAILURE",
            f"What answers at {self._url} is not a gateway of rtm_sync: {response.status_code} "
            f"{response.reason} without the headers of one.",
        )

    @staticmethod
    def _raise_for_status(
        response: requests.Response, kind: TransferKind, who: str = "gateway"
    ) -> None:
        status = response.status_code
        if status < 300:
            return
        try:
            body = _body(response, kind)
        except RtmError:
            if status not in _RETRIED_STATUS:
                raise
            body = b""  # such as the page of a proxy, which says nothing that is needed
        error = _error_in(response, body)
        message = error.message if error else f"{status} {body[:200].decode('utf-8', 'replace')}"
        message = message.strip()
        method = response.request.method
        is_lost = method in ("POST", "PATCH") and status in _LOST_UPLOAD_STATUS
        if is_lost or (method == "PATCH" and status == 404):
            raise StartOver(f"the {who} answered {message}", is_answer=True)
        if status in _RETRIED_STATUS:
            raise Transient(
                f"the {who} answered {message}",
                retry_after(response),
                error.reason if error is not None else "FAILURE",
                is_answer=True,
            )
        if error is not None:
            raise error
        raise kind.error(
            # A HEAD has no body, and therefore no error in it.
            {400: "INVALID_ARGUMENT", 404: "NOT_EXIST", 410: "NOT_EXIST"}.get(status, "FAILURE"),
            f"The {who} refused the {kind.value}: {message}",
        )


class _Upload:
    """The state of one upload between attempts."""

    def __init__(
        self, blob: Blob, key: str, give_up: Callable[[str], object], *, keep: bool
    ) -> None:
        self.blob = blob
        self.key = key
        self._give_up = give_up
        self.begun = keep  # perhaps in an earlier process
        self.offset = 0  # the offset that the gateway reported
        name = base64.b64encode(blob.name.encode("utf-8", "replace")).decode()
        kind = base64.b64encode(blob.content_type.encode("utf-8", "replace")).decode()
        self.metadata = f"filename {name},filetype {kind}" + (",keep" if keep else "")

    def renew(self) -> None:
        """Start over with a new upload."""
        self._give_up(self.key)
        self.key = secrets.token_urlsafe(24)
        self.begun = False
        self.offset = 0


class _Body:
    """A request body that hashes and counts the upload's bytes while they are read."""

    def __init__(self, source: Source, control: TransferControl) -> None:
        self._source = source
        self._control = control
        self._sha256 = hashlib.sha256()
        self._start = 0

    def __len__(self) -> int:
        """The Content-Length; `requests` asks for it."""
        return self._source.size - self._start

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(self._source.size if size < 0 else size)
        self._sha256.update(data)
        if data:
            self._control.advance(self._source.position, self._source.size)
        return data

    def skip_to(self, offset: int) -> None:
        """Skip the bytes that the gateway has already; add them to the digest."""
        while self._source.position < offset:
            self._sha256.update(self._source.read(min(CHUNK, offset - self._source.position)))
            self._control.check()
        self._start = offset

    def sha256(self) -> str:
        return self._sha256.hexdigest()


def _total(response: requests.Response, sink: Sink) -> int:
    """The medium's size, as an answer with its bytes states it."""
    stated = response.headers.get("Content-Range", "").rpartition("/")[2]
    if stated.isascii() and stated.isdigit():
        return int(stated)
    length = int(response.headers.get("Content-Length", "0"))
    return sink.position + length if response.status_code == 206 else length


def _receive(
    response: requests.Response, sink: Sink, info: MediaInfo, control: TransferControl
) -> None:
    """Write the bytes of an answer into a sink."""
    target = sink
    if response.status_code != 206:  # the answer has all bytes
        if isinstance(sink, PartSink):
            target = sink.of_whole()
        elif sink.size:
            sink.start_over()
    left = sink.end(info) - sink.position if target is sink else info.size
    target.begin(info)
    while data := response.raw.read(CHUNK, decode_content=False):
        left -= len(data)
        if left < 0:
            raise control.kind.error(
                "FAILURE", f"More bytes came than the {info.size:,} that were announced."
            )
        target.write(data)
        control.advance(sink.size, sink.end(info) - sink.first)


def _body(response: requests.Response, kind: TransferKind) -> bytes:
    """The body of an answer without a medium. What is too large is not asked for again."""
    try:
        return read_body(response)
    except BodyRefused as error:
        raise kind.error("FAILURE", f"The {kind.value} failed: {error}", error) from error


def _error_in(response: requests.Response, body: bytes) -> RtmError | None:
    """The typed error in a response body, or None."""
    if response.headers.get("Content-Type", "").startswith("application/json"):
        with contextlib.suppress(ProtocolError):
            frame = decode(body)
            if isinstance(frame, Failure) and isinstance(frame.error, RtmError):
                return frame.error
    return None


def retry_after(response: requests.Response) -> float:
    """The seconds of a Retry-After header, given as a number or a date; 0 for none."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
