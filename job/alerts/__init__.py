"""Alerts (R2, R5): which problems a run has met, which of them are told, and to whom."""
