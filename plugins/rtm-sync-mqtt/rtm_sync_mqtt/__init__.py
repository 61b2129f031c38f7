"""The rtm-sync plugin: one hook, which serves `mqtt://` and `mqtts://` URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtm_sync import hookimpl

if TYPE_CHECKING:
    from rtm_sync.transports.base import Transport, TransportOptions

__all__ = ["transport"]


@hookimpl
def transport(url: str, options: TransportOptions) -> Transport | None:
    """Answer `rtm_sync`'s hook of this name."""
    if url.partition(":")[0] not in ("mqtt", "mqtts"):
        return None
    from .mqtt_transport import MqttTransport  # paho is imported by those who use it

    return MqttTransport(url, options)
