"""R2.2: what other tables keep about a session goes, or lets go, in the transaction that deletes the session."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from stores.sql.removal.history import HistoryTable
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores

# MariaDB's SQL is tested in few other modules by `make test`, and everywhere by `make test-all`.
pytestmark = pytest.mark.representative(database_url=["postgresql", "sqlite"])


def rows(stores: SessionStores, query: str) -> list[tuple[Any, ...]]:
    with stores.engine.begin() as connection:
        return sorted(map(tuple, connection.exec_driver_sql(query)))


def refer(stores: SessionStores, table: str, column: str, rule: str = "") -> None:
    """A table with two rows that refer to each of two sessions: one that has expired, and one that is live."""
    stores.sql(
        f"CREATE TABLE {table} (id int PRIMARY KEY, sid {column},"
        f" FOREIGN KEY (sid) REFERENCES sessions (session_id) {rule})",
        f"INSERT INTO {table} VALUES (1, 'old'), (2, 'old'), (3, 'live'), (4, 'live')",
    )


@pytest.fixture
def two(database: SessionStores) -> SessionStores:
    database.add("old", used=HOUR)
    database.add("live")
    return database


def test_rows_that_cannot_be_without_a_session_go_with_it(two: SessionStores) -> None:
    refer(two, "devices", "varchar(128) NOT NULL")
    result = run(policy(), two.database_url)
    assert (result.report.outcome, result.deleted, two.ids()) == (Outcome.SUCCEEDED, 1, {"live"}), result.report
    assert rows(two, "SELECT id, sid FROM devices") == [(3, "live"), (4, "live")]
    told = [e["found"] for e in result.log.named("preflight finding")]
    assert any("'devices'" in found and "are deleted with it" in found for found in told)


def test_rows_that_can_be_without_a_session_are_kept(two: SessionStores) -> None:
    """Such as a user's account that remembers the last session: nobody would want it to go."""
    refer(two, "accounts", "varchar(128) NULL")
    result = run(policy(), two.database_url)
    assert (result.deleted, two.ids()) == (1, {"live"})
    with two.engine.begin() as connection:
        left = connection.exec_driver_sql("SELECT id, sid FROM accounts ORDER BY id").all()
    assert [tuple(row) for row in left] == [(1, None), (2, None), (3, "live"), (4, "live")]


@pytest.mark.parametrize(("rule", "left"), [("ON DELETE CASCADE", 2), ("ON DELETE SET NULL", 4)])
def test_what_the_database_sees_to_itself_is_left_to_it(two: SessionStores, rule: str, left: int) -> None:
    refer(two, "devices", "varchar(128) NULL", rule)
    assert run(policy(), two.database_url).deleted == 1
    assert len(rows(two, "SELECT id FROM devices")) == left
    assert rows(two, "SELECT id FROM devices WHERE sid = 'live'") == [(3,), (4,)]


def test_a_dry_run_touches_none_of_them(two: SessionStores) -> None:
    refer(two, "devices", "varchar(128) NOT NULL")
    run(policy(), two.database_url, dry_run=True)
    assert len(rows(two, "SELECT id FROM devices")) == 4


def test_r2_11_they_stay_when_the_session_does(two: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction: what follows the deletion fails, and everything is as it was."""
    refer(two, "devices", "varchar(128) NOT NULL")

    def fail(*_: object) -> None:
        raise RuntimeError("the statistics cannot be written")

    monkeypatch.setattr(HistoryTable, "add", fail)
    assert run(policy(), two.database_url).report.outcome is Outcome.FAILED
    assert two.ids() == {"old", "live"}
    assert len(rows(two, "SELECT id FROM devices")) == 4


def test_what_refers_to_those_rows_is_not_touched_and_the_session_stays(two: SessionStores) -> None:
    two.add("older", used=2 * HOUR)
    refer(two, "devices", "varchar(128) NOT NULL")
    two.sql(
        "CREATE TABLE keys_of_devices (device int NOT NULL, FOREIGN KEY (device) REFERENCES devices (id))",
        "INSERT INTO keys_of_devices VALUES (2)",
    )
    result = run(policy(), two.database_url)
    assert two.ids() == {"old", "live"}
    assert (result.report.outcome, result.report.sessions.failed) == (Outcome.DEGRADED, 1)
    assert len(rows(two, "SELECT id FROM devices")) == 4


def test_r2_5_they_go_with_a_session_over_the_limit_as_well(two: SessionStores) -> None:
    refer(two, "devices", "varchar(128) NOT NULL")
    two.add("older", used=600)
    two.sql("UPDATE sessions SET user_id = 'u'", "INSERT INTO devices VALUES (5, 'older')")
    result = run(policy(maxConcurrentSessions=1), two.database_url)
    assert (two.ids(), result.report.sessions.evicted) == ({"live"}, 1)
    assert rows(two, "SELECT id FROM devices") == [(3,), (4,)]


def test_a_session_is_never_deleted_for_another_ones_sake(database: SessionStores) -> None:
    """A table that refers to itself, as where a session remembers the one it came from."""
    database.sql(
        "CREATE TABLE s (id varchar(20) PRIMARY KEY, parent varchar(20), seen int NOT NULL,"
        " FOREIGN KEY (parent) REFERENCES s (id))",
        "INSERT INTO s VALUES ('old', NULL, 1), ('alone', NULL, 1)",
        "INSERT INTO s VALUES ('live', 'old', 2000000000)",
    )
    columns = {"id": {"name": "id"}, "lastAccessedAt": {"name": "seen", "encoding": "EpochSeconds"}}
    result = run(policy(table={"name": "s", "columns": columns}), database.database_url)
    assert rows(database, "SELECT id FROM s") == [("live",), ("old",)]
    assert result.report.sessions.failed == 1


def test_keys_of_several_columns_and_to_other_columns_than_the_id(database: SessionStores) -> None:
    database.sql(
        "CREATE TABLE s (id varchar(20) NOT NULL UNIQUE, tenant int NOT NULL, number int NOT NULL, seen int NOT NULL,"
        " PRIMARY KEY (tenant, number))",
        "CREATE TABLE parts (tenant int NOT NULL, number int NOT NULL, part int NOT NULL,"
        " FOREIGN KEY (tenant, number) REFERENCES s (tenant, number))",
        "INSERT INTO s VALUES ('old', 1, 1, 1), ('live', 1, 2, 2000000000), ('live too', 2, 1, 2000000000)",
        "INSERT INTO parts VALUES (1, 1, 1), (1, 1, 2), (1, 2, 3), (2, 1, 4)",
    )
    columns = {"id": {"name": "id"}, "lastAccessedAt": {"name": "seen", "encoding": "EpochSeconds"}}
    result = run(policy(table={"name": "s", "columns": columns}), database.database_url)
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 1), result.report
    assert rows(database, "SELECT part FROM parts") == [(3,), (4,)]


def test_a_table_in_another_schema(postgres: SessionStores) -> None:
    postgres.add("old", used=HOUR)
    postgres.sql(
        'CREATE SCHEMA "Other One"',
        'CREATE TABLE "Other One"."select" (sid varchar(128) NOT NULL REFERENCES public.sessions)',
        'INSERT INTO "Other One"."select" VALUES (\'old\')',
    )
    assert run(policy(), postgres.database_url).deleted == 1
    with postgres.engine.begin() as connection:
        assert connection.scalar(sa.text('SELECT count(*) FROM "Other One"."select"')) == 0
