"""The parts of `TransportContract`, by concern."""
