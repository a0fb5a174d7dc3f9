"""When runs are due: for display, and to notice that one was not started.

The API server alone decides what a valid schedule is, and kube-controller-manager when it starts a run. Where they
might read a schedule differently from the library used here, nothing is reported.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from croniter import croniter

from controller.manifests.cronjob import STARTING_DEADLINE_SECONDS
from policy.spec import SessionPolicySpec

MOST_MISSED: Final = 100
"""No more missed runs are counted at once; so many stand for "this many or more"."""

_FIELDS: Final = 5
_DAY_OF_MONTH, _DAY_OF_WEEK = 2, 4

# A run may be started until the last moment of its deadline, and the CronJob's status follows a little later.
_GIVEN_UP: Final = timedelta(seconds=STARTING_DEADLINE_SECONDS + 30)

# The CronJob's status usually shows by then that a run was started; then no further check is needed.
_STARTED: Final = timedelta(seconds=10)

# Enough to find so many runs although some fall into hours that the time zone has twice, or not at all.
_MOST_STEPS: Final = 3 * MOST_MISSED


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


def missed_runs(spec: SessionPolicySpec, since: datetime, now: datetime) -> tuple[datetime, ...]:
    """The times at which a run was due and which are past their starting deadline, newest first.

    Times in hours that the zone has twice or not at all are left out: implementations differ on them. At
    most `MOST_MISSED` are returned, the newest.

    Args:
        spec: the policy's spec.
        since: only times after this; when a run was last started, or the CronJob last changed.
        now: the present.
    """
    return _due(spec, since, now - _GIVEN_UP)


def look_again_seconds(spec: SessionPolicySpec, since: datetime, now: datetime) -> float | None:
    """After how many seconds to check whether a run was started; None if none is ever due.

    Args:
        spec: the policy's spec.
        since: as for `missed_runs`.
        now: the present.
    """
    upcoming = next_run(spec, now)
    if upcoming is None:
        return None
    looks = [upcoming + _STARTED]
    waiting = _due(spec, max(since, now - _GIVEN_UP), now)
    if waiting and waiting[0] + _STARTED > now:
        looks.append(waiting[0] + _STARTED)
    elif waiting:
        looks.append(waiting[0] + _GIVEN_UP)  # where runs are due more often than that, a check after each is enough
    # A second later: times are whole seconds, and to wake up too early would be to wake up twice.
    return (min(looks) - now).total_seconds() + 1


def _due(spec: SessionPolicySpec, after: datetime, until: datetime) -> tuple[datetime, ...]:
    """When runs were due after one time and until another, newest first."""
    if spec.suspend or not _is_read_alike(spec.schedule):
        return ()
    found: list[datetime] = []
    try:
        zone = ZoneInfo(spec.time_zone)
        # In local time without a zone: croniter differs from Kubernetes in the nights when clocks change.
        times = croniter(spec.schedule, until.astimezone(zone).replace(tzinfo=None) + timedelta(seconds=1))
        for _ in range(_MOST_STEPS):
            due = _in_zone(times.get_prev(datetime), zone)
            if due is not None and due <= after:
                break
            if due is not None and due <= until:
                found.append(due)
            if len(found) == MOST_MISSED:
                break
    except (ValueError, KeyError, OSError):
        return ()
    return tuple(found)


def _in_zone(wall: datetime, zone: ZoneInfo) -> datetime | None:
    """The one moment at which clocks in the zone show this time; None if there is none, or if there are two."""
    first, second = wall.replace(tzinfo=zone, fold=0), wall.replace(tzinfo=zone, fold=1)
    if first.utcoffset() != second.utcoffset():
        return None
    return first.astimezone(UTC)


def _is_read_alike(schedule: str) -> bool:
    """Whether croniter and Kubernetes read it alike: they differ on days of the month and of the week with steps."""
    fields = schedule.split()
    if len(fields) != _FIELDS:
        return False
    days = (fields[_DAY_OF_MONTH], fields[_DAY_OF_WEEK])
    return any(day in ("*", "?") for day in days) or not any("*" in day for day in days)
