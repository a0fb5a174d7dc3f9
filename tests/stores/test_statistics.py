"""R2.7, R2.10: what a run leaves in the statistics and in the history of users."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from stores.sql.schema.tables import history, statistics
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores


def fill(stores: SessionStores) -> None:
    stores.add_many([("e0", "ann"), ("e1", "ann"), ("e2", "bob"), ("e3", None)], began=3 * HOUR, used=2 * HOUR)
    for n in range(4):
        stores.add(f"l{n}", "ann", began=HOUR, used=100 * (n + 1))
    stores.add("l9", "cleo")


def test_r2_7_statistics_and_history_are_exact(database: SessionStores) -> None:
    fill(database)
    report = run(policy(maxConcurrentSessions=2, rules=[]), database.database_url, run_id="job-1").report
    (row,) = database.statistics()
    assert row["run_id"] == "job-1"
    assert (row["policy"], row["outcome"]) == ("web/shop", "Succeeded")
    expected = {"active": 3, "expired": 4, "over_limit": 2, "evicted": 2, "deleted": 6, "failed": 0, "remaining": 0}
    expected |= {"duplicate": 0, "abnormal": 0}
    assert {k: row[k] for k in expected} == expected == report.sessions.model_dump()
    assert row["active_users"] == 2
    assert row["started_at"] <= row["completed_at"]
    # The two of ann's that were used least recently: 300 and 400 s ago, an hour after they began.
    assert database.history() == {
        ("ann", "Expired"): (2, 2 * HOUR),
        ("bob", "Expired"): (1, HOUR),
        ("ann", "Evicted"): (2, 2 * HOUR - 700),
    }


def test_r2_7_history_adds_up_over_batches_and_runs(database: SessionStores) -> None:
    for name in ("x", "y"):
        database.add_many(((f"{name}{n}", "ann") for n in range(5)), began=3 * HOUR, used=2 * HOUR)
        run(policy(cleanupBatchSize=2), database.database_url, run_id=name)
    with database.engine.begin() as connection:
        total = connection.execute(
            sa.select(sa.func.sum(history.c.sessions), sa.func.sum(history.c.total_seconds))
        ).one()
    assert tuple(map(int, total)) == (10, 10 * HOUR)
    assert len(database.statistics()) == 2


def test_r2_7_a_repeated_run_replaces_its_row(database: SessionStores) -> None:
    fill(database)
    run(policy(), database.database_url, run_id="job-1")
    run(policy(), database.database_url, run_id="job-1")
    (row,) = database.statistics()
    assert (row["deleted"], row["active"]) == (0, 5)


def test_r2_7_what_is_older_than_the_policy_keeps_is_forgotten(database: SessionStores) -> None:
    run(policy(), database.database_url, run_id="old")
    database.add("e", "ann", used=HOUR)
    run(policy(), database.database_url, run_id="kept")
    with database.engine.begin() as connection:
        for table, when in ((statistics, statistics.c.started_at), (history, history.c.day)):
            rows = connection.execute(sa.select(table)).mappings().all()
            for row in rows:
                if row.get("run_id") == "kept":
                    continue
                moved = {when.name: row[when.name] - timedelta(days=8)}
                match = table.c.run_id == row["run_id"] if table is statistics else table.c.user_id == row["user_id"]
                connection.execute(table.update().where(match).values(moved))
    run(policy(statistics={"retentionDays": 7}), database.database_url, run_id="new")
    assert {row["run_id"] for row in database.statistics()} == {"kept", "new"}
    assert database.history() == {}


def test_a_policy_s_retention_leaves_the_statistics_of_others_that_share_the_database(database: SessionStores) -> None:
    run(policy(), database.database_url, run_id="another's")
    with database.engine.begin() as connection:
        moved = {"policy": "other/shop", "started_at": sa.text("'2020-01-01 00:00:00'")}
        connection.execute(statistics.update().values(moved))
    run(policy(statistics={"retentionDays": 1}), database.database_url, run_id="own")
    assert {row["run_id"] for row in database.statistics()} == {"another's", "own"}


@pytest.mark.parametrize("enabled", [True, False])
def test_without_their_tables_or_switched_off_a_run_goes_on(database: SessionStores, enabled: bool) -> None:
    database.add("e", used=HOUR)
    if enabled:
        database.sql("DROP TABLE session_statistics", "DROP TABLE session_history", "DROP TABLE session_settings")
    result = run(policy(statistics={"enabled": enabled}), database.database_url)
    assert (result.exit_code, result.deleted) == (0, 1)
    assert bool(result.log.named("statistics disabled")) is enabled
    if not enabled:
        assert (database.statistics(), database.history()) == ([], {})
