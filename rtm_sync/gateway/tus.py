"""Uploads over HTTP: tus 1.0.0.

Uploads follow https://tus.io/protocols/resumable-upload (core, creation, creation-with-upload,
checksum, expiration, termination). Our extension: an `Idempotency-Key` header on the creation names
the upload. A client that lost the answer repeats the request with an empty body, and resumes at the
offset in the answer.
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

from aiohttp import hdrs, web

from ..errors import RtmError, UploadMediaError
from ..hub.media.upload import CHECKSUM_ALGORITHMS, Checksum, ChecksumMismatch, Upload, UploadSpec
from ..hub.node import Hub
from ..hub.session import Session
from ..protocol.ids import upload_key_problem
from ..protocol.values import MediaInfo
from .errors import BODY_ERRORS, error_reason
from .media_http import (
    ConnectionGuard,
    check_encoding,
    failure,
    hang_up,
    info_headers,
    session_of,
    valid_content_type,
)

TUS_VERSION = "1.0.0"
TUS_EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
OFFSET_STREAM = "application/offset+octet-stream"

_CONTROL = re.compile(r"[\x00-\x1f\x7f/\\]")
_FILE_NAME_LIMIT = 255
_CHECKSUM_MISMATCH = 460  # the status that tus defines

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _TusError(Exception):
    """An error answer with this HTTP status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def as_rtm_error(self) -> RtmError:
        return UploadMediaError.named(error_reason(self.status), str(self), self)


class Uploads:
    """The tus handlers under `/v1/media`."""

    def __init__(self, hub: Hub, path: str) -> None:
        self._hub = hub
        self._path = path

    def routes(self) -> list[web.AbstractRouteDef]:
        upload = self._path + "/{media_id}"
        return [
            web.options(self._path, self._tus(self._options)),
            web.options(upload, self._tus(self._options)),
            web.post(self._path, self._tus(self._create)),
            web.post(upload, self._tus(self._override)),
            web.patch(upload, self._tus(self._patch)),
            web.delete(upload, self._tus(self._terminate)),
        ]

    async def head(self, request: web.Request) -> web.StreamResponse:
        """Answer a tus client's HEAD with the offset of its upload."""
        return await self._tus(self._upload_state)(request)

    async def store_body(self, request: web.Request, session: Session) -> MediaInfo:
        """Store a request's body as one medium. The query's `file_name` is its file name.

        Raises:
            UploadMediaError: the medium is refused, the body is incomplete, or the store failed.
        """
        check_encoding(request)
        size = request.content_length
        if size is None:
            raise UploadMediaError.named("INVALID_ARGUMENT", "Content-Length is required.")
        name = _CONTROL.sub("_", request.query.get("file_name", ""))[:_FILE_NAME_LIMIT]
        kind = valid_content_type(request.headers.get(hdrs.CONTENT_TYPE, ""))
        upload = await self._hub.media.begin_upload(session, UploadSpec(size, name, kind))
        try:
            if await self._append(request, session, upload, 0) < size:
                raise UploadMediaError.named("INVALID_ARGUMENT", "The body is incomplete.")
            return await self._hub.media.complete_upload(upload)
        except _TusError as error:
            raise error.as_rtm_error() from error
        finally:
            if upload.info is None:
                await self._hub.media.drop_upload(upload)

    # -- tus --

    def _tus(self, handler: Handler) -> Handler:
        """A handler that checks the protocol version and converts errors to tus answers."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                version = request.headers.get("Tus-Resumable")
                if request.method != hdrs.METH_OPTIONS and version != TUS_VERSION:
                    raise _TusError(412, f"Tus-Resumable must be {TUS_VERSION}.")
                response = await handler(request)
            except (RtmError, _TusError) as error:
                response = _failure(error)
                if not request.content.is_eof():
                    response.force_close()  # do not read the rest of a refused body
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
        """`X-HTTP-Method-Override`, for networks that allow only GET and POST."""
        method = request.headers.get("X-HTTP-Method-Override", "").upper()
        if method == "PATCH":
            return await self._patch(request)
        if method == "DELETE":
            return await self._terminate(request)
        raise _TusError(405, "POST here needs X-HTTP-Method-Override: PATCH or DELETE.")

    async def _create(self, request: web.Request) -> web.Response:
        session = session_of(self._hub, request, UploadMediaError)
        check_encoding(request)
        spec = _upload_spec(request)
        carries_body = request.can_read_body and request.content_type == OFFSET_STREAM
        upload = await self._hub.media.begin_upload(session, spec)
        offset = await upload.current_offset()  # ends an append on a dead connection
        repeated = offset > 0
        if carries_body and not repeated:
            try:
                offset = await self._append(request, session, upload, offset)
            except BaseException:
                if spec.key is None:  # the client gets no Location and has no key to resume by
                    await self._hub.media.drop_upload(upload)
                raise
        response = await self._offset_response(upload, offset, status=201)
        if carries_body and repeated and upload.info is not None:
            await self._check_same_bytes(request, session, upload.info)
        # Relative: behind a proxy, the gateway knows neither the scheme nor the path's prefix.
        response.headers["Location"] = f"{self._path.rpartition('/')[2]}/{upload.media_id}"
        return response

    async def _check_same_bytes(
        self, request: web.Request, session: Session, info: MediaInfo
    ) -> None:
        """Refuse a repeated upload whose key is that of a medium with other bytes.

        Only a body of the medium's size is compared; a partial body proves nothing.
        """
        if request.content_length != info.size:
            return
        sha256 = hashlib.sha256()
        try:
            async with self._hub.media.slot(session, UploadMediaError):
                with ConnectionGuard(self._hub, session, request) as guard:
                    while data := await request.content.readany():
                        guard.touch()
                        sha256.update(data)
        except (ConnectionError, *BODY_ERRORS) as error:
            raise _TusError(400, f"The body is incomplete or damaged: {error}.") from error
        if sha256.hexdigest() != info.sha256:
            raise UploadMediaError.named(
                "INVALID_ARGUMENT",
                "The key names an upload with different bytes. Choose a new key.",
            )

    async def _patch(self, request: web.Request) -> web.Response:
        session = session_of(self._hub, request, UploadMediaError)
        check_encoding(request)
        upload = self._upload(session, request)
        if request.content_type != OFFSET_STREAM:
            raise _TusError(415, f"Content-Type must be {OFFSET_STREAM}.")
        offset = _whole_number(request, "Upload-Offset")
        offset = await self._append(request, session, upload, offset)
        return await self._offset_response(upload, offset, status=204)

    async def _terminate(self, request: web.Request) -> web.Response:
        session = session_of(self._hub, request, UploadMediaError)
        upload = self._upload(session, request)
        if upload.info is not None:
            raise _TusError(
                403, "The upload is complete; its medium is deleted when it expires, after 7 days."
            )
        await self._hub.media.drop_upload(upload)
        return web.Response(status=204)

    async def _append(
        self, request: web.Request, session: Session, upload: Upload, offset: int
    ) -> int:
        """Store a request's body at the offset. Returns the offset after it."""
        checksum = None
        if "Upload-Checksum" in request.headers:
            try:
                checksum = Checksum.parse(request.headers["Upload-Checksum"])
            except (ValueError, binascii.Error) as error:
                raise _TusError(400, f"Upload-Checksum: {error}") from error
        left = upload.spec.size - offset
        length = request.content_length
        # A body at a wrong offset is too long as well; the answer to that is 409.
        if length is not None and length > left and offset == upload.offset:
            raise _TusError(413, f"The body has {length:,} bytes; the upload needs {left:,} more.")
        loop = asyncio.get_running_loop()
        guard = ConnectionGuard(self._hub, session, request)

        def touch() -> None:
            upload.touched_at = loop.time()
            guard.touch()

        upload.touched_at = loop.time()
        try:
            async with self._hub.media.slot(session, UploadMediaError):
                with guard:
                    return await upload.append(
                        offset,
                        request.content.readany,
                        left,
                        checksum,
                        touch,
                        lambda: hang_up(request),
                    )
        except ChecksumMismatch:
            raise _TusError(_CHECKSUM_MISMATCH, "The chunk's checksum does not match.") from None
        except (ConnectionError, *BODY_ERRORS) as error:
            # The received bytes are kept for a PATCH. The client will not read this answer.
            raise _TusError(400, f"The body is incomplete or damaged: {error}.") from error

    async def _offset_response(self, upload: Upload, offset: int, status: int) -> web.Response:
        headers = {"Upload-Offset": str(offset)}
        if offset == upload.spec.size:
            info = await self._hub.media.complete_upload(upload)
            headers |= info_headers(info)
        headers["Upload-Expires"] = self._expires(upload)
        return web.Response(status=status, headers=headers)

    def _expires(self, upload: Upload) -> str:
        return formatdate(self._hub.media.expires_at(upload), usegmt=True)

    async def _upload_state(self, request: web.Request) -> web.Response:
        session = session_of(self._hub, request, UploadMediaError)
        upload = self._hub.media.upload(session, request.match_info["media_id"])
        if upload is None:
            info = await self._hub.media.stored_media(session, request.match_info["media_id"])
            offset = length = info.size
            expires = formatdate(info.expires_at, usegmt=True)
            metadata = _encoded_metadata(filename=info.file_name, filetype=info.content_type)
        else:
            offset, length = await upload.current_offset(), upload.spec.size
            expires = self._expires(upload)
            metadata = upload.spec.tus_metadata
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(length),
            "Upload-Expires": expires,
            "Cache-Control": "no-store",
        }
        if metadata:
            headers["Upload-Metadata"] = metadata
        return web.Response(headers=headers)

    def _upload(self, session: Session, request: web.Request) -> Upload:
        upload = self._hub.media.upload(session, request.match_info["media_id"])
        if upload is None:
            raise _TusError(
                404, "The user has no such upload; it was cancelled, has expired, or never existed."
            )
        return upload


def _failure(error: _TusError | RtmError) -> web.Response:
    if isinstance(error, _TusError):
        return failure(error.as_rtm_error(), error.status)
    return failure(error)


def _whole_number(request: web.Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _TusError(400, f"{header} must be a whole number.")
    return int(text)


def _upload_spec(request: web.Request) -> UploadSpec:
    if "Upload-Defer-Length" in request.headers or "Upload-Concat" in request.headers:
        raise _TusError(400, "Deferred lengths and concatenation are not supported.")
    tus_metadata = request.headers.get("Upload-Metadata", "")
    metadata = _metadata(tus_metadata)
    name = _CONTROL.sub("_", metadata.get("filename") or metadata.get("name") or "")
    content_type = valid_content_type(metadata.get("filetype") or metadata.get("type") or "")
    key = request.headers.get("Idempotency-Key")
    problem = None if key is None else upload_key_problem("Idempotency-Key", key)
    if problem is not None:
        raise _TusError(400, problem)
    size = _whole_number(request, "Upload-Length")
    return UploadSpec(
        size,
        name[:_FILE_NAME_LIMIT],
        content_type,
        key,
        keep=key is not None and "keep" in metadata,
        tus_metadata=tus_metadata,
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


def _encoded_metadata(**values: str) -> str:
    """`Upload-Metadata` with the values that are not empty."""
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}"
        for key, value in values.items()
        if value
    )
