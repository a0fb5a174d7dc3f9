"""R2.1: the same batch never runs twice at once, whoever starts it and however the table is spelt."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from tests.support.runs import Command, command, manifest, policy, run, run_held_up
from tests.support.session_stores import HOUR, SessionStores


@pytest.mark.representative(database_url=["sqlite"])
def test_r2_1_of_two_runs_at_once_one_is_skipped_and_changes_nothing(
    database: SessionStores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database.add_many(((f"s{n}", "u") for n in range(5)), used=HOUR)
    with run_held_up(database.database_url, monkeypatch) as working:
        before = database.dump()
        second = command(tmp_path / "second", manifest(), database.database_url)
        assert database.dump() == before
        assert second.exit_code == 0
        assert (second.report.outcome, second.report.reason) == (Outcome.SKIPPED, "LockHeld")
        assert second.report.sessions.deleted == 0
    first = working.result()
    assert (first.report.outcome, first.deleted) == (Outcome.SUCCEEDED, 5)
    # And the lock is free again.
    assert command(tmp_path / "third", manifest(), database.database_url).report.outcome is Outcome.SUCCEEDED


def test_r2_1_two_spellings_of_one_table_share_the_lock(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.add("s", used=HOUR)
    with run_held_up(postgres.database_url, monkeypatch):
        spelt_out = policy(table={"schema": "public", "name": "sessions"})
        assert run(spelt_out, postgres.database_url).report.outcome is Outcome.SKIPPED


def test_r2_1_another_table_has_another_lock(postgres: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.add("s", used=HOUR)
    postgres.sql("CREATE TABLE others (LIKE sessions INCLUDING ALL)")
    with run_held_up(postgres.database_url, monkeypatch):
        assert run(policy(table={"name": "others"}), postgres.database_url).report.outcome is Outcome.SUCCEEDED


def test_r2_1_a_link_to_an_sqlite_file_shares_its_lock(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stores = SessionStores(sqlite_url)
    stores.add("s", used=HOUR)
    link = tmp_path / "elsewhere" / "link.sqlite3"
    link.parent.mkdir()
    link.symlink_to(sqlite_url.removeprefix("sqlite:///"))
    with run_held_up(stores.database_url, monkeypatch):
        assert run(policy(), f"sqlite:///{link}").report.outcome is Outcome.SKIPPED
    stores.close()


def test_r2_1_a_run_that_was_killed_leaves_no_lock(
    database: SessionStores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database.add_many(((f"s{n:04}", "u") for n in range(400)), used=HOUR)
    # It rests after each batch, so that it is still at work when the others come, however late that is.
    gently = {"batchSizing": "Fixed", "throttlePercent": 1}
    killed = Command(tmp_path / "killed", manifest(cleanupBatchSize=1, cleanup=gently), database.database_url)
    while len(database.ids()) == 400 and killed.process.poll() is None:
        pass
    assert command(tmp_path / "beside", manifest(), database.database_url).report.outcome is Outcome.SKIPPED
    killed.process.send_signal(signal.SIGKILL)
    assert killed.wait().exit_code == -signal.SIGKILL
    after = run(policy(), database.database_url)
    assert after.report.outcome is Outcome.SUCCEEDED
    assert database.ids() == set()


def test_r2_1_a_lock_taken_over_while_the_connection_was_lost_ends_the_run(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run took the lock while the first one was cut off: the first must not go on beside it."""
    postgres.add_many(((f"s{n}", "u") for n in range(4)), used=HOUR)
    with postgres.engine.connect() as other:
        with run_held_up(postgres.database_url, monkeypatch) as cut_off:
            other.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'session-policy' AND pid <> pg_backend_pid()"
            )
            take = sa.text("SELECT pg_try_advisory_lock(:class, ('sessions'::regclass::oid::bigint - 2147483648)::int)")
            while not other.scalar(take, {"class": 0x53504F4C}):
                pass
        result = cut_off.result()
    report = result.report
    assert (report.outcome, report.reason, result.exit_code) == (Outcome.FAILED, "LockLost", 1)
    assert len(postgres.ids()) == 4
