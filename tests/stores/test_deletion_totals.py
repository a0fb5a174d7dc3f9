"""R2.2, R2.7: where PostgreSQL itself sums up what it deletes, everything reported is as if we had read each row."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from job.logs.id_hasher import IdHasher
from job.logs.run_logs import HashedSessionLog, LogSink
from policy.mapping import TimeEncoding
from policy.report import Outcome
from stores.sql.schema.tables import history
from tests.support.runs import InThread, Result, command, manifest, policy, run
from tests.support.session_stores import HOUR, SessionStores

ONE_BY_ONE: dict[str, Any] = {"strategy": "IdOrder", "batchSizing": "Fixed"}
SWEEPS: dict[str, dict[str, Any]] = {"ranges": {"strategy": "PhysicalRanges"}, "index": {"strategy": "ExpiryIndex"}}
EPOCH_TABLE = {
    "name": "sessions",
    "columns": {
        "id": {"name": "session_id"},
        "userId": {"name": "user_id"},
        "createdAt": {"name": "began", "encoding": "EpochSeconds"},
        "lastAccessedAt": {"name": "used", "encoding": "EpochSeconds"},
    },
}

# Each of these would be told wrongly by an obvious way to sum up.
_ROWS = (
    "('half', 'ann', now() - interval '3 hours', now() - interval '2 hours' + interval '0.9 seconds', NULL)",
    "('another half', 'ann', now() - interval '3 hours', now() - interval '2 hours' + interval '0.9 seconds', NULL)",
    "('backwards', 'bob', now() - interval '2 hours', now() - interval '3 hours', NULL)",
    "('no beginning', 'bob', NULL, now() - interval '2 hours', NULL)",
    "('no use', 'bob', now() - interval '2 hours', NULL, now() - interval '2 hours')",
    "('for ever', 'cleo', '-infinity', 'infinity', '-infinity')",
    "('never', 'cleo', '-infinity', '-infinity', '-infinity')",
    "('after python', 'cleo', '20000-01-01', '20000-01-02', '-infinity')",
    "('ages', 'cleo', '0900-01-01', now() - interval '2 hours', NULL)",
    "('nobody', NULL, now() - interval '3 hours', now() - interval '2 hours', NULL)",
    "('blank', '', now() - interval '3 hours', now() - interval '2 hours', NULL)",
    "('capital', 'Ann', now() - interval '3 hours', now() - interval '2 hours', NULL)",
    "('trailing', 'ann ', now() - interval '3 hours', now() - interval '2 hours', NULL)",
    f"('long', '{'é' * 300}', now() - interval '3 hours', now() - interval '2 hours', NULL)",
    f"('as long', '{'é' * 299}x', now() - interval '3 hours', now() - interval '2 hours', NULL)",
)


def fill(stores: SessionStores) -> None:
    stores.sql(
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at, expires_at) VALUES "
        + ", ".join(_ROWS)
    )


def told(stores: SessionStores, result: Result) -> tuple[Any, ...]:
    assert result.report.outcome is Outcome.SUCCEEDED, result.report
    vitals = result.report.vitals
    return result.deleted, stores.history(), vitals and vitals.average_session_seconds


def cleared(stores: SessionStores) -> None:
    stores.sql("DELETE FROM sessions", "DELETE FROM session_history", "DELETE FROM session_statistics")


@pytest.fixture
def wide(postgres: SessionStores) -> SessionStores:
    postgres.sql("ALTER TABLE sessions ALTER user_id TYPE text, ALTER created_at DROP NOT NULL")
    postgres.sql("ALTER TABLE sessions ALTER last_accessed_at DROP NOT NULL")
    return postgres


@pytest.fixture
def lines() -> Iterator[tuple[HashedSessionLog, StringIO]]:
    stream = StringIO()
    yield HashedSessionLog(LogSink(stream, logging.INFO, for_people=False), IdHasher(b"0123456789abcdef")), stream


@pytest.mark.parametrize("logged", [False, True], ids=["unlogged", "logged"])
@pytest.mark.parametrize("way", SWEEPS)
def test_r2_7_history_and_durations_are_those_of_single_sessions(
    wide: SessionStores, lines: tuple[HashedSessionLog, StringIO], way: str, logged: bool
) -> None:
    fill(wide)
    expected = told(wide, run(policy(cleanup=ONE_BY_ONE, rules=[]), wide.database_url))
    assert expected[0] == len(_ROWS)
    assert expected[1]["ann", "Expired"] == (2, 2 * HOUR), "whole seconds of each session"
    assert expected[1]["é" * 255, "Expired"] == (2, 2 * HOUR), "the history's names have a length"
    cleared(wide)
    fill(wide)
    audit, stream = lines
    obeyed = policy(cleanup=SWEEPS[way], rules=[])
    assert told(wide, run(obeyed, wide.database_url, audit=audit if logged else None)) == _but_for_ages(expected)
    logs = [json.loads(line)["session"] for line in stream.getvalue().splitlines()]
    named = [row.split("'")[1] for row in _ROWS]
    assert sorted(logs) == (sorted(map(IdHasher(b"0123456789abcdef").session, named)) if logged else [])


def _but_for_ages(expected: tuple[Any, ...]) -> tuple[Any, ...]:
    """Looked at one by one, a session may have lasted longer than a thousand years."""
    deleted, users, _ = expected
    users = {**users, ("cleo", "Expired"): (4, 0)}
    # Eight of an hour, two of them with a fraction; one that ended before it began.
    return deleted, users, round((8 * HOUR + 1.8) / 9)


def test_durations_in_whole_numbers_never_overflow(postgres: SessionStores) -> None:
    most = 2**63 - 1
    postgres.sql("ALTER TABLE sessions ADD began bigint, ADD used bigint, ALTER created_at DROP NOT NULL")
    postgres.sql("ALTER TABLE sessions ALTER last_accessed_at DROP NOT NULL")
    rows = [("odd", -most, 7200), ("plain", 3600, 7200), ("backwards", 7200, 3600)]
    for cleanup in (ONE_BY_ONE, SWEEPS["ranges"]):
        cleared(postgres)
        for name, *times in rows:
            began, used = times
            postgres.sql(
                f"INSERT INTO sessions (session_id, user_id, began, used) VALUES ('{name}','u',{began},{used})"
            )
        result = run(policy(cleanup=cleanup, table=EPOCH_TABLE, rules=[]), postgres.database_url)
        assert told(postgres, result) == (3, {("u", "Expired"): (3, 3600)}, 1800)


@pytest.mark.parametrize("way", SWEEPS)
def test_times_without_a_zone_follow_the_zone_they_are_in(postgres: SessionStores, way: str) -> None:
    """An hour is missing in the night in which summer time begins."""
    postgres.sql(
        "ALTER TABLE sessions ALTER created_at TYPE timestamp USING created_at AT TIME ZONE 'UTC',"
        " ALTER last_accessed_at TYPE timestamp USING last_accessed_at AT TIME ZONE 'UTC'",
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at)"
        " VALUES ('s', 'u', '2026-03-29 01:30', '2026-03-29 03:30')",
    )
    naive = {"encoding": TimeEncoding.NAIVE_TIMESTAMP.value, "timeZone": "Europe/Berlin"}
    columns = {
        "id": {"name": "session_id"},
        "userId": {"name": "user_id"},
        "createdAt": {"name": "created_at", **naive},
        "lastAccessedAt": {"name": "last_accessed_at", **naive},
    }
    obeyed = policy(cleanup=SWEEPS[way], table={"name": "sessions", "columns": columns}, rules=[])
    assert told(postgres, run(obeyed, postgres.database_url))[1:] == ({("u", "Expired"): (1, HOUR)}, HOUR)


def test_a_user_id_of_a_fixed_length_is_spelt_in_one_way(postgres: SessionStores) -> None:
    """Blanks that fill it up are kept by one way to read it, and dropped by others."""
    postgres.sql("ALTER TABLE sessions ALTER user_id TYPE char(6)")
    for cleanup in (ONE_BY_ONE, *SWEEPS.values()):
        postgres.add("s", "ann", used=HOUR)
        assert run(policy(cleanup=cleanup, rules=[]), postgres.database_url).deleted == 1
    assert [sessions for sessions, _ in postgres.history().values()] == [3]


def test_a_history_that_somebody_keeps_locked_is_waited_for_and_then_right(postgres: SessionStores) -> None:
    obeyed = policy(cleanup=SWEEPS["ranges"], rules=[])
    postgres.add_many(((f"s{n}", "ann") for n in range(5)), used=HOUR)
    assert run(obeyed, postgres.database_url).deleted == 5
    postgres.add_many(((f"s{n}", "ann") for n in range(7)), used=HOUR)
    with postgres.transaction() as other:
        other.execute(sa.select(history).with_for_update())
        working = InThread(obeyed, postgres.database_url)
        while not _waiting_by_id(postgres):
            pass
        other.commit()
    result = working.result()
    assert (result.report.outcome, result.deleted, result.report.sessions.failed) == (Outcome.SUCCEEDED, 7, 0)
    assert postgres.history()["ann", "Expired"][0] == 12


def _waiting_by_id(stores: SessionStores) -> bool:
    """Whether the run, after its bulk delete has given up, waits in the statement that only writes the history."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query LIKE 'INSERT%%'"
    )
    with stores.engine.begin() as connection:
        return bool(connection.exec_driver_sql(query).scalar())


def test_r6_a_plan_is_asked_for_once_for_each_index(postgres: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    explain = sa.Connection.exec_driver_sql

    def noted(self: sa.Connection, statement: str, *arguments: Any, **options: Any) -> Any:
        if statement.startswith("EXPLAIN"):
            asked.append(statement)
        return explain(self, statement, *arguments, **options)

    monkeypatch.setattr(sa.Connection, "exec_driver_sql", noted)
    postgres.add("s", used=HOUR)
    result = run(policy(cleanup={}), postgres.database_url)
    assert result.deleted == 1
    assert len(asked) == len(set(asked)) == 2  # by the last use, and by the application's own expiry
    assert result.log.named("strategy chosen")[0]["expired"] == 1


@pytest.mark.parametrize("logged", [True, False], ids=["logged", "unlogged"])
def test_r2_single_deleted_sessions_are_logged_unless_the_policy_wants_only_their_count(
    stores: SessionStores, tmp_path: Path, logged: bool
) -> None:
    ended = [f"old{n}" for n in range(30)]
    stores.add_many(((session, "ann") for session in ended), used=2 * HOUR)
    stores.add_many([("new", "ann")], used=60)
    obeyed = manifest(cleanup={"strategy": "Auto"}, logs={"deletedSessions": logged})
    done = command(tmp_path, obeyed, stores.database_url, output=None)
    assert (done.exit_code, stores.ids()) == (0, {"new"}), done
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len([line for line in lines if line.get("log") == "cleanup"]) == (len(ended) if logged else 0)
    assert json.loads(done.termination_message)["sessions"]["deleted"] == len(ended)
    assert stores.history()["ann", "Expired"][0] == len(ended)
