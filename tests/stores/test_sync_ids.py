"""Redis knows an id as text only; the database may know it as a number, a UUID or padded text. No spelling of an id in
Redis may make the synchronisation fail, or take a live session for an orphan.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.sync_world import SyncWorld, changes

KNOWN = uuid.UUID("0b5e6a2c-9d4f-4c5e-8a3b-1f2e3d4c5b6a")
TABLE = {"name": "app", "columns": {"id": {"name": "id"}, "lastAccessedAt": {"name": "used"}}}


@pytest.fixture
def world(postgres_url: str, redis_url: str) -> Iterator[SyncWorld]:
    made = SyncWorld(postgres_url, redis_url)
    yield made
    made.close()


def rows(world: SyncWorld, column: str, *ids: Any) -> None:
    with world.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE app (id {column} PRIMARY KEY, used timestamptz)")
        for session_id in ids:
            insert = sa.text(f"INSERT INTO app VALUES (CAST(:id AS {column}), now() - interval '1 minute')")
            connection.execute(insert, {"id": str(session_id)})


@pytest.mark.parametrize(
    ("column", "known", "other_spellings", "strangers"),
    [
        ("bigint", "12", ["012", "+12", " 12", "1_2", "١٢"], ["13", "9" * 25, "x", "nul\0"]),
        ("integer", "12", ["012"], ["13", "3000000000"]),
        ("uuid", str(KNOWN), [str(KNOWN).upper(), KNOWN.hex, f"{{{KNOWN}}}"], [str(uuid.UUID(int=1)), "x", "nul\0"]),
        ("text", "a", [], ["A", "a ", "nul\0", "é"]),
        ("varchar(10)", "a", [], ["A", "longer than the column", "nul\0"]),
        ("char(10)", "abc", [], ["abd"]),
    ],
)
def test_r3_5_no_spelling_of_an_id_endangers_the_session(
    world: SyncWorld, column: str, known: str, other_spellings: list[str], strangers: list[str]
) -> None:
    rows(world, column, known)
    world.key(known)
    for session_id in [*other_spellings, *strangers]:
        world.key(session_id)
    tally = world.run(table=TABLE, maxConcurrentSessions=0)
    assert f"sess:{known}" in world.key_names(), "the live session's key was deleted"
    assert not world.key_names() & {f"sess:{stranger}" for stranger in strangers}
    assert tally.redis.missing == 0
    assert changes(world.run(table=TABLE, maxConcurrentSessions=0)) == (0, 0, 0, 0)
