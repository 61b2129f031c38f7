"""The suite: `python -m unittest` from the repository's top. Mirrors the house."""
