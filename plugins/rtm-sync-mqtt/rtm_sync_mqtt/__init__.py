"""The rtm-sync plugin for MQTT: one hook, which handles `mqtt://` and `mqtts://` URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtm_sync import hookimpl

if TYPE_CHECKING:
    from rtm_sync.transports.base import Transport, TransportOptions

__all__ = ["transport"]


@hookimpl
def transport(url: str, options: TransportOptions) -> Transport | None:
    """Implement the `transport` hook of rtm_sync."""
    if url.partition(":")[0] not in ("mqtt", "mqtts"):
        return None
    from .mqtt_transport import MqttTransport  # imports paho only when an MQTT URL is used

    return MqttTransport(url, options)
