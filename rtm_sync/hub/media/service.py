"""A hub's media: uploads on their way in, stored media on their way out. On the hub's loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from ...errors import DownloadMediaError, RtmError, UploadMediaError
from ...protocol.codec import decode_json, encode_json
from ...protocol.errors import ProtocolError
from ...protocol.values import MediaInfo
from ...rules.limits import Limits
from ...rules.rates import KeyedWindows
from ..auth.tokens import NotPrivileged
from ..engine.media_index import MediaIndex
from ..metrics_sink import MetricsSink
from ..session import Session
from .storage import StorageThreads
from .store import MEDIA_ID, Fragment, MediaStore, new_media_id
from .upload import Upload, UploadSpec

_SLOT_PATIENCE = 3.0  # a cancelled transfer's slot may come free a moment after the client said so

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _UploadMetadata:
    """What a store keeps beside a fragment, so that the upload can go on after a restart."""

    app_id: str
    uid: str
    spec: UploadSpec


class MediaService:
    """The media rules of one hub: who may put what, how much at once, until when.

    An upload belongs to a user, not to a session: a client that comes back, or back to a restarted
    hub, goes on where it stopped. It ends by being completed, given up, logged out of, or idle.

    Args:
        index: keeps the records of stored media.
        store: keeps the blobs; the library closes it.
        limits: what is allowed.
        now: the wall clock, seconds since the epoch.
        metrics_sink: told of what is stored.
    """

    def __init__(
        self,
        index: MediaIndex,
        store: MediaStore,
        limits: Limits,
        now: Callable[[], float],
        metrics_sink: MetricsSink,
    ) -> None:
        self._metrics_sink = metrics_sink
        self.storage = StorageThreads(store.threads)
        self._index = index
        self._store = store
        self._limits = limits
        self._now = now
        self._uploads: dict[str, Upload] = {}
        self._by_key: dict[tuple[str, str, str], Upload] = {}
        self._unfinished: dict[tuple[str, str], set[str]] = {}  # media ids of each user
        self._user_rate = None if limits.user_uploads is None else KeyedWindows(limits.user_uploads)
        self._app_rate = None if limits.app_uploads is None else KeyedWindows(limits.app_uploads)

    async def start(self) -> None:
        """Take up what a hub that was killed left behind; needs the media index."""
        for fragment in await self.storage.run(self._store.fragments):
            try:
                await self._take_up(fragment)
            except (ProtocolError, OSError) as error:
                logger.warning("the fragment %s cannot be taken up: %s", fragment.media_id, error)
                if not fragment.is_whole:  # a whole one may be somebody's medium
                    await self.storage.run(self._store.delete, fragment.media_id)

    async def stop(self) -> None:
        """Let go of everything; unfinished uploads stay where the store keeps fragments."""
        for upload in self._uploads.values():
            await upload.suspend()
        self._uploads.clear()
        await self.storage.run(self._store.close)
        self.storage.close()

    @property
    def unfinished_count(self) -> int:
        """Uploads that are begun and not done."""
        return sum(map(len, self._unfinished.values()))

    # -- uploads --

    async def begin_upload(self, session: Session, spec: UploadSpec) -> Upload:
        """Begin an upload, or find the one the user began under the same key.

        Raises:
            UploadMediaError: not allowed or over a quota (FAILURE), empty, too large, given up
                already, too many are unfinished, or the key names an upload of another size
                (INVALID_ARGUMENT).
        """
        session.require_life(UploadMediaError)
        if not session.privileges.upload:
            raise UploadMediaError.named(
                "FAILURE", "The token does not allow uploads.", NotPrivileged()
            )
        user = session.user
        if spec.key is not None:
            known = self._by_key.get((*user, spec.key))
            if known is not None:
                if known.spec.size != spec.size:
                    raise UploadMediaError.named(
                        "INVALID_ARGUMENT",
                        f"The key names an upload of {known.spec.size:,} bytes; this one has "
                        f"{spec.size:,}. Choose a new key.",
                    )
                return known
            if spec.key in session.cancelled_uploads:
                raise UploadMediaError.named("FAILURE", "The upload was given up.")
        if spec.size < 1:
            raise UploadMediaError.named("INVALID_ARGUMENT", "The medium is empty.")
        if spec.size > self._limits.media_size:
            raise UploadMediaError.named(
                "SIZE_OVERFLOW",
                f"The medium has {spec.size:,} bytes; the limit is {self._limits.media_size:,}.",
            )
        if len(self._unfinished.get(user, ())) >= self._limits.unfinished_uploads:
            raise UploadMediaError.named(
                "CONCURRENCY_LIMIT_EXCEEDED",
                f"{self._limits.unfinished_uploads} uploads of this user are unfinished, as many "
                "as may be.",
            )
        self._check_rates(user)
        metadata = _UploadMetadata(*user, spec)
        upload = Upload(
            new_media_id(), user, spec, self._store, self.storage, encode_json(metadata)
        )
        self._add(upload)
        try:
            await self._check_room(upload)
            session.require_life(UploadMediaError)
        except BaseException:
            await self.drop_upload(upload)
            raise
        return upload

    def upload(self, session: Session, media_id: str) -> Upload | None:
        """The user's unfinished (or just finished) upload of that id."""
        upload = self._uploads.get(media_id)
        return upload if upload is not None and upload.owner == session.user else None

    async def complete_upload(self, upload: Upload) -> MediaInfo:
        """Publish an upload whose bytes are all here: durable, recorded, downloadable by anyone."""
        async with upload.completing:
            if upload.info is not None:
                return upload.info
            try:
                info = await self._publish(upload)
            except (OSError, RtmError) as error:
                # Not to be tried again: what a disk failed to keep is lost, whatever it says next.
                await self.drop_upload(upload)
                await self.storage.run(self._store.delete, upload.media_id)
                if isinstance(error, RtmError):
                    raise
                raise UploadMediaError.named("FAILURE", str(error), error) from error
            if self._uploads.get(upload.media_id) is not upload:  # given up meanwhile
                await self._remove_medium(upload.media_id)
                raise UploadMediaError.named("FAILURE", "The upload was given up.")
            upload.info = info
            self._count_out(upload)
            self._metrics_sink.uploaded(info.size)
            app_id, uid = upload.owner
            logger.info(
                "%s@%s stored a medium of %s bytes",
                uid,
                app_id,
                f"{info.size:,}",
                extra={"event": "upload", "app_id": app_id, "uid": uid, "size": info.size},
            )
        # Kept a while under its key: if this answer is lost, the client asks again.
        loop = asyncio.get_running_loop()
        loop.call_later(self._limits.session_grace, self._forget_upload, upload)
        return info

    def ends_at(self, upload: Upload) -> float:
        """When the medium ends; or the upload, if nobody goes on with it. Epoch seconds."""
        if upload.info is not None:
            return upload.info.expires_at
        idle = asyncio.get_running_loop().time() - upload.touched_at
        return self._now() + self._limits.upload_idle - idle

    async def drop_upload(self, upload: Upload) -> None:
        """Forget an unfinished upload and its bytes."""
        if self._uploads.get(upload.media_id) is upload:
            self._forget_upload(upload)
            await upload.abort()

    def passing_uploads(self, session: Session) -> list[Upload]:
        """What the session's user has begun, not ended, and not asked to keep."""
        unfinished = [
            self._uploads[media_id] for media_id in self._unfinished.get(session.user, ())
        ]
        return [upload for upload in unfinished if not upload.spec.keep]

    async def cancel_upload(self, session: Session, key: str) -> None:
        """The client gave an upload up, by its key; one that it saw no answer to ends as well."""
        upload = self._by_key.get((*session.user, key))
        if upload is None:  # its request is still on the way, on another connection
            session.cancelled_uploads.append(key)
            return
        await self.drop_upload(upload)
        if upload.info is not None:  # the client never saw the answer, so nobody knows the id
            await self._remove_medium(upload.media_id)

    # -- stored media --

    async def stored_media(self, session: Session, media_id: str) -> MediaInfo:
        """The record of a medium that can be downloaded now.

        Raises:
            DownloadMediaError: FAILURE where the token does not allow it; INVALID_ARGUMENT for what
                is no media id; NOT_EXIST for an unknown or expired one.
        """
        if not session.privileges.download:
            raise DownloadMediaError.named(
                "FAILURE", "The token does not allow downloads.", NotPrivileged()
            )
        if not MEDIA_ID.fullmatch(media_id):
            raise DownloadMediaError.named(
                "INVALID_ARGUMENT", f"{media_id[:40]!r} is not a media id."
            )
        info = await self._index.media(session.app_id, media_id)
        if info is None or info.expires_at <= self._now():
            what = "does not exist" if info is None else "has expired"
            raise DownloadMediaError.named("NOT_EXIST", f"The medium {media_id} {what}.")
        return info

    @contextlib.asynccontextmanager
    async def slot(self, session: Session, family: type[RtmError]) -> AsyncIterator[MediaStore]:
        """Count a transfer against the session's while the block moves its bytes.

        Raises:
            RtmError: of the family, CONCURRENCY_LIMIT_EXCEEDED.
        """
        try:
            await asyncio.wait_for(session.transfers.acquire(), _SLOT_PATIENCE)
        except asyncio.TimeoutError:
            raise family.named(
                "CONCURRENCY_LIMIT_EXCEEDED",
                f"{self._limits.transfers} transfers of this session run, as many as may.",
            ) from None
        try:
            yield self._store
        finally:
            session.transfers.release()

    async def sweep_uploads(self) -> None:
        """Drop the uploads that nobody goes on with."""
        idle_since = asyncio.get_running_loop().time() - self._limits.upload_idle
        for upload in list(self._uploads.values()):
            if upload.info is None and upload.touched_at < idle_since:
                await self.drop_upload(upload)

    async def sweep_media(self) -> int:
        """Remove the media that have expired; returns how many."""
        swept = 0
        while batch := await self._index.expired_media(self._now()):
            for media_id in batch:
                await self._remove_medium(media_id)
            swept += len(batch)
        return swept

    # -- inside --

    def _check_rates(self, user: tuple[str, str]) -> None:
        now = asyncio.get_running_loop().time()
        for windows, key, rate in (
            (self._user_rate, user, self._limits.user_uploads),
            (self._app_rate, user[0], self._limits.app_uploads),
        ):
            if windows is not None and not windows.allow(key, now):
                whose = f"The app {key!r}" if key == user[0] else f"{user[1]!r}"
                raise UploadMediaError.named(
                    "FAILURE", f"{whose} may upload no more than {rate}; try again later."
                )

    async def _check_room(self, upload: Upload) -> None:
        """Refuse an upload for which a quota has no room; it must have been added."""
        app_id, uid = upload.owner
        quotas = (self._limits.user_bytes, self._limits.app_bytes)
        if quotas == (None, None):
            return
        # What is under way is counted before what is stored is: what is published meanwhile counts
        # twice, never not at all.
        coming = [
            (other.owner, other.spec.size)
            for other in self._uploads.values()
            if other.info is None and other.owner[0] == app_id
        ]
        try:
            stored = await self._index.media_usage(app_id, uid)
        except OSError as error:
            raise UploadMediaError.named("FAILURE", str(error), error) from error
        of_user = stored.user + sum(size for owner, size in coming if owner == upload.owner)
        of_app = stored.app + sum(size for _, size in coming)
        for whose, total, quota in zip(
            (f"{uid!r}", f"the app {app_id!r}"), (of_user, of_app), quotas, strict=True
        ):
            if quota is not None and total > quota:
                raise UploadMediaError.named(
                    "FAILURE",
                    f"With this medium of {upload.spec.size:,} bytes {whose} would keep {total:,}; "
                    f"the quota is {quota:,}. Media end after their time, and make room.",
                )

    async def _publish(self, upload: Upload) -> MediaInfo:
        sha256 = await upload.finish()
        spec = upload.spec
        info = MediaInfo(
            upload.media_id,
            spec.size,
            sha256,
            spec.file_name,
            spec.content_type,
            self._now() + self._limits.retention,
        )
        await self._index.put_media(*upload.owner, info)
        await self.storage.run(self._store.finalize, upload.media_id)
        return info

    async def _take_up(self, fragment: Fragment) -> None:
        metadata = decode_json(_UploadMetadata, fragment.metadata)
        if fragment.is_whole:  # killed between the blob and its record, or just after both
            if await self._index.media(metadata.app_id, fragment.media_id) is None:
                await self.storage.run(self._store.delete, fragment.media_id)  # nobody knows its id
            else:
                await self.storage.run(self._store.finalize, fragment.media_id)
            return
        upload = Upload(
            fragment.media_id,
            (metadata.app_id, metadata.uid),
            metadata.spec,
            self._store,
            self.storage,
            fragment.metadata,
            stored=fragment.size,
        )
        self._add(upload)

    def _add(self, upload: Upload) -> None:
        upload.touched_at = asyncio.get_running_loop().time()
        self._uploads[upload.media_id] = upload
        self._unfinished.setdefault(upload.owner, set()).add(upload.media_id)
        if upload.spec.key is not None:
            app_id, uid = upload.owner
            self._by_key[app_id, uid, upload.spec.key] = upload

    def _forget_upload(self, upload: Upload) -> None:
        self._count_out(upload)
        self._uploads.pop(upload.media_id, None)
        if upload.spec.key is not None:
            self._by_key.pop((*upload.owner, upload.spec.key), None)

    def _count_out(self, upload: Upload) -> None:
        unfinished = self._unfinished.get(upload.owner)
        if unfinished is not None:
            unfinished.discard(upload.media_id)
            if not unfinished:
                del self._unfinished[upload.owner]

    async def _remove_medium(self, media_id: str) -> None:
        await self.storage.run(self._store.delete, media_id)
        await self._index.delete_media(media_id)
