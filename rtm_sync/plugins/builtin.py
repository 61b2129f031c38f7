"""The built-in plugin. It implements the same hooks as other plugins, and imports on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .hookspecs import hookimpl

if TYPE_CHECKING:
    from ..hub.auth.tokens import TokenVerifier
    from ..hub.engine.contract import Engine
    from ..hub.media.store import MediaStore
    from ..transports.base import Transport, TransportOptions


@hookimpl
def transport(url: str, options: TransportOptions) -> Transport | None:
    scheme = url.partition(":")[0]
    if scheme in ("ws", "wss", "http", "https"):
        from ..transports.gateway.transport import GatewayTransport

        return GatewayTransport(url, options)
    if scheme == "memory":
        from ..transports.embedded import EmbeddedTransport

        return EmbeddedTransport(url, options)
    return None


@hookimpl
def engine(url: str) -> Engine | None:
    if url.startswith("local:"):
        from ..hub.local.engine import LocalEngine

        return LocalEngine.from_url(url)
    return None


@hookimpl
def media_store(url: str) -> MediaStore | None:
    scheme = url.partition(":")[0]
    if scheme == "disk":
        from ..hub.media.disk import DiskMediaStore

        return DiskMediaStore.from_url(url)
    if scheme == "memory":
        from ..hub.media.memory import MemoryMediaStore

        return MemoryMediaStore()
    return None


@hookimpl(trylast=True)  # this verifier serves every app
def token_verifier(app_id: str, secret: str, clock_skew: float) -> TokenVerifier | None:
    from ..hub.auth.tokens import JwtVerifier

    return JwtVerifier(app_id, secret, clock_skew)
