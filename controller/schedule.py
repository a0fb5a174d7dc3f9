"""When the next run is due: for display only, the API server alone judges what a schedule may be."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import croniter

from policy.spec import SessionPolicySpec

_FIELDS = 5


def next_run(spec: SessionPolicySpec, after: datetime) -> datetime | None:
    """The next time the policy's schedule starts a run; None if suspended, or if the schedule cannot be read."""
    if spec.suspend or len(spec.schedule.split()) != _FIELDS:
        return None
    try:
        local = after.astimezone(ZoneInfo(spec.time_zone))
        found: datetime = croniter(spec.schedule, local).get_next(datetime)
    except (ValueError, KeyError, OSError):  # croniter's errors are ValueErrors; ZoneInfo's a KeyError or OSError
        return None
    return found.astimezone(UTC)
