"""The gateway's own TLS: certificate files that may be renewed while it serves."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from ..hub.tasks import supervised

_LOOK_INTERVAL = 10.0

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its key, as PEM files.

    Args:
        chain: the certificate, and those up to the authority.
        key: the private key.

    Raises:
        OSError, ssl.SSLError: the files cannot be read, or do not belong together.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._stamps()
        self.context.load_cert_chain(chain, key)

    async def watch(self, interval: float = _LOOK_INTERVAL) -> None:
        """Load the files again whenever they change, for connections to come. Never returns."""

        async def look_for_ever() -> None:
            while True:
                await asyncio.sleep(interval)
                self.look()

        await supervised("certificate", look_for_ever)

    def look(self) -> bool:
        """Load the files again if they have changed; True when that was done.

        Files that cannot be used leave everything as it was, until they change again.
        """
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return False
            self._seen = stamps
            # In a context of its own first: half a pair must not spoil the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._chain, self._key)
            self.context.load_cert_chain(self._chain, self._key)
        except (OSError, ssl.SSLError) as error:
            logger.error("the renewed certificate cannot be used: %s", error)  # noqa: TRY400
            return False
        logger.info("the certificate was loaded again")
        return True

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        """What tells a changed file: a renewed one is often another file under the old name."""
        found = (path.stat() for path in (self._chain, self._key))
        return tuple((item.st_ino, item.st_mtime_ns, item.st_size) for item in found)
