"""R2.2, R2.7: however a transaction that deletes ends, each session is deleted and counted exactly once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from policy.presets import DatabasePreset
from stores.model.sessions import DeletionTotals, Session
from stores.sql.connection.run_connection import RunConnection
from stores.sql.dialects import dialect_of
from stores.sql.mapping.table import MappedTable
from stores.sql.removal.exactly_once import DeletionRefusedError, ExactlyOnceDeletion, TransientDeletionError
from stores.sql.schema.tables import create_tables

ROWS = ["a", "b", "c"]


class LosingConnection:
    """In place of a RunConnection: loses the connection before or after each commit, as often as it is told to.

    Args:
        engine: of the database.
        losses: "before" or "after" the commit, one for each attempt that is lost.
        meanwhile: done while the connection is away.
    """

    def __init__(
        self, engine: sa.Engine, losses: list[str], meanwhile: Callable[[sa.Connection], None] = lambda _: None
    ) -> None:
        self._engine = engine
        self._losses = losses
        self._meanwhile = meanwhile

    def transaction(self, work: Callable[[sa.Connection], Any], *, retry_transient: bool) -> Any:
        assert not retry_transient
        while self._losses:
            loss = self._losses.pop(0)
            with self._engine.connect() as connection:
                work(connection)
                if loss == "after":
                    connection.commit()
            with self._engine.begin() as connection:
                self._meanwhile(connection)
        with self._engine.begin() as connection:
            return work(connection)


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        create_tables(connection, DatabasePreset.DEFAULT.table)
        connection.exec_driver_sql("CREATE TABLE counted (number INTEGER)")
        for row in ROWS:
            add(connection, row)
    yield engine
    engine.dispose()


def add(connection: sa.Connection, row: str, *, live: bool = False) -> None:
    when = "2999-01-01 00:00:00" if live else "2000-01-01 00:00:00"
    connection.exec_driver_sql(
        "INSERT INTO sessions (session_id, user_id, created_at, last_accessed_at) VALUES (?, 'u', ?, ?)",
        (row, when, when),
    )


def delete(connection: sa.Connection) -> list[Session]:
    found = connection.exec_driver_sql(
        "DELETE FROM sessions WHERE last_accessed_at < '2020-01-01' RETURNING session_id"
    )
    return [Session(row[0]) for row in found]


def delete_and_sum(connection: sa.Connection) -> DeletionTotals:
    gone = delete(connection)
    return DeletionTotals(len(gone), 0, 0.0, [session.id for session in gone[:1]])


def record(connection: sa.Connection, deleted: Any) -> None:
    connection.exec_driver_sql("INSERT INTO counted VALUES (?)", (len(deleted),))


def deletion(engine: sa.Engine, connection: LosingConnection, how: Callable[[sa.Connection], Any]) -> Any:
    table = DatabasePreset.DEFAULT.table
    types = {column["name"]: column["type"] for column in sa.inspect(engine).get_columns(table.name)}
    mapped = MappedTable(table, dialect_of(engine), types)
    return ExactlyOnceDeletion(cast(RunConnection, connection), mapped, how, record)


def counted(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT coalesce(sum(number), 0) FROM counted").scalar_one())


def left(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT session_id FROM sessions ORDER BY 1").scalars())


@pytest.mark.parametrize("how", [delete, delete_and_sum], ids=["rows", "totals"])
@pytest.mark.parametrize("losses", [[], ["before"], ["after"], ["before", "before", "after"], ["after", "after"]])
def test_each_session_is_deleted_and_counted_once(
    engine: sa.Engine, how: Callable[[sa.Connection], Any], losses: list[str]
) -> None:
    one = deletion(engine, LosingConnection(engine, losses), how)
    assert len(one.run()) == len(ROWS)
    assert one.may_have_written
    assert (counted(engine), left(engine)) == (len(ROWS), [])


@pytest.mark.parametrize("how", [delete, delete_and_sum], ids=["rows", "totals"])
def test_a_session_made_anew_under_an_id_that_was_deleted_survives_and_nothing_is_counted_twice(
    engine: sa.Engine, how: Callable[[sa.Connection], Any]
) -> None:
    connection = LosingConnection(engine, ["after"], lambda connection: add(connection, ROWS[0], live=True))
    deletion(engine, connection, how).run()
    assert (counted(engine), left(engine)) == (len(ROWS), [ROWS[0]])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sa.exc.OperationalError("", {}, sqlite3.OperationalError("database is locked")), TransientDeletionError),
        (sa.exc.IntegrityError("", {}, sqlite3.IntegrityError("a trigger says no")), DeletionRefusedError),
        (sa.exc.OperationalError("", {}, sqlite3.OperationalError("no such table")), sa.exc.OperationalError),
    ],
)
def test_what_a_failed_attempt_has_deleted_is_forgotten_for_it_was_rolled_back(
    engine: sa.Engine, error: Exception, expected: type[Exception]
) -> None:
    failing = [error]

    def fails_first(connection: sa.Connection) -> list[Session]:
        gone = delete(connection)
        if failing:
            raise failing.pop()  # which rolls the transaction back
        return gone

    one = deletion(engine, LosingConnection(engine, []), fails_first)
    with pytest.raises(expected):
        one.run()
    assert (counted(engine), left(engine)) == (0, ROWS)
    assert len(one.run()) == len(ROWS)
    assert (counted(engine), left(engine)) == (len(ROWS), [])


def test_a_transaction_that_finds_nothing_has_written_nothing(engine: sa.Engine) -> None:
    deletion(engine, LosingConnection(engine, []), delete).run()
    again = deletion(engine, LosingConnection(engine, []), delete)
    assert len(again.run()) == 0
    assert not again.may_have_written
