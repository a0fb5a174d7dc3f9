"""R2.2, R6: deleting in batches, beside an application that goes on working."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from stores.model.sessions import Deletion, Session
from stores.sql.store import SessionDatabase
from stores.waiting.clock import RunClock
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, TABLE, SessionStores

# MariaDB's SQL is tested in few other modules by `make test`, and everywhere by `make test-all`.
pytestmark = pytest.mark.representative(database_url=["postgresql", "sqlite"])

Before = Callable[[Sequence[Session]], None]


@pytest.fixture
def before_each_deletion(monkeypatch: pytest.MonkeyPatch) -> Callable[[Before], None]:
    """Has something happen after a page was read and before it is deleted."""

    def install(happen: Before) -> None:
        for name in ("delete_expired", "delete_over_limit"):
            original = getattr(SessionDatabase, name)

            def between(
                self: SessionDatabase, sessions: Sequence[Session], *rest: Any, original: Any = original
            ) -> Deletion:
                happen(sessions)
                deletion: Deletion = original(self, sessions, *rest)
                return deletion

            monkeypatch.setattr(SessionDatabase, name, between)

    return install


def test_r2_2_a_session_used_between_reading_and_deleting_survives(
    database: SessionStores, before_each_deletion: Callable[[Before], None]
) -> None:
    database.add_many(((f"s{n}", "u") for n in range(6)), used=HOUR)
    before_each_deletion(lambda page: database.touch("s3") if "s3" in {s.id for s in page} else None)
    result = run(policy(cleanupBatchSize=2), database.database_url)
    assert database.ids() == {"s3"}
    counts = result.report.sessions
    assert (counts.deleted, counts.failed, counts.remaining, counts.active) == (5, 0, 0, 1)


def test_r2_2_one_that_survives_in_the_database_keeps_its_redis_key(
    stores: SessionStores, before_each_deletion: Callable[[Before], None]
) -> None:
    stores.add_many([("gone", "u"), ("touched", "u")], used=HOUR)
    stores.add_key("gone", used=HOUR)
    stores.add_key("touched", used=HOUR)
    before_each_deletion(lambda _: stores.touch("touched"))
    run(policy(redis=True), stores.database_url, stores.redis_url)
    assert stores.redis_keys() == {"sess:touched", "access_log:touched", "user_sess:u"}
    assert stores.redis.smembers("user_sess:u") == {b"touched"}


def test_r2_5_the_session_used_last_survives_the_limit(
    database: SessionStores, before_each_deletion: Callable[[Before], None]
) -> None:
    for n in range(4):
        database.add(f"s{n}", used=100 * (n + 1))
    before_each_deletion(lambda page: database.touch("s3") if page else None)
    run(policy(maxConcurrentSessions=2), database.database_url)
    left = database.ids()
    assert "s3" in left
    assert "s0" in left
    assert len(left) >= 2


def test_r2_5_a_login_meanwhile_is_not_evicted_as_least_recently_used(
    database: SessionStores, before_each_deletion: Callable[[Before], None]
) -> None:
    for n in range(4):
        database.add(f"s{n}", used=100 * (n + 1))
    before_each_deletion(lambda page: database.add("new", used=0) if page and "new" not in database.ids() else None)
    run(policy(maxConcurrentSessions=2), database.database_url)
    assert "new" in database.ids()


def test_r2_2_a_row_the_application_works_on_is_skipped_and_not_waited_for(postgres: SessionStores) -> None:
    postgres.add_many(((f"s{n}", "u") for n in range(5)), used=HOUR)
    with postgres.transaction() as application:
        application.execute(sa.select(TABLE).where(TABLE.c.session_id == "s2").with_for_update())
        # To wait would end in the lock time-out: the batch would fail, and be counted.
        result = run(policy(), postgres.database_url, clock=RunClock(600))
    assert postgres.ids() == {"s2"}
    counts = result.report.sessions
    assert (result.report.outcome, counts.expired, counts.deleted, counts.failed) == (Outcome.SUCCEEDED, 5, 4, 0)
    assert run(policy(), postgres.database_url).deleted == 1


def test_sqlite_a_write_lock_that_is_soon_given_back_is_waited_for(sqlite_url: str) -> None:
    stores = SessionStores(sqlite_url)
    stores.add("s", used=HOUR)
    release, held = threading.Event(), threading.Event()

    def application() -> None:
        with stores.transaction():
            held.set()
            release.wait(0.5)

    thread = threading.Thread(target=application)
    thread.start()
    held.wait()
    result = run(policy(), stores.database_url)
    release.set()
    thread.join()
    assert (result.exit_code, stores.ids()) == (0, set())
    stores.close()


def test_r2_2_each_batch_is_a_transaction_of_its_own(
    database: SessionStores, before_each_deletion: Callable[[Before], None]
) -> None:
    database.add_many(((f"s{n}", "u") for n in range(10)), used=HOUR)
    seen: list[int] = []
    before_each_deletion(lambda _: seen.append(len(database.ids())))  # what everybody else sees by then
    run(policy(cleanupBatchSize=3), database.database_url)
    assert seen == [10, 7, 4, 1]


# --- rows that cannot be deleted -------------------------------------------------------------------------------------


def refer_to(database: SessionStores, session_id: str) -> None:
    """A row that is part of a session, and another one that is part of that: so far a run does not go."""
    database.sql(
        "CREATE TABLE carts (id int PRIMARY KEY, session_id varchar(128) NOT NULL,"
        " FOREIGN KEY (session_id) REFERENCES sessions (session_id))",
        "CREATE TABLE items (cart_id int NOT NULL, FOREIGN KEY (cart_id) REFERENCES carts (id))",
        f"INSERT INTO carts VALUES (1, '{session_id}')",
        "INSERT INTO items VALUES (1)",
    )


def test_r2_2_a_row_that_cannot_be_deleted_does_not_stop_the_rest(database: SessionStores) -> None:
    database.add_many(((f"s{n:02}", "u") for n in range(25)), used=HOUR)
    refer_to(database, "s07")
    result = run(policy(cleanupBatchSize=10), database.database_url)
    assert database.ids() == {"s07"}
    report = result.report
    # One of 25 is less than the 5 % from which on a run is Degraded.
    assert (report.outcome, report.reason, result.exit_code) == (Outcome.SUCCEEDED, "Completed", 0)
    assert (report.sessions.deleted, report.sessions.failed, report.sessions.remaining) == (24, 1, 0)
    assert "1 failed" in report.message
    assert database.history() == {("u", "Expired"): (24, 0)}


def test_r2_5_nor_under_the_limit_per_user(database: SessionStores) -> None:
    for n in range(5):
        database.add(f"s{n}", used=100 * (n + 1))
    refer_to(database, "s3")
    result = run(policy(maxConcurrentSessions=2), database.database_url)
    assert database.ids() == {"s0", "s1", "s3"}
    assert (result.report.sessions.evicted, result.report.sessions.failed) == (2, 1)


def test_a_trigger_that_refuses_a_row_does_not_stop_the_rest(postgres: SessionStores) -> None:
    postgres.add_many(((f"s{n}", "u") for n in range(5)), used=HOUR)
    postgres.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF OLD.session_id = 's2' THEN RAISE 'no: %%', OLD.session_id; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    result = run(policy(), postgres.database_url)
    assert postgres.ids() == {"s2"}
    assert (result.report.outcome, result.report.sessions.failed) == (Outcome.DEGRADED, 1)


def test_what_hangs_on_a_session_goes_with_it_where_the_application_says_so(database: SessionStores) -> None:
    database.add("s", used=HOUR)
    database.sql(
        "CREATE TABLE carts (session_id varchar(128),"
        " FOREIGN KEY (session_id) REFERENCES sessions (session_id) ON DELETE CASCADE)",
        "INSERT INTO carts VALUES ('s')",
    )
    run(policy(), database.database_url)
    with database.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM carts").scalar() == 0


def test_a_user_id_longer_than_the_history_holds_stops_nothing(postgres: SessionStores) -> None:
    postgres.sql("ALTER TABLE sessions ALTER user_id TYPE text")
    postgres.add("s", user="x" * 400, used=HOUR)
    result = run(policy(), postgres.database_url)
    assert (result.exit_code, result.deleted) == (0, 1)


# --- as many as allowed ----------------------------------------------------------------------------------------------


def test_r6_no_more_than_max_deletions_go_and_the_next_run_goes_on(database: SessionStores) -> None:
    database.add_many(((f"s{n}", "u") for n in range(10)), used=HOUR)
    obeyed = policy(cleanupBatchSize=3, safety={"maxDeletePercent": 100, "maxDeletions": 4})
    remaining = []
    for left in (6, 2, 0):
        result = run(obeyed, database.database_url)
        assert len(database.ids()) == left
        remaining.append((result.report.outcome, result.report.reason, result.report.sessions.remaining))
        assert result.exit_code == 0
    assert remaining == [
        (Outcome.DEGRADED, "DeletionLimitReached", 6),
        (Outcome.DEGRADED, "DeletionLimitReached", 2),
        (Outcome.SUCCEEDED, "Completed", 0),
    ]


def test_r6_the_limit_is_one_for_expired_and_evicted_together(database: SessionStores) -> None:
    database.add_many([("e0", "x"), ("e1", "x")], used=HOUR)
    for n in range(5):
        database.add(f"s{n}", used=10 * (n + 1))
    obeyed = policy(maxConcurrentSessions=1, safety={"maxDeletePercent": 100, "maxDeletions": 3})
    result = run(obeyed, database.database_url)
    counts = result.report.sessions
    assert (counts.expired, counts.over_limit, counts.deleted, counts.evicted, counts.remaining) == (2, 4, 3, 1, 3)
    assert counts.active == 4
    assert len(database.ids()) == 4


def test_a_session_meets_the_limit_only_once(database: SessionStores) -> None:
    """A row that stays, because it is refused, must not be read for ever."""
    database.add_many(((f"s{n}", "u") for n in range(3)), used=HOUR)
    refer_to(database, "s0")
    result = run(policy(cleanupBatchSize=1), database.database_url)
    assert (result.deleted, result.report.sessions.failed, database.ids()) == (2, 1, {"s0"})
