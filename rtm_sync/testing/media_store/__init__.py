"""The parts of `MediaStoreContract`, by concern."""
