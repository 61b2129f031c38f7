"""Attacks by one user, app or local account on the others."""
