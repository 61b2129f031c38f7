"""What an upload and a download do around their transport: checks, thumbnails, destinations.

Arguments are checked on the caller's thread, so that bad ones raise at once; `run` then works on a
transfer's thread.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, TypeAlias, cast

from .blob import MEDIA_LIMIT, Blob, BlobTooLarge, Payload, atomic_write
from .errors import DownloadMediaError, PluginError, UploadMediaError
from .messages import (
    MessageType,
    RtmFileMessage,
    RtmImageMessage,
    check_media_message,
    thumbnail_room,
)
from .parts import Part
from .protocol.values import MediaInfo
from .thumbnails.contract import (
    CannotThumbnail,
    Thumbnail,
    ThumbnailCallable,
    ThumbnailFailed,
    ThumbnailGenerator,
)
from .thumbnails.selection import call_in_place, choose_generator, generate_in_time
from .transfers import TransferControl
from .transports.base import MediaCarrier, Sink

ThumbnailSource: TypeAlias = "Payload | ThumbnailCallable"
"""Thumbnail bytes (bytes, `Path`, binary file, `Blob`), a callable, or a `str`: "auto" or the name
of a generator."""

Destination: TypeAlias = "str | os.PathLike[str] | IO[bytes] | None"

logger = logging.getLogger(__name__)

_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
# On Windows these are devices in every folder, whatever comes after a dot.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\..*)?", re.I)


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Pixel sizes the caller gave; None is to be found out."""

    width: int | None
    height: int | None
    thumbnail_width: int | None
    thumbnail_height: int | None


class _Journal:
    """Remembers an upload's key in a small file, so that the next process goes on with it.

    Raises:
        ValueError: the file is something else.
    """

    _LINE = re.compile(r"rtm_sync upload ([A-Za-z0-9_-]{32}) of (\d+) bytes\n")

    def __init__(self, path: str | os.PathLike[str], size: int) -> None:
        self._path = Path(path)
        self.key = secrets.token_urlsafe(24)
        if not self._path.exists():
            return
        match = self._LINE.fullmatch(self._path.read_text("utf-8", "replace")[:200])
        if match is None:
            raise ValueError(f"resume_from is {self._path}, which is no journal of an upload.")
        if int(match[2]) == size:  # of another size it is another upload
            self.key = match[1]

    def write(self, size: int) -> None:
        with atomic_write(self._path) as file:
            file.write(f"rtm_sync upload {self.key} of {size} bytes\n".encode())

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


class UploadWork:
    """One upload: the blob, the message it becomes, and its thumbnail.

    Args:
        find_generators: the thumbnail generators there are; called only for a thumbnail that one
            of them makes, because finding them imports the installed plugins.

    Raises:
        UploadMediaError: an argument is not valid, the source is missing or unreadable (FAILURE),
            empty (INVALID_ARGUMENT), over 30 MB (SIZE_OVERFLOW), or the message over 32 KB.
    """

    def __init__(
        self,
        payload: Payload,
        message_type: MessageType | str,
        file_name: str | None,
        description: str,
        thumbnail: ThumbnailSource | None,
        dimensions: Dimensions,
        find_generators: Callable[[], Sequence[ThumbnailGenerator]],
        *,
        auto: bool,
        resume_from: str | os.PathLike[str] | None = None,
    ) -> None:
        self._description = description
        self._dimensions = dimensions
        with _argument_errors():
            self._type = _media_type(message_type)
            _check_dimensions(dimensions)
            self._blob = _checked_blob(payload)
            self._name = self._blob.name if file_name is None else file_name
            check_media_message(self._name, description, 0)
            self._blob = _renamed(self._blob, self._name)
            self._journal = None if resume_from is None else _Journal(resume_from, self._blob.size)
            self._thumbnail = b""
            self._make: ThumbnailCallable | None = None
            self._generator: ThumbnailGenerator | None = None
            self._optional = False
            if thumbnail is None:
                if auto:
                    self._use_generator("auto", find_generators(), optional=True)
            elif isinstance(thumbnail, str):
                self._use_generator(thumbnail, find_generators(), optional=False)
            elif callable(thumbnail):
                self._make = thumbnail
            else:
                self._use_bytes(thumbnail)

    def run(self, carrier: MediaCarrier, control: TransferControl) -> RtmFileMessage:
        """Make the thumbnail, upload, make the message."""
        picture = self._generate(control)
        control.check()
        width, height = self._image_dimensions()
        info = self._upload(carrier, self._blob, control)
        control.complete(info.size)
        named = (info.media_id, self._name, self._description, info.size)
        if self._type is MessageType.FILE:
            return RtmFileMessage(*named, picture.data, info.expires_at)
        return RtmImageMessage(
            *named,
            picture.data,
            info.expires_at,
            width,
            height,
            picture.width,
            picture.height,
        )

    def _upload(self, carrier: MediaCarrier, blob: Blob, control: TransferControl) -> MediaInfo:
        journal = self._journal
        if journal is None:
            return carrier.upload(blob, control)
        try:
            journal.write(blob.size)
        except OSError as error:
            raise control.kind.error(
                "FAILURE", f"The journal cannot be written: {error}", error
            ) from error
        try:
            info = carrier.upload(blob, control, journal.key)
        except BaseException:
            if control.given_up:
                journal.forget()
            raise
        journal.forget()
        return info

    def _use_generator(
        self, name: str, generators: Sequence[ThumbnailGenerator], *, optional: bool
    ) -> None:
        try:
            self._generator = choose_generator(generators, name, self._blob.content_type)
        except PluginError:
            if not optional:
                raise
        self._optional = optional

    def _use_bytes(self, thumbnail: Payload) -> None:
        blob = Blob.of(thumbnail)
        check_media_message(self._name, self._description, blob.size)
        self._thumbnail = blob.to_bytes()

    def _generate(self, control: TransferControl) -> Thumbnail:
        room = thumbnail_room(self._name, self._description)
        try:
            if self._generator is not None:
                made = generate_in_time(self._generator, self._blob, room, control)
            elif self._make is not None:
                made = call_in_place(self._make, self._blob, room)
            else:
                made = Thumbnail(self._thumbnail, 0, 0, "")
        except (CannotThumbnail, ThumbnailFailed) as error:
            failed = isinstance(error, ThumbnailFailed)
            if self._optional:
                if failed:
                    logger.warning("%s goes without a thumbnail. %s", self._name, error)
                return Thumbnail(b"", 0, 0, "")
            reason = "FAILURE" if failed else "INVALID_ARGUMENT"
            raise control.kind.error(reason, str(error), error) from error
        return self._measured(made)

    def _measured(self, picture: Thumbnail) -> Thumbnail:
        """The caller's sizes win; then the generator's; then what the picture's header says."""
        given = self._dimensions
        width, height = given.thumbnail_width, given.thumbnail_height
        if width is None and height is None:
            width, height = picture.width, picture.height
            if not width and picture.data:
                found = Blob.from_bytes(picture.data).dimensions()
                width, height = found or (0, 0)
        return Thumbnail(picture.data, width or 0, height or 0, picture.content_type)

    def _image_dimensions(self) -> tuple[int, int]:
        given = self._dimensions
        if self._type is MessageType.FILE:
            return 0, 0
        if given.width is not None or given.height is not None:
            return given.width or 0, given.height or 0
        return self._blob.dimensions() or (0, 0)


def _renamed(blob: Blob, name: str) -> Blob:
    """The blob under another name, which may tell its type where nothing else did."""
    if blob.name == name:
        return blob
    known = None if blob.content_type == "application/octet-stream" else blob.content_type
    return Blob(blob.open, blob.size, name, known)


def checked_media_id(media_id: str) -> str:
    """The id, where it is one. Raises DownloadMediaError."""
    if not isinstance(media_id, str) or not _MEDIA_ID.fullmatch(media_id):
        raise DownloadMediaError.named(
            "INVALID_ARGUMENT", f"{str(media_id)[:40]!r} is not a media id."
        )
    return media_id


class DownloadWork:
    """One download and where it goes.

    Raises:
        DownloadMediaError: the id is not one (INVALID_ARGUMENT), or the destination cannot be
            written (FAILURE).
    """

    def __init__(self, media_id: str, to: Destination) -> None:
        self._media_id = checked_media_id(media_id)
        self._file: IO[bytes] | None = None
        self._path: Path | None = None
        if to is None:
            return
        if isinstance(to, (str, os.PathLike)):
            self._path = Path(to)
            self._into_folder = self._path.is_dir()
            folder = self._path if self._into_folder else self._path.parent
            if not folder.is_dir() or not os.access(folder, os.W_OK):
                raise DownloadMediaError.named(
                    "FAILURE", f"{folder} is not a folder that can be written to."
                )
        elif hasattr(to, "write") and not isinstance(cast(object, to), io.TextIOBase):
            self._file = to
        else:
            raise DownloadMediaError.named(
                "INVALID_ARGUMENT",
                f"to must be a path, a folder or a binary file, not {type(to).__name__}.",
            )

    def run(self, carrier: MediaCarrier, control: TransferControl) -> Blob | Path | IO[bytes]:
        """Download; the result is what `download_media` promises for the destination."""
        if self._file is not None:
            self._fetch(carrier, control, cast(BinaryIO, self._file))
            return self._file
        if self._path is None:
            memory = io.BytesIO()
            info = self._fetch(carrier, control, memory)
            return Blob.from_bytes(
                memory.getvalue(), name=info.file_name, content_type=info.content_type
            )
        folder = self._path if self._into_folder else self._path.parent
        try:
            with Part(folder, self._media_id) as part:
                info = carrier.download(self._media_id, part, control)
                control.complete(info.size)
                if self._into_folder:
                    return part.publish(_taken_name(folder, info.file_name))
                return part.publish(self._path)
        except OSError as error:
            raise control.kind.error(
                "FAILURE", f"{self._path} cannot be written: {error}", error
            ) from error

    def _fetch(self, carrier: MediaCarrier, control: TransferControl, file: BinaryIO) -> MediaInfo:
        info = carrier.download(self._media_id, Sink(file), control)
        control.complete(info.size)
        return info


def _taken_name(folder: Path, file_name: str) -> Path:
    """A new empty file of that name, or one like it, so that two downloads do not meet."""
    for candidate in _free_names(folder, safe_file_name(file_name)):
        try:
            candidate.touch(exist_ok=False)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("the names are endless")


def safe_file_name(name: str) -> str:
    """A sender's file name as one that is safe to create in any folder."""
    safe = _UNSAFE.sub("_", name).strip(" .")
    if _DEVICE.fullmatch(safe):
        safe = f"_{safe}"
    return safe.encode()[:200].decode(errors="ignore").rstrip(" .") or "download"


def _free_names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  Path has no split of a bare name
    number = 1
    while True:
        yield folder / f"{stem} ({number}){suffix}"
        number += 1


def _media_type(message_type: MessageType | str) -> MessageType:
    kind = MessageType(message_type)
    if kind not in (MessageType.FILE, MessageType.IMAGE):
        raise ValueError(f"message_type must be FILE or IMAGE, not {kind}.")
    return kind


def _check_dimensions(dimensions: Dimensions) -> None:
    for name in ("width", "height", "thumbnail_width", "thumbnail_height"):
        value = getattr(dimensions, name)
        if value is not None and (type(value) is not int or value < 0):
            raise ValueError(f"{name} must be a whole number of pixels, not {value!r}.")


def _checked_blob(payload: Payload) -> Blob:
    blob = Blob.of(payload)
    if blob.size > MEDIA_LIMIT:
        raise BlobTooLarge(
            f"{blob.name or 'The payload'} has {blob.size:,} bytes; the limit is "
            f"{MEDIA_LIMIT:,} bytes (30 MB)."
        )
    if blob.size == 0:
        raise ValueError(f"{blob.name or 'The payload'} is empty; media have at least one byte.")
    return blob


@contextlib.contextmanager
def _argument_errors() -> Iterator[None]:
    """Turn what is wrong with an upload's arguments into the family's error."""
    try:
        yield
    except BlobTooLarge as error:
        raise UploadMediaError.named("SIZE_OVERFLOW", str(error), error) from error
    except (TypeError, ValueError, PluginError) as error:
        raise UploadMediaError.named("INVALID_ARGUMENT", str(error), error) from error
    except OSError as error:
        raise UploadMediaError.named(
            "FAILURE", f"The source cannot be read: {error}", error
        ) from error
