"""R3.6: listing, showing, counting and revoking sessions in all stores, from the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from job.logs.id_hasher import IdHasher
from tests.support.command_line import CommandLine
from tests.support.patience import PATIENCE_SECONDS
from tests.support.runs import KEYS, SECRET, manifest
from tests.support.session_stores import HOUR, TABLE, SessionStores

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

ROOT = Path(__file__).parents[2]


@pytest.fixture
def both(tmp_path: Path, stores: SessionStores) -> CommandLine:
    return CommandLine(tmp_path, manifest(redis=True), stores.database_url, stores.redis_url)


@pytest.fixture
def alone(tmp_path: Path, database: SessionStores) -> CommandLine:
    return CommandLine(tmp_path, manifest(), database.database_url)


def session_keys(stores: SessionStores) -> set[str]:
    found = stores.redis_keys()
    return {key for key in found if key.startswith("sess:")}


def fill(stores: SessionStores) -> None:
    """Ann has two live sessions, an expired one and one that only Redis has; Bob has one."""
    for session_id in ("ann-session-1", "ann-session-2"):
        stores.add(session_id, "ann")
        stores.add_key(session_id, "ann")
    stores.add("ann-expired-1", "ann", began=4 * HOUR, used=3 * HOUR)
    stores.add_key("ann-redis-only", "ann")
    stores.add("bob-session-1", "bob")
    stores.add_key("bob-session-1", "bob")


def test_r3_6_a_user_s_sessions_are_listed_from_all_stores(both: CommandLine, stores: SessionStores) -> None:
    fill(stores)
    found = both("sessions", "list", "--user", "ann", "--full", "--output", "json").document["sessions"]
    assert {(s["id"], s["state"], tuple(s["stores"])) for s in found} == {
        ("ann-session-1", "live", ("database", "redis")),
        ("ann-session-2", "live", ("database", "redis")),
        ("ann-expired-1", "expired", ("database",)),
        ("ann-redis-only", "live", ("redis",)),
    }
    table = both("sessions", "list", "--user", "ann").stdout
    assert "ann-se…" in table
    assert "ann-session-1" not in table
    assert "bob" not in table


def test_r3_6_all_sessions_are_listed_up_to_a_limit(alone: CommandLine, database: SessionStores) -> None:
    database.add_many((f"session-{n:02}", f"u{n}") for n in range(9))
    listed = alone("sessions", "list", "--limit", "4", "--full", "--output", "json").document
    assert [s["id"] for s in listed["sessions"]] == [f"session-{n:02}" for n in range(4)]
    assert listed["more"] is True
    assert "more than 4 sessions" in alone("sessions", "list", "--limit", "4").stderr
    assert alone("sessions", "list", "--limit", "9", "--output", "json").document["more"] is False


def test_r3_6_one_session_is_shown_with_its_accesses(both: CommandLine, stores: SessionStores) -> None:
    fill(stores)
    entry = {"time": 1_772_000_000, "ip": "192.0.2.7", "client": "Firefox"}
    stores.redis.lpush("access_log:ann-session-1", json.dumps(entry))
    shown = both("sessions", "show", "ann-session-1", "--output", "json").document
    assert (shown["user"], shown["state"], shown["stores"]) == ("ann", "live", ["database", "redis"])
    assert "192.0.2.7" in [access["address"] for access in shown["accesses"]]
    missing = both("sessions", "show", "nobody's")
    assert (missing.exit_code, missing.stdout) == (1, "")


def test_r3_6_active_sessions_and_users_are_counted(both: CommandLine, stores: SessionStores) -> None:
    fill(stores)
    assert both("sessions", "count", "--output", "json").document == {"active": 3, "expired": 1, "users": 2}
    assert both("sessions", "count", "--user", "ann", "--output", "json").document == {"active": 3, "expired": 1}


def test_r3_6_all_sessions_of_a_user_are_revoked_in_all_stores(both: CommandLine, stores: SessionStores) -> None:
    fill(stores)
    answer = both("sessions", "revoke", "--user", "ann", "--yes", "--full", "--output", "json")
    assert answer.exit_code == 0
    assert sorted(answer.document["revoked"]) == ["ann-expired-1", "ann-redis-only", "ann-session-1", "ann-session-2"]
    assert stores.ids() == {"bob-session-1"}
    assert stores.redis_keys() == {"sess:bob-session-1", "access_log:bob-session-1", "user_sess:bob"}
    assert stores.history()["ann", "Revoked"][0] == 3


def test_r3_6_one_session_is_revoked_and_the_others_stay(both: CommandLine, stores: SessionStores) -> None:
    fill(stores)
    assert "revoked 1 session" in both("sessions", "revoke", "--session", "ann-session-1", "--yes").stdout
    assert stores.ids() == {"ann-session-2", "ann-expired-1", "bob-session-1"}
    assert "sess:ann-session-1" not in session_keys(stores)
    assert stores.redis.smembers("user_sess:ann") == {b"ann-session-2", b"ann-redis-only"}


def test_r3_6_without_a_user_index_redis_is_searched(tmp_path: Path, stores: SessionStores) -> None:
    document = manifest(redis=True)
    document["spec"]["stores"]["redis"]["keys"] = {"session": "sess:{id}"}
    fill(stores)
    line = CommandLine(tmp_path, document, stores.database_url, stores.redis_url)
    line("sessions", "revoke", "--user", "ann", "--yes")
    assert session_keys(stores) == {"sess:bob-session-1"}


def test_r3_6_an_index_entry_of_somebody_else_s_session_revokes_nothing(
    both: CommandLine, stores: SessionStores
) -> None:
    fill(stores)
    stores.add_key("bob-redis-only", "bob")
    stores.redis.sadd("user_sess:ann", "bob-session-1", "bob-redis-only")
    both("sessions", "revoke", "--user", "ann", "--yes")
    assert stores.ids() == {"bob-session-1"}
    assert {"sess:bob-session-1", "sess:bob-redis-only"} <= stores.redis_keys()


def test_r3_6_a_redis_only_policy(tmp_path: Path, stores: SessionStores) -> None:
    document = manifest()
    document["spec"]["stores"] = {"redis": {"urlFrom": SECRET, "keys": KEYS}}
    fill(stores)
    line = CommandLine(tmp_path, document, None, stores.redis_url)
    assert line("sessions", "count", "--output", "json").document["active"] == 4
    assert len(line("sessions", "list", "--output", "json").document["sessions"]) == 4
    line("sessions", "revoke", "--user", "ann", "--yes")
    assert session_keys(stores) == {"sess:bob-session-1"}


@pytest.mark.parametrize(("wanted", "left"), [("7", {"b", "c"}), ("07", {"a", "b", "c"}), ("seven", {"a", "b", "c"})])
def test_r3_6_users_that_are_numbers_are_compared_as_numbers(
    tmp_path: Path, database: SessionStores, wanted: str, left: set[str]
) -> None:
    database.sql(
        "CREATE TABLE numbered (id varchar(32) PRIMARY KEY, owner bigint, seen bigint)",
        "INSERT INTO numbered VALUES ('a', 7, 4000000000), ('b', 0, 4000000000), ('c', 77, 4000000000)",
    )
    columns = {
        "id": {"name": "id"},
        "userId": {"name": "owner"},
        "expiresAt": {"name": "seen", "encoding": "EpochSeconds"},
    }
    table = {"name": "numbered", "columns": columns}
    line = CommandLine(tmp_path, manifest(table=table, maxConcurrentSessions=0), database.database_url)
    line("sessions", "revoke", "--user", wanted, "--yes")
    with database.engine.begin() as connection:
        assert set(connection.scalars(sa.text("SELECT id FROM numbered"))) == left


# --- the lock, rows in use, confirmation -----------------------------------------------------------------------------


def test_r3_6_revoking_takes_the_lock_of_runs_and_says_who_has_it(
    tmp_path: Path, alone: CommandLine, database: SessionStores
) -> None:
    database.add("ann-session-1", "ann")
    from job.steps.initialise import Urls, initialise
    from stores.waiting.clock import RunClock
    from tests.support.runs import Log, policy

    running = initialise(policy().spec, Urls(database.database_url), RunClock(600), Log())
    try:
        answer = alone("sessions", "revoke", "--user", "ann", "--yes")
        assert (answer.exit_code, database.ids()) == (1, {"ann-session-1"})
        assert "the exclusive lock on the session table is held by" in answer.stderr
        holder = {"postgresql": "by session-policy from", "sqlite": "by another process"}
        assert holder.get(database.engine.dialect.name, "by connection") in answer.stderr
        # Looking needs no lock.
        assert "ann" in alone("sessions", "list").stdout
    finally:
        running.connection.close()
    assert alone("sessions", "revoke", "--user", "ann", "--yes").exit_code == 0
    assert database.ids() == set()


def test_r3_6_a_row_in_use_is_waited_for(tmp_path: Path, postgres: SessionStores) -> None:
    postgres.add("ann-session-1", "ann")
    line = CommandLine(tmp_path, manifest(), postgres.database_url)
    held, enough = threading.Event(), threading.Event()

    def application() -> None:
        with postgres.transaction() as connection:
            connection.execute(TABLE.update().values(client="x"))
            held.set()
            enough.wait(1)

    thread = threading.Thread(target=application)
    thread.start()
    assert held.wait(PATIENCE_SECONDS)
    answer = line("sessions", "revoke", "--session", "ann-session-1", "--yes")
    enough.set()
    thread.join()
    assert (answer.exit_code, postgres.ids()) == (0, set())


def test_r3_6_a_row_that_stays_in_use_is_told_and_keeps_its_redis_session(
    tmp_path: Path, postgres_and_redis: SessionStores
) -> None:
    stores = postgres_and_redis
    fill(stores)
    line = CommandLine(tmp_path, manifest(redis=True), stores.database_url, stores.redis_url)
    with stores.transaction() as connection:
        connection.execute(TABLE.update().where(TABLE.c.session_id == "ann-session-1").values(client="x"))
        answer = line("sessions", "revoke", "--user", "ann", "--yes", "--full", "--output", "json")
    assert (answer.exit_code, answer.document["left"]) == (1, ["ann-session-1"])
    assert "try again" in answer.stderr
    assert stores.ids() == {"ann-session-1", "bob-session-1"}
    assert "sess:ann-session-1" in session_keys(stores)


def test_without_yes_and_without_anybody_nothing_is_revoked(alone: CommandLine, database: SessionStores) -> None:
    database.add("ann-session-1", "ann")
    answer = alone("sessions", "revoke", "--user", "ann")
    assert (answer.exit_code, database.ids()) == (2, {"ann-session-1"})
    assert "--yes" in answer.stderr


@pytest.mark.parametrize(("said", "left"), [("y\n", set[str]()), ("n\n", {"ann-session-1"})])
def test_somebody_at_a_terminal_is_asked(tmp_path: Path, database: SessionStores, said: str, left: set[str]) -> None:
    database.add("ann-session-1", "ann")
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps(manifest()))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "job.cli.main", "sessions", "revoke", "--user", "ann", "-f", str(path)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database.database_url, "PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    os.write(ours, said.encode())
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    os.close(ours)
    assert "Revoke 1 session?" in stderr
    assert database.ids() == left


@pytest.mark.parametrize("arguments", [[], ["--session", "a", "--user", "b"]])
def test_what_to_revoke_must_be_said_once(alone: CommandLine, arguments: list[str]) -> None:
    assert alone("sessions", "revoke", *arguments, "--yes").exit_code == 2


def test_r2_a_revocation_is_recorded_by_hash(tmp_path: Path, alone: CommandLine, database: SessionStores) -> None:
    database.add("ann-session-1", "ann")
    logs = tmp_path / "logs"
    key = "0123456789abcdef0123456789abcdef"
    alone("sessions", "revoke", "--user", "ann", "--yes", environment={"LOG_DIRECTORY": str(logs), "LOG_HASH_KEY": key})
    (path,) = (logs / "session").iterdir()
    line = json.loads(path.read_text())
    assert (line["event"], line["cause"]) == ("session deleted", "Revoked")
    assert line["session"] == IdHasher(key.encode()).session("ann-session-1")
    assert "ann" not in path.read_text()


def test_an_id_that_holds_control_characters_cannot_write_to_the_terminal(
    alone: CommandLine, database: SessionStores
) -> None:
    database.add("\x1b[2Jevil-session-id", "[red]ann[/]\x07")
    shown = alone("sessions", "list", "--full").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]ann[/]" in shown


def test_a_user_column_that_is_not_mapped_is_told(tmp_path: Path, database: SessionStores) -> None:
    columns = {"id": {"name": "session_id"}, "expiresAt": {"name": "expires_at", "encoding": "Timestamp"}}
    document = manifest(table={"name": "sessions", "columns": columns}, maxConcurrentSessions=0)
    line = CommandLine(tmp_path, document, database.database_url)
    for command in (["list"], ["revoke", "--yes"], ["count"]):
        answer = line("sessions", *command, "--user", "ann")
        assert (answer.exit_code, "userId" in answer.stderr) == (2, True)


def test_a_store_that_is_down_is_one_line_and_no_stack_trace(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, manifest(), "postgresql://ann:hunter2@127.0.0.1:9/none")
    answer = line("sessions", "list")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("error: the database refuses connections")
    assert "hunter2" not in answer.everything
