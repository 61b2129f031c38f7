"""The media service of a hub: uploads, downloads, quotas and expiry. Used on the hub's loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from ...errors import DownloadMediaError, RtmError, UploadMediaError
from ...protocol.codec import decode_json, encode_json
from ...protocol.values import MediaInfo
from ...rules.limits import Limits
from ...rules.rates import KeyedWindows
from ..auth.tokens import NotPrivileged
from ..engine.media_index import MediaIndex
from ..metrics_sink import MetricsSink
from ..session import Session
from ..tasks import BackgroundTasks, shielded
from .failures import log_failure, store_failure
from .storage import StorageThreads
from .store import MEDIA_ID, Fragment, MediaStore, new_media_id
from .upload import Upload, UploadCancelled, UploadSpec, UploadSuspended

_STOP_TIMEOUT = 30.0  # seconds for an upload that is being published or removed
_SLOT_TIMEOUT = 3.0  # a cancelled transfer frees its slot a moment after the client cancels it

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _UploadMetadata:
    """The metadata that a store keeps beside a fragment, to resume the upload after a restart."""

    app_id: str
    uid: str
    spec: UploadSpec


class MediaService:
    """The media rules of one hub: privileges, sizes, quotas, concurrency and expiry.

    An upload belongs to a user, not to a session: a client that reconnects, or finds the hub
    restarted, resumes where it stopped. An upload ends when it is completed or cancelled, when its
    user logs out, or when it is idle for too long.

    Args:
        index: keeps the records of stored media.
        store: keeps the blobs; the service closes it.
        limits: rates, sizes and times.
        now: the wall clock, seconds since the epoch.
        metrics_sink: records stored and downloaded bytes.
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
        self._tasks = BackgroundTasks()  # each must end: a medium is published or removed
        self._is_stopping = False
        self._uploads: dict[str, Upload] = {}
        self._by_key: dict[tuple[str, str, str], Upload] = {}
        self._unfinished: dict[tuple[str, str], set[str]] = {}  # media ids of each user
        self._user_rate = None if limits.user_uploads is None else KeyedWindows(limits.user_uploads)
        self._app_rate = None if limits.app_uploads is None else KeyedWindows(limits.app_uploads)

    async def start(self) -> None:
        """Restore the uploads that a killed hub left unfinished. Needs a started engine."""
        for fragment in await self.storage.run(self._store.fragments):
            try:
                await self._restore(fragment)
            except Exception as error:
                log_failure(f"resuming the fragment {fragment.media_id}", error)
                if not fragment.is_whole:  # a whole blob may be a recorded medium
                    await self._delete_blob(fragment.media_id)

    async def stop(self) -> None:
        """Suspend the uploads and close the store. Fragments stay, if the store keeps them."""
        self._is_stopping = True
        while self._uploads:
            upload = next(iter(self._uploads.values()))
            if upload.publishing is not None:
                await asyncio.wait([upload.publishing], timeout=_STOP_TIMEOUT)
            self._forget_upload(upload)
            await _attempt(f"suspending {upload.media_id}", upload.suspend())
        await self._tasks.close(_STOP_TIMEOUT)
        try:
            await self.storage.run(self._store.close)
        finally:
            self.storage.close()

    async def problem(self) -> str | None:
        """The sentence that says why the store cannot be used for now, or None."""
        return await self.storage.run(self._store.problem)

    @property
    def unfinished_count(self) -> int:
        """The number of unfinished uploads."""
        return sum(map(len, self._unfinished.values()))

    # -- uploads --

    async def begin_upload(self, session: Session, spec: UploadSpec) -> Upload:
        """Begin an upload, or return the upload that the user began with the same key.

        Raises:
            UploadMediaError: FAILURE when the token does not allow it, a rate or a quota is
                exceeded, or the upload was cancelled already. INVALID_ARGUMENT when the medium is
                empty, or the key names an upload of another size. SIZE_OVERFLOW when it is too
                large. CONCURRENCY_LIMIT_EXCEEDED when too many uploads of the user are unfinished.
        """
        session.require_life(UploadMediaError)
        if self._is_stopping:
            raise UploadMediaError.named("FAILURE", "The hub is stopping.", UploadSuspended())
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
                raise _cancelled()
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
                f"{self._limits.unfinished_uploads} uploads of this user are unfinished, which is "
                "the limit; finish or cancel one first.",
            )
        self._check_rates(user)
        metadata = _UploadMetadata(*user, spec)
        upload = Upload(
            new_media_id(), user, spec, self._store, self.storage, encode_json(metadata)
        )
        self._add(upload)
        try:
            await self._check_quotas(upload)
            session.require_life(UploadMediaError)
        except BaseException:
            await self.drop_upload(upload)
            raise
        return upload

    def upload(self, session: Session, media_id: str) -> Upload | None:
        """The user's unfinished, or just finished, upload with this id."""
        upload = self._uploads.get(media_id)
        return upload if upload is not None and upload.owner == session.user else None

    async def complete_upload(self, upload: Upload) -> MediaInfo:
        """Publish a completely received upload: durable, recorded, and downloadable.

        It goes on even if the caller is cancelled. A failed upload leaves nothing.

        Raises:
            UploadMediaError: FAILURE, the store failed, or the upload was cancelled meanwhile.
        """
        if upload.publishing is None:
            upload.publishing = self._tasks.start(self._publish(upload))
        return await shielded(upload.publishing)

    def expires_at(self, upload: Upload) -> float:
        """When the medium expires, or an idle upload. Seconds since the epoch."""
        if upload.info is not None:
            return upload.info.expires_at
        idle = asyncio.get_running_loop().time() - upload.touched_at
        return self._now() + self._limits.upload_idle - idle

    async def drop_upload(self, upload: Upload) -> None:
        """Forget an unfinished upload and its bytes.

        It goes on even if the caller is cancelled. When it returns, nothing of the upload is left,
        unless the store failed, which is logged.
        """
        if self._uploads.get(upload.media_id) is upload:
            self._forget_upload(upload)
            await shielded(self._tasks.start(self._discard(upload)))

    def discardable_uploads(self, session: Session) -> list[Upload]:
        """The user's unfinished uploads that a logout drops (`UploadSpec.keep` is not set)."""
        unfinished = [
            self._uploads[media_id] for media_id in self._unfinished.get(session.user, ())
        ]
        return [upload for upload in unfinished if not upload.spec.keep]

    async def cancel_upload(self, session: Session, key: str) -> None:
        """Cancel the upload with this key, even if it was completed and its answer was lost."""
        upload = self._by_key.get((*session.user, key))
        if upload is None:  # the upload's request has not arrived yet, over another connection
            session.cancelled_uploads.append(key)
            return
        self._forget_upload(upload)
        await shielded(self._tasks.start(self._discard(upload)))

    # -- stored media --

    async def stored_media(self, session: Session, media_id: str) -> MediaInfo:
        """The record of a medium that can be downloaded now.

        Raises:
            DownloadMediaError: FAILURE when the token does not allow downloads; INVALID_ARGUMENT
                for a malformed media id; NOT_EXIST for an unknown or expired medium.
        """
        if not session.privileges.download:
            raise DownloadMediaError.named(
                "FAILURE", "The token does not allow downloads.", NotPrivileged()
            )
        if not MEDIA_ID.fullmatch(media_id):
            raise DownloadMediaError.named(
                "INVALID_ARGUMENT", f"{media_id[:40]!r} is not a media id."
            )
        try:
            info = await self._index.media(session.app_id, media_id)
        except Exception as error:
            raise store_failure(
                DownloadMediaError, f"looking for the record of {media_id}", error
            ) from error
        if info is None or info.expires_at <= self._now():
            state = "does not exist" if info is None else "has expired"
            raise DownloadMediaError.named("NOT_EXIST", f"The medium {media_id} {state}.")
        return info

    @contextlib.asynccontextmanager
    async def slot(self, session: Session, family: type[RtmError]) -> AsyncIterator[MediaStore]:
        """Hold one of the session's transfer slots during the block. Yields the media store.

        Waits up to 3 seconds for a free slot.

        Raises:
            RtmError: of that family: CONCURRENCY_LIMIT_EXCEEDED; NOT_LOGGED_IN, the session has
                ended meanwhile.
        """
        try:
            await asyncio.wait_for(session.transfers.acquire(), _SLOT_TIMEOUT)
        except asyncio.TimeoutError:
            raise family.named(
                "CONCURRENCY_LIMIT_EXCEEDED",
                f"{self._limits.transfers} transfers of this session are running, which is the "
                "limit; wait until one has ended.",
            ) from None
        try:
            session.require_life(family)
            yield self._store
        finally:
            session.transfers.release()

    async def sweep_uploads(self) -> None:
        """Drop the idle uploads."""
        idle_since = asyncio.get_running_loop().time() - self._limits.upload_idle
        for upload in list(self._uploads.values()):
            if upload.info is None and upload.touched_at < idle_since:
                await self.drop_upload(upload)

    async def sweep_media(self) -> int:
        """Remove the expired media, and return their number.

        A medium that the store cannot remove now keeps its record, and is tried again next time.
        """
        swept = 0
        while batch := await self._index.expired_media(self._now()):
            removed = [media_id for media_id in batch if await self._sweep_medium(media_id)]
            swept += len(removed)
            if len(removed) < len(batch):  # the next batch would have the others again
                break
        return swept

    # -- inside --

    def _check_rates(self, user: tuple[str, str]) -> None:
        now = asyncio.get_running_loop().time()
        for windows, key, rate in (
            (self._user_rate, user, self._limits.user_uploads),
            (self._app_rate, user[0], self._limits.app_uploads),
        ):
            if windows is not None and not windows.allow(key, now):
                owner = f"The app {key!r}" if key == user[0] else f"{user[1]!r}"
                raise UploadMediaError.named(
                    "FAILURE", f"{owner} may upload no more than {rate}; try again later."
                )

    async def _check_quotas(self, upload: Upload) -> None:
        """Refuse an upload that exceeds a quota. The upload is registered already."""
        app_id, uid = upload.owner
        quotas = (self._limits.user_bytes, self._limits.app_bytes)
        if quotas == (None, None):
            return
        # Read in-flight sizes first: an upload that is published meanwhile is counted twice, which
        # is safe, and never left out.
        in_flight = [
            (other.owner, other.spec.size)
            for other in self._uploads.values()
            if other.info is None and other.owner[0] == app_id
        ]
        try:
            stored = await self._index.media_usage(app_id, uid)
        except Exception as error:
            raise store_failure(UploadMediaError, "reading the quotas", error) from error
        of_user = stored.user + sum(size for owner, size in in_flight if owner == upload.owner)
        of_app = stored.app + sum(size for _, size in in_flight)
        for owner_name, total, quota in zip(
            (f"{uid!r}", f"the app {app_id!r}"), (of_user, of_app), quotas, strict=True
        ):
            if quota is not None and total > quota:
                raise UploadMediaError.named(
                    "FAILURE",
                    f"With this medium of {upload.spec.size:,} bytes {owner_name} would keep "
                    f"{total:,}; the quota is {quota:,}. Try again when older media have expired.",
                )

    async def _publish(self, upload: Upload) -> MediaInfo:
        """Do the work of `complete_upload`: store and record the medium, or remove it."""
        try:
            info = await self._record(upload)
            if self._uploads.get(upload.media_id) is not upload:
                raise _cancelled()
        except BaseException as error:
            if isinstance(error, RtmError) and isinstance(error.cause, UploadSuspended):
                raise  # before the commit: the bytes stay for the next process
            # No second try: after a failed fsync the data is lost, even if the next succeeds.
            self._forget_upload(upload)
            await self._remove(upload)
            if isinstance(error, RtmError) or not isinstance(error, Exception):
                raise
            action = f"recording {upload.media_id}"
            raise store_failure(UploadMediaError, action, error) from error
        upload.info = info
        self._mark_finished(upload)
        self._metrics_sink.uploaded(info.size)
        app_id, uid = upload.owner
        logger.info(
            "%s@%s stored a medium of %s bytes",
            uid,
            app_id,
            f"{info.size:,}",
            extra={"event": "upload", "app_id": app_id, "uid": uid, "size": info.size},
        )
        # Remember the key for the grace period: if this answer is lost, the client asks again.
        loop = asyncio.get_running_loop()
        loop.call_later(self._limits.session_grace, self._forget_upload, upload)
        return info

    async def _record(self, upload: Upload) -> MediaInfo:
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

    async def _discard(self, upload: Upload) -> None:
        """Remove a forgotten upload, and its medium, which no client knows."""
        await _attempt(f"aborting {upload.media_id}", upload.abort())
        if upload.publishing is not None:  # it finds the upload forgotten, and removes the medium
            await asyncio.wait([upload.publishing])
        if upload.info is not None:  # it was published before
            await self._remove(upload)

    async def _remove(self, upload: Upload) -> None:
        """Remove the bytes and the record of an upload. Failures are logged."""
        media_id = upload.media_id
        await _attempt(f"aborting {media_id}", upload.abort())
        # The record first: without its bytes, it would use the quota.
        await _attempt(f"forgetting {media_id}", self._index.delete_media(media_id))
        await self._delete_blob(media_id)

    async def _delete_blob(self, media_id: str) -> bool:
        """Delete a blob. A failure is logged; returns whether it is deleted."""
        return await _attempt(
            f"deleting {media_id}", self.storage.finish(self._store.delete, media_id)
        )

    async def _restore(self, fragment: Fragment) -> None:
        metadata = decode_json(_UploadMetadata, fragment.metadata)
        if fragment.size > metadata.spec.size:
            raise OSError(f"it has {fragment.size:,} of {metadata.spec.size:,} bytes")
        if fragment.is_whole:  # the hub was killed after the commit, before `finalize`
            if await self._index.media(metadata.app_id, fragment.media_id) is None:
                # Not recorded, so no client has been given its id.
                await self.storage.run(self._store.delete, fragment.media_id)
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
        self._mark_finished(upload)
        self._uploads.pop(upload.media_id, None)
        if upload.spec.key is not None:
            key = (*upload.owner, upload.spec.key)
            if self._by_key.get(key) is upload:  # a later upload may have the key by now
                del self._by_key[key]

    def _mark_finished(self, upload: Upload) -> None:
        unfinished = self._unfinished.get(upload.owner)
        if unfinished is not None:
            unfinished.discard(upload.media_id)
            if not unfinished:
                del self._unfinished[upload.owner]

    async def _sweep_medium(self, media_id: str) -> bool:
        """Remove an expired medium: its bytes first, because its record leads to them."""
        return await self._delete_blob(media_id) and await _attempt(
            f"forgetting {media_id}", self._index.delete_media(media_id)
        )


async def _attempt(action: str, work: Awaitable[object]) -> bool:
    """Clean up. A failure is only logged: it must not hide an error, or stop other work."""
    try:
        await work
    except Exception as error:
        log_failure(action, error)
        return False
    return True


def _cancelled() -> RtmError:
    return UploadMediaError.named("FAILURE", "The upload was cancelled.", UploadCancelled())
