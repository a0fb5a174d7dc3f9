"""Wrong input gets a clear error that names field and remedy, and exit code 2; and nothing is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from job.cli.main import main
from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV, SPEC_ENV
from policy.report import Outcome, RunReport
from stores.sql.schema.version import CURRENT_VERSION
from tests.support.runs import Finished, command, manifest, policy, run
from tests.support.session_stores import HOUR, SessionStores

PASSWORD = "hunter2-canary"


def check_refused(finished: Finished, *words: str) -> RunReport:
    report = finished.report
    assert (finished.exit_code, report.outcome, report.reason) == (2, Outcome.FAILED, "InvalidConfiguration"), finished
    for word in words:
        assert word in report.message, (word, report.message)
    assert PASSWORD not in finished.everything
    return report


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.representative(url=[None, PASSWORD])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"{PASSWORD}", ["DATABASE_URL", "postgresql://user:password@host/database"]),
        (f"postgresql://user:{PASSWORD}@host:{PASSWORD}/db", ["DATABASE_URL", "postgresql://"]),
        (f"oracle://user:{PASSWORD}@host/db", ["DATABASE_URL", "not supported", "postgresql, sqlite"]),
        (f"postgresql+asyncpg://user:{PASSWORD}@host/db", ["DATABASE_URL", "not supported"]),
        (f"sqlite:////{PASSWORD}/sessions.sqlite3", ["DATABASE_URL", "no SQLite file", "init"]),
        (None, ["DATABASE_URL", "--database-url"]),
        ("  ", ["DATABASE_URL"]),
    ],
    ids=["no URL", "port", "dialect", "driver", "SQLite file", "none", "blank"],
)
def test_a_database_url_that_cannot_be_used(tmp_path: Path, url: str | None, words: list[str]) -> None:
    check_refused(command(tmp_path, manifest(), url), *words)


@pytest.mark.representative(url=[None])
@pytest.mark.parametrize(
    "url", [f"http://:{PASSWORD}@host", f"redis://:{PASSWORD}@host:x", f"redis://:{PASSWORD}@host/x", None]
)
def test_a_redis_url_that_cannot_be_used(tmp_path: Path, url: str | None, sqlite_url: str) -> None:
    SessionStores(sqlite_url).close()
    check_refused(command(tmp_path, manifest(redis=True), sqlite_url, url), "REDIS_URL")


def test_an_sqlite_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(f"{PASSWORD} is not a database, however long this text is" * 50)
    check_refused(command(tmp_path, manifest(), f"sqlite:///{tmp_path / 'text'}"), "DATABASE_URL", "SQLite")


@pytest.mark.representative(option=["sslmode"])
@pytest.mark.parametrize(
    ("option", "value"), [("sslmode", PASSWORD), ("no_such_option", PASSWORD), ("connect_timeout", PASSWORD)]
)
def test_an_option_of_the_url_that_cannot_be_used(tmp_path: Path, postgres_url: str, option: str, value: str) -> None:
    SessionStores(postgres_url).close()
    url = sa.make_url(postgres_url).update_query_dict({option: value}).render_as_string(hide_password=False)
    finished = command(tmp_path, manifest(), url)
    assert PASSWORD not in finished.everything
    if option == "connect_timeout":  # ours wins
        assert finished.exit_code == 0
    else:
        check_refused(finished, "DATABASE_URL")


def test_an_option_of_an_sqlite_url_that_cannot_be_used(tmp_path: Path, sqlite_url: str) -> None:
    SessionStores(sqlite_url).close()
    check_refused(command(tmp_path, manifest(), f"{sqlite_url}?timeout={PASSWORD}"), "DATABASE_URL")


# --- what the server refuses -----------------------------------------------------------------------------------------


def test_a_wrong_password(tmp_path: Path, scram_url: sa.URL) -> None:
    url = scram_url.set(password=PASSWORD).render_as_string(hide_password=False)
    check_refused(command(tmp_path, manifest(), url), "refused the login", "DATABASE_URL")
    # It is the password that was wrong.
    right = scram_url.render_as_string(hide_password=False)
    check_refused(command(tmp_path / "right", manifest(), right), "there is no such table")


def test_an_unknown_user(tmp_path: Path, postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(username="nobody-here", password=PASSWORD).render_as_string(hide_password=False)
    check_refused(command(tmp_path, manifest(), url), "refused the login", "DATABASE_URL")


def test_a_database_that_does_not_exist(tmp_path: Path, postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(database=f"no-{PASSWORD}").render_as_string(hide_password=False)
    check_refused(command(tmp_path, manifest(), url), "DATABASE_URL", "does not exist")


def test_a_user_without_privileges(own_postgres_url: str) -> None:
    stores = SessionStores(own_postgres_url)
    stores.add("s", used=HOUR)
    stores.sql(
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    )
    result = run(policy(), sa.make_url(own_postgres_url).set(username="reader").render_as_string(hide_password=False))
    assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration")
    assert "privilege" in result.report.message
    assert stores.ids() == {"s"}
    stores.sql("DROP OWNED BY reader", "DROP ROLE reader")
    stores.close()


# --- tables and columns ----------------------------------------------------------------------------------------------


def columns(**fields: Any) -> dict[str, Any]:
    return {"name": "own", "columns": {"id": {"name": "id"}, "lastAccessedAt": {"name": "seen"}, **fields}}


TABLES: list[tuple[str, str, Mapping[str, Any], list[str]]] = [
    ("no table", "SELECT 1", {"name": "nowhere"}, ["stores.database.table", "'nowhere'", "session-policy init"]),
    ("no schema", "SELECT 1", {"schema": "nowhere"}, ["stores.database.table", "'nowhere'"]),
    (
        "unknown column",
        "CREATE TABLE own (id text PRIMARY KEY, last_seen timestamp)",
        columns(userId={"name": "usr"}),
        ["columns.lastAccessedAt", "'seen'", "'last_seen'", "columns.userId", "'usr'"],
    ),
    (
        "case matters",
        'CREATE TABLE own (id text PRIMARY KEY, "Seen" timestamp)',
        columns(),
        ["columns.lastAccessedAt", "'Seen'"],
    ),
    (
        "id not unique",
        "CREATE TABLE own (id text NOT NULL, seen timestamp)",
        columns(lastAccessedAt={"name": "seen", "encoding": "NaiveTimestamp"}),
        ["columns.id", "'id'", "unique"],
    ),
    (
        "unknown zone",
        "CREATE TABLE own (id text PRIMARY KEY, seen timestamp)",
        columns(lastAccessedAt={"name": "seen", "encoding": "NaiveTimestamp", "timeZone": "Europe/Atlantis"}),
        ["columns.lastAccessedAt.timeZone", "Europe/Atlantis", "IANA"],
    ),
]


@pytest.mark.representative(6)
@pytest.mark.parametrize(("ddl", "table", "words"), [t[1:] for t in TABLES], ids=[t[0] for t in TABLES])
def test_r6_a_table_that_does_not_match_its_mapping_is_refused(
    database: SessionStores, ddl: str, table: Mapping[str, Any], words: list[str]
) -> None:
    if database.is_mysql:
        if '"Seen"' in ddl:
            pytest.skip("MySQL's column names ignore case")
        ddl = ddl.replace(" text", " varchar(40)").replace(" timestamp", " datetime")
    database.sql(ddl)
    before = database.dump()
    result = run(policy(table=table), database.database_url)
    assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration")
    for word in words:
        assert word in result.report.message
    assert database.dump() == before


@pytest.mark.representative(3)
@pytest.mark.parametrize(
    ("kind", "encoding", "words"),
    [
        ("bigint", "Timestamp", ["'seen'", "EpochSeconds"]),
        ("timestamptz", "EpochSeconds", ["'seen'", "needs a number"]),
        ("text", "EpochMilliseconds", ["'seen'", "needs a number"]),
        ("text", "Timestamp", ["'seen'", "needs a timestamp"]),
        ("timestamp", "Timestamp", ["NaiveTimestamp", "timeZone"]),
        ("timestamptz", "NaiveTimestamp", ["use encoding Timestamp"]),
        ("date", "NaiveTimestamp", ["'seen'", "needs a timestamp"]),
    ],
)
def test_r6_a_column_of_the_wrong_type_is_refused(
    postgres: SessionStores, kind: str, encoding: str, words: list[str]
) -> None:
    postgres.sql(f"CREATE TABLE own (id text PRIMARY KEY, seen {kind})")
    result = run(policy(table=columns(lastAccessedAt={"name": "seen", "encoding": encoding})), postgres.database_url)
    assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration")
    for word in ["columns.lastAccessedAt", *words]:
        assert word in result.report.message


@pytest.mark.parametrize("kind", ["numeric", "jsonb", "timestamptz", "double precision", "text[]"])
def test_r6_an_id_of_a_type_that_cannot_be_compared_is_refused(postgres: SessionStores, kind: str) -> None:
    postgres.sql(f"CREATE TABLE own (id {kind} PRIMARY KEY, seen timestamptz)")
    result = run(policy(table=columns()), postgres.database_url)
    assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration"), result.report
    assert "columns.id" in result.report.message


def test_r6_an_sqlite_column_that_compares_numbers_as_text_is_refused(sqlite_url: str) -> None:
    stores = SessionStores(sqlite_url)
    stores.sql("CREATE TABLE own (id text PRIMARY KEY, seen TEXT)", "INSERT INTO own VALUES ('live', '10000000000')")
    result = run(
        policy(table=columns(lastAccessedAt={"name": "seen", "encoding": "EpochSeconds"})), stores.database_url
    )
    assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration"), result.report
    assert "columns.lastAccessedAt" in result.report.message
    stores.close()


HOSTILE = [
    "semi; DROP TABLE sessions; --",
    'quote"; DELETE FROM sessions; --',
    "apostrophe's",
    "select",
    "MixedCase With Spaces",
    "ünïcödé ✓ 表",
    "100%s %(x)s :bound {brace}",
    "back\\slash",
    "new\nline",
    "[bracket]`tick`",
]
UNREADABLE = ("new\nline", "[bracket]`tick`")


@pytest.mark.representative(name=HOSTILE[:2])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_identifiers_are_only_names(database: SessionStores, name: str) -> None:
    if database.is_mysql and name in UNREADABLE:
        pytest.skip("SQLAlchemy cannot read such names from MySQL, and the run refuses the table")
    database.add("bystander", used=1)
    table = sa.Table(
        sa.quoted_name(name, True),
        sa.MetaData(),
        sa.Column(sa.quoted_name(f"{name}-id", True), sa.String(40), primary_key=True),
        sa.Column(sa.quoted_name(f"{name}-user", True), sa.String(40)),
        sa.Column(sa.quoted_name(f"{name}-seen", True), sa.DateTime(timezone=True)),
    )
    with database.engine.begin() as connection:
        table.create(connection)
        now = connection.scalar(sa.select(sa.func.now()))
        assert now is not None
        connection.execute(
            table.insert(),
            [
                {f"{name}-id": f"{kind}{n}", f"{name}-user": "u", f"{name}-seen": when}
                for kind, when in (("old", now.replace(year=2020)), ("new", now.replace(year=now.year + 1)))
                for n in range(3)
            ],
        )
    mapped = {
        "name": name,
        "columns": {
            "id": {"name": f"{name}-id"},
            "userId": {"name": f"{name}-user"},
            "lastAccessedAt": {"name": f"{name}-seen"},
        },
    }
    result = run(policy(table=mapped, maxConcurrentSessions=2), database.database_url)
    assert result.exit_code == 0, result.report
    assert (result.report.sessions.expired, result.report.sessions.evicted) == (3, 1)
    assert database.ids() == {"bystander"}
    with database.engine.begin() as connection:
        assert len(connection.execute(sa.select(table)).all()) == 2


@pytest.mark.representative(name=HOSTILE[:2])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_identifiers_of_things_that_are_not_there(database: SessionStores, name: str) -> None:
    database.add("bystander", used=1)
    before = database.dump()
    for table in ({"name": name}, {"schema": name, "name": "sessions"}, columns(id={"name": name})):
        result = run(policy(table=table), database.database_url)
        assert (result.exit_code, result.report.reason) == (2, "InvalidConfiguration")
    assert database.dump() == before


# --- the policy ------------------------------------------------------------------------------------------------------


def spec(**changes: Any) -> str:
    return json.dumps(manifest(**changes))


POLICIES: list[tuple[str, str, list[str]]] = [
    ("range", spec(cleanupBatchSize=0), ["spec.cleanupBatchSize", "greater than or equal to 1"]),
    ("type", spec(maxConcurrentSessions="10"), ["spec.maxConcurrentSessions", "integer"]),
    ("unknown field", spec(sessionTimeout=60), ["spec.sessionTimeout", "unknown field"]),
    ("enum", spec(profile="Bank"), ["spec.profile", "'Finance'"]),
    ("rule", spec(sessionTimeoutSeconds=3600, absoluteTimeoutSeconds=60), ["spec", "absoluteTimeoutSeconds"]),
    (
        "no stores",
        '{"apiVersion": "sessionpolicy.dev/v1alpha1", "kind": "SessionPolicy", "metadata": {"name": "x"}, "spec": {}}',
        ["spec.stores", "required"],
    ),
    ("password in the wrong place", spec(schedule={"url": f"postgresql://u:{PASSWORD}@h/d"}), ["spec.schedule"]),
    ("not YAML", f"spec: [{PASSWORD}", ["YAML", "line"]),
    ("alias", f"kind: *{PASSWORD}", ["YAML", "line"]),
    ("tag", f"kind: !{PASSWORD} x", ["YAML", "line"]),
    ("date", "kind: 2026-13-45", ["YAML"]),
    ("number", "a: !!int x", ["YAML"]),
    ("loop", "kind: SessionPolicy\nmetadata: &a [*a]", ["loop"]),
    ("date as key", "kind: SessionPolicy\n2026-01-01: x", []),
    ("infinite", "kind: SessionPolicy\nspec: {schedule: .nan}", ["spec"]),
    ("deep", "[" * 5000, ["YAML"]),
    ("control character", "a: \x00", ["YAML"]),
    ("two", spec() + "\n---\n" + spec(), ["one", "found 2"]),
    ("none", "kind: ConfigMap", ["SessionPolicy", "found 0"]),
    ("empty", "", ["SessionPolicy", "found 0"]),
    ("text", "just words", ["SessionPolicy", "found 0"]),
    ("version", spec().replace("v1alpha1", "v9"), ["apiVersion", "v1alpha1"]),
]


@pytest.mark.parametrize(("text", "words"), [p[1:] for p in POLICIES], ids=[p[0] for p in POLICIES])
def test_a_policy_that_cannot_be_used(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    ran = CliRunner().invoke(
        main,
        ["run", "-f", str(path), "--output", "json"],
        env={DATABASE_URL_ENV: "sqlite:///nowhere", REDIS_URL_ENV: None},
    )
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exc_info
    check_refused(Finished(ran.exit_code, ran.stdout, ran.stderr, ran.stdout), *words)


def bare(*arguments: str, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in {DATABASE_URL_ENV, SPEC_ENV}}
    result = subprocess.run(
        [sys.executable, "-m", "job.cli.main", *arguments],
        input=stdin,
        capture_output=True,
        env=kept | environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    return subprocess.CompletedProcess(result.args, result.returncode, result.stdout.decode(), result.stderr.decode())


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["-f", "nowhere.yaml"], None, ["nowhere.yaml", "cannot be read"]),
        (["-f", "."], None, ["cannot be read"]),
        ([], None, ["--file", SPEC_ENV]),
        (["-f", "-"], b"\xff\xfe\xfa", []),
        (["-f", "-"], b"kind: ConfigMap", ["found 0"]),
    ],
    ids=["missing", "directory", "none", "not text", "not a policy"],
)
def test_a_policy_file_that_cannot_be_read(arguments: list[str], stdin: bytes | None, words: list[str]) -> None:
    result = bare("run", *arguments, "--output", "json", stdin=stdin, DATABASE_URL="sqlite:///x")
    assert result.returncode == 2, result
    report = RunReport.model_validate_json(result.stdout, strict=True, by_name=False)
    assert report.reason == "InvalidConfiguration"
    for word in words:
        assert word in report.message
    assert "Traceback" not in result.stderr


def test_r1_5_the_manifest_may_come_from_the_environment_or_standard_input(database: SessionStores) -> None:
    text = json.dumps(manifest())
    for arguments, stdin, environment in (
        (["run"], None, {SPEC_ENV: text}),
        (["run", "-f", "-"], text.encode(), {}),
    ):
        result = bare(*arguments, stdin=stdin, DATABASE_URL=database.database_url, **environment)
        assert result.returncode == 0, result
        events = [json.loads(line)["event"] for line in result.stdout.splitlines()]
        assert events.count("run finished") == 1
        assert result.stderr == ""


def test_an_option_that_does_not_exist_shows_the_usage() -> None:
    result = bare("run", "--output", "xml")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Usage" in result.stderr


@pytest.mark.representative(url=[""])
@pytest.mark.parametrize("url", [f"oracle://u:{PASSWORD}@h/d", f"sqlite:////{PASSWORD}/x/y", ""])
def test_init_with_a_wrong_url(url: str) -> None:
    result = bare("init", "--database-url", url)
    assert result.returncode == 2, result
    assert "DATABASE_URL" in result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_init_creates_what_a_run_needs_and_is_harmless_when_repeated(database_url: str) -> None:
    first, second = (bare("init", "--database-url", database_url) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first
    assert "sessions" in first.stdout
    assert second.stdout == f"up to date (version {CURRENT_VERSION})\n"
    assert run(policy(), database_url).exit_code == 0
