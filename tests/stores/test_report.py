"""``report``, ``plan`` and ``doctor`` on real stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.runs import manifest, policy, run
from tests.support.session_stores import HOUR, SessionStores

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])


def line(tmp_path: Path, stores: SessionStores, document: dict[str, Any] | None = None) -> CommandLine:
    return CommandLine(tmp_path, document or manifest(), stores.database_url, stores.redis_url)


# --- report ----------------------------------------------------------------------------------------------------------


def two_runs(stores: SessionStores) -> None:
    stores.add_many([(f"old-{n}", "ann") for n in range(4)], began=3 * HOUR, used=2 * HOUR)
    stores.add_many([(f"live-{n}", f"user-{n}") for n in range(6)])
    run(policy(), stores.database_url, run_id="one")
    stores.add_many([(f"new-{n}", f"user-{n}") for n in range(3)], began=60)
    run(policy(), stores.database_url, run_id="two")


def test_r2_7_the_report_shows_what_runs_have_left(tmp_path: Path, database: SessionStores) -> None:
    two_runs(database)
    report = line(tmp_path, database)("report", "--output", "json").document
    assert report["policy"] == "web/shop"
    assert [(r["active"], r["deleted"]) for r in report["runs"]] == [(6, 4), (9, 0)]
    assert [day["sessions"] for day in report["ended"]] == [{"Expired": 4}]
    assert report["averageMinutes"] == pytest.approx(60, abs=0.1)
    text = line(tmp_path, database)("report").stdout
    assert "active sessions   9" in text
    assert "Expired" in text


def test_r2_7_the_report_as_one_html_file(tmp_path: Path, database: SessionStores) -> None:
    two_runs(database)
    path = tmp_path / "report.html"
    answer = line(tmp_path, database)("report", "--html", str(path))
    assert answer.exit_code == 0
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Sessions of web/shop" in page
    # Personal data has no place in a file that is passed around.
    assert not any(word in page + answer.everything for word in ("ann", "user-", "live-", "old-"))


def test_the_report_looks_no_further_back_than_asked(tmp_path: Path, database: SessionStores) -> None:
    two_runs(database)
    with database.engine.begin() as connection:
        from stores.sql.schema.tables import statistics

        old = datetime.now(UTC) - timedelta(days=9)
        connection.execute(
            statistics.update().where(statistics.c.run_id == "one").values(started_at=old, completed_at=old)
        )
    command = line(tmp_path, database)
    assert len(command("report", "--days", "7", "--output", "json").document["runs"]) == 1
    assert len(command("report", "--days", "10", "--output", "json").document["runs"]) == 2


def test_statistics_of_several_policies_are_not_mixed(tmp_path: Path, database: SessionStores) -> None:
    from click.testing import CliRunner

    from job.cli.main import main

    two_runs(database)
    with database.engine.begin() as connection:
        from stores.sql.schema.tables import statistics

        connection.execute(statistics.update().where(statistics.c.run_id == "one").values(policy="web/other"))
    url = {"DATABASE_URL": database.database_url}
    refused = CliRunner().invoke(main, ["report"], env=url)
    assert (refused.exit_code, "web/other, web/shop" in refused.stderr) == (2, True)
    chosen = CliRunner().invoke(main, ["report", "--policy", "web/other", "--output", "json"], env=url)
    assert '"policy": "web/other"' in chosen.stdout
    assert len(line(tmp_path, database)("report", "--output", "json").document["runs"]) == 1


@pytest.mark.parametrize("tables", [True, False])
def test_without_statistics_the_report_says_what_to_do(tmp_path: Path, database: SessionStores, tables: bool) -> None:
    if not tables:
        database.sql("DROP TABLE session_statistics")
    answer = line(tmp_path, database)("report")
    assert answer.exit_code == 2
    assert ("no statistics yet" if tables else "session-policy init") in answer.stderr


# --- plan ------------------------------------------------------------------------------------------------------------


def planned(document: Any) -> dict[str, Any]:
    return {rule["rule"]: rule for rule in document["rules"]}


def test_r6_a_plan_says_what_a_run_would_do_and_changes_nothing(tmp_path: Path, stores: SessionStores) -> None:
    for n in range(5):
        stores.add(f"expired-session-{n}", "ann", began=3 * HOUR, used=2 * HOUR)
        stores.add_key(f"expired-session-{n}", "ann", used=2 * HOUR)
    for n in range(4):
        stores.add(f"bob-session-{n}", "bob", used=100 * (n + 1))
        stores.add_key(f"bob-session-{n}", "bob", used=100 * (n + 1))
    stores.add_key("orphaned-session", "eve")
    before = stores.dump()
    command = line(tmp_path, stores, manifest(redis=True, maxConcurrentSessions=3))
    outlook = command("plan", "--full", "--output", "json").document
    rules = planned(outlook)
    assert (rules["Expired"]["found"], len(rules["Expired"]["examples"])) == (5, 3)
    assert rules["ConcurrencyLimit"]["found"] == 1
    assert rules["ConcurrencyLimit"]["examples"] == ["bob-session-3"]
    assert rules["RedisWithoutRow"]["found"] == 1
    assert (outlook["sessions"], outlook["deleting"], outlook["refusal"]) == (9, 6, None)
    text = command("plan").stdout
    assert "about 6 of 9 sessions" in text
    assert "bob-session-3" not in text
    assert stores.dump() == before


def test_a_plan_and_the_run_after_it_agree(tmp_path: Path, database: SessionStores) -> None:
    for n in range(7):
        database.add(f"expired-session-{n}", "ann", used=2 * HOUR)
    database.add_many([(f"bob-session-{n}", "bob") for n in range(15)])
    outlook = line(tmp_path, database)("plan", "--output", "json").document
    assert outlook["deleting"] == run(policy(), database.database_url).deleted == 12


def test_r6_a_plan_tells_that_a_run_would_refuse(tmp_path: Path, database: SessionStores) -> None:
    database.add_many([(f"expired-session-{n}", "ann") for n in range(9)], used=2 * HOUR)
    database.add("live", "ann")
    document = manifest(safety={"maxDeletePercent": 50, "alwaysAllowedDeletions": 0})
    command = line(tmp_path, database, document)
    assert "safety.maxDeletePercent" in command("plan", "--output", "json").document["refusal"]
    assert "It would refuse" in command("plan").stdout


def test_r2_6_a_plan_shows_each_rule_with_examples(tmp_path: Path, database: SessionStores) -> None:
    for n in range(5):
        database.add(f"long-running-{n}", f"u{n}", began=30 * HOUR)
    rules = [{"type": "LongRunning", "action": "Delete"}, {"type": "ImpossibleTravel"}]
    found = planned(line(tmp_path, database, manifest(rules=rules))("plan", "--full", "--output", "json").document)
    assert (found["LongRunning"]["action"], found["LongRunning"]["found"]) == ("Delete", 5)
    assert len(found["LongRunning"]["examples"]) == 3
    assert found["ImpossibleTravel"]["found"] is None
    assert "accessLog" in found["ImpossibleTravel"]["note"]


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_the_doctor_lets_a_good_policy_run(tmp_path: Path, stores: SessionStores) -> None:
    answer = line(tmp_path, stores, manifest(redis=True))("doctor", "--output", "json")
    assert answer.exit_code == 0, answer
    assert answer.document["ready"] is True
    assert not [f for f in answer.document["findings"] if f["severity"] == "Error"]
    assert "A run can start." in line(tmp_path, stores, manifest(redis=True))("doctor").stdout


def test_the_doctor_finds_all_that_is_wrong_at_once(tmp_path: Path, database: SessionStores) -> None:
    columns = {"id": {"name": "no_such"}, "expiresAt": {"name": "nor_such"}}
    table = {"name": "sessions", "columns": columns}
    document = manifest(redis=True, table=table, maxConcurrentSessions=0, alerts={"operations": {"urlsFrom": _SECRET}})
    command = CommandLine(tmp_path, document, database.database_url, "redis://127.0.0.1:9/0")
    environment = {"ALERT_OPERATIONS_URLS": "nosuchservice://secret-token", "LOG_HASH_KEY": "short"}
    answer = command("doctor", "--output", "json", environment=environment)
    found = {(f["severity"], f["field"]) for f in answer.document["findings"]}
    assert answer.exit_code == 2
    assert {
        ("Error", "stores.database.table.columns.id"),
        ("Error", "stores.database.table.columns.expiresAt"),
        ("Error", "stores.redis"),
        ("Warning", "alerts.operations.urlsFrom"),
        ("Warning", "logs.hashKeyFrom"),
    } <= found
    assert "secret" not in answer.everything
    assert "A run would refuse to start." in command("doctor").stdout


_SECRET = {"secretKeyRef": {"name": "alerts", "key": "urls"}}


def test_the_doctor_gives_the_statement_for_a_missing_index(tmp_path: Path, postgres: SessionStores) -> None:
    postgres.sql("DROP INDEX ix_sessions_last_accessed_at", "DROP TABLE session_history")
    answer = line(tmp_path, postgres)("doctor")
    assert answer.exit_code == 0
    assert "CREATE INDEX CONCURRENTLY" in answer.stdout
    assert "session_history" in answer.stdout


def test_the_doctor_tells_of_bad_settings_and_rules_that_find_nothing(tmp_path: Path, database: SessionStores) -> None:
    database.set_global(idle=7200, absolute=60)
    document = manifest(rules=[{"type": "ImpossibleTravel"}])
    findings = line(tmp_path, database, document)("doctor", "--output", "json").document["findings"]
    warned = [f["field"] for f in findings if f["severity"] == "Warning"]
    assert "rules" in warned
    assert any(field.startswith("Global.") for field in warned)


def test_the_doctor_of_a_policy_that_is_none(tmp_path: Path, database: SessionStores) -> None:
    answer = line(tmp_path, database, manifest(schedul="1 * * * *"))("doctor")
    assert answer.exit_code == 2
    assert "schedul" in answer.stderr
