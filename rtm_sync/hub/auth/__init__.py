"""Authentication: tokens, the keys that verify them, and the login policy."""
