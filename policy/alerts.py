"""Whom to tell when something is wrong, and where the logs go."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from policy.model import Model
from policy.stores import ValueSource

RUNBOOKS: Final = "docs/runbooks/{alert}.md"
"""Where the pages on the product's alerts are, in its repository: the links of those who name no place of their own."""

_ALERT: Final = "{alert}"


def runbook_link(alert: str, base: str | None = None) -> str:
    """Where to read what to do about an alert.

    Args:
        alert: its name.
        base: a URL with ``{alert}`` where the name goes, or one to append it to; the product's own pages by default.
    """
    place = base or RUNBOOKS
    return place.replace(_ALERT, alert) if _ALERT in place else f"{place.rstrip('/')}/{alert}"


class Channel(Model):
    """Where alerts of one kind go."""

    urls_from: ValueSource
    """Where the Apprise URLs are (one per line or separated by blanks): Slack, mail and many more."""


class Thresholds(Model):
    """From when on a run is worth an alert."""

    duration_seconds: Annotated[int, Field(ge=1, le=86400)] = 600
    """A run longer than this, in seconds."""
    failed_percent: Annotated[int, Field(ge=0, le=100)] = 5
    """More than this share of deletions failed. The run is Degraded, too."""
    active_sessions: Annotated[int, Field(ge=0, le=10**12)] = 5000
    """More live sessions than this; 0 for any number."""
    redis_memory_megabytes: Annotated[int, Field(ge=0, le=10**9)] = 1024
    """Redis uses more memory than this, in MiB; 0 for any amount."""
    cache_hit_percent: Annotated[int, Field(ge=0, le=100)] = 95
    """Fewer of Redis' look-ups find something than this share."""
    creation_rate_factor: Annotated[int, Field(ge=0, le=1000)] = 2
    """Sessions are created more than so many times as fast as in the run before; 0 for no limit."""


class Alerts(Model):
    """Alerts of a run. They hold counts and places to look, never ids in clear."""

    operations: Channel | None = None
    """Failed runs, failed deletions, stores that cannot be reached, thresholds."""
    security: Channel | None = None
    """Abnormal sessions."""
    thresholds: Thresholds = Thresholds()
    """From when on a run is worth an alert."""
    repeat_after_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 86400
    """A problem that stands is told again after this time, not with every run; in seconds."""
    runbook_url: Annotated[str, Field(max_length=512, pattern=r"^https?://\S+$")] | None = None
    """Links to your own runbooks: a URL to append the alert's name to, or one with {alert} where the name goes."""
