"""Several workers on one run: each expired session is deleted once, no other is, and there is one true report."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from job.workers import worker as worker_module
from job.workers.parallelism import fingerprint
from policy.names import JOB_INDEX_ENV, JOB_UID_ENV
from policy.report import Outcome
from stores.model.errors import StopRequestedError
from stores.redis.connection.server import RedisServer
from stores.sql.connection.run_connection import RunConnection
from stores.sql.schema.tables import work
from stores.sql.shared_work import WorkTable
from tests.support.application import lost
from tests.support.patience import PATIENCE_SECONDS
from tests.support.runs import Command, command, manifest, policy, run
from tests.support.session_stores import HOUR, TABLE, SessionStores
from tests.support.workers import Helper, before_each_part, environment, lead

# Where the databases differ is tested in test_workers_parts, too.
pytestmark = pytest.mark.representative(shared_url=["postgres_url"])

EXPIRED, LIVE = 300, 40
SHARED: dict[str, Any] = {
    "cleanupBatchSize": 5,
    "cleanup": {"strategy": "IdOrder"},
    "maxConcurrentSessions": 0,
    "job": {"parallelism": 3},
}


class Killed(BaseException):
    """Not an Exception: nothing in a worker may catch it, as nothing can catch SIGKILL."""


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def shared_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def shared(shared_url: str) -> Iterator[SessionStores]:
    """The default tables in a database whose work can be shared."""
    made = SessionStores(shared_url)
    yield made
    made.close()


@pytest.fixture
def with_redis(shared_url: str, redis_url: str) -> Iterator[SessionStores]:
    made = SessionStores(shared_url, redis_url)
    yield made
    made.close()


def fill(stores: SessionStores, name: str = "s") -> dict[str, str]:
    """Expired and live sessions, mixed in the order of their ids. Returns the live ones."""
    expired = [(f"{name}{n:04d}", f"user{n % 7}") for n in range(EXPIRED)]
    live = {f"{name}{n:04d}-live": f"user{n % 7}" for n in range(0, EXPIRED, EXPIRED // LIVE)}
    stores.add_many(expired, began=2 * HOUR, used=HOUR)
    stores.add_many(live.items(), used=60)
    count_rows(stores)
    return live


def count_rows(stores: SessionStores) -> None:
    """As the database does by itself, sooner or later: by its statistics the run knows how large the table is."""
    if not stores.is_sqlite:
        stores.sql(f"ANALYZE {'TABLE ' * stores.is_mysql}{TABLE.name}")


def ended(stores: SessionStores) -> int:
    """How many sessions the history tells of: it is written with each deletion."""
    return sum(sessions for sessions, _ in stores.history().values())


def parts(stores: SessionStores) -> list[dict[str, Any]]:
    with stores.engine.begin() as connection:
        rows = connection.execute(sa.select(work).where(work.c.number > 0).order_by(work.c.number)).mappings()
        return [dict(row) for row in rows]


@pytest.fixture
def helpers_first(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The leader begins no part before this event: a helper has begun one, or died."""
    event = threading.Event()

    def wait_for_it() -> None:
        assert event.wait(PATIENCE_SECONDS), "no helper has begun"

    before_each_part(monkeypatch, "leader", wait_for_it)
    before_each_part(monkeypatch, "worker", event.set)
    return event


# --- sharing ---------------------------------------------------------------------------------------------------------


@pytest.mark.representative(sizing=["Adaptive"])
@pytest.mark.usefixtures("helpers_first")
@pytest.mark.parametrize("sizing", ["Adaptive", "Fixed"])
def test_r6_three_workers_delete_each_expired_session_once_and_there_is_one_report(
    shared: SessionStores, sizing: str
) -> None:
    check_three_workers(shared, {"strategy": "IdOrder", "batchSizing": sizing})


@pytest.mark.representative(sizing=["Adaptive"])
@pytest.mark.usefixtures("helpers_first")
@pytest.mark.parametrize("sizing", ["Adaptive", "Fixed"])
def test_r6_three_workers_on_ranges_of_blocks(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch, sizing: str
) -> None:
    monkeypatch.setattr("stores.sql.removal.splitting._MIN_BLOCKS", 1)
    check_three_workers(postgres, {"strategy": "PhysicalRanges", "batchSizing": sizing})


def check_three_workers(shared: SessionStores, cleanup: dict[str, Any]) -> None:
    live = fill(shared)
    obeyed = policy(**SHARED | {"cleanup": cleanup})
    helpers = [Helper(obeyed, shared, index) for index in (1, 2)]
    result = lead(obeyed, shared)
    assert [helper.because() for helper in helpers] == [worker_module._NO_WORK] * 2
    assert [helper.exit_code for helper in helpers] == [0, 0]
    assert shared.ids() == set(live)
    counts = result.report.sessions
    assert result.report.outcome is Outcome.SUCCEEDED
    assert (counts.expired, counts.deleted, counts.failed, counts.remaining) == (EXPIRED, EXPIRED, 0, 0)
    assert counts.active == len(live)
    assert result.report.vitals is not None
    assert result.report.vitals.average_session_seconds == pytest.approx(HOUR, abs=2)
    assert ended(shared) == EXPIRED
    (row,) = shared.statistics()
    assert row["deleted"] == EXPIRED
    done = parts(shared)
    assert sum(part["deleted"] for part in done) == EXPIRED
    assert {part["state"] for part in done} == {"Done"}
    assert len({part["claimed_by"] for part in done}) > 1


@pytest.mark.usefixtures("helpers_first")
def test_r6_what_workers_delete_goes_from_redis_too_and_is_counted(with_redis: SessionStores) -> None:
    live = fill(with_redis)
    for n in range(EXPIRED):
        with_redis.add_key(f"s{n:04d}", f"user{n % 7}", used=HOUR)
    for session_id, user in live.items():
        with_redis.add_key(session_id, user)
    # The database calls them idle; Redis has seen them in use.
    with_redis.add_many([("s0000-used", "user0"), ("s0299-used", "user0")], used=HOUR)
    for session_id in ("s0000-used", "s0299-used"):
        with_redis.add_key(session_id, "user0", used=10)
        live[session_id] = "user0"
    obeyed = policy(**SHARED, redis=True)
    helper = Helper(obeyed, with_redis)
    result = lead(obeyed, with_redis)
    assert helper.because() == worker_module._NO_WORK
    assert with_redis.ids() == set(live)
    assert lost(with_redis, live) == {}
    assert with_redis.redis_keys() == (
        {f"{kind}:{session_id}" for session_id in live for kind in ("sess", "access_log")}
        | {f"user_sess:{user}" for user in live.values()}
    )
    assert result.report.redis is not None
    assert result.report.redis.deleted == EXPIRED
    assert (result.report.sessions.expired, result.report.sessions.deleted) == (EXPIRED, EXPIRED)
    assert result.report.sessions.active == len(live)


@pytest.mark.usefixtures("helpers_first")
def test_r2_1_the_lock_keeps_other_runs_out_while_workers_share(
    shared: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shared)
    others: list[Any] = []

    def try_another() -> None:
        if not others:
            others.append(run(policy(), shared.database_url, run_id="another"))

    before_each_part(monkeypatch, "worker", try_another)
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    result = lead(obeyed, shared)
    helper.wait()
    (other,) = others
    assert (other.report.outcome, other.report.reason, other.deleted) == (Outcome.SKIPPED, "LockHeld", 0)
    assert result.deleted == EXPIRED


def test_r2_2_a_session_used_while_workers_share_stays(
    shared: SessionStores, helpers_first: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = fill(shared)
    touched = [f"s{n:04d}" for n in (0, 77, 150, 299)]

    def touch() -> None:
        if not helpers_first.is_set():
            for session_id in touched:
                shared.touch(session_id)

    before_each_part(monkeypatch, "worker", touch)
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    result = lead(obeyed, shared)
    helper.wait()
    assert shared.ids() == set(live) | set(touched)
    assert (result.deleted, result.report.sessions.remaining) == (EXPIRED - len(touched), 0)


# --- alone -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"dryRun": True}, "dry run"),
        ({"safety": {"maxDeletions": 5, "maxDeletePercent": 100}}, "maxDeletions"),
        ({"job": {"parallelism": 1}}, "parallelism"),
    ],
)
def test_what_is_not_shared_the_leader_does_alone_and_helpers_go_at_once(
    postgres: SessionStores, spec: dict[str, Any], word: str
) -> None:
    fill(postgres)
    obeyed = policy(**SHARED | spec)
    helper = Helper(obeyed, postgres)
    assert word in helper.because()
    assert helper.exit_code == 0
    result = lead(obeyed, postgres)
    assert result.report.outcome in (Outcome.SUCCEEDED, Outcome.DEGRADED)
    assert parts(postgres) == []
    assert result.deleted == {"dryRun": 0, "safety": 5, "job": EXPIRED}[next(iter(spec))]


def test_a_deletion_limit_is_kept_exactly(postgres: SessionStores) -> None:
    fill(postgres)
    result = lead(policy(**SHARED, safety={"maxDeletions": 33, "maxDeletePercent": 100}), postgres)
    assert (result.deleted, ended(postgres)) == (33, 33)
    assert [e["because"] for e in result.log.named("parallelism disabled")] == [
        "safety.maxDeletions is set, which only a single worker can keep exactly"
    ]


def test_without_the_table_the_leader_works_alone_and_says_so(shared: SessionStores) -> None:
    fill(shared)
    shared.sql("DROP TABLE session_work")
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    assert "session_work" in helper.because()
    result = lead(obeyed, shared)
    assert result.deleted == EXPIRED
    assert "session-policy init" in result.log.named("parallelism disabled")[0]["because"]


def test_in_sqlite_the_leader_works_alone(sqlite_url: str) -> None:
    stores = SessionStores(sqlite_url)
    fill(stores)
    obeyed = policy(**SHARED)
    assert Helper(obeyed, stores).because()
    assert lead(obeyed, stores).deleted == EXPIRED
    stores.close()


def test_a_small_table_is_not_shared_and_helpers_are_let_go(shared: SessionStores) -> None:
    shared.add_many(((f"s{n}", "u") for n in range(5)), used=HOUR)
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    result = lead(obeyed, shared)
    assert result.deleted == 5
    assert "too few" in result.log.named("parallelism disabled")[0]["because"]
    assert helper.because() == worker_module._NO_WORK


def test_helpers_are_let_go_when_the_leader_refuses(shared: SessionStores) -> None:
    fill(shared)
    obeyed = policy(**SHARED, safety={"maxDeletePercent": 10, "alwaysAllowedDeletions": 0})
    helper = Helper(obeyed, shared)
    result = lead(obeyed, shared)
    assert (result.report.outcome, result.report.reason) == (Outcome.FAILED, "SafetyLimitExceeded")
    assert helper.because() == worker_module._NO_WORK
    assert ended(shared) == 0


def test_a_leader_without_helpers_does_everything(shared: SessionStores) -> None:
    live = fill(shared)
    result = lead(policy(**SHARED), shared)
    assert (result.deleted, result.report.sessions.remaining) == (EXPIRED, 0)
    assert shared.ids() == set(live)
    assert result.log.named("expired sessions")[-1]["workers"] == 1


@contextmanager
def telling_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A leader that dies within the block closes nothing, but for its connection."""

    def close(_: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr("job.workers.leader.Leader.dismiss_workers", lambda self: None)
        dying.setattr("job.workers.leader.Leader._close", close)
        yield


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("redis", [True, False], ids=["redis", "one statement"])
def test_r6_a_helper_that_dies_at_any_step_leaves_true_counts(
    with_redis: SessionStores, monkeypatch: pytest.MonkeyPatch, redis: bool
) -> None:
    """From its first claim on it dies before the n-th transaction or Redis command, for every n there is."""
    obeyed = policy(redis=redis, **SHARED | {"job": {"parallelism": 2}})
    monkeypatch.setattr("job.workers.leader.RANGES_PER_WORKER", 2)
    doomed = Doomed(monkeypatch, with_redis, obeyed)
    expired = [(f"s{n:04d}", f"user{n % 3}") for n in range(40)]
    deaths = 0
    while True:
        with_redis.sql("DELETE FROM session_history", f"DELETE FROM {TABLE.name}")
        with_redis.redis.flushall()
        with_redis.add_many(expired, began=2 * HOUR, used=HOUR)
        for session_id, user in expired:
            with_redis.add_key(session_id, user, used=HOUR)
        with_redis.add("s0030-live", "user0")
        with_redis.add_key("s0030-live", "user0")
        count_rows(with_redis)
        helper, result = doomed.run(at_step=deaths + 1)
        assert lost(with_redis, {"s0030-live": "user0"}) == {}
        assert with_redis.ids() == {"s0030-live"}
        counts = result.report.sessions
        told = (counts.expired, counts.deleted, counts.failed, counts.remaining, ended(with_redis))
        assert told == (40, 40, 0, 0, 40), (deaths, result.report)
        if redis:
            assert with_redis.redis_keys() == {"sess:s0030-live", "access_log:s0030-live", "user_sess:user0"}
        if not helper.killed:
            assert helper.exit_code == 0
            break
        deaths += 1
    assert deaths > 4


class Doomed:
    """Runs whose helper is killed at some step. It works while the leader waits, on two parts at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stores: SessionStores, obeyed: Any) -> None:
        self._stores, self._obeyed = stores, obeyed
        self._fatal, self._steps, self._claims = 0, 0, 0
        self._helpers: list[Helper] = []
        before_each_part(monkeypatch, "leader", self._let_it_work)
        monkeypatch.setattr(RunConnection, "transaction", self._step(RunConnection.transaction))
        monkeypatch.setattr(RedisServer, "_attempt", self._step(RedisServer._attempt))
        monkeypatch.setattr(WorkTable, "claim", self._claim(WorkTable.claim))

    def run(self, at_step: int) -> tuple[Helper, Any]:
        self._fatal, self._steps, self._claims = at_step, 0, 0
        self._helpers.clear()
        result = lead(self._obeyed, self._stores, run_id=f"run-{at_step}")
        (helper,) = self._helpers
        return helper, result

    def _let_it_work(self) -> None:
        if not self._helpers:
            self._helpers.append(Helper(self._obeyed, self._stores, run_id=f"run-{self._fatal}"))
            self._helpers[0].wait()

    def _step(self, original: Any) -> Any:
        def counted(connection: Any, *arguments: Any, **options: Any) -> Any:
            if not _is_helper() or not self._claims:
                return original(connection, *arguments, **options)
            self._steps += 1
            if self._steps == self._fatal:
                raise Killed
            return original(connection, *arguments, **options)

        return counted

    def _claim(self, original: Any) -> Any:
        def claim(table: WorkTable, terms: Any) -> Any:
            if not _is_helper():
                return original(table, terms)
            self._claims += 1
            if self._claims > 2:
                raise StopRequestedError("Interrupted")
            return original(table, terms)

        return claim


def _is_helper() -> bool:
    return threading.current_thread().name.startswith("helper")


@pytest.mark.exhaustive
def test_r6_sigkill_of_helpers_at_random_moments(shared: SessionStores, tmp_path: Path) -> None:
    chance = random.Random(606)
    live = fill(shared)
    document = manifest(**SHARED)
    killed = 0
    for n in range(4):
        live |= fill(shared, f"round{n}-")
        before = ended(shared)
        due = len(shared.ids()) - len(live)
        run_id = f"run-{n}"
        workers = [
            Command(
                tmp_path / f"{n}-{index}",
                document,
                shared.database_url,
                environment={JOB_INDEX_ENV: str(index), JOB_UID_ENV: run_id},
            )
            for index in range(3)
        ]
        with ThreadPoolExecutor(len(workers)) as pool:  # each is read from: a full pipe would hold it up
            ends = [pool.submit(worker.wait) for worker in workers]
            wait(ends[:1], timeout=chance.uniform(0.5, 2.0))
            for helper in workers[1:]:
                helper.process.send_signal(signal.SIGKILL)
            leader, *helpers = (end.result() for end in ends)
        killed += sum(helper.exit_code == -signal.SIGKILL for helper in helpers)
        report = leader.report
        assert report.outcome is Outcome.SUCCEEDED, report
        assert (report.sessions.deleted, report.sessions.remaining) == (due, 0)
        assert ended(shared) - before == due
        assert shared.ids() == set(live)
    assert killed >= 4


def test_r6_helpers_delete_nothing_for_a_leader_that_has_died(
    shared: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = fill(shared)
    monkeypatch.setattr("stores.sql.shared_work._LEADER_CHECK_SECONDS", 0.0)
    started, dead = threading.Event(), threading.Event()

    def die() -> None:
        assert started.wait(PATIENCE_SECONDS)
        raise Killed

    def hold() -> None:
        started.set()
        assert dead.wait(PATIENCE_SECONDS)

    before_each_part(monkeypatch, "leader", die)
    before_each_part(monkeypatch, "worker", hold)
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    with telling_nobody(monkeypatch), pytest.raises(Killed):
        lead(obeyed, shared)
    monkeypatch.setattr(worker_module, "_LEADER_PATIENCE_SECONDS", 0.0)
    dead.set()
    assert helper.because() == "there is no leader"
    assert ended(shared) == 0
    assert len(shared.ids()) == EXPIRED + len(live)


def test_r6_the_next_attempt_forgets_the_parts_of_the_first_and_counts_only_its_own(
    shared: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader dies, and is tried again under the same run id; its helper is still there."""
    live = fill(shared)
    monkeypatch.setattr("stores.sql.shared_work._LEADER_CHECK_SECONDS", 0.0)
    begun, may_die, attempts = threading.Event(), threading.Event(), [0]

    def lead_part() -> None:
        if attempts[0] == 1:
            assert may_die.wait(PATIENCE_SECONDS)
            raise Killed
        assert begun.wait(PATIENCE_SECONDS)

    def follow_part() -> None:
        if attempts[0] == 1 and parts_done(shared) >= 2:
            may_die.set()
        begun.set()

    before_each_part(monkeypatch, "leader", lead_part)
    before_each_part(monkeypatch, "worker", follow_part)
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    attempts[0] = 1
    with telling_nobody(monkeypatch), pytest.raises(Killed):
        lead(obeyed, shared)
    first = ended(shared)
    assert first > 0
    attempts[0] = 2
    begun.clear()
    result = lead(obeyed, shared)
    helper.wait()
    assert shared.ids() == set(live)
    assert ended(shared) == EXPIRED
    # What the first attempt's helper had committed before the second one counted is the first one's.
    assert result.report.sessions.deleted == result.report.sessions.expired
    assert sum(part["deleted"] for part in parts(shared)) == result.deleted


def parts_done(stores: SessionStores) -> int:
    return sum(part["state"] == "Done" for part in parts(stores))


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_a_run_that_has_to_stop_tells_what_all_workers_did_and_what_remains(
    shared: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stores.waiting.clock import RunClock

    live = fill(shared)
    clock = RunClock(600)
    stopped = threading.Event()

    def stop() -> None:
        # As when SIGTERM comes: the leader stops before its next batch, its helper is in the middle of its part.
        assert helped.wait(PATIENCE_SECONDS)
        clock._request()  # as request_stop does, but at once

    helped = threading.Event()

    def help_on() -> None:
        if parts_done(shared) >= 2:
            helped.set()
            assert stopped.wait(PATIENCE_SECONDS)

    before_each_part(monkeypatch, "leader", stop)
    before_each_part(monkeypatch, "worker", help_on)
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    result = lead(obeyed, shared, clock=clock)
    stopped.set()
    helper.wait()
    counts = result.report.sessions
    assert (result.report.outcome, result.report.reason) == (Outcome.DEGRADED, "Interrupted")
    assert counts.deleted == ended(shared) > 0
    assert counts.deleted + counts.remaining == EXPIRED
    assert len(shared.ids()) == len(live) + counts.remaining


def test_a_helper_obeys_only_what_the_leader_obeys(
    shared: SessionStores, helpers_first: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shared)
    original = fingerprint

    def other(*arguments: Any) -> str:
        helpers_first.set()
        return original(*arguments) + "-"

    monkeypatch.setattr(worker_module, "fingerprint", other)
    obeyed = policy(**SHARED)
    helper = Helper(obeyed, shared)
    result = lead(obeyed, shared)
    assert "settings" in helper.because()
    assert result.deleted == EXPIRED
    assert len({part["claimed_by"] for part in parts(shared)}) == 1


@pytest.mark.parametrize(
    ("document", "url", "exit_code"),
    [
        ("spec: nonsense", "postgresql://nobody@127.0.0.1:1/none", 0),
        (manifest(**SHARED), "nonsense", 0),
        (manifest(**SHARED), "postgresql://nobody@127.0.0.1:1/none", 1),
        (manifest(**SHARED), None, 0),
    ],
    ids=["no policy", "no URL", "no database", "URL missing"],
)
def test_a_helper_never_tells_of_bad_configuration_by_its_exit_code_nor_leaves_a_report(
    tmp_path: Path, document: Any, url: str | None, exit_code: int
) -> None:
    ended = command(tmp_path, document, url, environment=environment(1))
    assert ended.exit_code == exit_code
    assert (ended.stdout, ended.termination_message) == ("", "")
    assert '"level": "error"' in ended.stderr
