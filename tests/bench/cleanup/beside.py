"""An application beside the run: 200 touches a second on both stores, alone and while the run is at work."""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import redis as redis_client

from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from job.steps.initialise import Urls
from tests.bench.cleanup.cpu_limit import cpu_limit
from tests.bench.cleanup.everything import RULES, policy_document
from tests.bench.cleanup.goals import Bound, Check, Goal, Row
from tests.bench.cleanup.part import Part, PartUnavailableError, Setting
from tests.bench.cleanup.process import Ended, run_policy
from tests.bench.cleanup.redis_sync import copy_to_redis
from tests.bench.cleanup.rounds import spread
from tests.bench.cleanup.servers import log_of, postgres, redis
from tests.bench.cleanup.sessions_sql import IDLE, autocommit, copy_of, fill_postgres, number
from tests.bench.cleanup.touches import RATE, Told, Touching, Work
from tests.bench.figures import Figure, quantile

_ROUNDS = 3
_ALONE_SECONDS = 15.0
_EXPIRED_SHARE = 0.3
_LIVE, _RETURNING = 20_000, 5_000
_YEAR_SECONDS = 366 * 86_400
_STILL_WAITING = "still waiting for"
_POD_CORES = 0.15
"""What a run in the operator's Pods may use, unless its policy says otherwise."""
# Fewer touches than these have no 99th percentile.
_ENOUGH_TOUCHES = 200

_LIMIT = "99th percentile ≤ 1.5 × without the run; no deadlock, no lock wait over 100 ms, no touched session lost"
GOAL = Goal(f"an application beside the run, {RATE} touches/s on both stores", _LIMIT)
IN_POD = Goal(f"the same, the run with the CPU of the operator's Pods ({_POD_CORES} cores)", _LIMIT)


@dataclass(frozen=True, slots=True)
class _Round:
    """What one run did to the application."""

    alone: Told
    beside: Told
    ended: Ended
    deadlocks: int
    lock_waits: int
    lost: int

    @property
    def ratio(self) -> float:
        """Of the 99th percentiles."""
        return self.beside.quantile_ms(0.99) / self.alone.quantile_ms(0.99)


def _measure(setting: Setting) -> list[Row]:
    sessions = setting.size(200_000, 2_000_000)
    with postgres(logged=True) as database, redis() as store:
        with autocommit(database.url) as connection:
            connection.execute("CREATE DATABASE filled")
        fill_postgres(database.url_of("filled"), sessions, _EXPIRED_SHARE)
        default = [_round(database, store, setting.directory) for _ in range(_ROUNDS)]
        throttled = [_round(database, store, setting.directory, throttle_percent=25)]
        size = f"{sessions:,} sessions, {_EXPIRED_SHARE:.0%} of them expired"
        row = _row(GOAL, default, size, {"with throttlePercent 25": throttled}, list(_steps(default)))
        try:
            with cpu_limit(_POD_CORES) as words:
                limited = [_round(database, store, setting.directory, before=words)]
        except PartUnavailableError as missing:
            return [row, Row(IN_POD, unmeasured=str(missing))]
    return [row, _row(IN_POD, limited, size)]


def _row(
    goal: Goal,
    rounds: Sequence[_Round],
    size: str,
    others: Mapping[str, Sequence[_Round]] | None = None,
    steps: Sequence[Figure] = (),
) -> Row:
    told = {"alone": rounds, "beside the run": rounds} | dict(others or {})
    ratios = [one.ratio for one in rounds]
    return Row(
        goal,
        (
            Check("99th percentile", median(ratios), Bound.AT_MOST, 1.5),
            Check("deadlocks", sum(one.deadlocks for one in rounds), Bound.AT_MOST, 0, ""),
            Check("lock waits over 100 ms", sum(one.lock_waits for one in rounds), Bound.AT_MOST, 0, ""),
            Check("touched sessions lost", sum(one.lost for one in rounds), Bound.AT_MOST, 0, ""),
        ),
        f"{size}, {len(rounds)} run{'s' * (len(rounds) > 1)}",
        figures=(
            *latencies({name: [r.alone if name == "alone" else r.beside for r in each] for name, each in told.items()}),
            *steps,
        ),
        notes=(
            f"Ratios of the 99th percentiles: {spread(ratios)}; runs of "
            f"{spread([one.ended.usage.wall_seconds for one in rounds])} s.",
            *(
                f"{name}: ratios {spread([one.ratio for one in each])}, lock waits over 100 ms "
                f"{sum(one.lock_waits for one in each)}, runs of "
                f"{spread([one.ended.usage.wall_seconds for one in each])} s."
                for name, each in (others or {}).items()
            ),
            "The application, the run and both servers share the cores: a run that uses one of two leaves less.",
            "A touch is due on time, whatever happened to those before it; one in ten begins a session, and one in "
            "ten is of a session that has expired, whose user comes back. Lock waits are from the server's log "
            "(log_lock_waits at 100 ms), deadlocks from pg_stat_database.",
        ),
    )


def _round(
    database: EmbeddedPostgres,
    store: EmbeddedRedis,
    directory: Path,
    throttle_percent: int = 100,
    before: Sequence[str] = (),
) -> _Round:
    copy_of(database.url, "filled", "work")
    urls = Urls(database.url_of("work"), store.url)
    with redis_client.Redis.from_url(store.url) as client:
        client.flushall()
    copy_to_redis(urls.database or "", store.url, logs_share=0.1)
    work = Work(
        urls.database or "",
        "UPDATE sessions SET last_accessed_at = now() WHERE session_id = %s",
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) VALUES (%s, 'new', now(), now())",
        some(urls, f"NOT {IDLE}", _LIVE),
        some(urls, IDLE, _RETURNING),
        urls.redis,
    )
    # Nobody comes back yet: there would be fewer expired sessions for the run.
    alone = touched(replace(work, returning=()), directory, _ALONE_SECONDS)
    waits = log_of(database).count(_STILL_WAITING)
    # Only what has expired goes: whatever else is lost is a mistake.
    document = policy_document(
        maxConcurrentSessions=0,
        duplicates={"action": "Report"},
        rules=[{**rule, "action": "Report"} for rule in RULES],
        absoluteTimeoutSeconds=_YEAR_SECONDS,
        cleanup={"throttlePercent": throttle_percent},
    )
    with Touching(work, directory) as application:
        ended = run_policy(document, urls, directory, before=before)
    beside = application.check()
    return _Round(
        alone=alone,
        beside=beside,
        ended=ended,
        deadlocks=number(database.url, "SELECT deadlocks FROM pg_stat_database WHERE datname = 'work'"),
        lock_waits=log_of(database).count(_STILL_WAITING) - waits,
        lost=len(beside.lost) + _missing(urls, beside.kept),
    )


def _steps(rounds: Sequence[_Round]) -> Iterator[Figure]:
    """The 99th percentile of the touches that were due within each part of the runs."""
    found: dict[str, list[float]] = {}
    for one in rounds:
        events, moments = zip(*one.ended.moments, strict=True)
        for due, latency in zip(one.beside.due, one.beside.latencies, strict=True):
            if (place := bisect_right(moments, due)) < len(events):
                found.setdefault(events[place], []).append(latency * 1000)
    for event, values in found.items():
        if len(values) >= _ENOUGH_TOUCHES:
            yield Figure(
                f"99th percentile until the log says: {event}",
                quantile(values, 0.99),
                "ms",
                note=f"{len(values):,} touches, median {quantile(values, 0.5):.3g} ms",
            )


def touched(work: Work, directory: Path, seconds: float) -> Told:
    """What the application sees when it is alone."""
    with Touching(work, directory) as application:
        time.sleep(seconds)
    return application.check()


def some(urls: Urls, condition: str, most: int, table: str = "sessions", key: str = "session_id") -> list[str]:
    """The ids of some sessions, in no order."""
    with autocommit(urls.database or "") as connection:
        rows = connection.execute(f"SELECT {key} FROM {table} WHERE {condition}").fetchall()
    return [row[0] for row in random.Random(7).sample(rows, min(most, len(rows)))]


def latencies(told: dict[str, list[Told]]) -> tuple[Figure, ...]:
    """The quantiles of all rounds together, the 99th percentiles first."""
    pooled = {name: [latency * 1000 for one in each for latency in one.latencies] for name, each in told.items()}
    found = [Figure(f"99th percentile, {name}", quantile(values, 0.99), "ms") for name, values in pooled.items()]
    for name, values in pooled.items():
        found.append(Figure(f"median, {name}", quantile(values, 0.5), "ms"))
        found.append(Figure(f"longest, {name}", max(values), "ms", note=f"{len(values):,} touches"))
    return tuple(found)


def _missing(urls: Urls, kept: Sequence[str]) -> int:
    """How many of the sessions lack their row or their key."""
    with autocommit(urls.database or "") as connection:
        rows = {
            row[0]
            for row in connection.execute(
                "SELECT session_id FROM sessions WHERE session_id = ANY(%s)", [list(kept)]
            ).fetchall()
        }
    with redis_client.Redis.from_url(urls.redis or "") as client, client.pipeline(transaction=False) as pipeline:
        for session in kept:
            pipeline.exists(f"sess:{session}")
        keys = pipeline.execute()
    return sum(session not in rows or not key for session, key in zip(kept, keys, strict=True))


PART = Part("beside", (GOAL, IN_POD), _measure)
