"""The media calls of a client: uploads, downloads, and messages made from their parts."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import IO, Literal, cast, overload

from ..blob import Blob, Payload
from ..errors import DownloadMediaError
from ..messages import (
    MessageType,
    RtmFileMessage,
    RtmImageMessage,
    RtmMessage,
    RtmRawMessage,
    RtmTextMessage,
)
from ..protocol.values import MediaInfo
from ..thumbnails.contract import (
    Thumbnail,
    ThumbnailGenerator,
    ThumbnailSource,
    given_thumbnail,
)
from ..transfers.control import ProgressCallback, TransferControl, TransferKind
from ..transfers.download import Destination, DownloadWork, checked_media_id
from ..transfers.sink import MediaCarrier
from ..transfers.stream import MediaStream, StreamSink
from ..transfers.transfer import Transfer
from ..transfers.upload import Dimensions, UploadWork
from .calls import CALL_TIMEOUT, ClientCalls


class MediaCalls(ClientCalls):
    """Uploads and downloads. A part of `RtmClient`."""

    _auto_thumbnails: bool

    @abstractmethod
    def _thumbnail_generators(self) -> Sequence[ThumbnailGenerator]:
        """The generators of the client's plugins; the first call imports the installed plugins."""

    def create_message(
        self,
        *,
        text: str | None = None,
        raw_message: bytes | None = None,
        media_id: str | None = None,
        message_type: MessageType | str | None = None,
        file_name: str = "",
        description: str = "",
        thumbnail: ThumbnailSource | None = None,
        size: int = 0,
        width: int = 0,
        height: int = 0,
        thumbnail_width: int = 0,
        thumbnail_height: int = 0,
    ) -> RtmMessage:
        """Make a message from its parts. No network, and no check by the hub.

        Exactly one of `text`, `raw_message` and `media_id` (an earlier upload's) is the content;
        with `media_id`, `message_type` is FILE by default, or IMAGE.

        Args:
            thumbnail: the preview: bytes, a `Path`, a binary file, a `Blob` or a `Thumbnail`. What
                makes a thumbnail ("auto", a generator's name or a callable) needs the content of an
                upload, which is not here.
            thumbnail_width, thumbnail_height: pixels; read from the thumbnail's header when 0.

        Raises:
            ValueError: none or several of them, a message type that does not fit, or over 32 KB.
            TypeError: the thumbnail is of another type.
            OSError: the thumbnail's file cannot be read.
        """
        given = [
            name
            for name, value in (
                ("text", text),
                ("raw_message", raw_message),
                ("media_id", media_id),
            )
            if value is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"Give exactly one of text, raw_message and media_id, not {given or 'none'}."
            )
        kind = None if message_type is None else MessageType(message_type)
        message: RtmMessage
        if text is not None:
            message = RtmTextMessage(text, description)
        elif raw_message is not None:
            message = RtmRawMessage(raw_message, description)
        else:
            preview = Thumbnail(b"", 0, 0, "") if thumbnail is None else given_thumbnail(thumbnail)
            named = (cast(str, media_id), file_name, description, size, preview.data)
            if not (thumbnail_width or thumbnail_height):
                thumbnail_width, thumbnail_height = preview.width, preview.height
            if kind is MessageType.IMAGE:
                message = RtmImageMessage(
                    *named,
                    width=width,
                    height=height,
                    thumbnail_width=thumbnail_width,
                    thumbnail_height=thumbnail_height,
                )
            else:
                message = RtmFileMessage(*named)
        if kind is not None and kind is not message.message_type:
            raise ValueError(f"{given[0]} makes a {message.message_type} message, not {kind}.")
        return message

    @overload
    def create_media_message_by_uploading(
        self,
        payload: Payload,
        *,
        message_type: Literal["IMAGE", MessageType.IMAGE],
        file_name: str | None = ...,
        description: str = ...,
        thumbnail: ThumbnailSource | None = ...,
        width: int | None = ...,
        height: int | None = ...,
        thumbnail_width: int | None = ...,
        thumbnail_height: int | None = ...,
        resume_from: str | os.PathLike[str] | None = ...,
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[RtmImageMessage]: ...
    @overload
    def create_media_message_by_uploading(
        self,
        payload: Payload,
        *,
        message_type: MessageType | str = ...,
        file_name: str | None = ...,
        description: str = ...,
        thumbnail: ThumbnailSource | None = ...,
        width: int | None = ...,
        height: int | None = ...,
        thumbnail_width: int | None = ...,
        thumbnail_height: int | None = ...,
        resume_from: str | os.PathLike[str] | None = ...,
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[RtmFileMessage]: ...
    def create_media_message_by_uploading(
        self,
        payload: Payload,
        *,
        message_type: MessageType | str = MessageType.FILE,
        file_name: str | None = None,
        description: str = "",
        thumbnail: ThumbnailSource | None = None,
        width: int | None = None,
        height: int | None = None,
        thumbnail_width: int | None = None,
        thumbnail_height: int | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        cancel_signal: threading.Event | None = None,
        on_operation_progress: ProgressCallback | None = None,
    ) -> Transfer[RtmFileMessage] | Transfer[RtmImageMessage]:
        """Upload a file or picture and make the message that points to it.

        Args:
            payload: a path, bytes, a binary file or a `Blob`; 1 byte to 30 MB.
            message_type: FILE or IMAGE.
            file_name: shown to the receiver; the source's own name when not given.
            description: free text; description + file name + thumbnail are at most 32 KB.
            thumbnail: the preview (bytes, `Path`, file, `Blob`, `Thumbnail`), a callable
                `(blob, max_bytes) -> bytes`, "auto", or the name of an installed generator.
            width, height, thumbnail_width, thumbnail_height: pixels of the upright pictures; read
                from their headers when not given, or (AVIF, HEIC, TIFF) told by the generator that
                makes the thumbnail. Accepted and ignored with FILE.
            resume_from: a journal file, which keeps the upload's name until the upload is done or
                cancelled. After a failure or the end of the process, uploading the same source
                with the same journal within ten minutes continues where it stopped.
            cancel_signal: set it to cancel the upload.
            on_operation_progress: called with `MediaOperationProgress`, on the transfer's thread:
                one call at a time, about ten a second, the last one at 100 %.

        Returns:
            A future of the message; by the time it has a result, any peer can download the medium.

        Raises:
            UploadMediaError: at once for bad arguments, a missing or oversize source, not being
                logged in, or (with `transfer_backlog=0`) a tenth transfer; the rest from
                `result()`.
        """
        dimensions = Dimensions(width, height, thumbnail_width, thumbnail_height)
        work = UploadWork(
            payload,
            message_type,
            file_name,
            description,
            thumbnail,
            dimensions,
            self._thumbnail_generators,
            auto=self._auto_thumbnails,
            resume_from=resume_from,
        )
        return self._start_transfer(
            TransferKind.UPLOAD,
            work.run,
            cancel_signal=cancel_signal,
            on_progress=on_operation_progress,
        )

    @overload
    def download_media(
        self,
        media_id: str,
        *,
        to: None = ...,
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[Blob]: ...
    @overload
    def download_media(
        self,
        media_id: str,
        *,
        to: str | os.PathLike[str],
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[Path]: ...
    @overload
    def download_media(
        self,
        media_id: str,
        *,
        to: IO[bytes],
        cancel_signal: threading.Event | None = ...,
        on_operation_progress: ProgressCallback | None = ...,
    ) -> Transfer[IO[bytes]]: ...
    def download_media(
        self,
        media_id: str,
        *,
        to: Destination = None,
        cancel_signal: threading.Event | None = None,
        on_operation_progress: ProgressCallback | None = None,
    ) -> Transfer[Blob] | Transfer[Path] | Transfer[IO[bytes]]:
        """Download a medium, and check it by SHA-256.

        After a lost connection, the download continues where it stopped. It fails after half a
        minute of attempts without progress. Damaged bytes are fetched again, at most twice.

        A download to a path or a folder writes to a hidden file in the same folder,
        `.rtm-….part`. The file stays when the process is killed, or the connection stays lost or
        silent; the next download of that medium into that folder, in any process, continues from
        it. The file is removed after success, after a cancellation, and after an error that is
        permanent: NOT_EXIST, bytes that stay damaged, a full disk. Concurrent downloads of one
        medium each have a file of their own.

        Args:
            media_id: from a received message.
            to: None for a `Blob` in memory; a path, which appears whole or not at all and replaces
                an older file; an existing folder, for a file with the sender's file name (made
                safe, and never over another file); or a binary file to write into.
            cancel_signal, on_operation_progress: as for uploads.

        Returns:
            A future of the `Blob`, of the path written, or of the file given.

        Raises:
            DownloadMediaError: at once for bad arguments or not being logged in; the rest, such as
                NOT_EXIST for an unknown or expired id, or FAILURE with the operating
                system's error about the destination, from `result()`.
        """
        work = DownloadWork(media_id, to)
        transfer = self._start_transfer(
            TransferKind.DOWNLOAD,
            work.run,
            cancel_signal=cancel_signal,
            on_progress=on_operation_progress,
        )
        return cast("Transfer[Blob]", transfer)  # the overloads say which of the three

    def get_media_info(self, media_id: str) -> MediaInfo:
        """Ask for a medium's size, digest, file name, content type and expiry, without its bytes.

        It waits for one of the nine places of transfers.

        Args:
            media_id: from a received message.

        Raises:
            DownloadMediaError: NOT_EXIST for an unknown or expired medium, TIMEOUT after ten
                seconds, or another reason.
        """
        checked_media_id(media_id)

        def work(carrier: MediaCarrier, control: TransferControl) -> MediaInfo:
            return carrier.media_info(media_id, control)

        with self._start_transfer(TransferKind.DOWNLOAD, work) as asking:
            try:
                return asking.result(CALL_TIMEOUT)
            except FutureTimeout:
                if asking.done():  # a time-out of the transport, which is no `RtmError`
                    raise
                raise DownloadMediaError.named(
                    "TIMEOUT", f"The hub did not answer within {CALL_TIMEOUT:g} seconds."
                ) from None

    def open_media(self, media_id: str, *, start: int = 0, stop: int | None = None) -> MediaStream:
        """Download a medium as a binary file that can be read from its first bytes on.

        For programs that forward it, such as a web server: reading does not wait for the whole
        medium. Use it in `with`: closing ends the download. The stream counts as one of the nine
        transfers.

        Args:
            media_id: from a received message.
            start, stop: positions in bytes: only the bytes from `start` up to but not including
                `stop` are downloaded; None is the medium's end. The digest is checked only if
                that is the whole medium.

        Returns:
            The stream, at the position `start`; its `info` has size, type and file name.

        Raises:
            DownloadMediaError: at once for a bad argument or not being logged in; the rest, such as
                NOT_EXIST, or INVALID_ARGUMENT for a start beyond the medium's end, from the stream.
        """
        checked_media_id(media_id)
        for name, value in (("start", start), ("stop", 0 if stop is None else stop)):
            if type(value) is not int or value < 0:
                raise DownloadMediaError.named(
                    "INVALID_ARGUMENT", f"{name} must be a position in bytes, not {value!r}."
                )
        if stop is not None and stop <= start:
            raise DownloadMediaError.named(
                "INVALID_ARGUMENT", f"stop is {stop:,}; it must be after start, {start:,}."
            )
        stream = MediaStream(start)

        def work(carrier: MediaCarrier, control: TransferControl) -> None:
            sink = StreamSink(stream, start, stop)
            fetch = carrier.download_part if sink.is_part else carrier.download
            fetch(media_id, sink, control)
            control.complete(sink.size)

        try:
            stream.follow(self._start_transfer(TransferKind.DOWNLOAD, work))
        except BaseException:
            stream.close()
            raise
        return stream
