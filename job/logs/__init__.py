"""Structured logs, log files and hashed identifiers."""
