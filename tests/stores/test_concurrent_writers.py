"""R6: a run deletes in shorter transactions while others write to the same server, and in longer ones otherwise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from stores.sql.connection import concurrent_writers
from stores.sql.connection.concurrent_writers import ConcurrentWriters
from stores.sql.store import SessionDatabase
from stores.waiting.pacing import TARGET_BESIDE_OTHERS_SECONDS, TARGET_SECONDS, Pace
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, TABLE, SessionStores

BESIDE, ALONE = {TARGET_BESIDE_OTHERS_SECONDS}, {TARGET_SECONDS}


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What each transaction was to take. Every look counts, however soon after the one before it."""
    found: list[float] = []
    after = Pace.after

    def told(self: Pace, done: int, seconds: float, target_seconds: float = TARGET_SECONDS) -> Pace:
        found.append(target_seconds)
        return after(self, done, seconds, target_seconds)

    monkeypatch.setattr(Pace, "after", told)
    monkeypatch.setattr(concurrent_writers, "_LEAST_SECONDS", 0)
    monkeypatch.setattr(concurrent_writers, "_MEASURE_SECONDS", 0)
    return found


def when_counted(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Has something done once the run has counted the sessions."""
    original = SessionDatabase.count

    def counted(self: SessionDatabase, *arguments: Any) -> Any:
        counts = original(self, *arguments)
        then()
        return counts

    monkeypatch.setattr(SessionDatabase, "count", counted)


def before_each_look(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    look = ConcurrentWriters.measure

    def looking(self: ConcurrentWriters) -> None:
        then()
        look(self)

    monkeypatch.setattr(ConcurrentWriters, "measure", looking)


def write(stores: SessionStores) -> None:
    """What an application with many users does in an instant."""
    with stores.engine.connect() as connection:
        for _ in range(100):
            now = datetime.now(UTC)
            connection.execute(TABLE.update().where(TABLE.c.session_id == "mine").values(last_accessed_at=now))
            connection.commit()


@pytest.fixture
def many(database: SessionStores) -> SessionStores:
    database.add("mine")
    database.add_many(((f"s{n:03}", f"u{n % 7}") for n in range(300)), used=HOUR)
    return database


@pytest.mark.parametrize("strategy", ["PhysicalRanges", "ExpiryIndex", "IdOrder"])
def test_r6_a_run_beside_an_application_makes_its_transactions_short(
    many: SessionStores, targets: list[float], monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    if many.is_sqlite or (strategy == "PhysicalRanges" and many.is_mysql):
        pytest.skip("SQLite cannot tell, and MySQL has no such ranges")
    before_each_look(monkeypatch, lambda: write(many))
    cleanup = {"strategy": strategy, "batchSizing": "Adaptive"}
    result = run(policy(cleanup=cleanup, cleanupBatchSize=50), many.database_url)
    assert (result.deleted, many.ids()) == (300, {"mine"})
    assert set(targets) == BESIDE


def test_r6_a_run_by_itself_does_not_take_its_own_work_for_that_of_others(
    many: SessionStores, targets: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    after, target_seconds, transactions = Pace.after, ConcurrentWriters.target_seconds, count(1)

    def as_small(self: Pace, done: int, *seconds: float) -> Pace:
        after(self, done, *seconds)
        return self

    def now_and_then(self: ConcurrentWriters) -> float:
        if next(transactions) % 20 == 0:
            self.measure()
        return target_seconds(self)

    monkeypatch.setattr(Pace, "after", as_small)
    monkeypatch.setattr(ConcurrentWriters, "target_seconds", now_and_then)
    monkeypatch.setattr(concurrent_writers, "_MEASURE_SECONDS", 3600)
    cleanup = {"strategy": "IdOrder", "batchSizing": "Adaptive"}
    assert run(policy(cleanup=cleanup, cleanupBatchSize=4), many.database_url).deleted == 300
    assert len(targets) >= 60
    assert set(targets) == ALONE


def test_r6_a_run_is_fast_again_once_the_others_are_done(
    many: SessionStores, targets: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    if many.is_sqlite:
        pytest.skip("SQLite cannot tell")
    when_counted(monkeypatch, lambda: write(many))
    cleanup = {"strategy": "IdOrder", "batchSizing": "Adaptive"}
    monkeypatch.setattr(SessionDatabase, "_bulk_delete_plan", lambda *_: None)
    assert run(policy(cleanup=cleanup, cleanupBatchSize=20), many.database_url).deleted == 300
    assert targets[-1] == TARGET_SECONDS


def test_r6_workers_of_one_run_do_not_slow_each_other_down(
    many: SessionStores, targets: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_each_look(monkeypatch, lambda: write(many))
    cleanup = {"batchSizing": "Adaptive"}
    shared = policy(cleanup=cleanup, cleanupBatchSize=50, job={"parallelism": 2})
    assert run(shared, many.database_url).deleted == 300
    assert set(targets) == ALONE


def test_r6_batches_of_a_fixed_size_need_no_look(
    many: SessionStores, targets: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_each_look(monkeypatch, lambda: write(many))
    run(policy(cleanup={"batchSizing": "Fixed"}, cleanupBatchSize=50), many.database_url)
    assert set(targets) == ALONE
