"""PostgreSQL with one session in a thousand expired: the deleting step with the expiry index, and without one."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from job.steps.initialise import Urls
from tests.bench.cleanup.goals import OURS, Bound, Check, Goal, Row, count
from tests.bench.cleanup.opened import delete_all_expired, obeyed
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.rounds import alternate, medians, spread
from tests.bench.cleanup.servers import postgres
from tests.bench.cleanup.sessions_sql import IDLE, autocommit, fill_postgres, number, settle
from tests.bench.figures import Figure

# Of fewer, the fixed costs are most of what is measured.
_SESSIONS = 10_000_000
_ROUNDS = 3
_SHARE = 0.001
# Room in each page, so that a row that is made to expire stays where it is, and expired rows lie everywhere.
_FILLFACTOR = 90
_READS = "seq_tup_read + idx_tup_fetch"
_MOST_READ = 0.05

WITH_INDEX = Goal("PostgreSQL, 0.1 % expired, index present", "≤ 1.5 × the bare indexed DELETE, no full scan")
WITHOUT_INDEX = Goal("PostgreSQL, 0.1 % expired, no index", "≤ 1.3 × one sequential pass")

_BARE, _PASS = "bare indexed DELETE", "one sequential pass (count)"


def _measure(_setting: Setting) -> list[Row]:
    with postgres(autovacuum=False) as server:
        fill_postgres(server.url, _SESSIONS, 0, _FILLFACTOR)
        with_index = _with_index(server.url)
        with autocommit(server.url) as connection:
            for column in ("last_accessed_at", "expires_at"):
                connection.execute(f"DROP INDEX ix_sessions_{column}")
        return [with_index, _without_index(server.url)]


def _expire_some(url: str) -> int:
    """Has sessions of no order expire, and returns how many."""
    with autocommit(url) as connection:
        made = connection.execute(
            "UPDATE sessions SET last_accessed_at = now() - interval '2 days' - random() * interval '20 days' "
            "WHERE random() < %s",
            [_SHARE],
        ).rowcount
    settle(url)
    return made


def _with_index(url: str) -> Row:
    scans: list[int] = []
    reads: list[int] = []

    def ours() -> float:
        expired = _expire_some(url)
        number(url, "SELECT count(*) FROM sessions")  # so that the pages are in memory
        scans_before, reads_before = _counted(url, "seq_scan"), _counted(url, _READS)
        seconds = _clean(url, expired)
        scans.append(_counted(url, "seq_scan") - scans_before)
        reads.append(_counted(url, _READS) - reads_before)
        return seconds / expired

    def bare() -> float:
        expired = _expire_some(url)
        number(url, "SELECT count(*) FROM sessions")
        with autocommit(url) as connection:
            began = time.perf_counter()
            deleted = connection.execute(f"DELETE FROM sessions WHERE {IDLE}").rowcount
            seconds = time.perf_counter() - began
        if deleted != expired:
            raise RuntimeError(f"{deleted} deleted of {expired}")
        return seconds / expired

    found, each = _compared({OURS: ours, _BARE: bare}, _SESSIONS)
    return Row(
        WITH_INDEX,
        (
            Check("bare DELETE", found[OURS] / found[_BARE], Bound.AT_MOST, 1.5),
            Check("sequential scans", max(scans), Bound.AT_MOST, 0, ""),
            # A walk along another index would be a full scan by another name.
            Check("share of the rows read", max(reads) / _SESSIONS, Bound.AT_MOST, _MOST_READ, ""),
        ),
        f"{count(_SESSIONS)} sessions",
        figures=each,
        notes=("Scans and rows read are what pg_stat_user_tables counts from opening the stores to closing them.",),
    )


def _without_index(url: str) -> Row:
    def ours() -> float:
        _expire_some(url)
        number(url, "SELECT count(*) FROM sessions")
        return _clean(url, None)

    def one_pass() -> float:
        _expire_some(url)
        number(url, "SELECT count(*) FROM sessions")
        with autocommit(url) as connection:
            # A DELETE is never spread over several processes.
            connection.execute("SET max_parallel_workers_per_gather = 0")
            began = time.perf_counter()
            (found,) = connection.execute(f"SELECT count(*) FROM sessions WHERE {IDLE}").fetchone() or (0,)
            seconds = time.perf_counter() - began
            # The next one has its own.
            connection.execute(f"DELETE FROM sessions WHERE {IDLE}")
        if not found:
            raise RuntimeError("nothing has expired")
        return seconds

    found, each = _compared({OURS: ours, _PASS: one_pass}, None)
    return Row(
        WITHOUT_INDEX,
        (Check("sequential pass", found[OURS] / found[_PASS], Bound.AT_MOST, 1.3),),
        f"{count(_SESSIONS)} sessions",
        figures=each,
        notes=(
            "The pass is one process, over pages that are in memory.",
            "The step knows, as in a run, how many sessions have expired; to count them is another step.",
        ),
    )


def _clean(url: str, expired: int | None) -> float:
    # Not what this is about.
    by = obeyed(statistics={"enabled": False})
    return delete_all_expired(by, Urls(url), expired)


def _compared(
    ways: dict[str, Callable[[], float]], sessions: int | None
) -> tuple[dict[str, float], tuple[Figure, ...]]:
    """The medians; as seconds for the expired ones of so many sessions, where seconds for each were measured."""
    found = alternate(_ROUNDS, {name: partial(way) for name, way in ways.items()})
    times = sessions * _SHARE * 1000 if sessions else 1000
    in_ms = {name: [value * times for value in values] for name, values in found.items()}
    middle = medians(in_ms)
    figures = tuple(Figure(name, middle[name], "ms", note=spread(in_ms[name])) for name in ways)
    return middle, figures


def _counted(url: str, what: str) -> int:
    return number(url, f"SELECT {what} FROM pg_stat_user_tables WHERE relname = 'sessions'")


PART = Part("postgres-sparse", (WITH_INDEX, WITHOUT_INDEX), _measure)
