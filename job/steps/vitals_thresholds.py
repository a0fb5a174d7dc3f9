"""R5: what Redis and the statistics say about the health of the session stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.alerts.problems import Audience, Problem
from policy.alerts import Thresholds
from policy.report import MAX_COUNT, Vitals

_MEGABYTE = 2**20
# Of fewer look-ups, or fewer new sessions, a share or a rate is an accident.
_ENOUGH_LOOKUPS = 1000
_ENOUGH_CREATED = 20
# As much as a report may say.
_MOST_CREATED = 1e9


@dataclass(frozen=True, slots=True)
class RedisVitals:
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
        """Whether the share tells anything."""
        return self.hits + self.misses >= _ENOUGH_LOOKUPS


@dataclass(frozen=True, slots=True)
class Creation:
    """How many sessions began in a stretch of time.

    Attributes:
        sessions: how many.
        seconds: how long it was.
    """

    sessions: int
    seconds: float

    @property
    def per_second(self) -> float:
        """The rate; 0 for no time at all."""
        return self.sessions / self.seconds if self.seconds > 0 else 0.0


def read_info(infos: Sequence[Mapping[str, Any]]) -> RedisVitals:
    """The vitals in what INFO has answered, one mapping for each node; what a server hides counts as 0."""

    def total(field: str) -> int:
        values = (info.get(field, 0) for info in infos)
        return sum(int(value) for value in values if isinstance(value, int | float))

    return RedisVitals(total("used_memory"), total("keyspace_hits"), total("keyspace_misses"))


def reported(redis: RedisVitals | None, creation: Creation | None, average_seconds: int | None) -> Vitals | None:
    """What the report says of the measurements; None if there is none.

    Args:
        redis: of Redis.
        creation: sessions begun since the run before.
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


def redis_problems(vitals: RedisVitals, thresholds: Thresholds) -> Iterator[Problem]:
    """Memory over and hit ratio under their thresholds."""
    megabytes = vitals.memory_bytes // _MEGABYTE
    if 0 < thresholds.redis_memory_megabytes * _MEGABYTE < vitals.memory_bytes:
        yield Problem(
            "RedisMemoryHigh",
            Audience.OPERATIONS,
            f"Redis uses {megabytes} MiB, more than {thresholds.redis_memory_megabytes} MiB",
            megabytes,
        )
    share = vitals.hit_percent
    if share is not None and vitals.has_enough_lookups and share < thresholds.cache_hit_percent:
        yield Problem(
            "CacheHitRatioLow",
            Audience.OPERATIONS,
            f"{share:.1f} % of the look-ups in Redis found something, less than {thresholds.cache_hit_percent} %",
            int(share),
            grows=False,
        )


def creation_problems(now: Creation | None, before: Creation | None, thresholds: Thresholds) -> Iterator[Problem]:
    """Sessions that are created so many times as fast as in the run before."""
    if now is None or before is None or not thresholds.creation_rate_factor or now.sessions < _ENOUGH_CREATED:
        return
    if before.sessions > 0 and now.per_second > before.per_second * thresholds.creation_rate_factor:
        yield Problem(
            "CreationRateHigh",
            Audience.OPERATIONS,
            f"{now.per_second * 60:.1f} sessions begin in a minute, {before.per_second * 60:.1f} did before: "
            f"more than {thresholds.creation_rate_factor} times as many",
            now.sessions,
        )
