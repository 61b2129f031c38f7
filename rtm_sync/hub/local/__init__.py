"""The engine of one machine: dictionaries, and SQLite for what must last."""
