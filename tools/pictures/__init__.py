"""The documentation's pictures of a dashboard and a trace, drawn from real runs: ``python -m tools.pictures``."""
