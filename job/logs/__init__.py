"""Structured logs of a run: JSON lines on standard output and on the log volume, with hashed ids."""
