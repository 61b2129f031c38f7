"""TLS of the gateway: certificate files that may be renewed while it serves."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from ..hub.tasks import supervised

_CHECK_INTERVAL = 10.0  # seconds

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its key, as PEM files.

    Args:
        chain: the certificate, followed by its intermediate certificates.
        key: the private key.

    Raises:
        OSError, ssl.SSLError: the files cannot be read, or do not belong together.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded = self._stamps()
        self.context.load_cert_chain(chain, key)

    async def watch(self, interval: float = _CHECK_INTERVAL) -> None:
        """Reload the files whenever they change, for new connections. Never returns."""

        async def check_repeatedly() -> None:
            while True:
                await asyncio.sleep(interval)
                self.reload_if_changed()

        await supervised("certificate", check_repeatedly)

    def reload_if_changed(self) -> bool:
        """Reload the files if they have changed. Returns whether that was done.

        Files that cannot be used are logged and ignored until they change again.
        """
        try:
            stamps = self._stamps()
            if stamps == self._loaded:
                return False
            self._loaded = stamps
            # Try a separate context first: a half-written pair must not break the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._chain, self._key)
            self.context.load_cert_chain(self._chain, self._key)
        except (OSError, ssl.SSLError) as error:
            logger.error("the renewed certificate cannot be used: %s", error)  # noqa: TRY400
            return False
        logger.info("the certificate was reloaded")
        return True

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        """Change when a file changes. The inode counts, because renewal often replaces the file."""
        found = (path.stat() for path in (self._chain, self._key))
        return tuple((item.st_ino, item.st_mtime_ns, item.st_size) for item in found)
