"""Tests of the command line, as a shell sees it: child processes."""
