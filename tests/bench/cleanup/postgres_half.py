"""PostgreSQL with half of its sessions expired: the deleting step beside one unbounded DELETE and the usual loop."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.engine import make_url

from job.demo.servers.postgres import runnable_bin_dir
from job.logs.run_logs import HashedSessionLog
from job.steps.initialise import Urls
from tests.bench.cleanup.goals import OURS, Bound, Check, Goal, Row, sizes
from tests.bench.cleanup.opened import cleanup_log, delete_all_expired, obeyed
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.rounds import alternate, medians, spread
from tests.bench.cleanup.servers import postgres
from tests.bench.cleanup.sessions_sql import CUTOFF, IDLE, autocommit, copy_of, fill_postgres, number
from tests.bench.cleanup.strategies import pinned
from tests.bench.figures import Figure

_FULL = 2_000_000
_ROUNDS = 3
_LOOP_BATCH = 1000

GOAL = Goal(
    "PostgreSQL, half expired",
    "≥ 0.6 × the rate of one unbounded DELETE, ≥ 4 × that of the usual loop",
)
RETURNED = Goal("the same, each deleted row returned", "≥ 0.6 × the rate of one unbounded DELETE")

_UNBOUNDED, _LOOP = "one unbounded DELETE (psql)", "usual loop (expiry index, LIMIT 1000)"
_WITH_HISTORY = f"{OURS}, with history per user"
_RETURNED = f"{OURS}, rows returned"
_LOGGED = f"{OURS}, rows returned and logged"
_NO_HISTORY = {"enabled": False}


def _measure(setting: Setting) -> list[Row]:
    sessions = setting.size(1_000_000, _FULL)
    with postgres(autovacuum=False) as server:
        with autocommit(server.url) as connection:
            connection.execute("CREATE DATABASE filled")
        fill_postgres(server.url_of("filled"), sessions, 0.5)
        expired = number(server.url_of("filled"), f"SELECT count(*) FROM sessions WHERE {IDLE}")
        work = server.url_of("work")

        def restored(way: Callable[[str], float]) -> float:
            copy_of(server.url, "filled", "work")
            # Whoever comes first must not be the one who reads the files.
            number(work, "SELECT count(*) FROM sessions")
            seconds = way(work)
            if number(work, f"SELECT count(*) FROM sessions WHERE {IDLE}"):
                raise RuntimeError("some expired sessions are left")
            return seconds

        def ours(url: str, audit: HashedSessionLog | None = None, **spec: object) -> float:
            by = obeyed(**{"statistics": _NO_HISTORY, **spec})
            return delete_all_expired(by, Urls(url), expired, audit=audit)

        def told(url: str, *, only_reads: bool) -> float:
            with cleanup_log(only_reads=only_reads) as audit:
                return ours(url, audit)

        ways: dict[str, Callable[[str], float]] = {OURS: ours, _UNBOUNDED: unbounded_delete, _LOOP: usual_loop}
        ways[_WITH_HISTORY] = partial(ours, statistics={"enabled": True})
        ways[_RETURNED] = partial(told, only_reads=True)
        ways[_LOGGED] = partial(told, only_reads=False)
        ways |= {f"{OURS}, {name}": partial(ours, cleanup=cleanup) for name, cleanup in pinned().items()}
        found = alternate(_ROUNDS, {name: partial(restored, way) for name, way in ways.items()})
    rates = {name: expired / seconds for name, seconds in medians(found).items()}
    each = {
        name: Figure(name, rate, "sessions/s", note=f"{spread(found[name])} s for {expired:,}")
        for name, rate in rates.items()
    }
    returned = [each.pop(name) for name in (_RETURNED, _LOGGED)]
    return [
        Row(
            GOAL,
            (
                Check("unbounded DELETE", rates[OURS] / rates[_UNBOUNDED], Bound.AT_LEAST, 0.6),
                Check("usual loop", rates[OURS] / rates[_LOOP], Bound.AT_LEAST, 4),
            ),
            sizes(_FULL, sessions),
            notes=(
                "Expired rows lie in random order. This project commits in batches, re-checks each row, skips locked "
                "ones, and sums up the deleted rows on the server (logs.deletedSessions: false); the others only "
                "delete.",
            ),
            figures=tuple(each.values()),
        ),
        Row(
            RETURNED,
            (
                Check("rows returned", rates[_RETURNED] / rates[_UNBOUNDED], Bound.AT_LEAST, 0.6),
                Check("returned and logged", rates[_LOGGED] / rates[_UNBOUNDED], Bound.AT_LEAST, 0.6),
            ),
            sizes(_FULL, sessions),
            notes=(
                "Where each deleted session is logged, its id, user and two times come back, and a line is made of "
                "them: that is the default. The unbounded DELETE returns nothing.",
            ),
            figures=tuple(returned),
        ),
    ]


def unbounded_delete(url: str) -> float:
    """Seconds by psql's own clock."""
    at = make_url(url)
    command = [str(runnable_bin_dir() / "psql"), "-X", "-h", at.host or "", "-p", str(at.port), "-U", at.username or ""]
    statement = f"DELETE FROM sessions WHERE {IDLE}"
    done = subprocess.run(
        [*command, "-c", "\\timing on", "-c", statement, at.database or ""], check=True, capture_output=True, text=True
    )
    told = re.search(r"Time: ([0-9.]+) ms", done.stdout)
    if told is None:
        raise RuntimeError(f"psql did not tell how long it took: {done.stdout}{done.stderr}")
    return float(told[1]) / 1000


def usual_loop(url: str) -> float:
    """Seconds of what most cleaners do, each statement a transaction of its own."""
    with autocommit(url) as connection:
        (cutoff,) = connection.execute(f"SELECT {CUTOFF}").fetchone() or (None,)
        statement = (
            "DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions WHERE last_accessed_at < %s "
            "ORDER BY last_accessed_at LIMIT %s)"
        )
        began = time.perf_counter()
        while connection.execute(statement, [cutoff, _LOOP_BATCH]).rowcount:
            pass
        return time.perf_counter() - began


PART = Part("postgres", (GOAL, RETURNED), _measure)
