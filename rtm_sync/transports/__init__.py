"""The transports, which connect a client to a hub."""
