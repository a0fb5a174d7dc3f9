"""R3.6: a SessionRevocation's container, against real stores."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from job.steps.initialise import Urls, initialise
from policy.manifest import SessionPolicy, parse_policy
from stores.redis.connection.server import RedisServer
from stores.redis.redis_only.opening import open_redis
from stores.sql.connection.run_connection import RunConnection
from stores.sql.store import SessionDatabase
from stores.waiting.clock import RunClock
from tests.support.patience import PATIENCE_SECONDS
from tests.support.revocations import IDENTITIES, KEY, Revoked, finished, process, report_of, revoke
from tests.support.runs import KEYS, SECRET, Log, manifest, policy
from tests.support.session_stores import HOUR, TABLE, SessionStores

# `make test` tests the SQL of the other databases in few modules, and `make test-all` everywhere.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

ANN_HASH = IDENTITIES.session("ann-session-1")


def fill(stores: SessionStores) -> None:
    """Ann has two live sessions in both stores, an expired row and a key without a row; others begin alike."""
    for session_id in ("ann-session-1", "ann-session-2"):
        stores.add(session_id, "ann")
        stores.add_key(session_id, "ann")
    stores.add("ann-expired-1", "ann", began=4 * HOUR, used=3 * HOUR)
    stores.add_key("ann-redis-only", "ann")
    for user in ("bob", "anna", "Ann", "an"):
        stores.add(f"{user}-session-1-of-his", user)
        stores.add_key(f"{user}-session-1-of-his", user)


def others(stores: SessionStores) -> None:
    """All that is not Ann's is there, and nothing else."""
    kept = {f"{user}-session-1-of-his" for user in ("bob", "anna", "Ann", "an")}
    assert stores.ids() == kept
    expected = {f"{kind}:{session_id}" for session_id in kept for kind in ("sess", "access_log")}
    expected |= {f"user_sess:{user}" for user in ("bob", "anna", "Ann", "an")}
    assert stores.redis_keys() == expected


def counts(said: Revoked) -> tuple[int, int, int, int, int]:
    sessions = said.report.sessions
    return (sessions.found, sessions.revoked, sessions.left, sessions.database_rows, sessions.redis_keys)


def redis_only(**spec: Any) -> SessionPolicy:
    document = manifest(**spec)
    document["spec"]["stores"] = {"redis": {"urlFrom": SECRET, "keys": KEYS}}
    return parse_policy(document)


# --- a user ----------------------------------------------------------------------------------------------------------


def test_r3_6_a_user_is_logged_out_of_all_stores_and_nobody_else_is(stores: SessionStores) -> None:
    fill(stores)
    said = revoke(policy(redis=True), stores.database_url, stores.redis_url, user="ann")
    assert (said.exit_code, said.report.reason, said.report.dry_run) == (0, "Revoked", False)
    assert counts(said) == (4, 4, 0, 3, 3)
    others(stores)
    assert stores.history()["ann", "Revoked"][0] == 3
    gone = ("ann-session-1", "ann-session-2", "ann-expired-1", "ann-redis-only")
    assert sorted(said.cleanup_log) == sorted((IDENTITIES.session(i), "Revoked") for i in gone)


@pytest.mark.representative(user=["ANN", "a%"])
@pytest.mark.parametrize("user", ["nobody", "ann ", "ANN", "a%", "*", "ann\x00", "a", "user_sess:ann"])
def test_r3_6_only_exactly_this_user_is_meant(stores: SessionStores, user: str) -> None:
    fill(stores)
    before = stores.dump()
    said = revoke(policy(redis=True), stores.database_url, stores.redis_url, user=user)
    assert (said.exit_code, said.report.reason, counts(said)) == (0, "NoSessions", (0, 0, 0, 0, 0))
    assert stores.dump() == before


def test_r3_6_a_policy_with_a_database_alone(database: SessionStores) -> None:
    for session_id, user in (("one", "ann"), ("two", "ann"), ("three", "bob")):
        database.add(session_id, user)
    said = revoke(policy(), database.database_url, user="ann")
    assert counts(said) == (2, 2, 0, 2, 0)
    assert database.ids() == {"three"}


def test_r3_6_a_policy_with_redis_alone(postgres_and_redis: SessionStores) -> None:
    stores = postgres_and_redis
    fill(stores)
    said = revoke(redis_only(), None, stores.redis_url, user="ann")
    assert counts(said) == (3, 3, 0, 0, 3)
    keys = stores.redis_keys()
    assert not [key for key in keys if "ann-" in key or key == "user_sess:ann"]
    assert {"sess:anna-session-1-of-his", "sess:bob-session-1-of-his"} <= keys


def test_r3_6_a_suspended_policy_s_users_can_be_logged_out(database: SessionStores) -> None:
    database.add("one", "ann")
    assert revoke(policy(suspend=True), database.database_url, user="ann").report.sessions.revoked == 1


def test_r3_6_where_users_are_not_mapped_nothing_is_guessed(database: SessionStores) -> None:
    database.add("one", "ann")
    columns = {"id": {"name": "session_id"}, "expiresAt": {"name": "expires_at", "encoding": "Timestamp"}}
    obeyed = policy(table={"name": "sessions", "columns": columns}, maxConcurrentSessions=0)
    said = revoke(obeyed, database.database_url, user="ann")
    assert (said.exit_code, said.report.reason) == (2, "InvalidConfiguration")
    assert "userId" in said.report.message
    assert database.ids() == {"one"}


# --- one session, by its hash ----------------------------------------------------------------------------------------


def test_r3_6_the_session_with_the_hash_of_the_logs_ends_and_no_other(stores: SessionStores) -> None:
    fill(stores)
    said = revoke(policy(redis=True), stores.database_url, stores.redis_url, sessionHash=ANN_HASH)
    assert counts(said) == (1, 1, 0, 1, 1)
    assert said.cleanup_log == [(ANN_HASH, "Revoked")]
    assert "ann-session-1" not in stores.ids()
    assert len(stores.ids()) == 6
    assert stores.members("ann") == {"ann-session-2", "ann-redis-only"}
    assert not stores.redis_keys() & {"sess:ann-session-1", "access_log:ann-session-1"}


@pytest.mark.parametrize("obeyed", [policy(redis=True), redis_only()], ids=["both", "redis alone"])
def test_r3_6_a_session_that_only_redis_has_is_found_by_its_hash(
    postgres_and_redis: SessionStores, obeyed: SessionPolicy
) -> None:
    stores = postgres_and_redis
    fill(stores)
    url = stores.database_url if obeyed.spec.stores.database else None
    said = revoke(obeyed, url, stores.redis_url, sessionHash=IDENTITIES.session("ann-redis-only"))
    assert counts(said) == (1, 1, 0, 0, 1)
    assert stores.members("ann") == {"ann-session-1", "ann-session-2"}
    assert "sess:ann-redis-only" not in stores.redis_keys()


def test_r3_6_a_hash_is_found_on_the_last_page_of_many(postgres_and_redis: SessionStores) -> None:
    stores = postgres_and_redis
    stores.add_many((f"session-{n:04}", f"u{n}") for n in range(1203))
    wanted = IDENTITIES.session("session-1202")
    said = revoke(policy(redis=True, cleanupBatchSize=100), stores.database_url, stores.redis_url, sessionHash=wanted)
    assert said.report.sessions.revoked == 1
    assert len(stores.ids()) == 1202
    assert "session-1202" not in stores.ids()


def test_r3_6_a_hash_of_another_key_ends_nothing(stores: SessionStores) -> None:
    fill(stores)
    before = stores.dump()
    said = revoke(policy(redis=True), stores.database_url, stores.redis_url, sessionHash="s:" + "0" * 20)
    assert (said.exit_code, said.report.reason) == (0, "NoSessions")
    assert "another key" in said.report.message
    assert stores.dump() == before


def test_r3_6_without_the_key_a_hash_cannot_be_known_and_that_is_told(database: SessionStores) -> None:
    database.add("ann-session-1", "ann")
    said = revoke(policy(), database.database_url, has_key=False, sessionHash=ANN_HASH)
    assert (said.exit_code, said.report.reason) == (2, "InvalidConfiguration")
    assert "spec.logs.hashKeyFrom" in said.report.message
    assert database.ids() == {"ann-session-1"}


# --- dry run ---------------------------------------------------------------------------------------------------------


@pytest.mark.representative(found=[4])
@pytest.mark.parametrize(("target", "found"), [({"user": "ann"}, 4), ({"sessionHash": ANN_HASH}, 1)], ids=str)
def test_r6_a_dry_run_says_what_would_go_and_changes_nothing(
    stores: SessionStores, target: dict[str, Any], found: int
) -> None:
    fill(stores)
    before = stores.dump()
    running = initialise(policy(redis=True).spec, Urls(stores.database_url, stores.redis_url), RunClock(600), Log())
    try:  # and needs no lock
        said = revoke(policy(redis=True, dryRun=True), stores.database_url, stores.redis_url, **target)
    finally:
        running.connection.close()
    assert (said.exit_code, said.report.reason, said.report.dry_run) == (0, "DryRun", True)
    assert counts(said) == (found, 0, 0, 0, 0)
    assert stores.dump() == before
    assert said.cleanup_log == []


# --- the lock, and rows in use ---------------------------------------------------------------------------------------


class Patient(RunClock):
    """Tells when it is waited by."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(timeout_seconds)
        self.waits = threading.Event()

    def wait(self, seconds: float) -> None:
        self.waits.set()
        super().wait(seconds)


def test_r2_1_while_a_run_holds_the_lock_it_waits_and_then_does_its_work(database: SessionStores) -> None:
    database.add("one", "ann")
    running = initialise(policy().spec, Urls(database.database_url), RunClock(600), Log())
    clock, waiting = Patient(600), list[Revoked]()
    thread = threading.Thread(
        target=lambda: waiting.append(revoke(policy(), database.database_url, clock=clock, user="ann"))
    )
    thread.start()
    try:
        assert clock.waits.wait(PATIENCE_SECONDS)
        assert (thread.is_alive(), database.ids()) == (True, {"one"})
    finally:
        running.connection.close()
    thread.join(PATIENCE_SECONDS)
    assert (waiting[0].exit_code, counts(waiting[0])) == (0, (1, 1, 0, 1, 0))
    assert [line["event"] for line in waiting[0].lines].count("waiting for the lock") == 1


def test_r2_1_it_does_not_wait_for_ever(database: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("job.revocation.revocation._WAITING_SHARE", 0.001)  # of 300 seconds
    database.add("one", "ann")
    obeyed = policy(job={"timeoutSeconds": 300})
    running = initialise(obeyed.spec, Urls(database.database_url), RunClock(600), Log())
    try:
        said = revoke(obeyed, database.database_url, user="ann")
    finally:
        running.connection.close()
    assert (said.exit_code, said.report.reason, counts(said)) == (1, "LockHeld", (0, 0, 0, 0, 0))
    assert database.ids() == {"one"}


def test_r2_1_a_run_on_redis_alone_is_waited_for_too(
    postgres_and_redis: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.revocation.revocation._WAITING_SHARE", 0.001)
    stores = postgres_and_redis
    stores.add_key("one", "ann")
    obeyed = redis_only(job={"timeoutSeconds": 300})
    assert stores.redis_url
    running = open_redis(obeyed.spec, stores.redis_url, RunClock(600), Log())
    try:
        assert revoke(obeyed, None, stores.redis_url, user="ann").report.reason == "LockHeld"
        assert "sess:one" in stores.redis_keys()
    finally:
        running.close()
    assert revoke(obeyed, None, stores.redis_url, user="ann").report.sessions.revoked == 1
    assert stores.redis_keys() == set()  # the lock is given back, too


def test_a_row_in_use_is_told_and_left_to_the_next_attempt(postgres_and_redis: SessionStores) -> None:
    stores = postgres_and_redis
    fill(stores)
    with stores.transaction() as connection:
        connection.execute(TABLE.update().where(TABLE.c.session_id == "ann-session-1").values(client="x"))
        said = revoke(policy(redis=True), stores.database_url, stores.redis_url, user="ann")
    assert (said.exit_code, said.report.reason, counts(said)) == (1, "SessionsInUse", (4, 3, 1, 2, 2))
    assert "sess:ann-session-1" in stores.redis_keys()  # a row without its key would be a session half ended
    again = revoke(policy(redis=True), stores.database_url, stores.redis_url, user="ann")
    assert (again.exit_code, counts(again)) == (0, (1, 1, 0, 1, 1))
    others(stores)


# --- killed, stopped, unreachable ------------------------------------------------------------------------------------


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as nothing can catch SIGKILL."""


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", [{"user": "ann"}, {"sessionHash": ANN_HASH}], ids=str)
def test_killed_at_every_single_step_the_next_attempt_finishes(
    postgres_and_redis: SessionStores, monkeypatch: pytest.MonkeyPatch, target: dict[str, Any]
) -> None:
    stores = postgres_and_redis
    budget, steps = [0], [0]

    def step(original: Any) -> Any:
        def counted(self: object, *arguments: object, **options: object) -> object:
            result = original(self, *arguments, **options)
            steps[0] += 1
            if steps[0] == budget[0]:
                raise Killed
            return result

        return counted

    monkeypatch.setattr(RunConnection, "transaction", step(RunConnection.transaction))
    monkeypatch.setattr(RedisServer, "_attempt", step(RedisServer._attempt))
    fill(stores)
    deaths = 0
    while True:
        budget[0], steps[0] = budget[0] + 1, 0
        try:
            last = revoke(policy(redis=True), stores.database_url, stores.redis_url, **target)
            break
        except Killed:
            deaths += 1
    assert deaths > 10
    assert last.exit_code == 0
    if "user" in target:
        others(stores)
    else:
        assert not [key for key in stores.redis_keys() if key.endswith("ann-session-1")]
        assert stores.members("ann") == {"ann-session-2", "ann-redis-only"}
        assert len(stores.ids()) == 6


def test_sigkill_and_the_retry(postgres_and_redis: SessionStores, tmp_path: Path) -> None:
    stores = postgres_and_redis
    stores.add_many((f"ann-{n:04}", "ann") for n in range(2000))
    stores.add("bob-1", "bob")
    one = process(tmp_path, manifest(redis=True), stores.database_url, stores.redis_url, target={"user": "ann"})
    deadline = time.monotonic() + 60
    while len(stores.ids()) > 1990 and time.monotonic() < deadline and one.process.poll() is None:
        time.sleep(0.01)
    one.process.send_signal(signal.SIGKILL)
    assert one.wait().exit_code in (-signal.SIGKILL, 0)
    said = revoke(policy(redis=True), stores.database_url, stores.redis_url, user="ann")
    assert said.exit_code == 0
    assert stores.ids() == {"bob-1"}
    assert stores.history()["ann", "Revoked"][0] == 2000


def test_sigterm_ends_it_between_two_batches_with_a_report(
    postgres: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = RunClock(600)
    postgres.add_many((f"ann-{n:04}", "ann") for n in range(1200))
    original = SessionDatabase.delete_if

    def stopped(self: SessionDatabase, *arguments: Any) -> Any:
        clock._request()  # as request_stop does, but at once
        return original(self, *arguments)

    monkeypatch.setattr(SessionDatabase, "delete_if", stopped)
    said = revoke(policy(), postgres.database_url, clock=clock, user="ann")
    assert (said.exit_code, said.report.reason) == (1, "Interrupted")
    assert said.report.sessions.revoked == 1200 - len(postgres.ids())
    assert 0 < said.report.sessions.revoked < 1200
    assert len(said.cleanup_log) == said.report.sessions.revoked


def test_a_database_that_is_down_is_worth_another_attempt() -> None:
    said = revoke(policy(), "postgresql://shop:hunter2@127.0.0.1:9/none", user="ann")
    assert (said.exit_code, said.report.reason) == (1, "DatabaseUnavailable")
    assert "hunter2" not in json.dumps(said.lines)


# --- as the container ------------------------------------------------------------------------------------------------

USER, SESSION = "canary-user", "canary-session"


@pytest.mark.exhaustive
def test_r2_the_user_is_in_nothing_it_says(postgres_and_redis: SessionStores, tmp_path: Path) -> None:
    stores = postgres_and_redis
    stores.add_many((f"{SESSION}-{n}", USER) for n in range(3))
    for n in range(3):
        stores.add_key(f"{SESSION}-{n}", USER)
    held = stores.engine.connect()
    with held.begin():
        held.execute(TABLE.update().where(TABLE.c.session_id == f"{SESSION}-1").values(client="x"))
        failed = finished(
            *(tmp_path / "held", manifest(redis=True), stores.database_url, stores.redis_url), target={"user": USER}
        )
    held.close()
    assert (failed.exit_code, report_of(failed.termination_message).reason) == (1, "SessionsInUse")
    logs = tmp_path / "logs"
    done = finished(
        *(tmp_path / "done", manifest(redis=True), stores.database_url, stores.redis_url),
        target={"user": USER},
        environment={"LOG_DIRECTORY": str(logs)},
    )
    assert (done.exit_code, report_of(done.termination_message).sessions.revoked) == (0, 1)
    assert stores.ids() == set()
    dry = finished(*(tmp_path / "dry", manifest(dryRun=True), stores.database_url), target={"user": USER})
    down = finished(
        *(tmp_path / "down", manifest(), "postgresql://shop:canary@127.0.0.1:9/none"), target={"user": USER}
    )
    assert (dry.exit_code, down.exit_code) == (0, 1)
    files = "".join(path.read_text() for path in logs.rglob("*.jsonl"))
    (line,) = (json.loads(text) for text in files.splitlines() if '"cleanup"' in text)
    assert line["session"] == IDENTITIES.session(f"{SESSION}-1")
    for said in (failed.everything, done.everything, dry.everything, down.everything, files):
        assert "revocation finished" in said
        assert "canary" not in said


@pytest.mark.representative(target=[None, '{"user": ""}'])
@pytest.mark.parametrize(
    "target", [None, "", "canary", "{}", '{"user": ""}', '{"user": "canary", "sessionHash": "s:' + "0" * 20 + '"}',
               '{"sessionHash": "canary"}', '{"user": "canary", "prefix": true}'],
)  # fmt: skip
def test_a_target_that_is_none_revokes_nothing(sqlite_url: str, tmp_path: Path, target: str | None) -> None:
    database = SessionStores(sqlite_url)
    database.add("one", "ann")
    said = finished(tmp_path, manifest(), sqlite_url, target=target)
    assert (said.exit_code, report_of(said.termination_message).reason) == (2, "InvalidConfiguration")
    assert "canary" not in said.everything
    assert database.ids() == {"one"}
    database.close()


def test_a_policy_that_cannot_be_read_is_bad_configuration(tmp_path: Path) -> None:
    said = finished(tmp_path, {"kind": "SessionPolicy"}, None, target={"user": "ann"})
    assert (said.exit_code, report_of(said.termination_message).reason) == (2, "InvalidConfiguration")


@pytest.mark.exhaustive
def test_the_hash_key_of_the_environment_is_the_one_of_the_logs(postgres: SessionStores, tmp_path: Path) -> None:
    postgres.add("ann-session-1", "ann")
    postgres.add("ann-session-2", "ann")
    blank = finished(
        *(tmp_path / "blank", manifest(), postgres.database_url),
        target={"sessionHash": ANN_HASH},
        environment={"LOG_HASH_KEY": " "},
    )
    assert (blank.exit_code, len(postgres.ids())) == (2, 2)
    said = finished(tmp_path / "key", manifest(), postgres.database_url, target={"sessionHash": ANN_HASH})
    assert (said.exit_code, postgres.ids()) == (0, {"ann-session-2"})
    assert KEY not in said.everything
