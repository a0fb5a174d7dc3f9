"""What keeps the synchronisation from deleting sessions that only look wrong."""

from __future__ import annotations

from datetime import datetime, timedelta

from job.steps.context import RunContext
from job.steps.safety import exceeds_share
from stores.model.errors import SafetyLimitError

# A time further ahead than any mistake in a zone is no time: it must not protect a session for years.
_FAR_FUTURE = timedelta(days=1)


def is_young(now: datetime, grace_seconds: int, *moments: datetime | None) -> bool:
    """Whether any of these moments lies less than the grace ago: whatever it belongs to may not be finished yet."""
    earliest, latest = now - timedelta(seconds=grace_seconds), now + _FAR_FUTURE
    return any(moment is not None and earliest < moment <= latest for moment in moments)


def check_share(context: RunContext, found: int, total: int, what: str, remedy: str) -> None:
    """Refuses to delete more than ``safety.maxDeletePercent``; a dry run logs that a run would.

    Args:
        context: the run.
        found: how many would be deleted.
        total: of how many.
        what: what is wrong with them, for people; after the numbers.
        remedy: what to check.

    Raises:
        SafetyLimitError: there are more.
    """
    safety = context.spec.safety
    if not exceeds_share(found, total, safety):
        return
    exceeded = f"{found} of {total} {what}, more than safety.maxDeletePercent ({safety.max_delete_percent} %)"
    if context.dry_run:
        # A dry run continues: it is there to show what a run would find.
        context.log.warning("safety limit exceeded", found=found, of=total, because=f"{exceeded}; a run would refuse")
        return
    raise SafetyLimitError(
        f"refused: {exceeded}; none of them was deleted. {remedy}; if so, raise the limit for one run"
    )
