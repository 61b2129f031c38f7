"""The engine of one machine: state in memory, and SQLite for durable data."""
