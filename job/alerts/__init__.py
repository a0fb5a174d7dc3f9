"""Alerts of a run (R2, R5): which problems it found, which of them to send now, and to which channels."""
