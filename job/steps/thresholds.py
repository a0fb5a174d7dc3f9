"""R5: what was measured, against the policy's thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.alerts.problems import Audience, Problem
from policy.alerts import Thresholds
from policy.report import MAX_COUNT, Vitals

_MEGABYTE = 2**20
# A share of fewer look-ups, or a rate of fewer new sessions, says nothing.
_ENOUGH_LOOKUPS = 1000
_ENOUGH_CREATED = 20
# As much as a report may say.
_MOST_CREATED = 1e9


@dataclass(frozen=True, slots=True)
class RedisStats:
    """What Redis says of itself, all of its nodes together.

    Attributes:
        memory_bytes: memory in use.
        hits: look-ups that found their key, since the server began.
        misses: look-ups that did not.
    """

    memory_bytes: int
    hits: int
    misses: int

    @property
    def hit_percent(self) -> float | None:
        """Share of look-ups that found their key; None where there were none."""
        lookups = self.hits + self.misses
        return 100 * self.hits / lookups if lookups else None

    @property
    def has_enough_lookups(self) -> bool:
        """Whether there were enough look-ups for the share to say anything."""
        return self.hits + self.misses >= _ENOUGH_LOOKUPS


@dataclass(frozen=True, slots=True)
class CreationRate:
    """How many sessions were created within some time.

    Attributes:
        sessions: how many.
        seconds: within how many seconds.
    """

    sessions: int
    seconds: float

    @property
    def per_second(self) -> float:
        """The rate; 0 for no time at all."""
        return self.sessions / self.seconds if self.seconds > 0 else 0.0


def parse_info(infos: Sequence[Mapping[str, Any]]) -> RedisStats:
    """Adds up what INFO has answered, one mapping for each node; a field that is missing counts as 0."""

    def total(field: str) -> int:
        values = (info.get(field, 0) for info in infos)
        return sum(int(value) for value in values if isinstance(value, int | float))

    return RedisStats(total("used_memory"), total("keyspace_hits"), total("keyspace_misses"))


def vitals_of_report(
    redis: RedisStats | None, creation: CreationRate | None, average_seconds: int | None
) -> Vitals | None:
    """The measurements as the report has them; None if there are none.

    Args:
        redis: what Redis says of itself.
        creation: sessions created since the previous run.
        average_seconds: how long the deleted sessions were in use.
    """
    percent = redis.hit_percent if redis and redis.has_enough_lookups else None
    vitals = Vitals(
        redis_memory_bytes=min(redis.memory_bytes, MAX_COUNT) if redis else None,
        redis_hit_ratio=None if percent is None else round(percent / 100, 4),
        created_per_hour=None if creation is None else min(round(creation.per_second * 3600, 2), _MOST_CREATED),
        average_session_seconds=average_seconds,
    )
    return None if vitals == Vitals() else vitals


def redis_problems(redis: RedisStats, thresholds: Thresholds) -> Iterator[Problem]:
    """Memory over, or hit ratio under, its threshold."""
    megabytes = redis.memory_bytes // _MEGABYTE
    if 0 < thresholds.redis_memory_megabytes * _MEGABYTE < redis.memory_bytes:
        yield Problem(
            "RedisMemoryHigh",
            Audience.OPERATIONS,
            f"Redis uses {megabytes} MiB, more than {thresholds.redis_memory_megabytes} MiB",
            megabytes,
        )
    share = redis.hit_percent
    if share is not None and redis.has_enough_lookups and share < thresholds.cache_hit_percent:
        yield Problem(
            "CacheHitRatioLow",
            Audience.OPERATIONS,
            f"{share:.1f} % of the look-ups in Redis found their key, less than {thresholds.cache_hit_percent} %",
            int(share),
            grows=False,
        )


def creation_problems(
    now: CreationRate | None, before: CreationRate | None, thresholds: Thresholds
) -> Iterator[Problem]:
    """Sessions created more times as fast as before than the threshold allows."""
    if now is None or before is None or not thresholds.creation_rate_factor or now.sessions < _ENOUGH_CREATED:
        return
    if before.sessions > 0 and now.per_second > before.per_second * thresholds.creation_rate_factor:
        yield Problem(
            "CreationRateHigh",
            Audience.OPERATIONS,
            f"{now.per_second * 60:.1f} sessions are created per minute, "
            f"more than {thresholds.creation_rate_factor} times the {before.per_second * 60:.1f} before",
            now.sessions,
        )
