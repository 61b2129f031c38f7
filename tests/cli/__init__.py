"""Tests of the command line, mostly with child processes, as a shell runs it."""
