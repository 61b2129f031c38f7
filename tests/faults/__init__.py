"""The fault suite: `python -m tests.faults --minutes 10 --seed 1`, and short runs in the suite."""
