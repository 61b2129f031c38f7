"""The gateway: an aiohttp process that gives a hub an HTTP and WebSocket face."""
