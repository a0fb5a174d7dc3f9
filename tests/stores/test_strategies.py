"""R2.2, R6: each way to find what has expired, beside those who use the same rows, and where it cannot be used."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from job.logs.id_hasher import IdHasher
from job.logs.run_logs import HashedSessionLog, LogSink
from policy.report import Outcome
from stores.model.errors import DatabaseUnavailableError
from stores.model.key_range import KeyRange
from stores.model.sessions import DeletionTotals
from stores.sql.connection.run_connection import RunConnection
from stores.sql.dialects.postgresql import bulk_statements, row_locations
from stores.sql.store import SessionDatabase
from stores.waiting.clock import RunClock
from stores.waiting.pacing import TARGET_SECONDS, Pace
from tests.stores.test_killed_anywhere import Killed
from tests.support.command_line import CommandLine
from tests.support.patience import PATIENCE_SECONDS
from tests.support.runs import InThread, manifest, policy, run
from tests.support.session_stores import HOUR, TABLE, SessionStores
from tests.support.steps import steps

RANGES = {"strategy": "PhysicalRanges"}
INDEX = {"strategy": "ExpiryIndex"}
BY_PAGE = {"strategy": "ExpiryIndex", "batchSizing": "Fixed"}
# Of such a table no durations are known: where nobody asks for each session, they are only counted.
NO_BEGINNING = {
    "name": "sessions",
    "columns": {
        "id": {"name": "session_id"},
        "userId": {"name": "user_id"},
        "lastAccessedAt": {"name": "last_accessed_at"},
    },
}
TABLES: dict[str, dict[str, Any]] = {"durations": {}, "no durations": {"table": NO_BEGINNING}}
STALE = "'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36'"


@pytest.fixture(autouse=True)
def none_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they would all be looked for at once; see test_row_locations.py and test_strategies_few.py."""
    monkeypatch.setattr(row_locations, "_MAX_ROWS", -1)


def spread(stores: SessionStores, expired: int, live: int = 0) -> None:
    """Sessions in random order, over many blocks, so that a run takes many ranges."""
    stores.sql(
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at, client)"
        f" SELECT CASE WHEN n > {live} THEN 's' ELSE 'live' END || n, 'u' || mod(n, 9), now() - interval '3 hours',"
        f" now() - CASE WHEN n > {live} THEN interval '2 hours' ELSE interval '1 minute' END, {STALE}"
        f" FROM generate_series(1, {expired + live}) n ORDER BY random()"
    )


def ids(stores: SessionStores, kind: str) -> set[str]:
    return {i for i in stores.ids() if i.startswith(kind)}


# --- beside an application -------------------------------------------------------------------------------------------


@pytest.mark.representative(cleanup=[RANGES])
@pytest.mark.parametrize("cleanup", [RANGES, INDEX, BY_PAGE], ids=["ranges", "index", "index by page"])
def test_r2_2_sessions_that_are_used_while_the_table_is_walked_survive(
    postgres: SessionStores, cleanup: dict[str, Any]
) -> None:
    """Each use makes a new version of a row, which lies elsewhere: often where the run has not been yet."""
    spread(postgres, 3000)
    touched: set[str] = set()
    problems: list[BaseException] = []
    begun = threading.Event()

    def come_back() -> None:
        try:
            for n in range(1, 3000, 7):
                with postgres.engine.begin() as connection:
                    done = connection.execute(
                        TABLE.update().where(TABLE.c.session_id == f"s{n}").values(last_accessed_at=datetime.now(UTC))
                    )
                if done.rowcount:
                    touched.add(f"s{n}")
                begun.set()
        except sa.exc.SQLAlchemyError as error:
            problems.append(error)

    users = threading.Thread(target=come_back)
    users.start()
    assert begun.wait(PATIENCE_SECONDS)
    result = run(policy(cleanup=cleanup, cleanupBatchSize=5, maxConcurrentSessions=0), postgres.database_url)
    users.join()
    assert problems == []
    assert (result.report.outcome, result.report.sessions.failed) == (Outcome.SUCCEEDED, 0), result.report
    assert touched
    assert postgres.ids() == touched
    assert result.deleted == 3000 - len(touched)


def waiting(stores: SessionStores) -> bool:
    with stores.engine.begin() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.exec_driver_sql(query).scalar())


@pytest.mark.parametrize("becomes_live", [True, False])
def test_a_row_that_changes_while_the_run_waits_for_it_is_judged_by_its_new_version(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch, becomes_live: bool
) -> None:
    postgres.add_many(((f"s{n}", "u") for n in range(5)), used=HOUR)
    monkeypatch.setattr(bulk_statements, "_LOCK_WAIT_MILLISECONDS", 30_000)
    with postgres.transaction() as application:
        new = {"last_accessed_at": datetime.now(UTC)} if becomes_live else {"user_id": "another"}
        application.execute(TABLE.update().where(TABLE.c.session_id == "s2").values(new))
        working = InThread(policy(cleanup=RANGES), postgres.database_url)
        while not waiting(postgres):
            pass
        application.commit()
    result = working.result()
    assert (result.report.outcome, result.report.sessions.failed) == (Outcome.SUCCEEDED, 0), result.report
    assert postgres.ids() == ({"s2"} if becomes_live else set())
    assert ("another" in {user for user, _ in postgres.history()}) is not becomes_live


def test_a_row_that_somebody_keeps_locked_costs_its_neighbours_nothing(postgres: SessionStores) -> None:
    spread(postgres, expired=500, live=500)
    with postgres.transaction() as application:
        application.execute(sa.select(TABLE).where(TABLE.c.session_id.in_(["s600", "live7"])).with_for_update())
        result = run(policy(cleanup=RANGES, cleanupBatchSize=5, maxConcurrentSessions=0), postgres.database_url)
    assert ids(postgres, "s") == {"s600"}
    assert len(ids(postgres, "live")) == 500
    assert (result.deleted, result.report.sessions.failed) == (499, 0)


def test_a_row_that_somebody_keeps_locked_is_not_waited_for_in_mariadb_either(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stores.sql.dialects.mysql.dialect.LOCK_TIMEOUT_SECONDS", 1000
    )  # who waited would meet the deadline
    stores = SessionStores(mariadb_url)
    stores.add_many(((f"s{n:03}", "u") for n in range(300)), used=HOUR)
    stores.add_many((f"t{n:03}", "u") for n in range(300))
    with stores.transaction() as application:
        application.execute(sa.select(TABLE).where(TABLE.c.session_id.in_(["s100", "t100"])).with_for_update())
        obeyed = policy(cleanup={"strategy": "IdOrder"}, maxConcurrentSessions=0)
        result = run(obeyed, mariadb_url, clock=RunClock(100))
    assert result.report.outcome is Outcome.SUCCEEDED
    assert (result.deleted, result.report.sessions.failed) == (299, 0), result.report
    assert {i for i in stores.ids() if i.startswith("s")} == {"s100"}
    stores.close()


# --- whatever fails --------------------------------------------------------------------------------------------------


def cleanup_log() -> HashedSessionLog:
    return HashedSessionLog(LogSink(StringIO(), logging.INFO, for_people=False), IdHasher())


whatever_is_told = pytest.mark.parametrize(
    ("keeps_history", "logged", "table"),
    [
        (True, True, "durations"),
        (True, False, "durations"),
        (False, True, "durations"),
        (False, False, "durations"),
        (True, False, "no durations"),
        (False, False, "no durations"),
    ],
)


@pytest.mark.representative(keeps_history=[True], logged=[True])
@whatever_is_told
def test_an_answer_to_a_commit_that_gets_lost_counts_nothing_twice(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch, keeps_history: bool, logged: bool, table: str
) -> None:
    spread(postgres, expired=400, live=100)
    original, lost = RunConnection._attempt, [0]
    deleting: list[int] = []
    take = bulk_statements.PostgreSQLBulkDelete._delete_without_waiting

    def counted(self: Any, *arguments: Any) -> Any:
        rows = take(self, *arguments)
        deleting.append(len(rows))
        return rows

    def attempt(self: RunConnection, work: Any, retry_transient: bool) -> Any:
        before = len(deleting)
        result = original(self, work, retry_transient)
        if len(deleting) > before and deleting[-1] and lost[0] < 3:
            lost[0] += 1
            self._drop()
            raise DatabaseUnavailableError("the connection was lost")
        return result

    monkeypatch.setattr(bulk_statements.PostgreSQLBulkDelete, "_delete_without_waiting", counted)
    monkeypatch.setattr(RunConnection, "_attempt", attempt)
    patient = {"database": {"attempts": 3, "delaySeconds": 0}}
    obeyed = policy(
        cleanup=RANGES,
        cleanupBatchSize=5,
        maxConcurrentSessions=0,
        retries=patient,
        statistics={"enabled": keeps_history},
        **TABLES[table],
    )
    result = run(obeyed, postgres.database_url, audit=cleanup_log() if logged else None)
    assert lost[0] == 3
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 400)
    assert sum(sessions for sessions, _ in postgres.history().values()) == (400 if keeps_history else 0)
    assert len(ids(postgres, "live")) == len(postgres.ids()) == 100


@pytest.mark.representative(keeps_history=[True], logged=[True])
@whatever_is_told
def test_what_was_rolled_back_with_a_lost_connection_is_done_again(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch, keeps_history: bool, logged: bool, table: str
) -> None:
    spread(postgres, expired=400, live=100)
    take, lost = bulk_statements.PostgreSQLBulkDelete._delete_without_waiting, [0]

    def cut_off(self: Any, connection: sa.Connection, *arguments: Any) -> Any:
        taken = take(self, connection, *arguments)
        if len(taken) and lost[0] < 3:
            lost[0] += 1
            backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            postgres.sql(f"SELECT pg_terminate_backend({backend}, 10000)")
        return taken

    monkeypatch.setattr(bulk_statements.PostgreSQLBulkDelete, "_delete_without_waiting", cut_off)
    obeyed = policy(
        cleanup=RANGES,
        cleanupBatchSize=5,
        maxConcurrentSessions=0,
        retries={"database": {"attempts": 5, "delaySeconds": 0}},
        statistics={"enabled": keeps_history},
        **TABLES[table],
    )
    result = run(obeyed, postgres.database_url, audit=cleanup_log() if logged else None)
    assert lost[0] == 3
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 400)
    assert sum(sessions for sessions, _ in postgres.history().values()) == (400 if keeps_history else 0)
    assert len(ids(postgres, "live")) == len(postgres.ids()) == 100


@pytest.mark.parametrize("table", TABLES)
def test_a_lost_answer_counts_nothing_twice_where_a_row_moved_away_just_then(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """It would have been the one by which the run knows whether a range went; some servers still offer it."""
    spread(postgres, expired=400)
    monkeypatch.setattr(bulk_statements, "_LOCK_WAIT_MILLISECONDS", 30_000)
    original, lost = RunConnection._attempt, [0]

    def attempt(self: RunConnection, work: Any, retry_transient: bool) -> Any:
        result = original(self, work, retry_transient)
        if isinstance(result, DeletionTotals) and len(result) and not lost[0]:
            lost[0] = len(result)
            self._drop()
            raise DatabaseUnavailableError("the connection was lost")
        return result

    monkeypatch.setattr(RunConnection, "_attempt", attempt)
    obeyed = policy(
        cleanup=RANGES,
        cleanupBatchSize=5,
        maxConcurrentSessions=0,
        retries={"database": {"attempts": 3, "delaySeconds": 0}},
        statistics={"enabled": False},
        **TABLES[table],
    )
    with postgres.transaction() as application:
        application.exec_driver_sql(
            "UPDATE sessions SET user_id = 'moved' WHERE ctid = (SELECT min(ctid) FROM sessions)"
        )
        working = InThread(obeyed, postgres.database_url)
        while not waiting(postgres):
            pass
        application.commit()
    result = working.result()
    assert result.report.outcome is Outcome.SUCCEEDED, result.report
    assert lost[0] > 1
    assert result.deleted == 400 - len(postgres.ids()) >= 399


@pytest.mark.representative(when=["before"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_any_range_leaves_history_and_table_in_agreement(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    original, calls, fatal = bulk_statements.PostgreSQLBulkDelete._delete_without_waiting, [0], [0]

    def take(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        if when == "before" and calls[0] == fatal[0]:
            raise Killed
        rows = original(self, *arguments)
        if calls[0] == fatal[0]:
            raise Killed
        return rows

    monkeypatch.setattr(bulk_statements.PostgreSQLBulkDelete, "_delete_without_waiting", take)
    deaths = 0
    for fatal[0] in (1, 2, 3):
        spread(postgres, expired=300)
        calls[0] = 0
        before = sum(sessions for sessions, _ in postgres.history().values())
        try:
            run(policy(cleanup=RANGES, cleanupBatchSize=5), postgres.database_url)
        except Killed:
            deaths += 1
        counted = sum(sessions for sessions, _ in postgres.history().values()) - before
        assert counted == 300 - len(postgres.ids())
        postgres.sql("DELETE FROM sessions")
    assert deaths == 3


def test_one_row_that_refuses_costs_its_range_nothing_but_itself(postgres: SessionStores) -> None:
    spread(postgres, expired=500)
    postgres.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF OLD.session_id = 's77' THEN RAISE 'no'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    result = run(policy(cleanup=RANGES, maxConcurrentSessions=0), postgres.database_url)
    assert postgres.ids() == {"s77"}
    assert (result.deleted, result.report.sessions.failed, result.report.sessions.remaining) == (499, 1, 0)
    assert sum(sessions for sessions, _ in postgres.history().values()) == 499


# --- what a strategy reads -------------------------------------------------------------------------------------------


def sequential_reads(stores: SessionStores) -> int:
    """How many rows have been read by scans of the whole table so far; connections tell when they are closed."""
    with stores.engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
        query = "SELECT coalesce(seq_tup_read, 0) FROM pg_stat_user_tables WHERE relname = 'sessions'"
        return int(connection.exec_driver_sql(query).scalar() or 0)


@pytest.mark.parametrize("cleanup", [INDEX, BY_PAGE], ids=["at once", "by page"])
def test_r6_by_index_no_scan_of_the_whole_table_is_needed(postgres: SessionStores, cleanup: dict[str, Any]) -> None:
    spread(postgres, expired=40, live=20_000)
    with postgres.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE sessions")
    obeyed = policy(cleanup=cleanup, cleanupBatchSize=7)
    read = []
    for work in (False, True):  # what opening the stores reads is not the deletion's
        before = sequential_reads(postgres)
        with steps(obeyed, postgres) as opened:
            if work:
                gone = sum(len(deletion.deleted) for deletion in opened.opened.database.bulk_delete_expired())
        read.append(sequential_reads(postgres) - before)
    assert gone == 40
    assert read[0] == read[1]


@pytest.mark.parametrize("cleanup", [INDEX, BY_PAGE], ids=["at once", "by page"])
def test_sessions_of_one_and_the_same_time_all_go(postgres: SessionStores, cleanup: dict[str, Any]) -> None:
    """An index on the time does not tell them apart; and one of them is locked all the while."""
    moment = datetime.now(UTC) - timedelta(hours=2)
    postgres.rows({"session_id": f"s{n:03}", "last_accessed_at": moment} for n in range(100))
    with postgres.transaction() as application:
        application.execute(sa.select(TABLE).where(TABLE.c.session_id == "s050").with_for_update())
        result = run(policy(cleanup=cleanup, cleanupBatchSize=9), postgres.database_url)
    assert postgres.ids() == {"s050"}
    assert (result.deleted, result.report.sessions.failed) == (99, 0)


@pytest.mark.parametrize("strategy", ["ExpiryIndex", "PhysicalRanges", "IdOrder"])
def test_key_ranges_share_the_sessions_without_overlap(
    postgres: SessionStores, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.sql.removal.splitting._MIN_BLOCKS", 1)
    spread(postgres, expired=1500, live=200)
    postgres.sql("ANALYZE sessions")
    with steps(policy(cleanup={"strategy": strategy}, cleanupBatchSize=50), postgres) as opened:
        database = opened.opened.database
        for count in (1, 2, 3, 7):
            parts = [KeyRange(**json.loads(json.dumps(_plain(part)))) for part in database.partition(count)]
            assert len(parts) == (1 if strategy == "ExpiryIndex" else count)
            met = [c.session.id for part in parts for page in database.expired_pages([part]) for c in page]
            assert sorted(met) == sorted(ids(postgres, "s"))
        gone = [len(d.deleted) for part in database.partition(4) for d in database.bulk_delete_expired([part])]
    assert sum(gone) == 1500
    assert ids(postgres, "s") == set()
    assert len(ids(postgres, "live")) == 200


def _plain(part: KeyRange) -> dict[str, Any]:
    return {"strategy": part.strategy, "after": part.after, "up_to": part.up_to}


# --- where a strategy cannot be used ---------------------------------------------------------------------------------


def refused(obeyed: dict[str, Any], url: str) -> str:
    result = run(policy(**obeyed), url)
    assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration"), result.report
    assert "cleanup.strategy" in result.report.message
    assert "choose Auto" in result.report.message
    return result.report.message


def test_a_pinned_strategy_that_cannot_be_used_is_refused_before_anything_is_done(database: SessionStores) -> None:
    database.add("s", used=HOUR)
    if database.engine.dialect.name == "postgresql":
        with database.engine.begin() as connection:
            for index in sa.inspect(connection).get_indexes("sessions"):
                if index["column_names"][0] == "expires_at":
                    connection.exec_driver_sql(f'DROP INDEX "{index["name"]}"')
        assert "no index begins with 'expires_at'" in refused({"cleanup": INDEX}, database.database_url)
    else:
        assert "blocks" in refused({"cleanup": RANGES}, database.database_url)
    assert database.ids() == {"s"}
    assert run(policy(cleanup={}), database.database_url).deleted == 1


@pytest.mark.parametrize("kind", ["inheritance", "partitions"])
def test_ranges_of_blocks_need_a_plain_table(postgres: SessionStores, kind: str) -> None:
    if kind == "partitions":
        postgres.sql(
            "ALTER TABLE sessions RENAME TO old",
            "CREATE TABLE sessions (LIKE old INCLUDING DEFAULTS) PARTITION BY HASH (session_id)",
            "ALTER TABLE sessions ADD PRIMARY KEY (session_id)",
            "CREATE TABLE one PARTITION OF sessions FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
            "CREATE TABLE two PARTITION OF sessions FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        )
    else:
        postgres.sql("CREATE TABLE child () INHERITS (sessions)")
    postgres.add_many(((f"s{n}", "u") for n in range(20)), used=HOUR)
    assert "partitions" in refused({"cleanup": RANGES}, postgres.database_url)
    assert run(policy(cleanup={}), postgres.database_url).deleted == 20


# --- what one is told ------------------------------------------------------------------------------------------------


def test_the_log_says_which_way_was_chosen_and_why(postgres: SessionStores) -> None:
    postgres.add("s", used=HOUR)
    (event,) = run(policy(cleanup={}), postgres.database_url).log.named("strategy chosen")
    assert (event["chosen"], event["expired"]) == ("IdOrder", 1)
    assert "small" in event["because"]


def test_a_plan_says_which_way_a_run_would_choose_and_why(postgres: SessionStores, tmp_path: Path) -> None:
    postgres.add("s", used=HOUR)
    command = CommandLine(tmp_path, manifest(cleanup=RANGES), postgres.database_url)
    told = command("plan", "--output", "json").document["strategy"]
    assert (told["chosen"], told["because"]) == ("PhysicalRanges", "cleanup.strategy asks for it")
    assert told["figures"]["expired"] == told["figures"]["blocks"] == 1
    assert "PhysicalRanges: cleanup.strategy asks for it" in command("plan").stdout


# --- gently ----------------------------------------------------------------------------------------------------------


def test_r6_a_throttled_run_rests_after_each_batch_and_others_never(
    database: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(RunClock, "wait", lambda _, seconds: rests.append(seconds))
    for percent, expected in ((100, 0), (50, 4)):
        database.add_many(((f"s{n}", "u") for n in range(10)), used=HOUR)
        cleanup = {"strategy": "IdOrder", "batchSizing": "Fixed", "throttlePercent": percent}
        assert run(policy(cleanup=cleanup, cleanupBatchSize=3), database.database_url).deleted == 10
        assert len(rests) == expected
    assert all(rest > 0 for rest in rests)


def test_a_stop_is_heeded_while_a_throttled_run_rests(postgres: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.add_many(((f"s{n}", "u") for n in range(10)), used=HOUR)
    clock = RunClock(3600)
    wait = RunClock.wait

    def stopped(self: RunClock, seconds: float) -> None:
        clock._request()  # as request_stop does, but at once
        wait(self, 3600)

    monkeypatch.setattr(RunClock, "wait", stopped)
    cleanup = {"batchSizing": "Fixed", "throttlePercent": 1}
    report = run(policy(cleanup=cleanup, cleanupBatchSize=3), postgres.database_url, clock=clock).report
    assert (report.reason, report.sessions.deleted, report.sessions.remaining) == ("Interrupted", 3, 7)
    assert len(postgres.ids()) == 7


def test_adaptive_batches_grow_while_they_are_quick(database: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    database.add_many(((f"s{n:04}", "u") for n in range(600)), used=HOUR)
    seen: list[int] = []
    original = SessionDatabase.delete_expired

    def counted(self: SessionDatabase, sessions: Any) -> Any:
        seen.append(len(sessions))
        return original(self, sessions)

    monkeypatch.setattr(SessionDatabase, "delete_expired", counted)
    monkeypatch.setattr(SessionDatabase, "_bulk_delete_plan", lambda *_: None)
    after = Pace.after
    monkeypatch.setattr(Pace, "after", lambda self, done, *_: after(self, done, TARGET_SECONDS / 10))
    assert run(policy(cleanup={"strategy": "IdOrder"}, cleanupBatchSize=50), database.database_url).deleted == 600
    assert seen == [50, 200, 350]
