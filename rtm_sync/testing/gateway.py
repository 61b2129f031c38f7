"""A real gateway on a free loopback port, for the time of a `with` block."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def local_gateway(
    data: Path | None = None, *, app_id: str = "", app_secret: str = ""
) -> Iterator[str]:
    """Run a gateway on a thread of this process; yields its URL for `RtmClient(url=…)`.

    Args:
        data: its data folder; a temporary one when not given.
        app_id, app_secret: the app whose tokens it checks; without them anybody may log in.
    """
    from ..gateway.app import BackgroundGateway
    from ..gateway.config import GatewayConfig

    with contextlib.ExitStack() as stack:
        if data is None:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtm-sync-")))
        config = GatewayConfig(port=0, data=str(data), app_id=app_id, app_secret=app_secret)
        yield stack.enter_context(BackgroundGateway(config)).url
