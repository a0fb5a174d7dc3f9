"""R3.1: what is particular to MySQL and MariaDB. All other store tests run on MariaDB as well."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from stores.model.sessions import Cause, Session
from stores.sql.removal.history import HistoryTable
from tests.support.hanging import UntilItHangs
from tests.support.runs import policy, run, run_held_up
from tests.support.servers.mariadb import EmbeddedMariaDB
from tests.support.session_stores import HOUR, TABLE, SessionStores


@pytest.fixture
def maria(mariadb_url: str) -> Iterator[SessionStores]:
    """The default tables in MariaDB."""
    made = SessionStores(mariadb_url)
    yield made
    made.close()


@contextmanager
def application(url: str) -> Iterator[sa.Connection]:
    """A connection as applications have it: REPEATABLE READ; a lock that is not free in a while is an error."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 20")
        connection.rollback()
        yield connection
    engine.dispose()


# --- beside a working application ------------------------------------------------------------------------------------


def test_r2_2_while_a_batch_is_being_deleted_nobody_waits_for_what_is_not_due(
    maria: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for rows between those that go, nor for the gaps between them."""
    maria.add_many(((f"s{n}0", "u") for n in range(1, 6)), used=HOUR)
    maria.add_many(((f"s{n}5", "u") for n in range(1, 6)), used=60)
    now = datetime.now(UTC)
    done: list[str] = []
    original = HistoryTable.add

    def meanwhile(self: HistoryTable, connection: sa.Connection, sessions: Sequence[Session], cause: Cause) -> None:
        """The batch is deleted, and its transaction open."""
        with application(maria.database_url) as app:
            row = {"user_id": "u", "created_at": now, "last_accessed_at": now, "expires_at": None}
            for name in ("s00", "s11", "s29", "s59", "s99"):
                app.execute(TABLE.insert().values(session_id=name, **row))
            for name in ("s15", "s35", "s55"):
                app.execute(TABLE.update().where(TABLE.c.session_id == name).values(last_accessed_at=now))
            app.execute(TABLE.delete().where(TABLE.c.session_id == "s25"))
            app.commit()
        done.append(cause.value)
        original(self, connection, sessions, cause)

    monkeypatch.setattr(HistoryTable, "add", meanwhile)
    result = run(policy(maxConcurrentSessions=0), maria.database_url)
    assert (result.report.outcome, result.deleted, done) == (Outcome.SUCCEEDED, 5, ["Expired"]), result.report
    assert maria.ids() == {"s00", "s11", "s15", "s29", "s35", "s45", "s55", "s59", "s99"}


def test_r2_2_live_updates_and_runs_never_deadlock(maria: SessionStores) -> None:
    """Applications touch, log in and log out against the order of the run; each error on either side counts."""
    maria.add_many((f"live{n:03}", f"u{n % 20}") for n in range(300))
    stop, problems, requests = threading.Event(), [], [0, 0]

    def work(worker: int) -> None:
        try:
            with application(maria.database_url) as app:
                while not stop.is_set():
                    now, turn = datetime.now(UTC), requests[worker]
                    # Several in one transaction, in descending order; each worker has its own users.
                    for n in range(298 + worker, -1, -14):
                        app.execute(
                            TABLE.update().where(TABLE.c.session_id == f"live{n:03}").values(last_accessed_at=now)
                        )
                        if n % 3 == 0:
                            app.commit()
                    # Logins and logouts among what is being deleted.
                    row = {"user_id": "u1", "created_at": now, "last_accessed_at": now}
                    app.execute(TABLE.insert().values(session_id=f"expired{turn % 60:03}-w{worker}-{turn}", **row))
                    out = f"expired{(turn - 1) % 60:03}-w{worker}-{turn - 1}"
                    app.execute(TABLE.delete().where(TABLE.c.session_id == out))
                    app.commit()
                    requests[worker] += 1
        except sa.exc.SQLAlchemyError as error:
            problems.append(str(error))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
    for round_ in count(1):
        maria.add_many(((f"expired{n:03}-{round_}", f"u{n % 20}") for n in range(120)), used=HOUR)
        result = run(policy(cleanupBatchSize=25, maxConcurrentSessions=0), maria.database_url)
        assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 120), result.report
        assert result.log.named("retry") == []
        if problems or (round_ >= 6 and min(requests) > 3):  # worth something only if both sides did work
            break
    stop.set()
    for worker in workers:
        worker.join()
    assert problems == []
    assert {i for i in maria.ids() if i.startswith("live")} == {f"live{n:03}" for n in range(300)}


def test_r2_2_a_row_the_application_works_on_is_skipped_and_not_waited_for(maria: SessionStores) -> None:
    maria.add_many(((f"s{n}", "u") for n in range(5)), used=HOUR)
    with application(maria.database_url) as app:
        app.execute(sa.select(TABLE).where(TABLE.c.session_id == "s2").with_for_update())
        result = run(policy(), maria.database_url)
        assert result.log.named("retry") == []
    assert maria.ids() == {"s2"}
    counts = result.report.sessions
    assert (result.report.outcome, counts.expired, counts.deleted, counts.failed) == (Outcome.SUCCEEDED, 5, 4, 0)
    assert run(policy(), maria.database_url).deleted == 1


def test_a_trigger_that_refuses_a_row_does_not_stop_the_rest(maria: SessionStores) -> None:
    maria.add_many(((f"s{n}", "u") for n in range(5)), used=HOUR)
    maria.sql(
        "CREATE TRIGGER refuse BEFORE DELETE ON sessions FOR EACH ROW"
        " IF OLD.session_id = 's2' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF"
    )
    result = run(policy(), maria.database_url)
    assert maria.ids() == {"s2"}
    assert (result.report.outcome, result.report.sessions.failed) == (Outcome.DEGRADED, 1)


# --- lock, connection, deadline --------------------------------------------------------------------------------------


def test_r2_1_two_spellings_of_one_table_share_the_lock_and_another_table_has_its_own(
    maria: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    maria.add("s", used=HOUR)
    maria.sql("CREATE TABLE others LIKE sessions")
    with run_held_up(maria.database_url, monkeypatch):
        spelt_out = policy(table={"schema": sa.make_url(maria.database_url).database, "name": "sessions"})
        assert run(spelt_out, maria.database_url).report.outcome is Outcome.SKIPPED
        assert run(policy(table={"name": "others"}), maria.database_url).report.outcome is Outcome.SUCCEEDED


def kill_runs(stores: SessionStores) -> None:
    with stores.engine.connect() as connection:
        mine = connection.scalar(sa.text("SELECT CONNECTION_ID()"))
        query = sa.text("SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> :mine")
        for each in connection.scalars(query, {"mine": mine}).all():
            connection.exec_driver_sql(f"KILL {each}")


def test_a_connection_that_is_killed_comes_back_with_its_lock(
    maria: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    maria.add_many(((f"s{n}", "u") for n in range(4)), used=HOUR)
    with run_held_up(maria.database_url, monkeypatch) as working:
        kill_runs(maria)
    result = working.result()
    assert (result.report.outcome, result.deleted, maria.ids()) == (Outcome.SUCCEEDED, 4, set())
    assert result.log.named("retry")


def test_r2_1_a_lock_taken_over_while_the_connection_was_lost_ends_the_run(
    maria: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    maria.add_many(((f"s{n}", "u") for n in range(4)), used=HOUR)
    with maria.engine.connect() as other:
        with run_held_up(maria.database_url, monkeypatch) as cut_off:
            name = other.scalar(
                sa.text(
                    "SELECT CONCAT('session-policy:', LEFT(SHA2(CONCAT(DATABASE(), CHAR(0), 'sessions'), 256), 40))"
                )
            )
            assert other.scalar(sa.text("SELECT IS_USED_LOCK(:name)"), {"name": name}) is not None
            holder = other.scalar(sa.text("SELECT IS_USED_LOCK(:name)"), {"name": name})
            other.exec_driver_sql(f"KILL {holder}")
            assert other.scalar(sa.text("SELECT GET_LOCK(:name, 20)"), {"name": name}) == 1
        result = cut_off.result()
    assert (result.report.outcome, result.report.reason, result.exit_code) == (Outcome.FAILED, "LockLost", 1)
    assert len(maria.ids()) == 4


def test_a_statement_that_hangs_is_cancelled_when_time_is_up(maria: SessionStores) -> None:
    maria.add("s", used=HOUR)
    maria.sql("CREATE TRIGGER slow BEFORE DELETE ON sessions FOR EACH ROW DO SLEEP(60)")
    result = run(policy(), maria.database_url, clock=UntilItHangs(maria.engine))
    assert (result.report.outcome, result.report.reason) == (Outcome.DEGRADED, "DeadlineReached"), result.report
    assert result.log.named("run abandoned") == []
    assert maria.ids() == {"s"}


# --- what a URL, a user or a table may have wrong --------------------------------------------------------------------


@pytest.fixture
def limited(maria: SessionStores) -> Iterator[sa.URL]:
    """URL of a user who may read, and no more."""
    url, name = sa.make_url(maria.database_url), f"reader_{uuid.uuid4().hex[:8]}"
    maria.sql(
        f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'hunter2'",
        f"GRANT SELECT ON {url.database}.* TO {name}@'127.0.0.1'",
    )
    yield url.set(username=name, password="hunter2")
    maria.sql(f"DROP USER {name}@'127.0.0.1'")


def failure(url: sa.URL) -> tuple[str, str]:
    result = run(policy(), url.render_as_string(hide_password=False))
    assert result.report.outcome is Outcome.FAILED
    for text in (result.report.message, str(result.log.events)):
        assert "hunter2" not in text
    return result.report.reason, result.report.message


def test_wrong_passwords_databases_and_privileges_are_told_apart(maria: SessionStores, limited: sa.URL) -> None:
    maria.add("s", used=HOUR)
    reason, message = failure(limited.set(password="hunter2-wrong"))
    assert (reason, "user and password" in message) == ("InvalidConfiguration", True)
    reason, message = failure(sa.make_url(maria.database_url).set(database="nowhere"))
    assert (reason, "does not exist" in message) == ("InvalidConfiguration", True)
    reason, message = failure(limited)
    assert (reason, "privilege" in message) == ("InvalidConfiguration", True)
    reason, message = failure(sa.make_url(maria.database_url)._replace(database=None))
    assert (reason, "names no database" in message) == ("InvalidConfiguration", True)
    reason, message = failure(sa.make_url(maria.database_url).set(port=1))
    assert (reason, "refuses connections" in message) == ("DatabaseUnavailable", True)
    assert maria.ids() == {"s"}


def test_options_that_other_clients_know_are_refused_with_those_that_may_be_used(maria: SessionStores) -> None:
    url = sa.make_url(maria.database_url)
    reason, message = failure(url.update_query_dict({"ssl-mode": "REQUIRED", "charset": "utf8mb4"}))
    # Not by name: what is taken for an option may be the end of a password.
    assert (reason, "ssl-mode" in message, "ssl_ca" in message) == ("InvalidConfiguration", False, True)


def test_a_table_without_transactions_is_refused(maria: SessionStores) -> None:
    maria.sql("ALTER TABLE sessions ENGINE = MyISAM")
    maria.add("s", used=HOUR)
    result = run(policy(), maria.database_url)
    assert (result.exit_code, maria.ids()) == (2, {"s"})
    assert "ENGINE = InnoDB" in result.report.message


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql2", "mariadb+pymysql"])
def test_urls_as_secrets_spell_them(maria: SessionStores, scheme: str) -> None:
    maria.add("s", used=HOUR)
    url = sa.make_url(maria.database_url).set(drivername=scheme).render_as_string(hide_password=False)
    assert run(policy(), url).deleted == 1


# --- collations, ids, times ------------------------------------------------------------------------------------------


def test_r2_5_users_that_differ_in_case_or_accents_only_are_different_users(mariadb_url: str) -> None:
    """Most collations take them for the same; ids of users are often base64."""
    engine = sa.create_engine(mariadb_url)
    users = ["ann", "Ann", "ANN", "änn"]
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE s (id varchar(20) PRIMARY KEY, owner varchar(20), seen int, INDEX (owner), INDEX (seen))"
            " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
        )
        now = int(datetime.now(UTC).timestamp())
        rows = [{"id": f"{n}-{m}", "owner": user, "seen": now - m} for n, user in enumerate(users) for m in range(2)]
        connection.execute(sa.text("INSERT INTO s VALUES (:id, :owner, :seen)"), [*rows, {**rows[0], "id": "x"}])
    columns = {
        "id": {"name": "id"},
        "userId": {"name": "owner"},
        "lastAccessedAt": {"name": "seen", "encoding": "EpochSeconds"},
    }
    obeyed = policy(table={"name": "s", "columns": columns}, maxConcurrentSessions=2, cleanupBatchSize=2)
    assert run(obeyed, mariadb_url).report.sessions.evicted == 1
    with engine.begin() as connection:
        left = connection.execute(sa.text("SELECT owner, count(*) FROM s GROUP BY BINARY owner")).all()
    assert sorted(map(tuple, left)) == sorted((user, 2) for user in users)
    engine.dispose()


IDS: dict[str, list[tuple[Any, str]]] = {
    # type of the column -> (as stored, as Redis spells it)
    "BINARY(16)": [(uuid.UUID(int=n).bytes, str(uuid.UUID(int=n))) for n in (1, 2**127, 3)],
    "VARBINARY(64)": [(b"abc", "abc"), (b"\xff\x00", "\\xff00"), (b"ABC", "ABC")],
    "UUID": [(str(uuid.UUID(int=n)), str(uuid.UUID(int=n)).upper()) for n in (1, 2**127, 3)],
    "BIGINT UNSIGNED": [(1, "1"), (2**40, str(2**40)), (2**63 - 1, str(2**63 - 1))],
    "CHAR(64)": [("a" * 64, "a" * 64), ("it's; DROP TABLE s -- %s", "it's; DROP TABLE s -- %s"), ("ü", "ü")],
}


@pytest.mark.parametrize("kind", IDS)
def test_r3_4_ids_of_every_type(mariadb_url: str, redis_url: str, kind: str) -> None:
    """The third one is live; Redis spells its id in its own way, and keeps its key."""
    import redis

    engine = sa.create_engine(mariadb_url)
    now = int(datetime.now(UTC).timestamp())
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE s (id {kind} PRIMARY KEY, seen int)")
        for n, (value, _) in enumerate(IDS[kind]):
            connection.execute(
                sa.text("INSERT INTO s VALUES (:id, :seen)"), {"id": value, "seen": now - (60 if n == 2 else HOUR)}
            )
    with redis.Redis.from_url(redis_url) as client:
        for _, key in IDS[kind]:
            client.set(f"sess:{key}", "{}", ex=HOUR)
    columns = {"id": {"name": "id"}, "lastAccessedAt": {"name": "seen", "encoding": "EpochSeconds"}}
    obeyed = policy(redis=True, table={"name": "s", "columns": columns}, cleanupBatchSize=1)
    result = run(obeyed, mariadb_url, redis_url)
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, 2), result.report
    with engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM s")) == 1
    with redis.Redis.from_url(redis_url) as client:
        assert [key.decode() for key in client.scan_iter("sess:*")] == [f"sess:{IDS[kind][2][1]}"]
    engine.dispose()


TIMES = (
    "CREATE TABLE s (id varchar(20) PRIMARY KEY, zoned timestamp(6) NULL, naive datetime NOT NULL,"
    " INDEX (zoned), INDEX (naive))"
)


def times_mapping(*, naive: str | None = None, zoned: bool = False) -> dict[str, Any]:
    columns: dict[str, Any] = {"id": {"name": "id"}}
    if naive:
        columns["lastAccessedAt"] = {"name": "naive", "encoding": "NaiveTimestamp", "timeZone": naive}
    if zoned:
        columns["expiresAt"] = {"name": "zoned"}
    return {"name": "s", "columns": columns}


@pytest.mark.parametrize("mapped", [{"naive": "Server"}, {"zoned": True}], ids=["DATETIME", "TIMESTAMP"])
def test_r3_4_a_server_that_is_not_in_utc(mariadb_url: str, mapped: dict[str, Any]) -> None:
    """The application writes NOW() in the server's zone; a DATETIME keeps that, a TIMESTAMP is a point in time."""
    engine = sa.create_engine(mariadb_url, poolclass=sa.NullPool)  # a connection keeps the zone it began with
    with engine.begin() as connection:
        before = connection.scalar(sa.text("SELECT @@global.time_zone"))
        connection.exec_driver_sql("SET GLOBAL time_zone = '-09:30'")
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(TIMES)
            for name, minutes in (("live", 20), ("idle", 40)):
                connection.exec_driver_sql(
                    f"INSERT INTO s VALUES ('{name}', NOW(6) + INTERVAL 30 - {minutes} MINUTE,"
                    f" NOW() - INTERVAL {minutes} MINUTE)"
                )
        result = run(policy(table=times_mapping(**mapped)), mariadb_url)
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET GLOBAL time_zone = '{before}'")
    with engine.begin() as connection:
        assert list(connection.scalars(sa.text("SELECT id FROM s"))) == ["live"], result.report
    engine.dispose()


def test_r3_4_a_server_that_knows_its_zone_by_an_abbreviation_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CST6CDT")
    with EmbeddedMariaDB() as server:
        engine = sa.create_engine(server.url)
        with engine.begin() as connection:
            connection.exec_driver_sql(TIMES)
            connection.exec_driver_sql("INSERT INTO s VALUES ('s', NULL, NOW() - INTERVAL 2 DAY)")
        result = run(policy(table=times_mapping(naive="Server")), server.url)
        assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration")
        assert "columns.lastAccessedAt.timeZone" in result.report.message
        # What the message asks for helps.
        assert run(policy(table=times_mapping(naive="America/Chicago")), server.url).deleted == 1
        engine.dispose()


def test_a_zero_date_is_no_time(mariadb_url: str) -> None:
    """How older applications write "never" into columns that cannot be NULL."""
    engine = sa.create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET SESSION sql_mode = ''")
        connection.exec_driver_sql(TIMES)
        connection.exec_driver_sql("INSERT INTO s VALUES ('never', NULL, '0000-00-00'), ('old', NULL, '2001-01-01')")
    assert run(policy(table=times_mapping(naive="UTC")), mariadb_url).deleted == 1
    with engine.begin() as connection:
        assert list(connection.scalars(sa.text("SELECT id FROM s"))) == ["never"]
    engine.dispose()


def test_r3_4_a_point_in_time_mapped_as_naive_is_refused(mariadb_url: str) -> None:
    engine = sa.create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(TIMES)
    mapping = times_mapping(naive="UTC")
    mapping["columns"]["lastAccessedAt"]["name"] = "zoned"
    result = run(policy(table=mapping), mariadb_url)
    assert (result.exit_code, "use encoding Timestamp" in result.report.message) == (2, True)
    engine.dispose()


def test_times_keep_their_microseconds(maria: SessionStores) -> None:
    """Rounded to whole seconds, a session could seem used in the future."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    maria.rows([{"session_id": "s", "last_accessed_at": moment, "created_at": moment - timedelta(days=1)}])
    with maria.engine.begin() as connection:
        assert connection.scalar(sa.select(TABLE.c.last_accessed_at)) == moment.replace(tzinfo=None)
