"""The gateway process: builds the aiohttp application of a hub, serves it, and drains it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import TypedDict, cast

from aiohttp import web

from ..errors import PluginError
from ..hub.metrics_sink import MetricsSink
from ..hub.node import Hub
from ..hub.tasks import cancel_other_tasks
from ..plugins.loader import PluginManager, plugin_manager
from ..portable import (
    STOP_SIGNALS,
    create_privately,
    folder_url,
    on_hangup,
    on_signal,
    raise_open_file_limit,
)
from ..rules.limits import Limits
from ..supervision import start_thread
from .app_secrets import AppSecrets, verifiers_of
from .config import ConfigError, GatewayConfig, parse_networks
from .data_folder import held_folders
from .downloads import Downloads
from .errors import MEDIA_PATH, SIGNALLING_PATH
from .guard.addresses import Addresses
from .guard.auth_failures import AuthFailureLimiter
from .guard.connections import ConnectionLimiter
from .guard.idle import IdleConnectionReaper
from .guard.origins import Origins
from .guard.request_context import RequestContextMiddleware
from .logs import AccessLog, access_logger, logged, server_logger
from .metrics import Metrics
from .readiness import Readiness
from .rest import EventLog, Rest
from .tls import Certificate
from .tus import Uploads
from .websocket import Signalling

_CLOSE_TIMEOUT = 1.0  # seconds that interrupted requests get to end
_HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS; afterwards the `IdleConnectionReaper` takes over
_READ_BUFFER = 64 * 1024  # measured: no slower than 256 KB, and a third of the memory

HubFactory = Callable[[GatewayConfig, EventLog, MetricsSink], Hub]

logger = logging.getLogger(__name__)


def make_hub(
    config: GatewayConfig,
    events: EventLog,
    metrics_sink: MetricsSink,
    plugins: PluginManager = plugin_manager,
    now: Callable[[], float] = time.time,
) -> Hub:
    """The hub that a configuration describes.

    Args:
        config: the configuration.
        events: records logins, logouts, joins and leaves.
        metrics_sink: receives the hub's metrics.
        plugins: serve the URLs of the engine and the media store.
        now: the wall clock, seconds since the epoch.

    Raises:
        ConfigError: a key of an app cannot be used.
        PluginError: no plugin serves the engine's or the media store's URL.
        OSError: the data folder cannot be used.
    """
    data = Path(config.data).absolute()
    return Hub(
        plugins.engine(config.engine or folder_url("local", data)),
        plugins.media_store(config.media or folder_url("disk", data / "media")),
        limits=Limits.parse(config.limits),
        verifiers=verifiers_of(config, plugins),
        now=now,
        observe=events.add,
        metrics_sink=metrics_sink,
    )


class RunningTransfers:
    """A middleware that counts the running uploads and downloads."""

    def __init__(self) -> None:
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def finished(self, timeout: float) -> None:
        """Wait until no transfer runs, at most `timeout` seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)

    @web.middleware
    async def count(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if not request.path.startswith(MEDIA_PATH):
            return await handler(request)
        self._running += 1
        self._idle.clear()
        try:
            return await handler(request)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()


def make_app(
    hub: Hub,
    transfers: RunningTransfers,
    reaper: IdleConnectionReaper,
    addresses: Addresses,
    origins: Origins,
    events: EventLog,
    app_secrets: AppSecrets,
    silence: float,
    readiness: Readiness,
) -> web.Application:
    """The aiohttp application of a hub. The caller starts and stops the hub."""
    app = web.Application(
        middlewares=[
            RequestContextMiddleware(addresses).begin,
            reaper.note,
            AuthFailureLimiter(addresses).check,
            origins.check,
            transfers.count,
        ]
    )
    app.on_response_prepare.append(origins.mark)
    uploads, downloads = Uploads(hub, MEDIA_PATH), Downloads(hub)

    async def head(request: web.Request) -> web.StreamResponse:
        answer = uploads.head if "Tus-Resumable" in request.headers else downloads.get
        return await answer(request)

    app.router.add_get(SIGNALLING_PATH, Signalling(hub, silence).handle)
    app.router.add_routes(uploads.routes())
    app.router.add_get(MEDIA_PATH + "/{media_id}", downloads.get, allow_head=False)
    app.router.add_head(MEDIA_PATH + "/{media_id}", head)
    app.router.add_routes(Rest(hub, uploads, events, app_secrets).routes())

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readiness.handle)
    return app


@contextlib.asynccontextmanager
async def _metrics_site(metrics: Metrics, address: tuple[str, int] | None) -> AsyncIterator[None]:
    """Serve the metrics on a separate address, because only the operator may read them."""
    if address is None:
        yield
        return
    app = web.Application()
    app.router.add_get("/metrics", metrics.handle)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, *address).start()
        yield
    finally:
        await runner.cleanup()


async def serve(
    config: GatewayConfig,
    stop: asyncio.Event,
    on_ready: Callable[[str], object],
    hub_of: HubFactory = make_hub,
    reload: Callable[[], GatewayConfig] | None = None,
) -> None:
    """Serve until `stop` is set, then drain.

    Draining: the gateway accepts no new connections, and running transfers get `config.drain`
    seconds to finish.

    Args:
        config: the configuration.
        stop: ends the serving.
        on_ready: called with the gateway's URL (`ws://host:port`) once it accepts connections.
        hub_of: creates the configuration's hub.
        reload: reads the configuration again at SIGHUP, to replace the apps and their keys. Never
            called on Windows, which has no such signal.

    Raises:
        ConfigError: another gateway uses a folder of this one, or the certificate cannot be used.
        OSError: the port or the data folder cannot be used.
    """
    with held_folders(config) as folders:
        events = EventLog()
        metrics = Metrics()
        hub = hub_of(config, events, metrics)
        metrics.watch(hub)
        transfers, reaper = RunningTransfers(), IdleConnectionReaper()
        app_secrets = AppSecrets(config)
        addresses = Addresses(parse_networks(config.proxies))
        origins = Origins(config.origins.split(), addresses, lambda: app_secrets.is_open)

        async def serving_problem() -> str | None:
            return "draining" if stop.is_set() else None

        async def folder_problem() -> str | None:
            found = await asyncio.to_thread(lambda: [folder.problem() for folder in folders])
            return next(filter(None, found), None)

        readiness = Readiness([serving_problem, folder_problem, hub.problem])
        runner = web.AppRunner(
            make_app(
                hub,
                transfers,
                reaper,
                addresses,
                origins,
                events,
                app_secrets,
                config.silence,
                readiness,
            ),
            access_log=access_logger,
            access_log_class=AccessLog,
            logger=server_logger,
            handle_signals=False,
            shutdown_timeout=_CLOSE_TIMEOUT,
            read_bufsize=_READ_BUFFER,
        )
        await runner.setup()
        try:
            await hub.start()
            try:
                certificate = _certificate(config)
                assert runner.server is not None
                listener = await asyncio.get_running_loop().create_server(
                    ConnectionLimiter(runner.server, addresses, config.connections_per_address),
                    config.host,
                    config.port,
                    backlog=1024,
                    **_tls_options(certificate),
                )
                watches = [asyncio.ensure_future(reaper.watch(runner.server))]
                if certificate is not None:
                    watches.append(asyncio.ensure_future(certificate.watch()))
                async with _metrics_site(metrics, config.metrics_address):
                    if reload is not None:
                        _reload_at_hangup(reload, hub, app_secrets)
                    url = _url(config.host, listener, secure=certificate is not None)
                    logger.info("serving %s", url, extra={"event": "serving", "url": url})
                    on_ready(url)
                    await stop.wait()
                logger.info("draining", extra={"event": "draining"})
                for watch in watches:
                    watch.cancel()
                listener.close()
                hub.disconnect_all()
                # Before `cleanup`, because aiohttp reads no more request bodies after it.
                await transfers.finished(config.drain)
            finally:
                hub.disconnect_all()
                await runner.cleanup()
        finally:
            await readiness.close()
            await hub.stop()


def _reload_at_hangup(
    reload: Callable[[], GatewayConfig], hub: Hub, app_secrets: AppSecrets
) -> None:
    """Replace the apps at SIGHUP. A configuration with an error changes nothing."""

    def replace_apps() -> None:
        try:
            config = reload()
            verifiers = verifiers_of(config)
            if verifiers is None or app_secrets.is_open:
                raise ConfigError(
                    "a reload cannot begin or end serving without apps; restart the gateway."
                )
        except (ConfigError, PluginError) as error:
            logger.error("the apps stay as they were: %s", error)  # noqa: TRY400
            return
        hub.replace_verifiers(verifiers)
        app_secrets.replace(config)
        count = len(verifiers)
        logger.info("%d apps were read again", count, extra={"event": "apps", "apps": count})

    on_hangup(replace_apps)


def run(
    config: GatewayConfig,
    on_ready: Callable[[str], object],
    reload: Callable[[], GatewayConfig] | None = None,
) -> None:
    """Serve in this process until a signal of `STOP_SIGNALS`. Uses uvloop where it is installed.

    Args:
        config, on_ready, reload: as for `serve`.
    """

    async def main() -> None:
        stop = asyncio.Event()
        for number in STOP_SIGNALS:
            on_signal(number, stop.set)
        await serve(config, stop, on_ready, reload=reload)

    raise_open_file_limit()
    create_privately()
    with logged(config.log_level, config.log_format):
        run_loop(main())


def run_loop(main: Coroutine[object, object, None]) -> None:
    """`asyncio.run`, on uvloop where it is installed."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    loop = (factory or asyncio.new_event_loop)()
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main)
    finally:
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(
                cancel_other_tasks()
            )  # aiohttp leaves tasks of aborted connections
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


class BackgroundGateway:
    """A gateway on a thread of this process, for demos and tests: a context manager.

    Owns one thread, from `start` to `stop`.

    Args:
        config: the configuration.
        hub_of: creates the configuration's hub.

    Attributes:
        url: the URL for `RtmClient(url=…)`; empty before `start`.
    """

    def __init__(self, config: GatewayConfig, hub_of: HubFactory = make_hub) -> None:
        self._config = config
        self._hub_of = hub_of
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.url = ""

    def start(self) -> BackgroundGateway:
        """Start, and wait until the gateway accepts connections. Raises the error of the start."""
        self._thread = start_thread("rtm-sync-gateway", self._run)
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def stop(self) -> None:
        """Drain and stop. Idempotent."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):  # its loop is closed already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> BackgroundGateway:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            await serve(self._config, self._stop, self._started, self._hub_of)

        try:
            run_loop(main())
        except BaseException as error:
            self._error = error
            if self._ready.is_set():
                logger.exception("the background gateway failed")
        finally:
            self._ready.set()

    def _started(self, url: str) -> None:
        self.url = url
        self._ready.set()


def _certificate(config: GatewayConfig) -> Certificate | None:
    if not config.tls_cert:
        return None
    try:
        return Certificate(Path(config.tls_cert), Path(config.tls_key))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"tls_cert {config.tls_cert!r} and tls_key cannot be used: {error}."
        ) from error


class _TlsOptions(TypedDict, total=False):
    ssl: ssl.SSLContext
    ssl_handshake_timeout: float


def _tls_options(certificate: Certificate | None) -> _TlsOptions:
    if certificate is None:
        return {}
    return {"ssl": certificate.context, "ssl_handshake_timeout": _HANDSHAKE_TIMEOUT}


def _url(host: str, listener: asyncio.AbstractServer, *, secure: bool) -> str:
    port = cast(asyncio.Server, listener).sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    return f"{'wss' if secure else 'ws'}://{shown}:{port}"
