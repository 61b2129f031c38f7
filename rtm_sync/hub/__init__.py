"""The domain rules on one node: sessions, channels, limits, routing, media."""
