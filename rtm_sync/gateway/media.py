"""The HTTP face of media: tus 1.0.0 for uploads, GET with Range for downloads.

Uploads follow https://tus.io/protocols/resumable-upload (core, creation, creation-with-upload,
checksum, expiration, termination). Ours: an `Idempotency-Key` on the creation names the upload to
its session, so a client that lost the answer asks again with an empty body and goes on from there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TypeVar

from aiohttp import ClientError, hdrs, web

from ..errors import DownloadMediaError, RtmError, UploadMediaError
from ..hub.hub import Hub
from ..hub.media import MediaStore, content_disposition
from ..hub.session import Session
from ..hub.tokens import NotPrivileged
from ..hub.uploads import CHECKSUM_ALGORITHMS, Checksum, ChecksumMismatch, Upload, UploadSpec
from ..protocol import MediaInfo, encode_failure
from .visit import note_user

TUS_VERSION = "1.0.0"
TUS_EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
OFFSET_STREAM = "application/offset+octet-stream"
LOCATION_LIMIT = 300.0
"""Seconds within which a client must follow the address it was given of a medium's bytes."""
STALL_LIMIT = 120.0
"""Seconds without a byte of a body, either way, after which its connection is closed."""

_LOOK_INTERVAL = 0.25  # for clients that hung up; the promise is a free slot within a second
_DOWNLOAD_CHUNK = 256 * 1024
_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]{1,64}/[\w!#$&^.+-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f/\\]")
_FILE_NAME_LIMIT = 255
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_STATUS = {
    "NOT_LOGGED_IN": 401,
    "INVALID_ARGUMENT": 400,
    "SIZE_OVERFLOW": 413,
    "NOT_EXIST": 404,
    "CONCURRENCY_LIMIT_EXCEEDED": 429,
    "TIMEOUT": 408,
    "FAILURE": 507,
}
_CHECKSUM_MISMATCH = 460  # tus's own status

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _TusError(Exception):
    """A request that tus answers with this status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Media:
    """The handlers under `/v1/media`."""

    def __init__(self, hub: Hub, path: str) -> None:
        self._hub = hub
        self._path = path

    def routes(self) -> list[web.AbstractRouteDef]:
        one = self._path + "/{media_id}"
        return [
            web.options(self._path, self._tus(self._options)),
            web.options(one, self._tus(self._options)),
            web.post(self._path, self._tus(self._create)),
            web.post(one, self._tus(self._override)),
            web.head(one, self._head),
            web.patch(one, self._tus(self._patch)),
            web.delete(one, self._tus(self._terminate)),
            web.get(one, self._get, allow_head=False),
        ]

    async def take_whole(self, request: web.Request, session: Session) -> MediaInfo:
        """Take a request's body as one medium, named by `file_name` in the query.

        Raises:
            RtmError: UploadMediaError.
        """
        size = request.content_length
        if size is None:
            raise UploadMediaError.named("INVALID_ARGUMENT", "Content-Length is needed.")
        name = _CONTROL.sub("_", request.query.get("file_name", ""))[:_FILE_NAME_LIMIT]
        kind = request.content_type
        if not _CONTENT_TYPE.fullmatch(kind):
            kind = "application/octet-stream"
        upload = await self._hub.media.begin_upload(session, UploadSpec(size, name, kind))
        try:
            await self._append(request, session, upload)
            if not upload.complete:
                raise UploadMediaError.named("INVALID_ARGUMENT", "The body broke off.")
            return await self._hub.media.complete_upload(upload)
        except _TusError as error:
            raise UploadMediaError.named("FAILURE", str(error), error) from error
        finally:
            if upload.info is None:
                await self._hub.media.drop_upload(upload)

    # -- tus --

    def _tus(self, handler: Handler) -> Handler:
        """Check the protocol version and turn our errors into tus answers."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                version = request.headers.get("Tus-Resumable")
                if request.method != hdrs.METH_OPTIONS and version != TUS_VERSION:
                    raise _TusError(412, f"Tus-Resumable must be {TUS_VERSION}.")
                response = await handler(request)
            except (RtmError, _TusError) as error:
                response = _failure(error)
                if not request.content.is_eof():
                    response.force_close()  # the rest of the body is not worth reading
            response.headers["Tus-Resumable"] = TUS_VERSION
            response.headers.setdefault("Tus-Version", TUS_VERSION)
            return response

        return handle

    async def _options(self, request: web.Request) -> web.Response:
        return web.Response(
            status=204,
            headers={
                "Tus-Extension": TUS_EXTENSIONS,
                "Tus-Max-Size": str(self._hub.limits.media_size),
                "Tus-Checksum-Algorithm": ",".join(CHECKSUM_ALGORITHMS),
            },
        )

    async def _override(self, request: web.Request) -> web.StreamResponse:
        """`X-HTTP-Method-Override`, for clients whose network knows only GET and POST."""
        method = request.headers.get("X-HTTP-Method-Override", "").upper()
        if method == "PATCH":
            return await self._patch(request)
        if method == "DELETE":
            return await self._terminate(request)
        raise _TusError(405, "POST here needs X-HTTP-Method-Override: PATCH or DELETE.")

    async def _create(self, request: web.Request) -> web.Response:
        session = self._session(request, UploadMediaError)
        spec = _upload_spec(request)
        carries_body = request.can_read_body and request.content_type == OFFSET_STREAM
        upload = await self._hub.media.begin_upload(session, spec)
        repeated = upload.offset > 0
        if carries_body and not repeated:
            try:
                await self._append(request, session, upload)
            except (RtmError, _TusError):
                if spec.key is None:  # nobody else will ever know its address
                    await self._hub.media.drop_upload(upload)
                raise
        else:
            await upload.current_offset()  # take over from a dead connection
        response = await self._progress(session, upload, status=201)
        if carries_body and repeated and upload.info is not None:
            await self._refuse_other_bytes(request, session, upload.info)
        response.headers["Location"] = str(
            request.url.with_path(f"{self._path}/{upload.media_id}").with_query(None)
        )
        return response

    async def _refuse_other_bytes(
        self, request: web.Request, session: Session, info: MediaInfo
    ) -> None:
        """A whole medium sent again under its key must be the same; a piece of one says nothing."""
        if request.content_length != info.size:
            return
        sha256 = hashlib.sha256()
        try:
            async with self._hub.media.slot(session, UploadMediaError):
                with _ConnectionGuard(request) as guard:
                    while data := await request.content.readany():
                        guard.touch()
                        sha256.update(data)
        except (ConnectionError, ClientError, web.RequestPayloadError) as error:
            raise _TusError(400, f"The body broke off: {error}.") from error
        if sha256.hexdigest() != info.sha256:
            raise UploadMediaError.named(
                "INVALID_ARGUMENT", "The key names an upload of other bytes. Choose a new key."
            )

    async def _patch(self, request: web.Request) -> web.Response:
        session = self._session(request, UploadMediaError)
        upload = self._upload(session, request)
        if request.content_type != OFFSET_STREAM:
            raise _TusError(415, f"Content-Type must be {OFFSET_STREAM}.")
        offset = _whole_number(request, "Upload-Offset")
        if offset != upload.offset and offset != await upload.current_offset():
            raise _TusError(409, f"Upload-Offset is {offset}; the upload is at {upload.offset}.")
        await self._append(request, session, upload)
        return await self._progress(session, upload, status=204)

    async def _terminate(self, request: web.Request) -> web.Response:
        session = self._session(request, UploadMediaError)
        upload = self._upload(session, request)
        if upload.info is not None:
            raise _TusError(403, "The upload is complete; its medium ends with its seven days.")
        await self._hub.media.drop_upload(upload)
        return web.Response(status=204)

    async def _append(self, request: web.Request, session: Session, upload: Upload) -> None:
        checksum = None
        if "Upload-Checksum" in request.headers:
            try:
                checksum = Checksum.parse(request.headers["Upload-Checksum"])
            except (ValueError, binascii.Error) as error:
                raise _TusError(400, f"Upload-Checksum: {error}") from error
        left = upload.spec.size - upload.offset
        length = request.content_length
        if length is not None and length > left:
            raise _TusError(413, f"The body has {length:,} bytes; the upload lacks {left:,}.")
        loop = asyncio.get_running_loop()
        guard = _ConnectionGuard(request)

        def touch() -> None:
            upload.touched_at = loop.time()
            guard.touch()

        upload.touched_at = loop.time()
        try:
            async with self._hub.media.slot(session, UploadMediaError):
                with guard:
                    upload.on_abort = lambda: _hang_up(request)
                    await upload.append(request.content.readany, left, checksum, touch)
        except ChecksumMismatch:
            raise _TusError(_CHECKSUM_MISMATCH, "The chunk's checksum does not match.") from None
        except (ConnectionError, ClientError, web.RequestPayloadError) as error:
            # What arrived is kept for a PATCH; this answer has no reader.
            raise _TusError(400, f"The body broke off: {error}.") from error
        finally:
            upload.on_abort = lambda: None

    async def _progress(self, session: Session, upload: Upload, status: int) -> web.Response:
        headers = {"Upload-Offset": str(upload.offset)}
        if upload.complete:
            info = await self._hub.media.complete_upload(upload)
            headers |= _info_headers(info)
        headers["Upload-Expires"] = self._expires(upload)
        return web.Response(status=status, headers=headers)

    def _expires(self, upload: Upload) -> str:
        return formatdate(self._hub.media.ends_at(upload), usegmt=True)

    # -- downloads --

    async def _head(self, request: web.Request) -> web.StreamResponse:
        if "Tus-Resumable" in request.headers:
            return await self._tus(self._upload_state)(request)
        return await self._get(request)

    async def _upload_state(self, request: web.Request) -> web.Response:
        session = self._session(request, UploadMediaError)
        upload = self._hub.media.upload(session, request.match_info["media_id"])
        if upload is None:
            info = await self._hub.media.stored_media(session, request.match_info["media_id"])
            offset = length = info.size
            expires = formatdate(info.expires_at, usegmt=True)
        else:
            offset, length = await upload.current_offset(), upload.spec.size
            expires = self._expires(upload)
        return web.Response(
            headers={
                "Upload-Offset": str(offset),
                "Upload-Length": str(length),
                "Upload-Expires": expires,
                "Cache-Control": "no-store",
            }
        )

    async def _get(self, request: web.Request) -> web.StreamResponse:
        try:
            session = self._session(request, DownloadMediaError)
            info = await self._hub.media.stored_media(session, request.match_info["media_id"])
            async with self._hub.media.slot(session, DownloadMediaError) as store:
                return await self._send(request, info, store)
        except RtmError as error:
            return _failure(error)

    async def _send(
        self, request: web.Request, info: MediaInfo, store: MediaStore
    ) -> web.StreamResponse:
        headers = _download_headers(info)
        etag = headers["ETag"]
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        start, stop, status = 0, info.size, 200
        wanted = _wanted_range(request) if request.headers.get("If-Range", etag) == etag else None
        if wanted is not None:
            start, stop, _ = wanted.indices(info.size)
            if start >= stop:
                headers["Content-Range"] = f"bytes */{info.size}"
                return web.Response(status=416, headers=headers)
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = stop - start
        response.content_type = info.content_type
        if request.method == hdrs.METH_HEAD:
            await response.prepare(request)
            return response
        try:
            location = await self._hub.media.storage.run(store.location, info, LOCATION_LIMIT)
            if location is not None:
                return _elsewhere(info, location)
            file = await self._hub.media.storage.run(store.open, info.media_id)
        except FileNotFoundError:
            raise DownloadMediaError.named(
                "NOT_EXIST", f"The medium {info.media_id} is gone from the store."
            ) from None
        except OSError as error:
            logger.warning("reading a medium failed: %s", error)
            raise DownloadMediaError.named(
                "FAILURE", f"The media store failed: {error}.", error
            ) from error
        try:
            await response.prepare(request)
            file.seek(start)
            left = stop - start
            with _ConnectionGuard(request) as guard:
                while left > 0:
                    data = await self._hub.media.storage.run(file.read, min(_DOWNLOAD_CHUNK, left))
                    if not data:
                        break
                    left -= len(data)
                    await response.write(data)
                    guard.touch()
        except OSError as error:
            if not isinstance(error, ConnectionError):
                logger.warning("reading a medium failed: %s", error)
            response.force_close()
            _hang_up(request)
        finally:
            self._hub.telemetry.downloaded(stop - start - left)
            await self._hub.media.storage.run(file.close)  # a read that hangs would make it wait
        return response

    # -- both --

    def _session(self, request: web.Request, family: type[RtmError]) -> Session:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        session = self._hub.session(token.strip()) if scheme.lower() == "bearer" else None
        if session is None:
            raise family.named(
                "NOT_LOGGED_IN", "Authorization must be Bearer with a live session's token."
            )
        note_user(*session.user)
        return session

    def _upload(self, session: Session, request: web.Request) -> Upload:
        upload = self._hub.media.upload(session, request.match_info["media_id"])
        if upload is None:
            raise _TusError(404, "This session has no such upload; it was given up or expired.")
        return upload


class _ConnectionGuard:
    """Cuts a request's connection when no byte of a body moves for too long, or nobody listens.

    A client that hangs up while an answer waits to be sent is noticed by nothing else: the
    connection counts as closing, and closes when all is sent, which is never.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._touched_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def touch(self) -> None:
        """Bytes have moved."""
        self._touched_at = self._loop.time()

    def __enter__(self) -> _ConnectionGuard:
        self.touch()
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        transport = self._request.transport
        stalled = self._loop.time() - self._touched_at >= STALL_LIMIT
        if stalled or transport is None or transport.is_closing():
            _hang_up(self._request)
        else:
            self._timer = self._loop.call_later(_LOOK_INTERVAL, self._look)


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def is_forbidden(error: RtmError) -> bool:
    """Whether the user's token does not allow it: HTTP's 403."""
    return isinstance(error.cause, NotPrivileged)


def _failure(error: RtmError | _TusError) -> web.Response:
    """An error answer; ours carry the same error object as the WebSocket's."""
    if isinstance(error, _TusError):
        return web.Response(status=error.status, text=f"{error}\n")
    response = web.Response(
        status=403 if is_forbidden(error) else _STATUS.get(error.reason, 500),
        text=encode_failure(None, error),
        content_type="application/json",
    )
    if response.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if response.status == 429:
        response.headers["Retry-After"] = "1"
    return response


def _whole_number(request: web.Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _TusError(400, f"{header} must be a whole number.")
    return int(text)


def _wanted_range(request: web.Request) -> slice | None:
    """The one range that is asked for; what else a Range header may say is passed over."""
    if "Range" not in request.headers:
        return None
    try:
        return request.http_range
    except ValueError:
        return None


def _upload_spec(request: web.Request) -> UploadSpec:
    if "Upload-Defer-Length" in request.headers or "Upload-Concat" in request.headers:
        raise _TusError(400, "Deferred lengths and concatenation are not supported.")
    metadata = _metadata(request.headers.get("Upload-Metadata", ""))
    name = _CONTROL.sub("_", metadata.get("filename") or metadata.get("name") or "")
    content_type = metadata.get("filetype") or metadata.get("type") or ""
    if not _CONTENT_TYPE.fullmatch(content_type):
        content_type = "application/octet-stream"
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise _TusError(400, "Idempotency-Key must be 1 to 128 visible ASCII characters.")
    size = _whole_number(request, "Upload-Length")
    return UploadSpec(
        size,
        name[:_FILE_NAME_LIMIT],
        content_type,
        key,
        keep=key is not None and "keep" in metadata,
    )


def _metadata(header: str) -> dict[str, str]:
    """Decode `Upload-Metadata: key base64,key base64`."""
    decoded = {}
    for pair in filter(None, (item.strip() for item in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            decoded[key] = base64.b64decode(value, validate=True).decode()
        except ValueError:
            raise _TusError(400, f"Upload-Metadata: {key[:40]!r} is not base64 of text.") from None
    return decoded


def _info_headers(info: MediaInfo) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(info.sha256)).decode()
    return {"Repr-Digest": f"sha-256=:{digest}:", "Rtm-Expires-At": repr(info.expires_at)}


def _elsewhere(info: MediaInfo, location: str) -> web.Response:
    """The answer that sends a client to the store; it has all that is said of the medium."""
    headers = _download_headers(info) | {"Location": location, "Cache-Control": "no-store"}
    return web.Response(status=307, headers=headers, content_type=info.content_type)


def _download_headers(info: MediaInfo) -> dict[str, str]:
    return _info_headers(info) | {
        "ETag": f'"{info.sha256}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition(info),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=3600, immutable",
    }
