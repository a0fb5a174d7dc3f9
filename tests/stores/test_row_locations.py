"""R2.2, R6: where few of many sessions have expired, all of them are looked for at once, and each is judged again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from stores.sql.dialects.base import TableLayout
from stores.sql.dialects.postgresql import bulk_delete, bulk_statements, row_locations
from tests.stores.test_concurrent_writers import before_each_look, write
from tests.stores.test_strategies import INDEX, RANGES, ids, spread, waiting
from tests.support.runs import InThread, Result, policy, run
from tests.support.session_stores import TABLE, SessionStores
from tests.support.steps import steps

EXPIRED, LIVE = 40, 5000


@pytest.fixture
def few(postgres: SessionStores) -> SessionStores:
    spread(postgres, EXPIRED, LIVE)
    return postgres


@pytest.fixture(params=[RANGES, INDEX], ids=["blocks", "index"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How they are looked for."""
    cleanup: dict[str, Any] = request.param
    return cleanup


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[list[str] | None]:
    """What each look at the whole table has found."""
    looks: list[list[str] | None] = []
    find = row_locations.find_row_locations

    def noted(*arguments: Any, **options: Any) -> list[str] | None:
        looks.append(find(*arguments, **options))
        return looks[-1]

    monkeypatch.setattr(bulk_delete, "find_row_locations", noted)
    return looks


def between(monkeypatch: pytest.MonkeyPatch, then: Callable[[list[str]], None]) -> None:
    """Has something done after all rows were found, and before the first row is deleted."""
    find = bulk_delete._row_locations

    def finding(*arguments: Any) -> list[str] | None:
        done = find(*arguments)
        assert done
        then(done)
        return done

    monkeypatch.setattr(bulk_delete, "_row_locations", finding)


def no_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("nothing is to be read in ranges")

    monkeypatch.setattr(bulk_delete.BlockRangeDelete, "next", refused)
    monkeypatch.setattr(bulk_delete.IndexRangeDelete, "next", refused)


def clean(stores: SessionStores, way: dict[str, Any]) -> Result:
    obeyed = policy(cleanup=way, cleanupBatchSize=7, maxConcurrentSessions=0, rules=[])
    result = run(obeyed, stores.database_url)
    assert result.report.outcome is Outcome.SUCCEEDED, result.report
    assert sum(sessions for sessions, _ in stores.history().values()) == result.deleted
    assert result.report.sessions.failed == 0
    return result


def test_r2_2_the_few_expired_go_in_many_batches_and_the_many_others_stay(
    few: SessionStores, way: dict[str, Any], found: list[list[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_ranges(monkeypatch)
    sizes: list[int] = []
    take = bulk_delete.RowLocationDelete._delete_without_waiting

    def counted(self: Any, *arguments: Any) -> Any:
        taken = take(self, *arguments)
        sizes.append(len(taken))
        return taken

    monkeypatch.setattr(bulk_delete.RowLocationDelete, "_delete_without_waiting", counted)
    assert clean(few, way).deleted == EXPIRED
    assert (ids(few, "s"), len(ids(few, "live"))) == (set(), LIVE)
    assert [len(look or ()) for look in found] == [EXPIRED]
    assert sum(sizes) == EXPIRED
    assert sizes[0] == 7, "no more than a batch at first"


def test_r2_2_sessions_used_after_they_were_found_survive(
    few: SessionStores, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_ranges(monkeypatch)
    used = {f"s{n}" for n in range(LIVE + 1, LIVE + EXPIRED, 3)}

    def use(_: list[str]) -> None:
        with few.engine.begin() as connection:
            now = datetime.now(UTC)
            connection.execute(TABLE.update().where(TABLE.c.session_id.in_(used)).values(last_accessed_at=now))

    between(monkeypatch, use)
    assert clean(few, way).deleted == EXPIRED - len(used)
    assert ids(few, "s") == used


def test_r2_2_live_sessions_at_the_locations_of_expired_ones_survive(
    few: SessionStores, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application ends sessions by itself, vacuum clears their places, and new sessions take these."""
    no_ranges(monkeypatch)
    reused: set[str] = set()

    def replace(before: list[str]) -> None:
        few.sql("DELETE FROM sessions WHERE session_id LIKE 's%%'")
        with few.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM (INDEX_CLEANUP ON) sessions")
            connection.exec_driver_sql(
                "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at)"
                " SELECT 'new' || n, 'u', now(), now() FROM generate_series(1, 2000) n"
            )
            new = connection.exec_driver_sql("SELECT ctid::text FROM sessions WHERE session_id LIKE 'new%%'")
            reused.update(set(before) & set(new.scalars()))

    between(monkeypatch, replace)
    assert clean(few, way).deleted == 0
    assert reused, "or nothing was tested"
    assert (len(ids(few, "new")), len(ids(few, "live"))) == (2000, LIVE)


def test_r2_2_a_session_that_is_used_while_the_run_waits_for_its_row_survives(
    few: SessionStores, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_ranges(monkeypatch)
    monkeypatch.setattr(bulk_statements, "_LOCK_WAIT_MILLISECONDS", 30_000)
    used = f"s{LIVE + 9}"
    with few.transaction() as application:
        now = datetime.now(UTC)
        application.execute(TABLE.update().where(TABLE.c.session_id == used).values(last_accessed_at=now))
        working = InThread(policy(cleanup=way, maxConcurrentSessions=0, rules=[]), few.database_url)
        while not waiting(few):
            pass
        application.commit()
    result = working.result()
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, EXPIRED - 1), result.report
    assert ids(few, "s") == {used}


def test_a_row_that_is_locked_is_left_and_its_neighbours_go_by_their_ids(
    few: SessionStores, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_ranges(monkeypatch)
    locked = f"s{LIVE + 9}"
    with few.transaction() as application:
        application.execute(sa.select(TABLE).where(TABLE.c.session_id == locked).with_for_update())
        assert clean(few, way).deleted == EXPIRED - 1
    assert ids(few, "s") == {locked}


def test_more_expired_sessions_than_can_be_held_are_deleted_in_ranges(
    few: SessionStores, way: dict[str, Any], found: list[list[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for choice in ("few_in_blocks", "few_by_index"):
        monkeypatch.setattr(bulk_delete, choice, lambda *_: True)  # more have expired since they were counted
    monkeypatch.setattr(row_locations, "_MAX_ROWS", EXPIRED - 1)
    assert clean(few, way).deleted == EXPIRED
    assert found == [None]
    assert (ids(few, "s"), len(ids(few, "live"))) == (set(), LIVE)


def test_a_look_that_takes_too_long_is_given_up_for_ranges(
    few: SessionStores, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[str] = []

    def slow(connection: sa.Connection, *_: Any, **__: Any) -> list[str]:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 1")
        timeouts.append("one")
        connection.exec_driver_sql("SELECT pg_sleep(600)")
        raise AssertionError("it has slept")

    monkeypatch.setattr(bulk_delete, "find_row_locations", slow)
    assert clean(few, way).deleted == EXPIRED
    assert timeouts == ["one"]
    assert (ids(few, "s"), len(ids(few, "live"))) == (set(), LIVE)


def test_a_part_of_the_table_is_read_in_ranges(
    few: SessionStores, found: list[list[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.sql.removal.splitting._MIN_BLOCKS", 1)
    with steps(policy(cleanup=RANGES), few) as opened:
        database = opened.opened.database
        assert database.count().expired == EXPIRED
        parts = database.partition(2)
        assert len(parts) == 2, "or nothing is tested"
        gone = [sum(len(swept.deleted) for swept in database.bulk_delete_expired([part])) for part in parts]
    assert sum(gone) == EXPIRED
    assert min(gone) > 0
    assert found == []


@pytest.mark.parametrize("busy", [True, False])
def test_r6_only_where_nobody_else_is_at_work_do_several_processes_look(
    few: SessionStores, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    few.sql("INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) VALUES ('mine','u',now(),now())")
    if busy:
        before_each_look(monkeypatch, lambda: write(few))
        monkeypatch.setattr("stores.sql.connection.concurrent_writers._LEAST_SECONDS", 0)
    workers: list[str] = []
    find = row_locations.find_row_locations

    def noted(connection: sa.Connection, *arguments: Any, **options: Any) -> list[str] | None:
        done = find(connection, *arguments, **options)
        workers.append(connection.exec_driver_sql("SHOW max_parallel_workers_per_gather").scalar_one())
        return done

    monkeypatch.setattr(bulk_delete, "find_row_locations", noted)
    assert clean(few, way).deleted == EXPIRED
    assert workers == ["0" if busy else "2"]


@pytest.mark.parametrize(
    ("expired", "layout", "expected"),
    [
        (100, TableLayout(rows=10_000, blocks=300), True),
        (101, TableLayout(rows=10_000, blocks=300), False),
        (None, TableLayout(rows=10_000, blocks=300), False),
        (0, TableLayout(rows=0, blocks=0), False),
        (100, TableLayout(rows=None, blocks=300), True),
        (50_000, TableLayout(rows=10_000_000, blocks=250_000), True),
        (50_001, TableLayout(rows=10_000_000, blocks=250_000), False),
        (1000, TableLayout(rows=100_000_000, blocks=1_048_577), False),
    ],
)
def test_what_few_are_in_all_of_a_table(expired: int | None, layout: TableLayout, expected: bool) -> None:
    assert row_locations.few_in_blocks(expired, layout) is expected


@pytest.mark.parametrize(
    ("index_entries", "layout", "expected"),
    [
        (50_000, TableLayout(blocks=300), True),
        (50_001, TableLayout(blocks=300), False),
        (None, TableLayout(blocks=300), False),
        (1, TableLayout(no_ranges="it has partitions"), False),
    ],
)
def test_what_few_are_by_an_index(index_entries: int | None, layout: TableLayout, expected: bool) -> None:
    assert row_locations.few_by_index(index_entries, layout) is expected
