"""The hub: the domain rules of one node (sessions, channels, limits, routing, media)."""
