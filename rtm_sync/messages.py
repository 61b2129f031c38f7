"""The four message types and the 32 KB rule.

Values only: this module does not send, store or decode messages. A message is validated when it is
created, so that the hub accepts every existing message.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from .blob.file_names import plain_name

if TYPE_CHECKING:
    from .blob import Payload

MESSAGE_LIMIT = 32 * 1024
"""The most bytes of one message (reference 1.3: "32 KB"): the sum of its parts, in UTF-8."""

MEDIA_ID_LIMIT = 256
"""The most characters of a media id in a message. Ours: a gateway's media ids have 32."""


class MessageType(str, Enum):
    """The type of a message (reference 1.3: `MessageType`)."""

    TEXT = "TEXT"
    RAW = "RAW"
    FILE = "FILE"
    IMAGE = "IMAGE"

    def __str__(self) -> str:
        return self.value


class MessageTooLarge(ValueError):
    """The sum of a message's parts is larger than 32 KB."""


def _utf8(text: str, what: str) -> int:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {type(text).__name__}.")
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode text: {error}.") from error


def check_message_size(parts: dict[str, int], hint: str) -> None:
    """Raise `MessageTooLarge` when the named parts (name → bytes) add up to over 32,768 bytes."""
    total = sum(parts.values())
    if total > MESSAGE_LIMIT:
        counted = " + ".join(name for name, size in parts.items() if size) or next(iter(parts))
        raise MessageTooLarge(
            f"{counted} is {total:,} bytes; the limit is {MESSAGE_LIMIT:,} bytes. {hint}"
        )


@dataclass(frozen=True, slots=True)
class RtmTextMessage:
    """A text message.

    Args:
        text: the text, not empty; text and description have at most 32 KB in UTF-8.
        description: free text beside it.

    Raises:
        ValueError: the text is empty, not encodable, or larger than 32 KB with the description.
    """

    text: str
    description: str = ""

    def __post_init__(self) -> None:
        size = _utf8(self.text, "text")
        if size == 0:
            raise ValueError("text is empty; a text message needs at least one character.")
        check_message_size(
            {"text": size, "description": _utf8(self.description, "description")},
            "Split the text, or upload it as a file.",
        )

    @property
    def message_type(self) -> MessageType:
        return MessageType.TEXT


@dataclass(frozen=True, slots=True)
class RtmRawMessage:
    """A message of raw bytes.

    Args:
        raw_message: the bytes; at most 32 KB with the description. Another bytes-like object is
            copied.
        description: free text beside it.

    Raises:
        ValueError: the message is larger than 32 KB with the description.
    """

    raw_message: bytes
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.raw_message, bytes):
            object.__setattr__(self, "raw_message", _as_bytes(self.raw_message, "raw_message"))
        check_message_size(
            {
                "raw_message": len(self.raw_message),
                "description": _utf8(self.description, "description"),
            },
            "Upload it as a file instead.",
        )

    @property
    def message_type(self) -> MessageType:
        return MessageType.RAW


@dataclass(frozen=True, slots=True)
class RtmFileMessage:
    """A message that points to an uploaded file.

    Args:
        media_id: the id that the upload returned, of at most 256 characters; valid for seven days
            after the upload.
        file_name: the name that the receiver sees. It is never a path: only the last part of a
            given name is kept (see `Blob.name`).
        description: free text beside it.
        size: the bytes of the stored file; 0 when unknown.
        thumbnail: the bytes of the preview. A bytes-like object, a `Path`, a binary file or a
            `Blob` is read. Description, file name and thumbnail have at most 32 KB.
        expires_at: when the medium expires, seconds since the epoch; 0 when unknown. Ours.

    Raises:
        ValueError: the media id is missing or too long, or the sum is larger than 32 KB.
    """

    media_id: str
    file_name: str = ""
    description: str = ""
    size: int = 0
    thumbnail: bytes = field(default=b"", repr=False)
    expires_at: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.media_id, str) or not self.media_id:
            raise ValueError("media_id must be the non-empty str that an upload returned.")
        if len(self.media_id) > MEDIA_ID_LIMIT:
            raise ValueError(
                f"media_id has {len(self.media_id):,} characters; the limit is {MEDIA_ID_LIMIT}."
            )
        if not isinstance(self.thumbnail, bytes):
            object.__setattr__(self, "thumbnail", thumbnail_bytes(self.thumbnail))
        _utf8(self.file_name, "file_name")
        object.__setattr__(self, "file_name", plain_name(self.file_name))
        check_media_message(self.file_name, self.description, len(self.thumbnail))

    @property
    def message_type(self) -> MessageType:
        return MessageType.FILE

    @property
    def thumbnail_data(self) -> bytes:
        """The reference guide's name for `thumbnail`."""
        return self.thumbnail


@dataclass(frozen=True, slots=True)
class RtmImageMessage(RtmFileMessage):
    """A message that points to an uploaded image: a file message with pixel dimensions.

    Args:
        width, height: the size of the image in pixels; 0 when unknown.
        thumbnail_width, thumbnail_height: the size of the thumbnail in pixels; 0 when unknown.
    """

    width: int = 0
    height: int = 0
    thumbnail_width: int = 0
    thumbnail_height: int = 0

    @property
    def message_type(self) -> MessageType:
        return MessageType.IMAGE


RtmMessage: TypeAlias = RtmTextMessage | RtmRawMessage | RtmFileMessage | RtmImageMessage

MEDIA_OVERFLOW_HINT = 'Pass a smaller thumbnail or thumbnail="auto".'


def check_media_message(file_name: str, description: str, thumbnail_size: int) -> None:
    """Apply the 32 KB rule to a file or image message before anything is uploaded."""
    check_message_size(
        {
            "thumbnail": thumbnail_size,
            "file_name": _utf8(file_name, "file_name"),
            "description": _utf8(description, "description"),
        },
        MEDIA_OVERFLOW_HINT,
    )


def thumbnail_bytes(source: Payload) -> bytes:
    """The bytes of a thumbnail: a bytes-like object, a path object, a binary file or a blob.

    Raises:
        TypeError: another type; a `str` is the name of a generator, not a path.
        MessageTooLarge: they are more than a message may have; they are not read then.
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    from .blob import Blob  # here, because most messages have no thumbnail to read

    is_payload = isinstance(source, (Blob, os.PathLike, bytearray, memoryview))
    if not is_payload and not hasattr(source, "read"):
        raise TypeError(
            "thumbnail must be bytes, a Path, a binary file or a Blob, not "
            f"{type(source).__name__}."
        )
    blob = Blob.of(source)
    check_message_size({"thumbnail": blob.size}, MEDIA_OVERFLOW_HINT)
    return blob.to_bytes()


def thumbnail_room(file_name: str, description: str) -> int:
    """The bytes that a thumbnail may have beside this file name and description."""
    return MESSAGE_LIMIT - _utf8(file_name, "file_name") - _utf8(description, "description")


def message_size(message: RtmMessage) -> int:
    """The bytes of a message, as the 32 KB rule counts them."""
    size = len(message.description.encode())
    if isinstance(message, RtmTextMessage):
        return size + len(message.text.encode())
    if isinstance(message, RtmRawMessage):
        return size + len(message.raw_message)
    return size + len(message.file_name.encode()) + len(message.thumbnail)


def as_message(message: RtmMessage | str | bytes) -> RtmMessage:
    """The message itself, a text message of a `str`, or a raw message of bytes.

    Raises:
        TypeError: another type.
    """
    if isinstance(message, str):
        return RtmTextMessage(message)
    if isinstance(message, (bytes, bytearray, memoryview)):
        return RtmRawMessage(bytes(message))
    if isinstance(message, (RtmTextMessage, RtmRawMessage, RtmFileMessage)):
        return message
    raise TypeError(
        f"message must be an RTM message, a str or bytes, not {type(message).__name__}."
    )


def _as_bytes(value: object, what: str) -> bytes:
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{what} must be bytes, not {type(value).__name__}.")
