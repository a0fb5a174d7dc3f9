"""The version of the product's tables: `init` upgrades older ones, and a run refuses those that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from click.testing import CliRunner, Result

from job.cli.main import main
from policy.presets import DatabasePreset
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.schema import upgrade, version
from stores.sql.schema.tables import alerts, history, metadata, session_table, settings, statistics, usage, work
from stores.sql.schema.upgrade import Upgrade, upgrade_tables
from stores.sql.schema.version import CURRENT_VERSION, VERSION_TABLE, version_table
from tests.support.runs import manifest, policy, run
from tests.support.session_stores import HOUR, TABLE, SessionStores

DEFAULT = DatabasePreset.DEFAULT.table
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ALL_TABLES = {TABLE.name, VERSION_TABLE, *metadata.tables}
NEWER = "9999"
OLDER = "0000"

# The product's tables as the first builds of release 0.1.0 made them, on PostgreSQL and SQLite.
first = sa.MetaData()
first_statistics = sa.Table(
    "session_statistics",
    first,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("policy", sa.String(320), nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, index=True),
    sa.Column("completed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("dry_run", sa.Boolean, nullable=False),
    *(
        sa.Column(name, sa.BigInteger, nullable=False)
        for name in ("active", "active_users", "expired", "over_limit", "evicted", "deleted", "failed", "remaining")
    ),
    comment="One row per run.",
)
first_history = sa.Table(
    "session_history",
    first,
    sa.Column("user_id", sa.String(255), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("cause", sa.String(16), primary_key=True),
    sa.Column("sessions", sa.BigInteger, nullable=False),
    sa.Column("total_seconds", sa.BigInteger, nullable=False),
    sa.Index("session_history_day_idx", "day"),
)
first_settings = sa.Table(
    "session_settings",
    first,
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("subject", sa.String(255), primary_key=True, server_default=""),
    sa.Column("idle_timeout_seconds", sa.BigInteger),
    sa.Column("absolute_timeout_seconds", sa.BigInteger),
    sa.Column("max_sessions", sa.BigInteger),
    sa.CheckConstraint("scope IN ('Global')", name="session_settings_scope_check"),
)

A_RUN = {
    "policy": "web/shop",
    "started_at": NOW,
    "completed_at": NOW,
    "outcome": "Succeeded",
    **dict.fromkeys(("active", "active_users", "expired", "over_limit", "evicted", "deleted", "failed"), 3),
    "remaining": 0,
}
ENDED = {"user_id": "ann", "day": date(2026, 11, 1), "cause": "Expired", "sessions": 7, "total_seconds": 70}
A_SETTING = {"scope": "Global", "subject": "", "idle_timeout_seconds": 1200, "max_sessions": 4}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """An empty database, of each kind."""
    made = create_engine(parse_url(database_url), create_file=True)
    yield made
    made.dispose()


@pytest.fixture(params=["postgresql", "sqlite"])
def first_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of each kind that the first builds knew."""
    url: str = request.getfixturevalue("postgres_url" if request.param == "postgresql" else "sqlite_url")
    return url


def make_first_tables(engine: sa.Engine) -> None:
    """The tables of the first builds, and a session table, with data in them."""
    with engine.begin() as connection:
        session_table(DEFAULT).create(connection)
        first.create_all(connection)
        connection.execute(
            first_statistics.insert(), [{**A_RUN, "run_id": n, "dry_run": n == "dry"} for n in ("1", "dry")]
        )
        connection.execute(first_history.insert().values(ENDED))
        connection.execute(first_settings.insert().values(A_SETTING))


def make_chart_tables(engine: sa.Engine) -> None:
    """The tables of the chart of release 0.1.0, which had no session_work and no version; with data in them."""
    upgrade_tables(engine, DEFAULT)
    with engine.begin() as connection:
        version_table.drop(connection)
        work.drop(connection)
        connection.execute(statistics.insert().values({**A_RUN, "run_id": "1", "created": 2}))
        connection.execute(history.insert().values(ENDED))
        connection.execute(settings.insert().values(A_SETTING))
        connection.execute(alerts.insert().values(policy="web/shop", updated_at=NOW, state="{}"))
        row = {"policy": "web/shop", "day": date(2026, 11, 1), "hour": 3, "client": "Other"}
        connection.execute(usage.insert().values({**row, "active": 1, "begun": 1, "used": 1}))


def rows(engine: sa.Engine, table: sa.Table) -> list[dict[str, Any]]:
    with engine.begin() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def tables(engine: sa.Engine) -> set[str]:
    with engine.begin() as connection:
        return set(sa.inspect(connection).get_table_names())


def shape(engine: sa.Engine) -> dict[str, Any]:
    """All that an inspector tells of the tables, but the order of their columns."""
    described: dict[str, Any] = {}
    with engine.begin() as connection:
        inspector = sa.inspect(connection)
        for table in sorted(ALL_TABLES):
            described[table] = {
                "columns": {
                    column["name"]: (str(column["type"]), column["nullable"], column["default"])
                    for column in inspector.get_columns(table)
                },
                "key": inspector.get_pk_constraint(table)["constrained_columns"],
                "indexes": sorted((str(i["name"]), i["column_names"]) for i in inspector.get_indexes(table)),
                "checks": [check["sqltext"].replace("`", "") for check in inspector.get_check_constraints(table)],
            }
    return described


def set_version(engine: sa.Engine, number: str) -> None:
    with engine.begin() as connection:
        connection.execute(version_table.update().values(version_num=number))


def recorded(engine: sa.Engine) -> list[str]:
    return [row["version_num"] for row in rows(engine, version_table)]


def invoke(directory: Path, url: str, command: str, *arguments: str, **spec: Any) -> Result:
    """The command line on a policy with default tables."""
    path = directory / "policy.json"
    path.write_text(json.dumps(manifest(**spec)))
    return CliRunner().invoke(main, [command, "-f", str(path), "--database-url", url, *arguments])


def init(url: str) -> str:
    result = CliRunner().invoke(main, ["init", "--database-url", url])
    assert result.exit_code == 0, result.output
    return result.output


# --- init ------------------------------------------------------------------------------------------------------------


def test_the_version_that_a_run_needs_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(upgrade.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    directory = ScriptDirectory.from_config(config)
    assert directory.get_heads() == [CURRENT_VERSION]
    numbers = [script.revision for script in directory.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)


def test_an_empty_database_gets_every_table_and_the_version(database_url: str, engine: sa.Engine) -> None:
    first_time, again = init(database_url), init(database_url)
    assert first_time.startswith("created sessions, ")
    assert set(first_time.removeprefix("created ").strip().split(", ")) == ALL_TABLES == tables(engine)
    assert again == f"up to date (version {CURRENT_VERSION})\n"
    assert recorded(engine) == [CURRENT_VERSION]


def test_the_tables_of_the_first_builds_are_upgraded_with_their_data(first_url: str, tmp_path: Path) -> None:
    engine = create_engine(parse_url(first_url), create_file=True)
    make_first_tables(engine)
    with engine.begin() as connection:  # as those builds made it
        for name in ("client", "address", "revoked_at"):
            assert name in TABLE.columns
            connection.exec_driver_sql(f"ALTER TABLE {TABLE.name} DROP COLUMN {name}")
    said = init(first_url)
    assert f"upgraded product tables from an unrecorded version to {CURRENT_VERSION}\n" in said
    assert set(said.splitlines()[0].removeprefix("created ").split(", ")) == {
        *("session_usage", "session_alerts", "session_work")
    }
    (kept,) = rows(engine, statistics)  # the dry run's row is gone: since then, dry runs leave none
    expected = {**A_RUN, "run_id": "1", "created": None, "duplicate": 0, "abnormal": 0}
    assert {**kept, "started_at": NOW, "completed_at": NOW} == expected
    assert rows(engine, history) == [ENDED]
    assert rows(engine, settings) == [{**A_SETTING, "absolute_timeout_seconds": None}]
    with engine.begin() as connection:
        connection.execute(settings.insert().values(scope="User", subject="ann", max_sessions=1))
    assert "revoked_at" not in [
        c["name"] for c in sa.inspect(engine).get_columns(TABLE.name)
    ]  # it is the application's
    upgraded = shape(engine)
    with engine.begin() as connection:
        for table in (TABLE, version_table, *metadata.sorted_tables):
            table.drop(connection)
    init(first_url)
    fresh = shape(engine)
    assert upgraded | {TABLE.name: None} == fresh | {TABLE.name: None}
    assert invoke(tmp_path, first_url, "doctor").exit_code == 0
    engine.dispose()


def test_the_tables_of_the_chart_0_1_0_are_upgraded_with_their_data(database_url: str, engine: sa.Engine) -> None:
    upgrade_tables(engine, DEFAULT)
    fresh = shape(engine)
    with engine.begin() as connection:
        for table in (TABLE, version_table, *metadata.sorted_tables):
            table.drop(connection)
    make_chart_tables(engine)
    before = {table: rows(engine, table) for table in (statistics, history, settings, usage, alerts)}
    said = init(database_url)
    assert said.splitlines() == [
        "created session_work",
        f"recorded version {CURRENT_VERSION} of the product tables, which had none",
    ]
    assert {table: rows(engine, table) for table in before} == before
    assert shape(engine) == fresh
    assert init(database_url) == f"up to date (version {CURRENT_VERSION})\n"


def test_a_run_works_on_upgraded_tables(database_url: str, engine: sa.Engine) -> None:
    make_chart_tables(engine)
    stores = SessionStores(database_url)
    stores.add("expired", used=HOUR)
    init(database_url)
    result = run(policy(statistics={"retentionDays": 3650}), database_url, run_id="new")
    assert (result.exit_code, result.deleted) == (0, 1)
    assert {row["run_id"] for row in stores.statistics()} == {"1", "new"}
    assert not result.log.named("statistics off")
    stores.close()


@pytest.mark.parametrize("older", [False, True], ids=["empty", "chart 0.1.0"])
def test_two_inits_at_once_end_well(database_url: str, engine: sa.Engine, older: bool) -> None:
    if older:
        make_chart_tables(engine)
    ready = Barrier(2)

    def one() -> Upgrade:
        own = create_engine(parse_url(database_url), create_file=True)
        ready.wait()
        try:
            return upgrade_tables(own, DEFAULT)
        finally:
            own.dispose()

    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(one), pool.submit(one)]]
    created = [each.created for each in done if each.created]
    assert [set(names) for names in created] == [{work.name} if older else ALL_TABLES]
    assert recorded(engine) == [CURRENT_VERSION]
    assert tables(engine) == ALL_TABLES


def test_a_dropped_table_is_created_again(database_url: str, engine: sa.Engine) -> None:
    init(database_url)
    with engine.begin() as connection:
        usage.drop(connection)
    assert init(database_url) == "created session_usage\n"


def test_an_application_s_own_table_of_that_name_is_left_alone(database_url: str, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE session_history (id INTEGER PRIMARY KEY, url VARCHAR(100))")
        connection.exec_driver_sql("INSERT INTO session_history VALUES (1, '/')")
    result = CliRunner().invoke(main, ["init", "--database-url", database_url])
    assert result.exit_code == 2
    assert "has a table session_history that session-policy did not make" in result.output
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT * FROM session_history").all() == [(1, "/")]
    assert tables(engine) - {VERSION_TABLE} == {"session_history"}


def test_tables_of_a_later_version_are_upgraded_step_by_step(
    database_url: str, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release after this one: a copy of the migrations, with one more."""
    init(database_url)
    stores = SessionStores(database_url)
    stores.add("live", used=0)
    run(policy(), database_url, run_id="before")
    migrations = tmp_path / "100 % migrations"
    shutil.copytree(upgrade.MIGRATIONS, migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "versions" / "v0002_next.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        'revision, down_revision = "0002", "0001"\n'
        "def upgrade():\n"
        '    op.add_column("session_statistics", sa.Column("skipped", sa.Integer, server_default="0"))\n'
    )
    monkeypatch.setattr(upgrade, "MIGRATIONS", migrations)
    monkeypatch.setattr(version, "CURRENT_VERSION", "0002")
    refused = run(policy(), database_url)
    assert "have version 0001, this release needs 0002" in refused.report.message
    assert init(database_url) == "upgraded product tables from version 0001 to 0002\n"
    assert init(database_url) == "up to date (version 0002)\n"
    assert run(policy(), database_url, run_id="after").exit_code == 0
    assert {row["run_id"] for row in stores.statistics()} == {"before", "after"}
    monkeypatch.setattr(version, "CURRENT_VERSION", "0001")  # the job image is rolled back
    assert "newer release (version 0002" in run(policy(), database_url).report.message
    stores.close()


def test_init_of_an_older_release_refuses_newer_tables(database_url: str, engine: sa.Engine) -> None:
    init(database_url)
    set_version(engine, NEWER)
    result = CliRunner().invoke(main, ["init", "--database-url", database_url])
    assert (result.exit_code, recorded(engine)) == (2, [NEWER])
    assert "made by a newer release" in result.output
    assert "update the job image" in result.output


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (OLDER, f"have version {OLDER}, this release needs {CURRENT_VERSION}: run `session-policy init`"),
        (NEWER, f"by a newer release (version {NEWER}; this release needs {CURRENT_VERSION}): update the job image"),
    ],
    ids=["older", "newer"],
)
def test_every_command_refuses_tables_of_another_version(
    database: SessionStores, tmp_path: Path, number: str, words: str
) -> None:
    database.add("expired", used=HOUR)
    set_version(database.engine, number)
    before = database.dump()
    result = run(policy(), database.database_url)
    assert (result.exit_code, result.report.reason, result.deleted) == (2, "TableVersionMismatch", 0)
    assert words in result.report.message
    for command in ("plan", "doctor"):
        said = invoke(tmp_path, database.database_url, command)
        assert said.exit_code == 2
        flowing = " ".join(said.output.split())
        # doctor prints the remedy on a line of its own.
        assert all(part in flowing for part in words.rsplit(": ", 1)), flowing
    looked = CliRunner().invoke(main, ["report", "--database-url", database.database_url])
    assert looked.exit_code == 2
    assert words in looked.output
    assert database.dump() == before


def test_tables_of_the_first_builds_are_refused_before_anything_is_deleted(first_url: str, tmp_path: Path) -> None:
    engine = create_engine(parse_url(first_url), create_file=True)
    make_first_tables(engine)
    with engine.begin() as connection:
        live = {"user_id": "u", "created_at": NOW, "last_accessed_at": NOW}
        connection.execute(TABLE.insert().values(session_id="expired", **live))
    result = run(policy(), first_url)
    assert (result.exit_code, result.report.reason) == (2, "TableVersionMismatch")
    words = "session_statistics lacks created, duplicate, abnormal; session_statistics requires dry_run"
    assert words in result.report.message
    assert result.report.message.endswith("run `session-policy init`")
    assert [row["session_id"] for row in rows(engine, TABLE)] == ["expired"]
    assert words in " ".join(invoke(tmp_path, first_url, "doctor").output.split())
    # What uses none of these tables need not wait for them.
    assert run(policy(statistics={"enabled": False}), first_url).deleted == 1
    engine.dispose()


def test_tables_without_a_version_that_fit_are_used_and_doctor_says_so(database: SessionStores, tmp_path: Path) -> None:
    database.add("expired", used=HOUR)
    with database.engine.begin() as connection:
        version_table.drop(connection)
    result = run(policy(), database.database_url)
    assert (result.exit_code, result.deleted) == (0, 1)
    said = invoke(tmp_path, database.database_url, "doctor", "--output", "json")
    found = [f for f in json.loads(said.output)["findings"] if "no recorded version" in f["message"]]
    assert [(f["severity"], f["remedy"]) for f in found] == [("Info", "run `session-policy init` to record it")]
    init(database.database_url)
    assert "no recorded version" not in invoke(tmp_path, database.database_url, "doctor").output


def test_a_database_without_the_product_s_tables_needs_no_version(database: SessionStores, tmp_path: Path) -> None:
    with database.engine.begin() as connection:
        for table in (version_table, *metadata.sorted_tables):
            table.drop(connection)
    database.add("expired", used=HOUR)
    result = run(policy(), database.database_url)
    assert (result.exit_code, result.deleted) == (0, 1)
    assert not [event for event in result.log.named("preflight finding") if "version" in event["found"]]


@pytest.mark.parametrize("fits", [True, False])
def test_where_the_version_cannot_be_read_the_columns_decide_on_postgresql(own_postgres_url: str, fits: bool) -> None:
    stores = SessionStores(own_postgres_url)
    stores.add("expired", used=HOUR)
    stores.sql(
        "DROP ROLE IF EXISTS short_of_rights",
        "CREATE ROLE short_of_rights LOGIN",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO short_of_rights",
        f"REVOKE ALL ON {VERSION_TABLE} FROM short_of_rights",
    )
    if not fits:
        stores.sql("ALTER TABLE session_statistics DROP COLUMN duplicate")
    url = sa.make_url(own_postgres_url).set(username="short_of_rights").render_as_string(hide_password=False)
    _decides_by_columns(stores, url, fits)
    stores.sql("DROP OWNED BY short_of_rights", "DROP ROLE short_of_rights")
    stores.close()


@pytest.mark.parametrize("fits", [True, False])
def test_where_the_version_cannot_be_read_the_columns_decide_on_mariadb(mariadb_url: str, fits: bool) -> None:
    stores = SessionStores(mariadb_url)
    stores.add("expired", used=HOUR)
    url = sa.make_url(mariadb_url)
    name = f"short_{str(url.database)[-12:]}"
    granted = [f"GRANT ALL ON {url.database}.{table} TO {name}@'127.0.0.1'" for table in ALL_TABLES - {VERSION_TABLE}]
    if not fits:
        stores.sql("ALTER TABLE session_statistics DROP COLUMN duplicate")
    stores.sql(f"CREATE USER {name}@'127.0.0.1'", *granted)
    try:
        _decides_by_columns(stores, url.set(username=name).render_as_string(hide_password=False), fits)
    finally:
        stores.sql(f"DROP USER {name}@'127.0.0.1'")
        stores.close()


def _decides_by_columns(stores: SessionStores, url: str, fits: bool) -> None:
    result = run(policy(), url)
    if fits:
        assert (result.exit_code, result.deleted) == (0, 1), result.report
        (event,) = [event for event in result.log.named("preflight finding") if "version" in event["found"]]
        assert event["remedy"] == f"GRANT SELECT ON {VERSION_TABLE} to the database user"
    else:
        assert (result.exit_code, result.report.reason) == (2, "TableVersionMismatch")
        assert "session_statistics lacks duplicate" in result.report.message
        assert stores.ids() == {"expired"}
