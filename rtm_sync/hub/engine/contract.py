"""The engine's five contracts: what a hub asks of the world beyond its node.

`Directory` knows who is logged in, `Bus` carries messages and channels, `Mailbox` keeps what waits
for a user, `Archive` keeps the history, `MediaIndex` keeps the records of stored media. `local.py`
implements all five for one machine. A cluster may implement each with another back end.

Every method of the five keeps these rules; a docstring states only what goes beyond them.

- *One loop.* Methods are called on the hub's event loop, any number of them at once. None blocks
  the loop.
- *Time.* A method returns or raises within 10 seconds. Callers set no time-outs of their own,
  except where a docstring says so.
- *Errors.* `OSError` means that the back end could not do it (the disk is full, the cluster is
  away, it was not started or was stopped). The work may have been done nevertheless, so every
  method may be called again with the same arguments. "Nobody is there" is an answer and not an
  error: `Delivery.OFFLINE`, None, or an empty list.
- *Apps.* Users, channels and media of different apps have nothing to do with each other.
- *Durable* means: it survives a crash of this process that happens after the method returned.
- *Ownership.* Values that are passed in or returned are not changed afterwards by either side.
"""

from __future__ import annotations

from .archive import Archive
from .bus import Bus
from .directory import Directory
from .mailbox import Mailbox
from .media_index import MediaIndex


class Engine(Directory, Bus, Mailbox, Archive, MediaIndex):
    """One object that implements all five contracts, with one `start` and one `stop`.

    This is what the plugin hook `engine` answers with and what a hub is given.
    """
