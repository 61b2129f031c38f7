"""Downloads over HTTP: GET and HEAD of a medium, with Range and ETag."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from aiohttp import hdrs, web

from ..errors import DownloadMediaError, RtmError
from ..hub.media.failures import log_failure, store_failure
from ..hub.media.store import MediaStore, content_disposition
from ..hub.node import Hub
from ..hub.session import Session
from ..protocol.values import MediaInfo
from .media_http import ConnectionGuard, failure, hang_up, info_headers, session_of

LOCATION_LIMIT = 300.0
"""Seconds for which a redirect to the media store is valid."""

_CHUNK = 256 * 1024


class Downloads:
    """The handler of `GET` and `HEAD /v1/media/{media_id}`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def get(self, request: web.Request) -> web.StreamResponse:
        try:
            session = session_of(self._hub, request, DownloadMediaError)
            info = await self._hub.media.stored_media(session, request.match_info["media_id"])
            return await self._send(request, session, info)
        except RtmError as error:
            return failure(error)

    async def _send(
        self, request: web.Request, session: Session, info: MediaInfo
    ) -> web.StreamResponse:
        """Answer a request for a medium. Only an answer with bytes takes a transfer slot."""
        headers = _headers(info)
        etag = headers["ETag"]
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        start, stop, status = 0, info.size, 200
        requested = (
            _requested_range(request) if request.headers.get("If-Range", etag) == etag else None
        )
        if requested is not None:
            start, stop, _ = requested.indices(info.size)
            if start >= stop:
                headers["Content-Range"] = f"bytes */{info.size}"
                return web.Response(status=416, headers=headers)
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = stop - start
        if request.method == hdrs.METH_HEAD:
            return response
        async with self._hub.media.slot(session, DownloadMediaError) as store:
            with _store_errors(info):
                location = await self._hub.media.storage.run(store.location, info, LOCATION_LIMIT)
            if location is not None:
                return _redirect(info, location)
            async with self._opened(store, info) as file:
                await self._send_bytes(request, session, response, info, file, start, stop)
        return response

    async def _send_bytes(
        self,
        request: web.Request,
        session: Session,
        response: web.StreamResponse,
        info: MediaInfo,
        file: BinaryIO,
        start: int,
        stop: int,
    ) -> None:
        left = stop - start
        try:
            with ConnectionGuard(self._hub, session, request) as guard:
                await response.prepare(request)
                await self._hub.media.storage.run(file.seek, start)
                while left > 0:
                    data = await self._hub.media.storage.run(file.read, min(_CHUNK, left))
                    if not data:
                        break
                    left -= len(data)
                    await response.write(data)
                    guard.touch()
        except Exception as error:
            if not isinstance(error, ConnectionError):
                log_failure(f"reading {info.media_id}", error)
            response.force_close()
            hang_up(request)
        finally:
            self._hub.metrics_sink.downloaded(stop - start - left)

    @contextlib.asynccontextmanager
    async def _opened(self, store: MediaStore, info: MediaInfo) -> AsyncIterator[BinaryIO]:
        """Open a medium for the block. The file is closed even if the request is cancelled.

        Raises:
            DownloadMediaError: the store cannot open it.
        """
        storage = self._hub.media.storage
        opening = asyncio.ensure_future(storage.run(store.open, info.media_id))
        try:
            with _store_errors(info):
                file = await asyncio.shield(opening)
        except asyncio.CancelledError:  # the storage thread opens the file nevertheless
            opening.add_done_callback(_close_late)
            raise
        try:
            yield file
        finally:
            await storage.finish(file.close)  # on a thread: it waits for a read that hangs


def _close_late(opening: asyncio.Future[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


@contextlib.contextmanager
def _store_errors(info: MediaInfo) -> Iterator[None]:
    """Convert a store's exceptions to `DownloadMediaError`."""
    try:
        yield
    except FileNotFoundError:
        raise DownloadMediaError.named(
            "NOT_EXIST", f"The medium {info.media_id} is not in the store any more."
        ) from None
    except RtmError:
        raise
    except Exception as error:
        raise store_failure(DownloadMediaError, f"reading {info.media_id}", error) from error


def _requested_range(request: web.Request) -> slice | None:
    """The range of a Range header with one valid range; other headers are ignored (RFC 9110)."""
    if "Range" not in request.headers:
        return None
    try:
        return request.http_range
    except ValueError:
        return None


def _redirect(info: MediaInfo, location: str) -> web.Response:
    """A redirect to the store, with all headers that describe the medium."""
    headers = _headers(info) | {"Location": location, "Cache-Control": "no-store"}
    return web.Response(status=307, headers=headers)


def _headers(info: MediaInfo) -> dict[str, str]:
    return info_headers(info) | {
        "Content-Type": info.content_type,
        "ETag": f'"{info.sha256}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition(info),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=3600, immutable",
    }
