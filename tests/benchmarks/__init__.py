"""Measurements side by side, as ratios within one run: `python -m tests.benchmarks`."""
