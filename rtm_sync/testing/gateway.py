"""A real gateway on a free loopback port, while a `with` block runs."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..plugins.hookspecs import hookimpl
from ..plugins.loader import plugin_manager

if TYPE_CHECKING:
    from ..hub.engine.contract import Engine


@contextlib.contextmanager
def local_gateway(
    data: Path | None = None,
    *,
    app_id: str = "",
    app_secret: str = "",
    media: str = "",
    plugins: Iterable[object] = (),
    now: Callable[[], float] | None = None,
) -> Iterator[str]:
    """Run a gateway on a thread of this process; yields its URL for `RtmClient(url=…)`.

    Args:
        data: its data folder; a temporary one when not given.
        app_id, app_secret: the app whose tokens it checks; without them it checks no tokens.
        media: URL of its media store; files in the data folder when not given.
        plugins: plugin objects that it asks before all others.
        now: its wall clock, such as a `VirtualClock`; the system's when not given.
    """
    from ..gateway.app import BackgroundGateway, make_hub
    from ..gateway.config import GatewayConfig

    with contextlib.ExitStack() as stack:
        if data is None:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtm-sync-")))
        config = GatewayConfig(
            port=0, data=str(data), app_id=app_id, app_secret=app_secret, media=media
        )
        if now is not None:
            plugins = (*plugins, _LocalEngineAt(data, now))
        hub_of = functools.partial(
            make_hub, plugins=plugin_manager.extended(plugins), now=now or time.time
        )
        yield stack.enter_context(BackgroundGateway(config, hub_of)).url


class _LocalEngineAt:
    """A plugin: the gateway's own engine, with another clock."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._file = folder / "rtm.sqlite3"
        self._now = now

    @hookimpl
    def engine(self, url: str) -> Engine | None:
        from ..hub.local.engine import LocalEngine

        return LocalEngine(self._file, self._now) if url.startswith("local:") else None
