"""Deadlines, retries, pacing and work in the background."""
