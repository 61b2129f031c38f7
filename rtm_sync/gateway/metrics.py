"""Prometheus metrics of one gateway."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from ..hub.metrics_sink import MetricsSink
from ..hub.node import Hub
from ..supervision import loop_failures

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics(MetricsSink):
    """The Prometheus metrics sink. `docs/operations.md` lists the metrics; none has a user id."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._messages = Counter(
            "rtm_messages",
            "Messages by kind and outcome",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "rtm_message_seconds",
            "Seconds from a message's arrival at the hub to its answer, including the receipt",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._logins = Counter(
            "rtm_logins", "Logins by outcome", ["outcome"], registry=self.registry
        )
        self._ended = Counter(
            "rtm_sessions_ended",
            "Ended sessions by reason",
            ["reason"],
            registry=self.registry,
        )
        self._media = Counter("rtm_media_uploads", "Media stored", registry=self.registry)
        self._bytes = Counter(
            "rtm_media_bytes", "Bytes of media", ["direction"], registry=self.registry
        )

    def watch(self, hub: Hub) -> None:
        """Read this hub's gauges at every scrape."""
        self.registry.register(_Gauges(hub))

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a scrape."""
        return web.Response(
            body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    # -- MetricsSink --

    def message(self, kind: str, outcome: str, seconds: float) -> None:
        self._messages.labels(kind, outcome).inc()
        self._seconds.labels(kind).observe(seconds)

    def login(self, outcome: str) -> None:
        self._logins.labels(outcome).inc()

    def session_ended(self, reason: str) -> None:
        self._ended.labels(reason).inc()

    def uploaded(self, size: int) -> None:
        self._media.inc()
        self._bytes.labels("up").inc(size)

    def downloaded(self, size: int) -> None:
        self._bytes.labels("down").inc(size)


class _Gauges(Collector):
    """The values that are read at each scrape."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        hub = self._hub
        for name, text, value in (
            (
                "rtm_sessions",
                "Sessions, with or without a connection",
                hub.session_count,
            ),
            ("rtm_connections", "Sessions with a connection", hub.connection_count),
            ("rtm_queued_frames", "Frames that clients have not acknowledged", hub.queued_frames),
            ("rtm_channels", "Channels with members on this node", hub.channel_count),
            ("rtm_unfinished_uploads", "Unfinished uploads", hub.media.unfinished_count),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        failures = CounterMetricFamily(
            "rtm_loop_failures",
            "Failures of background loops, which were restarted, by loop",
            labels=["loop"],
        )
        for loop, count in loop_failures().items():
            failures.add_metric([loop], count)
        yield failures
