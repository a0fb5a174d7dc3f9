"""R2.4: several sessions of the same user on the same client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.runs import policy
from tests.support.runs import run as run_policy
from tests.support.session_stores import SessionStores
from tests.support.steps import steps

# `make test` tests the SQL of the other databases in few modules, and `make test-all` everywhere.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

RULELESS: dict[str, Any] = {"rules": []}
KEEP_NEWEST: dict[str, Any] = {"duplicates": {"action": "KeepNewest"}, **RULELESS}


def fill(stores: SessionStores) -> None:
    now = datetime.now(UTC)

    def row(session_id: str, user: str | None, client: str | None, began: float, used: float = 60) -> dict[str, Any]:
        return {
            "session_id": session_id,
            "user_id": user,
            "client": client,
            "created_at": now - timedelta(seconds=began),
            "last_accessed_at": now - timedelta(seconds=used),
        }

    stores.rows(
        [
            row("oldest", "a", "phone", 3000, used=1),  # used last, but not begun last
            row("older", "a", "phone", 2000),
            row("newest", "a", "phone", 1000),
            row("other client", "a", "laptop", 2500),
            row("other case", "a", "Phone", 2500),
            row("other user", "b", "phone", 2500),
            row("expired", "b", "phone", 900, used=7200),
            row("no client 1", "a", None, 2500),
            row("no client 2", "a", None, 2600),
            row("empty client 1", "a", "", 2500),
            row("empty client 2", "a", "", 2600),
            row("nobody 1", None, "phone", 2500),
            row("nobody 2", None, "phone", 2600),
            row("anonymous 1", "", "phone", 2500),
            row("anonymous 2", "", "phone", 2600),
        ]
    )


def test_r2_4_duplicates_are_reported(database: SessionStores) -> None:
    fill(database)
    with steps(policy(**RULELESS), database) as run:
        tally = run.clean()
    assert (tally.duplicate, tally.deleted, tally.expired) == (2, 1, 1)
    assert database.ids() >= {"oldest", "older", "newest"}


def test_r2_4_keep_newest_keeps_the_one_that_began_last(stores: SessionStores) -> None:
    fill(stores)
    before = stores.ids()
    for session_id in before:
        stores.add_key(session_id, "a", used=None)
    with steps(policy(redis=True, **KEEP_NEWEST), stores) as run:
        tally = run.clean()
    assert before - stores.ids() == {"oldest", "older", "expired"}
    assert (tally.duplicate, tally.deleted, tally.remaining, tally.active) == (2, 3, 0, 12)
    keys = stores.redis_keys()
    assert not any(key.endswith((":oldest", ":older")) for key in keys)
    assert stores.history()["a", "Duplicate"][0] == 2
    with steps(policy(redis=True, **KEEP_NEWEST), stores) as run:
        assert (run.clean().duplicate, run.tally.deleted) == (0, 0)


def test_r2_4_many_users_with_many_duplicates_begun_at_once(database: SessionStores) -> None:
    moment = datetime.now(UTC)
    database.rows(
        {"session_id": f"{u}-{n}", "user_id": f"u{u}", "client": f"c{n % 2}", "created_at": moment}
        for u in range(7)
        for n in range(6)
    )
    with steps(policy(cleanupBatchSize=4, **KEEP_NEWEST), database) as run:
        tally = run.clean()
    assert (tally.duplicate, tally.deleted, tally.remaining) == (28, 28, 0)
    left = sorted(database.ids())
    assert [i.split("-")[0] for i in left] == [str(u) for u in range(7) for _ in range(2)]
    assert all({int(i.split("-")[1]) % 2 for i in left if i.startswith(f"{u}-")} == {0, 1} for u in range(7))


def test_r2_4_if_the_newest_ends_meanwhile_the_next_stays(database: SessionStores) -> None:
    """The statement that deletes ranks anew."""
    fill(database)
    with steps(policy(**KEEP_NEWEST), database) as run:
        (page,) = run.duplicates.pages()
        assert {s.id for s in page} == {"oldest", "older"}
        database.sql("DELETE FROM sessions WHERE session_id = 'newest'")
        assert [s.id for s in run.duplicates.delete(page).deleted] == ["oldest"]
    assert "older" in database.ids()


def test_r2_4_a_dry_run_only_counts(database: SessionStores) -> None:
    fill(database)
    before = database.dump()
    with steps(policy(**KEEP_NEWEST), database, dry_run=True) as run:
        assert (run.clean().duplicate, run.tally.deleted, run.tally.remaining) == (2, 0, 0)
    assert database.dump() == before


def test_r2_4_the_limit_of_deletions_holds(database: SessionStores) -> None:
    fill(database)
    database.sql("DELETE FROM sessions WHERE session_id = 'expired'")
    safety = {"maxDeletePercent": 100, "maxDeletions": 1}
    with steps(policy(safety=safety, **KEEP_NEWEST), database) as run:
        tally = run.clean()
    assert (tally.duplicate, tally.deleted, tally.remaining) == (2, 1, 1)


def test_r2_4_without_a_client_column_there_are_none(database: SessionStores) -> None:
    fill(database)
    columns = {"id": "session_id", "userId": "user_id", "createdAt": "created_at", "lastAccessedAt": "last_accessed_at"}
    table = {"name": "sessions", "columns": {field: {"name": name} for field, name in columns.items()}}
    with steps(policy(table=table, **KEEP_NEWEST), database) as run:
        assert run.clean().duplicate == 0
        assert run.log.named("duplicates skipped")


def test_r2_4_a_revoked_session_does_not_cost_its_user_a_good_one(database: SessionStores) -> None:
    """Neither as the newest on a client, nor by taking up the limit."""
    now = datetime.now(UTC)

    def row(session_id: str, user: str, client: str, minutes: int, *, revoked: bool = False) -> dict[str, Any]:
        began = now - timedelta(minutes=minutes)
        marked = now if revoked else None
        return {"session_id": session_id, "user_id": user, "client": client, "created_at": began, "revoked_at": marked}

    database.rows(
        [
            row("good", "a", "phone", 20),
            row("revoked newer", "a", "phone", 10, revoked=True),
            row("within the limit", "b", "phone", 20),
            row("revoked 1", "b", "laptop", 10, revoked=True),
            row("revoked 2", "b", "tablet", 10, revoked=True),
        ]
    )
    obeyed = policy(
        maxConcurrentSessions=1,
        duplicates={"action": "KeepNewest"},
        rules=[{"type": "Revoked", "action": "Delete"}],
        safety={"maxDeletePercent": 100},
    )
    result = run_policy(obeyed, database.database_url)
    assert database.ids() == {"good", "within the limit"}
    assert (result.report.sessions.evicted, result.report.sessions.active) == (0, 2)
