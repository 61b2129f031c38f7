"""What a hub does for its users, one concern a module. Each service takes only what it needs."""
