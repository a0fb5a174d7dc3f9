"""Making Redis and the database agree where they do, beside a bare SCAN with a batched look-up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import redis as redis_client

from job.steps.initialise import Urls
from job.steps.sync.sync import synchronise
from tests.bench.cleanup.goals import OURS, Bound, Check, Goal, Row, sizes
from tests.bench.cleanup.opened import obeyed, opened
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.rounds import alternate, medians, spread
from tests.bench.cleanup.servers import postgres, redis
from tests.bench.cleanup.sessions_redis import access_log, index_entry, send, session_key
from tests.bench.cleanup.sessions_sql import autocommit, fill_postgres
from tests.bench.figures import Figure

_FULL = 2_000_000
_ROUNDS = 3
_SCAN_COUNT = 1000
_FETCH = 5000

GOAL = Goal("Redis sync, as many keys as rows", "≤ 1.5 × the bare SCAN and batched look-up")

_BARE = "bare SCAN and look-up"


def _measure(setting: Setting) -> list[Row]:
    sessions = setting.size(200_000, _FULL)
    with postgres(autovacuum=False) as database, redis() as store:
        urls = Urls(database.url, store.url)
        fill_postgres(database.url, sessions, 0)
        copy_to_redis(database.url, store.url, logs_share=0)
        ways = {OURS: partial(_synchronise, urls, sessions), _BARE: partial(_bare, urls, sessions)}
        found = alternate(_ROUNDS, ways)
    middle = medians(found)
    return [
        Row(
            GOAL,
            (Check("bare look-up", middle[OURS] / middle[_BARE], Bound.AT_MOST, 1.5),),
            sizes(_FULL, sessions),
            figures=tuple(Figure(name, middle[name], "s", note=spread(found[name])) for name in (OURS, _BARE)),
            notes=(
                "The bare look-up asks for each session key whether it has a row, and no more. This project also looks "
                "at TTLs, at every entry of the user indexes, and for rows without a key.",
            ),
        )
    ]


def _synchronise(urls: Urls, sessions: int) -> float:
    with opened(obeyed(redis=True), urls) as (context, _):
        began = time.perf_counter()
        synchronise(context)
        seconds = time.perf_counter() - began
        counts = context.tally.redis
        if counts.sessions < sessions or counts.orphaned or counts.missing or counts.index_entries_removed:
            raise RuntimeError(f"the stores agree, but the synchronisation says {counts}")
    return seconds


def _bare(urls: Urls, sessions: int) -> float:
    client = redis_client.Redis.from_url(urls.redis or "", decode_responses=True)
    known = 0
    with autocommit(urls.database or "") as connection:
        began = time.perf_counter()
        cursor = 0
        while True:
            cursor, keys = client.scan(cursor, match="sess:*", count=_SCAN_COUNT)
            ids = [str(key)[5:] for key in keys]
            rows = connection.execute("SELECT session_id FROM sessions WHERE session_id = ANY(%s)", [ids]).fetchall()
            known += len({row[0] for row in rows})
            if not cursor:
                break
        seconds = time.perf_counter() - began
    client.close()
    if known < sessions:
        raise RuntimeError(f"{known} of {sessions} found")
    return seconds


def copy_to_redis(database_url: str, redis_url: str, logs_share: float) -> None:
    """Writes all sessions of the default table to Redis: key, index entry and, for some, an access log.

    Args:
        database_url: where they are.
        redis_url: where they go.
        logs_share: how many of them have an access log.
    """
    send(redis_url, _commands(database_url, logs_share))


def _commands(database_url: str, logs_share: float) -> Iterator[bytes]:
    query = (
        "SELECT session_id, user_id, extract(epoch FROM created_at)::bigint, extract(epoch FROM last_accessed_at)::"
        f"bigint, client, address, random() < {logs_share}, random() < 0.002 FROM sessions"
    )
    with autocommit(database_url) as connection, connection.transaction(), connection.cursor("all") as rows:
        rows.itersize = _FETCH
        rows.execute(query)
        for session_id, user, created, used, client, address, logged, travelled in rows:
            name, owner = session_id.encode(), user.encode()
            yield session_key(name, owner, created, used)
            yield index_entry(name, owner)
            if logged:
                yield access_log(name, _accesses(used, client, address, travelled))


def _accesses(used: int, client: str, address: str, travelled: bool) -> Iterator[dict[str, object]]:
    """Three accesses from one place; or the newest from across an ocean, minutes after the one before."""
    for n in range(3):
        far = travelled and n == 0
        place = {"lat": -12.05, "lon": -77.04} if far else {"lat": 52.52, "lon": 13.41}
        yield {"time": used - 300 * n, "ip": address, "client": client, "location": place}


PART = Part("sync", (GOAL,), _measure)
