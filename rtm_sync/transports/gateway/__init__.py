"""The gateway transport: WebSocket for calls and events, HTTP for media."""
