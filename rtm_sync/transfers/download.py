"""The work of a download: to a path, a binary file or memory."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import IO, BinaryIO, TypeAlias, cast

from ..blob import Blob
from ..blob.file_names import reserved_path
from ..errors import DownloadMediaError
from ..protocol.values import MediaInfo
from .control import TransferControl
from .partial_file import PartialDownload
from .sink import MediaCarrier, Sink

Destination: TypeAlias = "str | os.PathLike[str] | IO[bytes] | None"
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def checked_media_id(media_id: str) -> str:
    """The media id, if it is well-formed. Raises DownloadMediaError."""
    if not isinstance(media_id, str) or not _MEDIA_ID.fullmatch(media_id):
        raise DownloadMediaError.named(
            "INVALID_ARGUMENT", f"{str(media_id)[:40]!r} is not a media id."
        )
    return media_id


class DownloadWork:
    """One download and its destination.

    Args:
        media_id: the medium.
        to: a path, a folder, a binary file, or None for memory.

    Raises:
        DownloadMediaError: the media id or the type of `to` is not valid (INVALID_ARGUMENT), or the
            destination cannot be written (FAILURE).
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
                    "FAILURE", f"{folder} is not a folder, or it is not writable."
                )
        elif hasattr(to, "write") and not isinstance(cast(object, to), io.TextIOBase):
            self._file = to
        else:
            raise DownloadMediaError.named(
                "INVALID_ARGUMENT",
                f"to must be a path, a folder or a binary file, not {type(to).__name__}.",
            )

    def run(self, carrier: MediaCarrier, control: TransferControl) -> Blob | Path | IO[bytes]:
        """Download. Returns the result that `RtmClient.download_media` documents for `to`."""
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
            with PartialDownload(folder, self._media_id) as partial:
                info = carrier.download(self._media_id, partial, control)
                control.complete(info.size)
                if self._into_folder:
                    with reserved_path(folder, info.file_name) as reserved:
                        return partial.publish(reserved)
                return partial.publish(self._path)
        except OSError as error:
            raise control.kind.error(
                "FAILURE", f"{self._path} cannot be written: {error}", error
            ) from error

    def _fetch(self, carrier: MediaCarrier, control: TransferControl, file: BinaryIO) -> MediaInfo:
        info = carrier.download(self._media_id, Sink(file), control)
        control.complete(info.size)
        return info
