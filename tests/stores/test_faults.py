"""R2.11 and R2's retries: servers that die, connections that break, statements that hang; caused, not simulated."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from stores.model.errors import DatabaseUnavailableError
from stores.redis.store import RedisStore
from stores.sql.connection.run_connection import RunConnection
from stores.sql.removal.history import HistoryTable
from stores.waiting.clock import RunClock
from tests.support.hanging import UntilItHangs
from tests.support.patience import PATIENCE_SECONDS
from tests.support.runs import Command, command, manifest, policy, run
from tests.support.servers.restartable import RestartablePostgres, RestartableRedis
from tests.support.session_stores import HOUR, TABLE, SessionStores


@pytest.fixture
def mortal(own_postgres_url: str, own_redis: RestartableRedis) -> Any:
    """Stores on servers that may be killed."""
    made = SessionStores(own_postgres_url, own_redis.url)
    yield made
    made.close()


def fill(stores: SessionStores, count: int = 20) -> None:
    for n in range(count):
        stores.add(f"s{n:02}", f"u{n % 3}", began=2 * HOUR, used=HOUR)
        stores.add_key(f"s{n:02}", f"u{n % 3}", used=HOUR)
    for n in range(4):
        stores.add(f"live{n}", "u0")
        stores.add_key(f"live{n}", "u0")


def check_clean(stores: SessionStores) -> None:
    live = {f"live{n}" for n in range(4)}
    assert stores.ids() == live
    assert stores.redis_keys() == {f"{kind}:{i}" for i in live for kind in ("sess", "access_log")} | {"user_sess:u0"}
    assert sum(sessions for sessions, _ in stores.history().values()) == 20


class Once:
    """Has something happen at the n-th call of a method, before or after it does its work."""

    def __init__(self, happen: Callable[[], object], at: int, *, after: bool) -> None:
        self._happen, self._at, self._after = happen, at, after
        self.calls = 0

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            now = self.calls == self._at
            if now and not self._after:
                self._happen()
            result = original(*arguments, **options)
            if now and self._after:
                self._happen()
            return result

        return wrapped


def revived(server: RestartablePostgres | RestartableRedis) -> Callable[[], None]:
    def kill_and_restart() -> None:
        server.kill()
        server.restart()

    return kill_and_restart


# --- down from the start ---------------------------------------------------------------------------------------------


def retries(stderr: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stderr.splitlines()) if line["event"] == "retry"]


def test_r2_11_database_down_is_tried_again_as_the_policy_says_and_then_failed(
    own_postgres: RestartablePostgres, tmp_path: Path
) -> None:
    url = own_postgres.url
    own_postgres.kill()
    attempts = {"database": {"attempts": 4, "delaySeconds": 0}}
    finished = command(tmp_path, manifest(retries=attempts), url)
    report = finished.report
    assert (finished.exit_code, report.outcome, report.reason) == (1, Outcome.FAILED, "DatabaseUnavailable")
    assert "refuses connections" in report.message
    assert [(line["attempt"], line["of"], line["what"]) for line in retries(finished.stderr)] == [
        (n, 5, "database") for n in range(1, 5)
    ]
    errors = [line for line in map(json.loads, finished.stderr.splitlines()) if line["level"] == "error"]
    assert any("initialise.py" in frame for frame in errors[0]["trace"])  # R2.11: with its stack trace


def test_r2_11_redis_down_is_recorded_and_tried_again_and_nothing_is_deleted(
    mortal: SessionStores, own_redis: RestartableRedis, tmp_path: Path
) -> None:
    fill(mortal)
    before = SessionStores(mortal.database_url).dump()
    own_redis.kill()
    attempts = {"redis": {"attempts": 2, "delaySeconds": 0}}
    finished = command(tmp_path, manifest(redis=True, retries=attempts), mortal.database_url, mortal.redis_url)
    report = finished.report
    assert (finished.exit_code, report.outcome, report.reason) == (1, Outcome.FAILED, "RedisUnavailable")
    assert [line["what"] for line in retries(finished.stderr)] == ["Redis"] * 2
    assert SessionStores(mortal.database_url).dump() == before
    own_redis.restart()
    assert run(policy(redis=True), mortal.database_url, mortal.redis_url).exit_code == 0
    check_clean(mortal)


def test_a_stop_is_heeded_while_waiting_to_try_again(own_postgres: RestartablePostgres, tmp_path: Path) -> None:
    url = own_postgres.url
    own_postgres.kill()
    one = Command(tmp_path, manifest(retries={"database": {"attempts": 10, "delaySeconds": 300}}), url)
    assert one.process.stderr is not None
    while '"retry"' not in one.process.stderr.readline():
        pass
    one.process.send_signal(signal.SIGTERM)
    finished = one.wait(200)  # the pause it is in takes 300 s
    assert (finished.exit_code, finished.report.outcome) == (0, Outcome.DEGRADED)
    assert finished.report.reason == "Interrupted"


# --- killed while a run is at work -----------------------------------------------------------------------------------

BATCHES = {"redis": True, "cleanupBatchSize": 4}
PATIENT = {"retries": {"database": {"attempts": 3, "delaySeconds": 0}, "redis": {"attempts": 3, "delaySeconds": 0}}}


@pytest.mark.parametrize("after", [False, True], ids=["before history", "before commit"])
def test_database_killed_in_the_middle_of_a_batch_and_back_again(
    mortal: SessionStores, own_postgres: RestartablePostgres, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    fill(mortal)
    crash = Once(revived(own_postgres), 3, after=after)
    monkeypatch.setattr(HistoryTable, "add", crash.wrap(HistoryTable.add))
    result = run(policy(**BATCHES, **PATIENT), mortal.database_url, mortal.redis_url)
    assert (result.report.outcome, result.exit_code) == (Outcome.SUCCEEDED, 0), result.report
    assert result.deleted == 20
    assert result.log.named("retry")
    check_clean(mortal)


def test_an_answer_to_a_commit_that_gets_lost_counts_nothing_twice(
    mortal: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is committed, but the connection breaks before the run hears of it."""
    fill(mortal)
    original = RunConnection._attempt
    deleting = Once(lambda: None, 0, after=True)
    monkeypatch.setattr(HistoryTable, "add", deleting.wrap(HistoryTable.add))
    lost: list[int] = []

    def attempt(self: RunConnection, work: Any, retry_transient: bool) -> Any:
        before = deleting.calls
        result = original(self, work, retry_transient)
        if deleting.calls > before and deleting.calls not in lost and len(lost) < 3:
            lost.append(deleting.calls)
            self._drop()
            raise DatabaseUnavailableError("the connection was lost")
        return result

    monkeypatch.setattr(RunConnection, "_attempt", attempt)
    result = run(policy(**BATCHES, **PATIENT), mortal.database_url, mortal.redis_url)
    assert lost
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 20)
    check_clean(mortal)


def test_r2_11_database_killed_for_good_fails_the_run_and_the_next_one_goes_on(
    mortal: SessionStores, own_postgres: RestartablePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mortal)
    crash = Once(own_postgres.kill, 3, after=True)
    monkeypatch.setattr(HistoryTable, "add", crash.wrap(HistoryTable.add))
    result = run(policy(**BATCHES, **PATIENT), mortal.database_url, mortal.redis_url)
    assert (result.report.outcome, result.report.reason) == (Outcome.FAILED, "DatabaseUnavailable")
    assert (result.exit_code, result.deleted) == (1, 8)  # the two batches that were committed
    own_postgres.restart()
    assert len(mortal.ids()) == 4 + 12
    assert sum(sessions for sessions, _ in mortal.history().values()) == 8
    assert run(policy(**BATCHES), mortal.database_url, mortal.redis_url).deleted == 12
    check_clean(mortal)


def test_redis_killed_between_row_and_key_and_back_again(
    mortal: SessionStores, own_redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mortal)
    crash = Once(revived(own_redis), 2, after=False)
    monkeypatch.setattr(RedisStore, "delete", crash.wrap(RedisStore.delete))
    # While it is away, the next batch is looked up in it, too.
    patient = {**BATCHES, "retries": {"redis": {"attempts": 10, "delaySeconds": 1}}}
    result = run(policy(**patient), mortal.database_url, mortal.redis_url)
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 20)
    check_clean(mortal)


def test_r2_11_redis_killed_for_good_between_row_and_key_fails_the_run_and_the_next_one_converges(
    mortal: SessionStores, own_redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mortal)
    crash = Once(own_redis.kill, 2, after=False)
    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "delete", crash.wrap(RedisStore.delete))
        result = run(policy(**BATCHES, **PATIENT), mortal.database_url, mortal.redis_url)
    assert (result.report.outcome, result.report.reason) == (Outcome.FAILED, "RedisUnavailable")
    # The database may have been at work on the third batch already.
    assert result.exit_code == 1
    assert result.deleted in (8, 12)
    own_redis.restart()
    assert len([key for key in mortal.redis_keys() if key.startswith("sess:s")]) == 16  # some of their rows are gone
    after = run(policy(**BATCHES), mortal.database_url, mortal.redis_url)
    assert after.report.outcome is Outcome.SUCCEEDED
    assert after.report.redis is not None
    assert (after.deleted, after.report.redis.orphaned) == (20 - result.deleted, result.deleted - 4)
    check_clean(mortal)


# --- deletions that fail for a while ---------------------------------------------------------------------------------


def test_r2_a_deletion_is_tried_again_as_often_as_the_policy_says_and_then_left(postgres: SessionStores) -> None:
    """A trigger reports a conflict for one row, and counts in a sequence, which no rollback undoes."""
    postgres.add_many(((f"s{n}", "u") for n in range(6)), used=HOUR)
    postgres.sql(
        "CREATE SEQUENCE tried",
        "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.session_id = 's3' THEN"
        " PERFORM nextval('tried'); RAISE 'conflict' USING ERRCODE = '40001'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER conflict BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION conflict()",
    )
    obeyed = policy(cleanupBatchSize=2, retries={"deletion": {"attempts": 3, "delaySeconds": 0}})
    result = run(obeyed, postgres.database_url)
    assert (result.report.outcome, result.report.reason, result.exit_code) == (Outcome.DEGRADED, "DeletionsFailed", 0)
    assert postgres.ids() == {"s2", "s3"}
    assert (result.deleted, result.report.sessions.failed) == (4, 2)
    assert len([e for e in result.log.named("retry") if e["what"] == "deletion"]) == 3
    with postgres.engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT last_value FROM tried")) == 4


def test_r2_11_a_table_that_stays_locked_is_given_up(postgres: SessionStores) -> None:
    postgres.add("s", used=HOUR)
    with postgres.transaction() as application:
        application.exec_driver_sql("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
        result = run(policy(retries={"database": {"attempts": 0}}), postgres.database_url)
        assert (result.report.outcome, result.report.reason) == (Outcome.FAILED, "DatabaseUnavailable")
    assert postgres.ids() == {"s"}


# --- told to stop, or out of time ------------------------------------------------------------------------------------


def test_sigterm_finishes_the_batch_and_reports(database: SessionStores, tmp_path: Path) -> None:
    database.add_many(((f"s{n:04}", "u") for n in range(1500)), used=HOUR)
    # It rests after each batch, so that it is still at work when the signal comes, however late that is.
    gently = {"batchSizing": "Fixed", "throttlePercent": 2}
    one = Command(tmp_path, manifest(cleanupBatchSize=2, cleanup=gently), database.database_url)
    while len(database.ids()) == 1500:
        assert one.process.poll() is None
    one.process.send_signal(signal.SIGTERM)
    finished = one.wait()
    report, left = finished.report, len(database.ids())
    assert (finished.exit_code, report.outcome, report.reason) == (0, Outcome.DEGRADED, "Interrupted")
    assert 0 < left < 1500
    assert (report.sessions.deleted, report.sessions.remaining, report.sessions.expired) == (1500 - left, left, 1500)
    (row,) = database.statistics()
    assert (row["outcome"], row["deleted"]) == ("Degraded", 1500 - left)
    assert database.history() == {("u", "Expired"): (1500 - left, 0)}
    assert run(policy(), database.database_url).deleted == left


def test_the_deadline_ends_a_run_between_two_batches(database: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    database.add_many(((f"s{n}", "u") for n in range(10)), used=HOUR)
    clock = RunClock(3600)
    late = Once(lambda: setattr(clock, "_deadline", time.monotonic()), 2, after=True)
    monkeypatch.setattr(HistoryTable, "add", late.wrap(HistoryTable.add))
    result = run(policy(cleanupBatchSize=3), database.database_url, clock=clock)
    report = result.report
    assert (report.outcome, report.reason, result.exit_code) == (Outcome.DEGRADED, "DeadlineReached", 0)
    assert (report.sessions.deleted, report.sessions.remaining, len(database.ids())) == (6, 4, 4)
    assert run(policy(), database.database_url).deleted == 4


def test_the_deadline_cancels_a_statement_that_hangs(postgres: SessionStores) -> None:
    postgres.add_many(((f"s{n}", "u") for n in range(6)), used=HOUR)
    postgres.sql(
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF OLD.session_id = 's4' THEN PERFORM pg_sleep(60); END IF; RETURN OLD; END $$",
        "CREATE TRIGGER hang BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION hang()",
    )
    # Left alone, the statement would end well a minute later.
    result = run(policy(cleanupBatchSize=2), postgres.database_url, clock=UntilItHangs(postgres.engine))
    report = result.report
    assert result.log.named("run abandoned") == []
    assert (report.outcome, report.reason, result.exit_code) == (Outcome.DEGRADED, "DeadlineReached", 0)
    assert postgres.ids() == {"s4", "s5"}
    assert (report.sessions.deleted, report.sessions.remaining) == (4, 2)
    (row,) = postgres.statistics()
    assert row["deleted"] == 4


def test_a_statement_that_begins_just_after_the_deadline_is_cancelled_too(postgres: SessionStores) -> None:
    """The moment to cancel may fall between two statements."""
    clock = RunClock(3600)
    connection = RunConnection(postgres.engine, policy().spec.retries.database, clock, None)
    connection.transaction(lambda connection: connection.exec_driver_sql("SELECT 1"))
    clock._deadline = time.monotonic() - 1
    # The watch on the clock was set an hour ahead; a new one is late already.
    watched = RunConnection(postgres.engine, policy().spec.retries.database, clock, None)
    time.sleep(0.2)  # its first attempt to cancel finds nothing
    with pytest.raises(Exception, match="DeadlineReached"):  # left alone, it would just end
        watched.transaction(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(60)"))
    connection.close()
    watched.close()


def test_r2_11_an_sqlite_file_locked_for_good_fails_the_run(sqlite_url: str) -> None:
    stores = SessionStores(sqlite_url)
    stores.add("s", used=HOUR)
    with stores.transaction() as application:
        application.execute(TABLE.update().values(user_id="x"))
        result = run(policy(retries={"database": {"attempts": 0}}), sqlite_url)
    assert (result.exit_code, result.report.reason) == (1, "DatabaseUnavailable")
    assert "locked" in result.report.message
    assert stores.ids() == {"s"}
    stores.close()


def test_a_signal_at_any_moment_of_a_wait_does_not_hang_the_run() -> None:
    """A handler runs within whatever the main thread is doing, also while that holds the lock of what it waits for."""
    clock = RunClock(3600)
    done = threading.Event()

    def main() -> None:
        with clock._stop._cond:  # type: ignore[attr-defined]
            clock.request_stop()  # as a signal handler would, at the worst moment
        done.set()

    threading.Thread(target=main, daemon=True).start()
    assert done.wait(PATIENCE_SECONDS)
    with pytest.raises(Exception, match="Interrupted"):
        clock.wait(60)
