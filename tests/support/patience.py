"""How long tests wait for what is sure to come."""

from __future__ import annotations

PATIENCE_SECONDS = 240.0
"""Enough for the slowest machine, and less than a test may take. Who waits so long has found a fault."""
