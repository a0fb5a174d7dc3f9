"""R2, R2.10: whatever a run hangs in, it ends in time with a report that is true, and the next run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis

from job.demo.servers import EmbeddedPostgres
from policy.report import Outcome, RunReport
from stores.redis.store import RedisStore
from stores.sql.removal.history import HistoryTable, save_statistics
from stores.waiting.clock import RunClock
from tests.support.hanging import UntilItHangs
from tests.support.runs import InThread, policy, run
from tests.support.session_stores import HOUR, TABLE, SessionStores
from tests.support.tcp_proxy import TcpProxy

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])


class At:
    """Has something happen at the n-th call of a method, before it does its work."""

    def __init__(self, happen: Callable[[], object], at: int) -> None:
        self._happen, self._at = happen, at
        self.calls = 0

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                self._happen()
            return original(*arguments, **options)

        return wrapped


def out_of_time(clock: RunClock) -> None:
    """The time is up, and so is nearly all of the margin."""
    clock._ending_seconds = 0.2
    clock._deadline = time.monotonic()


def expired(stores: SessionStores, number: int) -> None:
    stores.add_many(((f"s{n}", "u") for n in range(number)), used=HOUR)


def stopped(report: RunReport) -> bool:
    return (report.outcome, report.reason) == (Outcome.DEGRADED, "DeadlineReached")


# --- the estimate ----------------------------------------------------------------------------------------------------


def test_r6_a_run_out_of_time_says_how_long_the_rest_would_take(
    database: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired(database, 10)
    clock = RunClock(3600)
    late = At(lambda: setattr(clock, "_deadline", time.monotonic()), 2)
    monkeypatch.setattr(HistoryTable, "add", late.wrap(HistoryTable.add))
    # Two batches in 100 s: so long do steps take by this clock, at whatever pace the machine goes.
    monkeypatch.setattr(RunClock, "elapsed_seconds", property(lambda _: 100.0 if late.calls == 2 else 0.0))
    result = run(policy(cleanupBatchSize=3), database.database_url, clock=clock)
    report = result.report
    assert stopped(report)
    assert (report.sessions.deleted, report.sessions.remaining) == (6, 4)
    assert report.estimated_seconds_remaining == 67
    assert "4 remaining" in report.message
    assert report.message.endswith("; about 67 seconds of deleting remain")
    (finished,) = result.log.named("run finished")
    assert finished["estimatedSecondsRemaining"] == 67
    assert json.loads(json.dumps(report.to_json_object()))["estimatedSecondsRemaining"] == 67

    monkeypatch.undo()
    after = run(policy(), database.database_url).report
    assert (after.outcome, after.sessions.deleted, after.sessions.remaining) == (Outcome.SUCCEEDED, 4, 0)
    assert after.estimated_seconds_remaining is None
    assert "of deleting" not in after.message


def test_r6_a_limit_on_deletions_leaves_an_estimate_too(database: SessionStores) -> None:
    expired(database, 10)
    report = run(policy(safety={"maxDeletePercent": 100, "maxDeletions": 4}), database.database_url).report
    assert (report.reason, report.sessions.remaining) == ("DeletionLimitReached", 6)
    assert report.estimated_seconds_remaining is not None
    assert "of deleting remain" in report.message


def test_r6_who_has_deleted_nothing_estimates_nothing(database: SessionStores) -> None:
    expired(database, 3)
    clock = RunClock(3600)
    clock._deadline = time.monotonic()
    report = run(policy(), database.database_url, clock=clock).report
    assert stopped(report)
    assert (report.sessions.deleted, report.estimated_seconds_remaining) == (0, None)


# --- stores that hang ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["postgresql", "mariadb", "redis"])
def test_r2_a_store_that_falls_silent_does_not_cost_the_report(
    server: str, request: pytest.FixtureRequest, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays open, and no answer ever comes: nothing can be cancelled."""
    url: str = request.getfixturevalue("mariadb_url" if server == "mariadb" else "postgres_url")
    stores = SessionStores(url, redis_url)
    expired(stores, 10)
    clock = RunClock(3600)
    silent = sa.make_url(redis_url if server == "redis" else url)
    assert silent.port
    with TcpProxy(silent.port) as network:

        def hang() -> None:
            network.freeze()
            out_of_time(clock)

        kind, method = (RedisStore, "delete") if server == "redis" else (HistoryTable, "add")
        monkeypatch.setattr(kind, method, At(hang, 2).wrap(getattr(kind, method)))
        through = silent.set(port=network.port).render_as_string(hide_password=False)
        urls = (url, through) if server == "redis" else (through, redis_url)
        result = InThread(policy(redis=True, cleanupBatchSize=3), *urls, clock=clock).result()
    report = result.report
    assert stopped(report)
    assert result.exit_code == 0
    # What was not committed has not been counted. The database may be a batch ahead of a Redis that falls silent.
    committed = 10 - len(stores.ids())
    assert committed in ((6, 9) if server == "redis" else (3,))
    assert (report.sessions.deleted, report.sessions.remaining) == (committed, 10 - committed)
    assert "a store did not answer" in report.message
    assert result.log.named("run abandoned")

    monkeypatch.undo()
    after = run(policy(redis=True), url, redis_url)
    assert (after.report.outcome, stores.ids()) == (Outcome.SUCCEEDED, set())
    stores.close()


def test_r2_7_a_run_that_has_done_its_work_says_so_though_its_statistics_hang(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired(postgres, 4)
    clock = RunClock(3600)
    url = sa.make_url(postgres.database_url)
    assert url.port
    with TcpProxy(url.port) as network:

        def hang() -> None:
            network.freeze()
            out_of_time(clock)

        monkeypatch.setattr("job.steps.statistics.save_statistics", At(hang, 1).wrap(save_statistics))
        through = url.set(port=network.port).render_as_string(hide_password=False)
        result = InThread(policy(), through, clock=clock).result()
    assert (result.report.outcome, result.report.reason, result.deleted) == (Outcome.SUCCEEDED, "Completed", 4)
    assert result.log.named("statistics not saved")
    assert postgres.statistics() == []


@pytest.fixture
def nobody_confirms(own_postgres: EmbeddedPostgres) -> Iterator[None]:
    """A server whose commits wait for a replica that is not there."""
    admin = sa.create_engine(own_postgres.url, isolation_level="AUTOCOMMIT")

    def confirmed_by(name: str) -> None:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            connection.exec_driver_sql("SELECT pg_reload_conf()")

    confirmed_by("nobody")
    yield
    confirmed_by("")
    admin.dispose()


@pytest.mark.exhaustive
def test_r2_commits_that_hang_do_not_cost_the_report(own_postgres_url: str, request: pytest.FixtureRequest) -> None:
    stores = SessionStores(own_postgres_url)
    expired(stores, 6)
    request.getfixturevalue("nobody_confirms")
    # Each commit waits until it is cancelled, and is valid nevertheless; the last one, of the statistics, is not.
    clock = UntilItHangs(stores.engine, patience_seconds=10)
    result = InThread(policy(cleanupBatchSize=2), own_postgres_url, clock=clock).result()
    report = result.report
    assert stopped(report)
    assert report.sessions.deleted == 6 - len(stores.ids())
    stores.close()


def test_r2_a_table_locked_for_good_does_not_cost_the_report(postgres: SessionStores) -> None:
    expired(postgres, 6)
    patient = {"database": {"attempts": 5, "delaySeconds": 300}}
    with postgres.engine.begin() as application:
        application.execute(sa.text("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE"))
        report = InThread(policy(retries=patient), postgres.database_url, clock=RunClock(8)).result().report
        assert stopped(report)
        assert application.scalar(sa.select(sa.func.count()).select_from(TABLE)) == 6


def test_r2_a_redis_that_is_silent_from_the_start_does_not_cost_the_report(redis_url: str) -> None:
    port = Redis.from_url(redis_url).connection_pool.connection_kwargs["port"]
    with TcpProxy(port) as network:
        network.freeze()
        clock = RunClock(3600)
        out_of_time(clock)
        obeyed = policy(redis=True)
        stores = obeyed.spec.stores.model_copy(update={"database": None})
        alone = obeyed.model_copy(update={"spec": obeyed.spec.model_copy(update={"stores": stores})})
        through = sa.make_url(redis_url).set(port=network.port).render_as_string(hide_password=False)
        report = InThread(alone, "", through, clock=clock).result().report
        assert stopped(report)
        assert "a store did not answer" in report.message
