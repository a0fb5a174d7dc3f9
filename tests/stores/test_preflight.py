"""R2.1, R6: what a look at the database finds before a run: what refuses it, and what somebody should know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.mapping.findings import Finding, Severity
from stores.sql.mapping.preflight import Preflight, examine
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores

# MariaDB's SQL is tested in few other modules by `make test`, and everywhere by `make test-all`.
pytestmark = pytest.mark.representative(database_url=["postgresql", "sqlite"])


def look(url: str, table: dict[str, Any] | None = None) -> Preflight:
    store = policy(table=table).spec.stores.database
    assert store is not None
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        found = examine(sa.inspect(connection), store.session_table)
    engine.dispose()
    return found


def warnings(url: str, table: dict[str, Any] | None = None) -> list[Finding]:
    return [f for f in look(url, table).findings if f.severity is Severity.WARNING]


def obey(url: str, ddl: str) -> None:
    """What a finding asks for, as somebody would paste it."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(ddl.replace("%", "%%"))
    engine.dispose()


def test_the_default_tables_need_nothing(database: SessionStores) -> None:
    assert warnings(database.database_url) == []


# --- indexes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def unindexed(database_url: str) -> Iterator[str]:
    """A table with odd names and no index but the primary key's."""
    engine = sa.create_engine(database_url)
    table = sa.Table(
        "My Sessions",
        sa.MetaData(),
        sa.Column("the id", sa.String(64), primary_key=True),
        sa.Column("Last Seen", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    with engine.begin() as connection:
        table.create(connection)
    yield database_url
    engine.dispose()


UNINDEXED = {
    "name": "My Sessions",
    "columns": {
        "id": {"name": "the id"},
        "lastAccessedAt": {"name": "Last Seen", "encoding": "EpochSeconds"},
        "expiresAt": {"name": "until", "encoding": "EpochSeconds"},
    },
}


def test_a_missing_expiry_index_is_reported_with_ddl_that_helps(unindexed: str) -> None:
    found = warnings(unindexed, UNINDEXED)
    assert [f.field for f in found] == ["columns.expiresAt", "columns.lastAccessedAt"]
    if unindexed.startswith("postgresql"):
        assert all(f.remedy.startswith("CREATE INDEX CONCURRENTLY ") for f in found)
    for finding in found:
        obey(unindexed, finding.remedy)
    assert warnings(unindexed, UNINDEXED) == []


def test_a_run_tells_what_was_found_and_goes_on(unindexed: str) -> None:
    result = run(policy(table=UNINDEXED), unindexed)
    assert result.report.outcome is Outcome.SUCCEEDED
    told = [e for e in result.log.named("preflight finding") if e["level"] == "warning"]
    assert [e["field"] for e in told] == ["columns.expiresAt", "columns.lastAccessedAt"]
    assert all("CREATE INDEX" in e["remedy"] for e in told)


def test_a_foreign_key_without_an_index_is_reported_with_ddl_that_helps(database: SessionStores) -> None:
    if database.engine.dialect.name == "mysql":
        pytest.skip("InnoDB makes the index itself")
    database.sql(
        'CREATE TABLE "My Devices" (id int PRIMARY KEY, "the session" varchar(128) NOT NULL,'
        ' FOREIGN KEY ("the session") REFERENCES sessions (session_id) ON DELETE CASCADE)'
    )
    (finding,) = warnings(database.database_url)
    assert "'My Devices'" in finding.message
    obey(database.database_url, finding.remedy)
    assert warnings(database.database_url) == []


# --- zones -----------------------------------------------------------------------------------------------------------


def naive_table(url: str, now: datetime, *ages: float) -> sa.Engine:
    """Sessions last used so many seconds before now, in whatever zone now is told."""
    engine = sa.create_engine(url)
    table = sa.Table(
        "s",
        sa.MetaData(),
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("seen", sa.DateTime, nullable=False, index=True),
    )
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(
            table.insert(),
            [
                {"id": f"s{n}", "seen": (now - timedelta(seconds=age)).replace(tzinfo=None)}
                for n, age in enumerate(ages)
            ],
        )
    return engine


def naive(zone: str) -> dict[str, Any]:
    return {
        "name": "s",
        "columns": {
            "id": {"name": "id"},
            "lastAccessedAt": {"name": "seen", "encoding": "NaiveTimestamp", "timeZone": zone},
        },
    }


def ids(engine: sa.Engine) -> set[str]:
    with engine.begin() as connection:
        return set(connection.scalars(sa.text("SELECT id FROM s")))


def test_a_zone_that_cannot_be_true_refuses_the_run(database_url: str) -> None:
    """Written in Tokyo, taken for UTC: all sessions of a busy application seem to be used hours from now."""
    ages = [420 * n for n in range(60)]  # none of them near the half hour that a session may idle
    engine = naive_table(database_url, datetime.now(ZoneInfo("Asia/Tokyo")), *ages)
    result = run(policy(table=naive("UTC")), database_url)
    assert (result.exit_code, result.report.reason, len(ids(engine))) == (2, "InvalidConfiguration", 60)
    assert "columns.lastAccessedAt.timeZone" in result.report.message
    # What the message asks for helps.
    result = run(policy(table=naive("Asia/Tokyo")), database_url)
    assert (result.exit_code, len(ids(engine))) == (0, 5)
    engine.dispose()


def test_a_zone_name_that_is_none_refuses_the_run(database_url: str) -> None:
    engine = naive_table(database_url, datetime.now(UTC), HOUR)
    result = run(policy(table=naive("Europe/Atlantis")), database_url)
    assert (result.exit_code, ids(engine)) == (2, {"s0"})
    assert "columns.lastAccessedAt.timeZone" in result.report.message
    engine.dispose()


def test_r4_5_a_single_session_from_the_future_refuses_nothing(database_url: str) -> None:
    engine = naive_table(database_url, datetime.now(UTC), -3 * HOUR, 5, HOUR)
    assert run(policy(table=naive("UTC")), database_url).deleted == 1
    assert ids(engine) == {"s0", "s1"}
    engine.dispose()


def test_the_databases_own_zone_is_what_it_says(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        name = sa.make_url(postgres_url).database
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET timezone TO 'Pacific/Marquesas'")
    engine.dispose()
    engine = naive_table(postgres_url, datetime.now(ZoneInfo("Pacific/Marquesas")), 60, HOUR)
    assert run(policy(table=naive("Server")), postgres_url).deleted == 1
    assert ids(engine) == {"s0"}
    engine.dispose()
