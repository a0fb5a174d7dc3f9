"""MariaDB with half of its sessions expired: the deleting step beside bare batched SQL, and beside a writer."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from job.steps.initialise import Urls
from tests.bench.cleanup.goals import OURS, Bound, Check, Goal, Row, sizes
from tests.bench.cleanup.opened import delete_all_expired, obeyed
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.rounds import alternate, medians, spread
from tests.bench.cleanup.servers import mariadb
from tests.bench.cleanup.sessions_sql import IDLE_SECONDS, fill_mariadb, mysql_autocommit
from tests.bench.cleanup.touches import Touching, Work
from tests.bench.figures import Figure
from tests.support.servers.mariadb import EmbeddedMariaDB

_FULL = 2_000_000
_ROUNDS = 3
_BATCHES = (1_000, 10_000)

GOAL = Goal("MariaDB, half expired", "≥ 0.7 × the best bare batched SQL, no deadlock with a live writer")

_UPDATE = "UPDATE sessions SET last_accessed_at = UTC_TIMESTAMP(6) WHERE session_id = %s"
_INSERT = (
    "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) "
    "VALUES (%s, 'new', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
)
_WAYS: dict[str, Callable[[Any, str, int], None]]


def _measure(setting: Setting) -> list[Row]:
    sessions = setting.size(600_000, _FULL)
    with tempfile.TemporaryDirectory(prefix="bench-mariadb-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        home.chmod(0o755)
        filled, work = home / "filled", home / "work"
        with mariadb(filled) as server:
            fill_mariadb(server.url, sessions, 0.5)
            expired = _number(server.url, f"SELECT COUNT(*) FROM sessions WHERE last_accessed_at < {_cutoff()}")

        @contextmanager
        def restored() -> Iterator[EmbeddedMariaDB]:
            """A server with the same pages each time, and nothing of the last one's purge left to do."""
            shutil.rmtree(work, ignore_errors=True)
            _copy(filled, work)
            with mariadb(work) as server:
                for index in ("PRIMARY", "ix_sessions_last_accessed_at", "ix_sessions_user_id"):
                    _number(server.url, f"SELECT COUNT(*) FROM sessions FORCE INDEX ({index})")
                yield server
            shutil.rmtree(work, ignore_errors=True)

        def ours() -> float:
            with restored() as server:
                return _clean(server.url, expired)

        def bare(way: Callable[[Any, str, int], None], batch: int) -> float:
            with restored() as server, mysql_autocommit(server.url) as connection:
                cutoff = _text(connection, f"SELECT {_cutoff()}")
                began = time.perf_counter()
                way(connection.cursor(), cutoff, batch)
                seconds = time.perf_counter() - began
                if _number(server.url, f"SELECT COUNT(*) FROM sessions WHERE last_accessed_at < '{cutoff}'"):
                    raise RuntimeError("some expired sessions are left")
                return seconds

        bare_ways: dict[str, Callable[[], float]] = {
            f"bare, {name}, {batch:,}": partial(bare, way, batch) for name, way in _WAYS.items() for batch in _BATCHES
        }
        found = alternate(1, bare_ways)
        best_two = sorted(found, key=lambda name: found[name][0])[:2]
        found |= alternate(_ROUNDS, {OURS: ours, **{name: bare_ways[name] for name in best_two}})
        with restored() as server:
            deadlocks, lost, beside = _beside_a_writer(server.url, expired, setting.directory)
    rates = {name: expired / seconds for name, seconds in medians(found).items()}
    best = max(best_two, key=lambda name: rates[name])
    return [
        Row(
            GOAL,
            (
                Check("best bare SQL", rates[OURS] / rates[best], Bound.AT_LEAST, 0.7),
                Check("deadlocks", deadlocks, Bound.AT_MOST, 0, ""),
                Check("touched sessions lost", lost, Bound.AT_MOST, 0, ""),
            ),
            sizes(_FULL, sessions),
            figures=(
                *(
                    Figure(name, rates[name], "sessions/s", note=f"{spread(found[name])} s for {expired:,}")
                    for name in (OURS, *bare_ways)
                ),
                Figure(f"{OURS}, beside a writer", expired / beside, "sessions/s"),
            ),
            notes=(
                "The writer touches 200 sessions a second: live ones, one in ten expired, one in ten new.",
                f"All bare ways are tried once, and the best two again in turn with this project; best: {best}.",
            ),
        )
    ]


def _beside_a_writer(url: str, expired: int, directory: Path) -> tuple[int, int, float]:
    """Deadlocks that the server counted, touched sessions that are gone, and seconds."""
    before = _status(url, "Innodb_deadlocks")
    live, returning = (_some(url, f"last_accessed_at {sign} {_cutoff()}", 2000) for sign in "><")
    with Touching(Work(url, _UPDATE, _INSERT, live, returning), directory) as writer:
        seconds = _clean(url, expired, beside=True)
    told = writer.check()
    kept = set(_some(url, "session_id IN %s", len(told.kept), told.kept))
    lost = len(told.lost) + len(set(told.kept) - kept)
    return _status(url, "Innodb_deadlocks") - before, lost, seconds


def _some(url: str, condition: str, most: int, *parameters: object) -> list[str]:
    """Ids of some sessions, in no order."""
    with mysql_autocommit(url) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SELECT session_id FROM sessions WHERE {condition} ORDER BY RAND() LIMIT {most}", parameters)
        return [row[0] for row in cursor.fetchall()]


def _clean(url: str, expired: int, *, beside: bool = False) -> float:
    return delete_all_expired(obeyed(statistics={"enabled": False}), Urls(url), expired, beside=beside)


# --- bare SQL: each statement a transaction of its own ---------------------------------------------------------------


def _by_limit(cursor: Any, cutoff: str, batch: int) -> None:
    statement = "DELETE FROM sessions WHERE last_accessed_at < %s ORDER BY last_accessed_at LIMIT %s"
    while cursor.execute(statement, (cutoff, batch)):
        pass


def _by_ids(cursor: Any, cutoff: str, batch: int) -> None:
    query = "SELECT session_id FROM sessions WHERE last_accessed_at < %s ORDER BY session_id LIMIT %s"
    while cursor.execute(query, (cutoff, batch)):
        ids = [row[0] for row in cursor.fetchall()]
        cursor.execute("DELETE FROM sessions WHERE session_id IN %s AND last_accessed_at < %s", (ids, cutoff))


def _by_id_range(cursor: Any, cutoff: str, batch: int) -> None:
    after = ""
    while cursor.execute("SELECT session_id FROM sessions WHERE session_id > %s LIMIT %s, 1", (after, batch - 1)):
        (end,) = cursor.fetchone()
        cursor.execute(_IN_RANGE + " AND session_id <= %s", (cutoff, after, end))
        after = end
    cursor.execute(_IN_RANGE, (cutoff, after))


_IN_RANGE = "DELETE FROM sessions WHERE last_accessed_at < %s AND session_id > %s"
_WAYS = {"DELETE … LIMIT": _by_limit, "ids, then DELETE … IN": _by_ids, "ranges of ids": _by_id_range}


def _cutoff() -> str:
    return f"UTC_TIMESTAMP(6) - INTERVAL {IDLE_SECONDS} SECOND"


def _text(connection: Any, query: str) -> str:
    cursor = connection.cursor()
    cursor.execute(query)
    return str(cursor.fetchone()[0])


def _number(url: str, query: str) -> int:
    with mysql_autocommit(url) as connection:
        return int(_text(connection, query))


def _status(url: str, name: str) -> int:
    query = f"SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = '{name}'"
    return _number(url, query)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    for path in (source, *source.rglob("*")):
        owner = path.stat()
        shutil.chown(target / path.relative_to(source), owner.st_uid, owner.st_gid)


PART = Part("mariadb", (GOAL,), _measure)
