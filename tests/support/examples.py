"""How many examples Hypothesis tries where each one costs a whole run."""

from __future__ import annotations

from hypothesis import settings


def at_most(number: int) -> int:
    """So many, or fewer where the profile says so: `make test` is content with a few."""
    return min(number, settings().max_examples)
