"""The gateway: an aiohttp process that serves a hub over HTTP and WebSocket."""
