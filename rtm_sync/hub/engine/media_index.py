"""The MediaIndex contract: records of stored media, their usage and expiry."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from ...protocol.values import MediaInfo
from .part import EnginePart


@dataclass(frozen=True, slots=True)
class MediaUsage:
    """Bytes of stored media.

    Attributes:
        user: the bytes of one user.
        app: the bytes of all users of the app.
    """

    user: int
    app: int


class MediaIndex(EnginePart):
    """Keeps the records of stored media. A `MediaStore` keeps the media themselves."""

    @abstractmethod
    async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
        """Record durably a stored medium that this user has uploaded."""

    @abstractmethod
    async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
        """The record of a medium of this app, expired or not; None when there is no record.

        A record is visible as soon as its `put_media` has returned.
        """

    @abstractmethod
    async def delete_media(self, media_id: str) -> None:
        """Forget a medium durably; ignored when it is unknown."""

    @abstractmethod
    async def media_usage(self, app_id: str, uid: str) -> MediaUsage:
        """The bytes of all recorded media of the user, and of the app."""

    @abstractmethod
    async def expired_media(self, now: float) -> list[str]:
        """The ids of expired media, in batches of bounded size; empty when no media have expired.

        The caller deletes the batch and calls this again.
        """
