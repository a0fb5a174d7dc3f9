"""Everything on: PostgreSQL and Redis, all rules, access logs, statistics, and one session in ten to delete.

What goes: idle ones, ended by the application's own word, too old, revoked, travellers' (found in the access logs),
duplicates on one client, those over their user's limit; and keys in Redis without a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from job.steps.initialise import Urls
from policy.rules import RuleAction, RuleType
from tests.bench.cleanup.goals import Bound, Check, Curve, Goal, Row, sizes
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.process import Ended, run_policy
from tests.bench.cleanup.redis_sync import copy_to_redis
from tests.bench.cleanup.servers import postgres, redis
from tests.bench.cleanup.sessions_redis import index_entry, send, session_key
from tests.bench.cleanup.sessions_sql import IDLE_SECONDS, USERS_PER_SESSION, autocommit, load_postgres, number
from tests.bench.figures import Figure
from tests.support.runs import manifest

_FULL = 10_000_000
_SIZES = (30_000, 100_000, 300_000)
_FULL_SIZES = (100_000, 1_000_000, _FULL)
_MB_PER_MIB = 1.048576
_LOGS_SHARE, _ORPHANS_SHARE = 0.1, 0.003
# What a start takes, and a look again at what seems orphaned, is the same for any number.
_MOST_TIME_GROWTH, _MOST_MEMORY_GROWTH = 1.2, 1.25

COST = Goal("everything on: 10 M sessions, 1 M to delete", "≤ 10 min, ≤ 200 MB resident, servers on the same cores")
GROWTH = Goal("everything on, 0.1 to 10 M sessions", "time linear, memory flat")

_INSERT = """
INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at, expires_at, client, address, revoked_at)
SELECT encode(sha256(('session-' || i)::bytea), 'hex'),
  CASE WHEN r < 0.090 THEN 'user-' || (u * {users})::int
    WHEN r < 0.105 THEN 'heavy-' || (u * {sessions} * 0.015 / 25)::int
    WHEN r < 0.115 THEN 'twin-' || (u * {sessions} * 0.005)::int
    ELSE 'user-' || (u * {users})::int END,
  CASE WHEN r BETWEEN 0.088 AND 0.090 THEN used - interval '40 days' ELSE used - u * interval '20 minutes' END,
  used,
  CASE WHEN r BETWEEN 0.083 AND 0.086 THEN used - interval '2 hours' WHEN u < 0.4 THEN used + interval '90 days' END,
  CASE WHEN r BETWEEN 0.105 AND 0.115 THEN 'ShopApp/1 (Android)' ELSE
    'Mozilla/5.0 (X11; Linux x86_64; rv:' || i % 97 || '.0) Gecko/20100101 Firefox/' || i % 89 || '.0' END,
  '192.0.2.' || i % 255,
  CASE WHEN r BETWEEN 0.086 AND 0.088 THEN used END
FROM (
  SELECT i, r, u, now() - CASE WHEN r < 0.083 THEN interval '2 days' + u * interval '20 days'
    ELSE u * interval '1 hour' END AS used
  FROM (SELECT i, random() AS r, random() AS u FROM generate_series(1, {sessions}) AS i OFFSET 0) AS drawn
) AS made
"""


_ACTIONS = {RuleType.REVOKED: RuleAction.DELETE, RuleType.IMPOSSIBLE_TRAVEL: RuleAction.LOGOUT_EVERYWHERE}
#: Every rule there is.
RULES = [{"type": kind.value, "action": _ACTIONS.get(kind, RuleAction.REPORT).value} for kind in RuleType]


def policy_document(**spec: Any) -> dict[str, Any]:
    """The policy: every rule there is."""
    everything = {
        "sessionTimeoutSeconds": IDLE_SECONDS,
        "absoluteTimeoutSeconds": 30 * 86_400,
        "maxConcurrentSessions": 10,
        "duplicates": {"action": "KeepNewest"},
        "rules": RULES,
        "sync": {"graceSeconds": 5},
        "cleanup": {},
        "safety": {"maxDeletePercent": 50},
        # It is to be seen how long it takes, even if that is too long.
        "job": {"timeoutSeconds": 6 * 3600},
    }
    return manifest(redis=True, **{**everything, **spec})


def fill(urls: Urls, sessions: int) -> None:
    """Fills both stores."""
    database, store = urls.database or "", urls.redis or ""
    load_postgres(database, _INSERT.format(sessions=sessions, users=int(sessions * USERS_PER_SESSION)))
    copy_to_redis(database, store, _LOGS_SHARE)
    send(store, _orphans(int(sessions * _ORPHANS_SHARE)))


def _orphans(number: int) -> Iterator[bytes]:
    for n in range(number):
        session, user = hashlib.sha256(b"orphan-%d" % n).hexdigest().encode(), b"user-%d" % n
        yield session_key(session, user, 1_700_000_000, 1_700_000_000)
        yield index_entry(session, user)


def _measure(setting: Setting) -> list[Row]:
    ended: dict[int, Ended] = {}
    with postgres() as database:
        for sessions in _FULL_SIZES if setting.full else _SIZES:
            name = f"sessions_{sessions}"
            with autocommit(database.url) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            # A Redis of its own each time: what one has freed it does not give back at once.
            with redis() as store:
                urls = Urls(database.url_of(name), store.url)
                fill(urls, sessions)
                ended[sessions] = run_policy(policy_document(), urls, setting.directory)
                _check(urls, sessions, ended[sessions])
            with autocommit(database.url) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    return [_cost(ended), _growth(ended)]


def _check(urls: Urls, sessions: int, ended: Ended) -> None:
    counts: Mapping[str, int] = ended.report["sessions"]
    left = number(urls.database or "", "SELECT count(*) FROM sessions")
    if left != sessions - counts["deleted"] or counts.get("failed") or counts.get("remaining"):
        raise RuntimeError(f"{left} of {sessions} sessions are left, but the run says {counts}")


def _cost(ended: Mapping[int, Ended]) -> Row:
    sessions = max(ended)
    last = ended[sessions]
    steps = sorted(last.steps, key=lambda step: -step[1])
    deleted = last.report["sessions"]["deleted"]
    return Row(
        COST,
        (
            Check("wall", last.usage.wall_seconds, Bound.AT_MOST, 600, "s"),
            Check("resident", last.usage.peak_mib * _MB_PER_MIB, Bound.AT_MOST, 200, "MB"),
        ),
        f"{sizes(_FULL, sessions)}; {deleted:,} deleted",
        unmeasured="" if sessions >= _FULL else _only(ended),
        figures=(
            *(Figure(f"until the log says: {event}", seconds, "s") for event, seconds in steps if seconds >= 0.05),
            Figure("CPU time of the process", last.usage.cpu_seconds, "s CPU"),
        ),
        notes=("The servers share the cores with the run.",),
    )


def _growth(ended: Mapping[int, Ended]) -> Row:
    first, *_, before, last = sorted(ended)
    each = {n: one.usage.wall_seconds / n for n, one in ended.items()}
    peak = {n: one.usage.peak_mib * _MB_PER_MIB for n, one in ended.items()}
    return Row(
        GROWTH,
        (
            Check("time per session, to the size before", each[last] / each[before], Bound.AT_MOST, _MOST_TIME_GROWTH),
            Check("memory, largest to smallest", peak[last] / peak[first], Bound.AT_MOST, _MOST_MEMORY_GROWTH),
        ),
        sizes(_FULL, last),
        unmeasured="" if last >= _FULL else _only(ended),
        curves=(
            Curve("Wall time", "s", tuple((n, one.usage.wall_seconds) for n, one in sorted(ended.items()))),
            Curve("Peak resident memory", "MB", tuple((n, peak[n]) for n in sorted(ended))),
        ),
    )


def _only(ended: Mapping[int, Ended]) -> str:
    return f"the goal is for {_FULL:,}; here {', '.join(f'{n:,}' for n in sorted(ended))} (--full)"


PART = Part("everything", (COST, GROWTH), _measure)
