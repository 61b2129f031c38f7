"""How a client reaches a hub."""
