"""When the synchronisation does not believe what it sees."""

from __future__ import annotations

from datetime import datetime, timedelta

from job.steps.context import RunContext
from job.steps.safety import exceeds_share
from stores.model.errors import SafetyLimitError

# A time further ahead than any mistake in a zone is not a time: it must not protect a session for years.
_FAR_FUTURE = timedelta(days=1)


def is_young(now: datetime, grace_seconds: int, *moments: datetime | None) -> bool:
    """Whether any of these moments lies less than the grace ago: whatever it belongs to may not be finished yet."""
    earliest, latest = now - timedelta(seconds=grace_seconds), now + _FAR_FUTURE
    return any(moment is not None and earliest < moment <= latest for moment in moments)


def check_share(context: RunContext, found: int, total: int, what: str, remedy: str) -> None:
    """Asks the policy whether so many may go.

    Raises:
        SafetyLimitError: they may not.
    """
    safety = context.spec.safety
    if not exceeds_share(found, total, safety):
        return
    numbers = f"{found} of {total} {what}, over safety.maxDeletePercent ({safety.max_delete_percent} %)"
    if context.dry_run:
        # A dry run goes on: it is there to show what a run would meet.
        context.log.warning("safety limit", found=found, of=total, because=f"{numbers}: a run would stop here")
        return
    raise SafetyLimitError(
        f"{numbers}: {remedy} None of them was deleted. If this is right, raise safety.maxDeletePercent for one run"
    )
