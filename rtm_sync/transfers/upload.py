"""The work of an upload: its arguments, its thumbnail and its message."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence

from ..blob import MEDIA_LIMIT, Blob, BlobTooLarge, Payload
from ..errors import PluginError, UploadMediaError
from ..messages import (
    MessageType,
    RtmFileMessage,
    RtmImageMessage,
    check_media_message,
    thumbnail_room,
)
from ..protocol.values import MediaInfo
from ..thumbnails.contract import (
    CannotThumbnail,
    Thumbnail,
    ThumbnailCallable,
    ThumbnailFailed,
    ThumbnailGenerator,
    ThumbnailSource,
    given_thumbnail,
)
from .control import TransferControl
from .journal import Journal
from .sink import MediaCarrier

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes in pixels that the caller gave; None where the picture's header decides."""

    width: int | None
    height: int | None
    thumbnail_width: int | None
    thumbnail_height: int | None


class UploadWork:
    """One upload: the blob, the message it becomes, and its thumbnail.

    Args:
        payload: the bytes, as `Blob.of` takes them.
        message_type: FILE or IMAGE.
        file_name: the name that receivers see; None for the payload's own.
        description: the message's text.
        thumbnail: a thumbnail, a callable, "auto", a generator's name, or None.
        dimensions: sizes in pixels that the caller gave.
        find_generators: returns the installed thumbnail generators. It imports the installed
            plugins, so it is called only when a generator makes the thumbnail.
        auto: whether None means a thumbnail by "auto", if a generator can make one.
        resume_from: the journal of an upload that an earlier process began.

    Raises:
        UploadMediaError: INVALID_ARGUMENT for a wrong argument, an empty source or a message over
            32 KB; FAILURE for a source that cannot be read; SIZE_OVERFLOW above 30 MB.
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
            if file_name is not None:
                check_media_message(file_name, description, 0)
                self._blob = _renamed(self._blob, file_name)
            self._name = self._blob.name
            check_media_message(self._name, description, 0)
            self._journal = None if resume_from is None else Journal(resume_from, self._blob.size)
            self._given = Thumbnail(b"", 0, 0, "")
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
                self._given = given_thumbnail(thumbnail)
                check_media_message(self._name, description, len(self._given.data))

    def run(self, carrier: MediaCarrier, control: TransferControl) -> RtmFileMessage:
        """Make the thumbnail, upload the blob, and make the message."""
        picture = self._generate(control)
        control.check()
        width, height = self._image_dimensions(picture)
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
        from ..thumbnails.selection import choose_generator

        try:
            self._generator = choose_generator(generators, name, self._blob.content_type)
        except PluginError:
            if not optional:
                raise
        self._optional = optional

    def _generate(self, control: TransferControl) -> Thumbnail:
        from ..thumbnails.selection import call_in_place, generate_in_time

        room = thumbnail_room(self._name, self._description)
        try:
            if self._generator is not None:
                made = generate_in_time(self._generator, self._blob, room, control)
            elif self._make is not None:
                made = call_in_place(self._make, self._blob, room)
            else:
                made = self._given
        except (CannotThumbnail, ThumbnailFailed) as error:
            failed = isinstance(error, ThumbnailFailed)
            if self._optional:
                if failed:
                    logger.warning("%s is sent without a thumbnail. %s", self._name, error)
                return Thumbnail(b"", 0, 0, "")
            reason = "FAILURE" if failed else "INVALID_ARGUMENT"
            raise control.kind.error(reason, str(error), error) from error
        return self._measured(made)

    def _measured(self, picture: Thumbnail) -> Thumbnail:
        """The thumbnail with its size: the caller's, else the generator's, else the header's."""
        given = self._dimensions
        width, height = given.thumbnail_width, given.thumbnail_height
        if width is None and height is None:
            width, height = picture.width, picture.height
            if not width and picture.data:
                found = Blob.from_bytes(picture.data).dimensions()
                width, height = found or (0, 0)
        return dataclasses.replace(picture, width=width or 0, height=height or 0)

    def _image_dimensions(self, picture: Thumbnail) -> tuple[int, int]:
        """The upright size: the caller's, else the header's, else the thumbnail generator's."""
        given = self._dimensions
        if self._type is MessageType.FILE:
            return 0, 0
        if given.width is not None or given.height is not None:
            return given.width or 0, given.height or 0
        return self._blob.dimensions() or (picture.picture_width, picture.picture_height)


def _renamed(blob: Blob, name: str) -> Blob:
    """The blob under another name, from which an unknown content type is guessed again."""
    if blob.name == name:
        return blob
    known = None if blob.content_type == "application/octet-stream" else blob.content_type
    return Blob(blob.open, blob.size, name, known)


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


def checked_blob(payload: Payload) -> Blob:
    """The blob of an upload.

    Raises:
        UploadMediaError: the payload is of a wrong type, cannot be read, is empty or too large.
    """
    with _argument_errors():
        return _checked_blob(payload)


def _checked_blob(payload: Payload) -> Blob:
    blob = Blob.of(payload)
    if blob.size > MEDIA_LIMIT:
        raise BlobTooLarge(
            f"{blob.name or 'The payload'} has {blob.size:,} bytes; the limit is "
            f"{MEDIA_LIMIT:,} bytes (30 MB)."
        )
    if blob.size == 0:
        raise ValueError(f"{blob.name or 'The payload'} is empty; a medium has at least one byte.")
    return blob


@contextlib.contextmanager
def _argument_errors() -> Iterator[None]:
    """Turn an exception about an upload's arguments into an UploadMediaError."""
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
