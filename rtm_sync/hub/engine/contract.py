"""The engine: five contracts for the cluster and storage operations that a hub uses.

`Directory` keeps the logged-in users, `Bus` carries messages and channels, `Mailbox` keeps the
offline messages, `Archive` keeps the history, `MediaIndex` keeps the records of stored media. The
`local` engine implements all five for one machine. A cluster may implement each with another back
end.

All methods of the five contracts follow these rules; a docstring states only additional ones.

- *One loop.* Methods are called on the hub's event loop, any number of them at once. None blocks
  the loop.
- *Time.* A method returns or raises within 10 seconds. Callers set no time-outs of their own,
  except where a docstring says so.
- *Errors.* `OSError` means that the back end failed (the disk is full, the cluster is unreachable,
  the engine is not running). The work may have been done nevertheless, so every method may be
  called again with the same arguments. An absent user is an answer and not an error:
  `Delivery.OFFLINE`, None, or an empty list.
- *Apps.* Users, channels and media of different apps are separate.
- *Durable* means: the data survives a crash of this process after the method has returned.
- *Ownership.* Neither side changes a value after passing or returning it.
"""

from __future__ import annotations

from .archive import Archive
from .bus import Bus
from .directory import Directory
from .mailbox import Mailbox
from .media_index import MediaIndex


class Engine(Directory, Bus, Mailbox, Archive, MediaIndex):
    """One object that implements all five contracts, with one `start` and one `stop`.

    The plugin hook `engine` returns such an object, and a hub is created with it.
    """
