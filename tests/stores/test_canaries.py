"""No session id, no user id and no password in anything a run says, however it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from stores.redis.store import RedisStore
from stores.sql.store import SessionDatabase
from tests.support.runs import Command, Finished, Result, command, manifest, policy, run
from tests.support.servers.restartable import RestartablePostgres, RestartableRedis
from tests.support.session_stores import HOUR, SessionStores

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

SESSION, USER, PASSWORD = "canary-session", "canary-user", "canary-password"
CANARY = "canary"


def fill(stores: SessionStores) -> None:
    """Canaries for every path through a run."""
    for n in range(6):
        stores.add(f"{SESSION}-expired{n}", f"{USER}{n}", began=2 * HOUR, used=HOUR)
        stores.add(f"{SESSION}-live{n}", f"{USER}", used=10 * n)
        stores.add(f"{SESSION}-no-key{n}", f"{USER}-x{n}")
        if stores.redis_url:
            stores.add_key(f"{SESSION}-expired{n}", f"{USER}{n}", used=HOUR)
            stores.add_key(f"{SESSION}-live{n}", USER, ttl=None if n else HOUR)
            stores.add_key(f"{SESSION}-orphan{n}", f"{USER}-gone")
            stores.redis.sadd(f"user_sess:{USER}{n}", f"{SESSION}-stale{n}")
    if stores.redis_url:
        stores.redis.lpush(f"sess:{SESSION}-wrong-type", CANARY)
        stores.redis.set(f"user_sess:{USER}-wrong-type", CANARY)
        stores.redis.set(f"sess:{SESSION}-not-json", "{" + CANARY)


def check(result: Result | Finished) -> None:
    if isinstance(result, Finished):
        said = result.everything
    else:
        said = json.dumps(result.report.to_json_object()) + json.dumps(result.log.events, default=repr)
    assert "outcome" in said or "Succeeded" in said or "Degraded" in said or "Failed" in said
    assert CANARY not in said


OBEYED: Mapping[str, Any] = {"redis": True, "maxConcurrentSessions": 3, "cleanupBatchSize": 2}
DELETING = {"graceSeconds": 0, "onMissingRedisSession": "Delete"}


@pytest.mark.representative(output=["json"])
@pytest.mark.parametrize("output", ["json", "table", None])
def test_a_run_of_every_step(stores: SessionStores, tmp_path: Path, output: str | None) -> None:
    fill(stores)
    document = manifest(**OBEYED, sync=DELETING, concurrency={"exemptUsers": [f"{USER}-exempt"]})
    finished = command(tmp_path, document, stores.database_url, stores.redis_url, output=output)
    assert finished.exit_code == 0, finished
    assert len(stores.ids()) == 3  # everything was met: expired, over the limit, without a key
    check(finished)


def test_a_dry_run(stores: SessionStores) -> None:
    fill(stores)
    check(run(policy(**OBEYED), stores.database_url, stores.redis_url, dry_run=True))


def test_a_foreign_key_whose_violation_quotes_the_row(database: SessionStores) -> None:
    fill(database)
    database.sql(
        "CREATE TABLE orders (session_id varchar(128) NOT NULL PRIMARY KEY,"
        " FOREIGN KEY (session_id) REFERENCES sessions (session_id))",
        # The order would go with its session, but for what refers to it in turn: so far a run does not go.
        "CREATE TABLE items (order_id varchar(128) NOT NULL, FOREIGN KEY (order_id) REFERENCES orders (session_id))",
        f"INSERT INTO orders VALUES ('{SESSION}-expired1')",
        f"INSERT INTO items VALUES ('{SESSION}-expired1')",
    )
    result = run(policy(), database.database_url)
    assert result.report.sessions.failed == 1
    check(result)


@pytest.mark.representative(state=["XX000"])
@pytest.mark.parametrize("state", ["P0001", "XX000", "42501", "40001", "57P01", "08006"])
def test_an_error_that_quotes_data(postgres: SessionStores, state: str, tmp_path: Path) -> None:
    fill(postgres)
    postgres.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no: %% of %%', OLD.session_id,"
        f" OLD.user_id USING ERRCODE = '{state}', DETAIL = OLD.session_id, HINT = OLD.user_id; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    finished = command(tmp_path, manifest(), postgres.database_url)
    assert finished.report.sessions.deleted == 0
    assert len(postgres.ids()) == 18
    check(finished)


def test_wrong_passwords(scram_url: sa.URL, own_postgres_url: str, own_redis: RestartableRedis, tmp_path: Path) -> None:
    SessionStores(own_postgres_url).close()
    wrong = scram_url.set(password=PASSWORD).render_as_string(hide_password=False)
    check(command(tmp_path / "database", manifest(), wrong))
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", "right")
    try:
        url = own_redis.url.replace("redis://", f"redis://:{PASSWORD}@")
        finished = command(tmp_path / "redis", manifest(redis=True), own_postgres_url, url)
    finally:
        with redis.Redis.from_url(own_redis.url.replace("redis://", "redis://:right@")) as client:
            client.config_set("requirepass", "")
    assert (finished.exit_code, finished.report.reason) == (2, "InvalidConfiguration")
    assert "REDIS_URL" in finished.report.message
    check(finished)


def test_a_password_that_is_right_does_not_show_either(scram_url: sa.URL, own_postgres: RestartablePostgres) -> None:
    engine = sa.create_engine(own_postgres.url_of(str(scram_url.database)), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"GRANT ALL ON SCHEMA public TO {scram_url.username}")
        connection.exec_driver_sql(f"ALTER ROLE {scram_url.username} PASSWORD '{PASSWORD}'")
    engine.dispose()
    url = scram_url.set(password=PASSWORD).render_as_string(hide_password=False)
    stores = SessionStores(url)
    fill(stores)
    result = run(policy(), url)
    assert (result.exit_code, result.deleted > 0) == (0, True)
    check(result)
    stores.close()


def test_servers_killed_in_the_middle(
    own_postgres_url: str,
    own_postgres: RestartablePostgres,
    own_redis: RestartableRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = SessionStores(own_postgres_url, own_redis.url)
    fill(stores)
    remove, delete = RedisStore.delete, SessionDatabase.delete_expired

    def without_redis(self: RedisStore, sessions: Any) -> Any:
        own_redis.kill()
        return remove(self, sessions)

    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "delete", without_redis)
        result = run(policy(**OBEYED), stores.database_url, stores.redis_url)
    assert result.report.reason == "RedisUnavailable"
    check(result)
    own_redis.restart()

    def without_database(self: SessionDatabase, sessions: Any) -> Any:
        own_postgres.kill()
        return delete(self, sessions)

    monkeypatch.setattr(SessionDatabase, "delete_expired", without_database)
    result = run(policy(**OBEYED), stores.database_url, stores.redis_url)
    assert result.report.reason == "DatabaseUnavailable"
    check(result)
    stores.close()


def test_an_error_nobody_thought_of(stores: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(stores)

    def fail(self: SessionDatabase, sessions: Any) -> Any:
        try:
            raise KeyError(f"{SESSION} of {USER}")
        except KeyError as error:
            raise RuntimeError(f"cannot delete {sessions}") from error

    monkeypatch.setattr(SessionDatabase, "delete_expired", fail)
    result = run(policy(**OBEYED), stores.database_url, stores.redis_url)
    assert (result.exit_code, result.report.reason) == (1, "RunFailed")
    assert "RuntimeError" in result.report.message
    (error,) = [e for e in result.log.events if e["level"] == "error"]
    assert any("test_canaries.py" in frame for frame in error["trace"])
    check(result)


def test_an_interrupted_run(database: SessionStores, tmp_path: Path) -> None:
    database.add_many(((f"{SESSION}{n:04}", f"{USER}{n % 5}") for n in range(800)), used=HOUR)
    one = Command(tmp_path, manifest(cleanupBatchSize=1), database.database_url)
    while len(database.ids()) == 800:
        assert one.process.poll() is None
    one.process.send_signal(signal.SIGTERM)
    finished = one.wait()
    assert finished.report.reason == "Interrupted"
    check(finished)
