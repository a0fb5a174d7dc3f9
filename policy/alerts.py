"""The part of the spec that says where alerts are sent, and from which thresholds on."""

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
    """Where alerts of one kind are sent."""

    urls_from: ValueSource
    """Apprise URLs (one per line, or separated by blanks): Slack, mail and many more services."""


class Thresholds(Model):
    """Thresholds from which on a run sends an alert."""

    duration_seconds: Annotated[int, Field(ge=1, le=86400)] = 600
    """Maximum duration of a run in seconds; above it the run alerts."""
    failed_percent: Annotated[int, Field(ge=0, le=100)] = 5
    """Maximum percentage of failed deletions; above it the run alerts and is Degraded."""
    active_sessions: Annotated[int, Field(ge=0, le=10**12)] = 5000
    """Maximum number of live sessions; above it the run alerts. 0 means no limit."""
    redis_memory_megabytes: Annotated[int, Field(ge=0, le=10**9)] = 1024
    """Maximum memory of Redis in MiB; above it the run alerts. 0 means no limit."""
    cache_hit_percent: Annotated[int, Field(ge=0, le=100)] = 95
    """Minimum Redis hit ratio in percent; below it the run alerts."""
    creation_rate_factor: Annotated[int, Field(ge=0, le=1000)] = 2
    """Maximum growth of the session creation rate since the previous run, as a factor; above it the run alerts. 0 means
    no limit."""


class Alerts(Model):
    """Alerts of a run. They hold counts and where to look, never ids in clear."""

    operations: Channel | None = None
    """Failed runs, failed deletions, stores that cannot be reached, thresholds."""
    security: Channel | None = None
    """Abnormal sessions."""
    thresholds: Thresholds = Thresholds()
    """Thresholds from which on a run sends an alert."""
    repeat_after_seconds: Annotated[int, Field(ge=0, le=30 * 86400)] = 86400
    """How long a problem that persists is not reported again, in seconds."""
    runbook_url: Annotated[str, Field(max_length=512, pattern=r"^https?://\S+$")] | None = None
    """URL of your own runbooks: the alert's name is appended, or replaces {alert}."""
