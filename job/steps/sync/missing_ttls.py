"""R3.5: session keys without a TTL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from job.steps.context import RunContext
from policy.lifetime import resolve_lifetime
from stores.redis.store import RedisStore

_MIN_TTL_SECONDS = 60.0


def add_ttls(context: RunContext, redis: RedisStore, ids: Sequence[str]) -> None:
    """Adds a TTL to the keys of these sessions, which have none; not in a dry run.

    It is what is left until the absolute timeout or, without one, ``sync.defaultTtlSeconds``.
    """
    if not ids or context.dry_run:
        return
    absolute = resolve_lifetime(context.spec).absolute
    if absolute is None:
        ttls: dict[str, float] = dict.fromkeys(ids, context.spec.sync.default_ttl_seconds)
    else:
        now, contents = redis.server_time(), redis.contents(ids)
        ttls = {i: remaining_seconds(contents[i].created_at if i in contents else None, absolute, now) for i in ids}
    context.tally.redis.ttl_added += redis.add_ttls(ttls)


def remaining_seconds(created_at: datetime | None, absolute: int, now: datetime) -> float:
    """How long a session may still live, in seconds: never less than a minute, never more than its absolute timeout.

    Args:
        created_at: when it began; None if not known, then it counts as new.
        absolute: its absolute timeout in seconds.
        now: the time.
    """
    age = (now - created_at).total_seconds() if created_at else 0.0
    return max(_MIN_TTL_SECONDS, min(absolute - age, absolute))
