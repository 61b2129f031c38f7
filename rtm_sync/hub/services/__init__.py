"""The services of a hub, one concern a module. Each takes only the contracts that it uses."""
