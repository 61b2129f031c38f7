"""The engine contracts: the cluster and storage operations that a hub uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy_names import lazy_names

if TYPE_CHECKING:
    from .archive import Archive, HistoryQuery
    from .bus import Bus, Recovered
    from .contract import Engine
    from .directory import Claim, Directory
    from .mailbox import Mailbox, MailboxFull, MailboxLimits, StoredMessage, StoredMessages
    from .media_index import MediaIndex, MediaUsage
    from .node import ChannelEvent, Delivery, Node
    from .part import EnginePart
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".archive": (
                "Archive",
                "HistoryQuery",
            ),
            ".bus": (
                "Bus",
                "Recovered",
            ),
            ".contract": ("Engine",),
            ".directory": (
                "Claim",
                "Directory",
            ),
            ".mailbox": (
                "Mailbox",
                "MailboxFull",
                "MailboxLimits",
                "StoredMessage",
                "StoredMessages",
            ),
            ".media_index": (
                "MediaIndex",
                "MediaUsage",
            ),
            ".node": (
                "ChannelEvent",
                "Delivery",
                "Node",
            ),
            ".part": ("EnginePart",),
        },
    )

__all__ = [
    "Archive",
    "Bus",
    "ChannelEvent",
    "Claim",
    "Delivery",
    "Directory",
    "Engine",
    "EnginePart",
    "HistoryQuery",
    "Mailbox",
    "MailboxFull",
    "MailboxLimits",
    "MediaIndex",
    "MediaUsage",
    "Node",
    "Recovered",
    "StoredMessage",
    "StoredMessages",
]
