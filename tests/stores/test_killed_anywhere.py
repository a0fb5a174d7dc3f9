"""R6, R2.11: a run that is killed at any moment leaves nothing that the next one does not put right."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from policy.report import Outcome
from stores.redis.connection.server import RedisServer
from stores.sql.connection.run_connection import RunConnection
from tests.support.application import lost
from tests.support.runs import Command, manifest, policy, run
from tests.support.session_stores import HOUR, SessionStores

OBEYED: dict[str, Any] = {"redis": True, "cleanupBatchSize": 3, "maxConcurrentSessions": 4}


class Killed(BaseException):
    """Not an Exception: nothing in a run may catch it, as nothing can catch SIGKILL."""


def fill(stores: SessionStores, name: str) -> tuple[dict[str, str], int]:
    """Sessions of every kind. Returns those that must survive, and how many rows must go."""
    live: dict[str, str] = {}
    expired = [(f"{name}-expired{n}", f"{name}-user{n % 3}") for n in range(30)]
    stores.add_many(expired, began=2 * HOUR, used=HOUR)
    for session_id, user in expired[:20]:
        stores.add_key(session_id, user, used=HOUR)
    for n in range(12):
        session_id, user = f"{name}-live{n}", f"{name}-user{n % 4}"
        stores.add(session_id, user, used=60 + n)
        stores.add_key(session_id, user, ttl=None if n % 5 == 0 else HOUR)
        live[session_id] = user
    for n in range(7):  # three over the limit
        session_id, user = f"{name}-crowd{n}", f"{name}-crowd"
        stores.add(session_id, user, used=100 * (n + 1))
        stores.add_key(session_id, user)
        if n < 4:
            live[session_id] = user
    for n in range(5):
        stores.add_key(f"{name}-orphan{n}", f"{name}-user0", used=HOUR)
        stores.redis.sadd(f"user_sess:{name}-user{n}", f"{name}-stale{n}")
    return live, len(expired) + 3


def check_consistent(stores: SessionStores, live: dict[str, str]) -> None:
    """Both stores hold the live sessions and not a trace of any other."""
    assert stores.ids() == set(live)
    users: dict[str, set[bytes]] = {}
    for session_id, user in live.items():
        users.setdefault(user, set()).add(session_id.encode())
    expected = {f"{kind}:{session_id}" for session_id in live for kind in ("sess", "access_log")}
    expected |= {f"user_sess:{user}" for user in users}
    assert stores.redis_keys() == expected
    for user, members in users.items():
        assert stores.redis.smembers(f"user_sess:{user}") == members
    assert all(stores.redis.ttl(f"sess:{session_id}") > 0 for session_id in live)


@pytest.mark.exhaustive
def test_r2_11_sigkill_at_random_moments(postgres_and_redis: SessionStores, tmp_path: Path) -> None:
    check_sigkill(postgres_and_redis, tmp_path, deaths=9)


def check_sigkill(stores: SessionStores, tmp_path: Path, deaths: int) -> None:
    chance = random.Random(506)
    live, due = fill(stores, "first")
    document = manifest(**OBEYED)
    # How long a whole run takes here, from the moment it has begun to work.
    warm_up = Command(tmp_path / "warm-up", document, stores.database_url, stores.redis_url, "--dry-run")
    assert first_line(warm_up)
    started = time.monotonic()
    assert warm_up.wait().exit_code == 0
    whole = max(0.15, 2 * (time.monotonic() - started))
    killed = 0
    for n in count():
        more, more_due = fill(stores, f"round{n}")
        live |= more
        due += more_due
        one = Command(tmp_path / f"killed-{n}", document, stores.database_url, stores.redis_url)
        assert first_line(one)
        try:
            one.process.wait(chance.uniform(0, whole))
        except subprocess.TimeoutExpired:
            one.process.send_signal(signal.SIGKILL)
        if one.wait().exit_code == -signal.SIGKILL:
            killed += 1
        else:
            whole *= 0.5  # the machine was slow when the time of a whole run was taken
        assert lost(stores, live) == {}
        if killed == deaths:
            break
    counted_before = sum(sessions for sessions, _ in stores.history().values())
    assert counted_before == due - (len(stores.ids()) - len(live))  # history tells exactly what has gone
    last = run(policy(**OBEYED), stores.database_url, stores.redis_url)
    assert last.report.outcome is Outcome.SUCCEEDED, last.report
    check_consistent(stores, live)
    assert sum(sessions for sessions, _ in stores.history().values()) == due
    counts = last.report.sessions
    assert counts.deleted == counts.expired + counts.evicted
    assert (counts.active, counts.failed, counts.remaining) == (len(live), 0, 0)
    again = run(policy(**OBEYED), stores.database_url, stores.redis_url)
    assert again.deleted == 0
    assert again.report.redis is not None
    assert (again.report.redis.deleted, again.report.redis.index_entries_removed) == (0, 0)


def first_line(one: Command) -> str:
    """Waits until the run says on standard error that it has begun."""
    assert one.process.stderr is not None
    return one.process.stderr.readline()


@pytest.mark.representative(when=["before"], database_url=["sqlite"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_r2_11_death_at_every_single_step(stores: SessionStores, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    check_death_at_every_step(stores, monkeypatch, when)


def check_death_at_every_step(stores: SessionStores, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """The run dies before, or right after, the n-th transaction or Redis command, for every n there is."""
    budget, steps = [0], [0]

    def step(original: object) -> object:
        def counted(self: object, *arguments: object, **options: object) -> object:
            steps[0] += 1
            if when == "before" and steps[0] == budget[0]:
                raise Killed
            result = original(self, *arguments, **options)  # type: ignore[operator]
            if when == "after" and steps[0] == budget[0]:
                raise Killed
            return result

        return counted

    monkeypatch.setattr(RunConnection, "transaction", step(RunConnection.transaction))
    monkeypatch.setattr(RedisServer, "_attempt", step(RedisServer._attempt))
    live, due = fill(stores, "s")
    deaths = 0
    obeyed = policy(**{**OBEYED, "cleanupBatchSize": 10})
    while True:
        budget[0], steps[0] = budget[0] + 1, 0
        try:
            last = run(obeyed, stores.database_url, stores.redis_url)
        except Killed:
            deaths += 1
            assert lost(stores, live) == {}
            continue
        break
    assert deaths > 10
    assert last.report.outcome is Outcome.SUCCEEDED
    check_consistent(stores, live)
    assert sum(sessions for sessions, _ in stores.history().values()) == due
