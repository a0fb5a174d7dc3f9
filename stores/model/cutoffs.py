"""Cutoffs: the times before which a session has expired, from the timeouts of a policy (R4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from policy.profiles import Lifetime


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """The times before which a session has expired by each timeout; fixed for the whole run.

    Attributes:
        idle: last used before this.
        absolute: began before this; None where there is no absolute timeout.
        expiry: the application's own expiry lies before this.
    """

    idle: datetime
    absolute: datetime | None
    expiry: datetime


def cutoffs(now: datetime, lifetime: Lifetime, skew_seconds: int) -> Cutoffs:
    """The cutoffs of a run.

    Args:
        now: by the store's own clock.
        lifetime: timeouts in seconds.
        skew_seconds: how far an application server's clock may be from the store's; a session gets that much longer.
    """
    latest = now - timedelta(seconds=skew_seconds)
    return Cutoffs(
        idle=latest - timedelta(seconds=lifetime.idle),
        absolute=latest - timedelta(seconds=lifetime.absolute) if lifetime.absolute else None,
        expiry=latest,
    )


def narrowest(lifetime: Lifetime, idle: int | None, absolute: int | None) -> Lifetime:
    """The lifetime with a stored setting applied: whichever ends a session sooner wins."""
    return Lifetime(
        idle=min(lifetime.idle, idle) if idle else lifetime.idle,
        absolute=min((a for a in (lifetime.absolute, absolute) if a), default=None),
    )
