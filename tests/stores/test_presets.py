"""R3.4: presets of applications that are not run here, and a schema that nobody has heard of.

These tables are made from what is known of each application's own schema, with rows in its encodings; the frameworks
that can be run are in test_presets_frameworks.py.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from policy.manifest import parse_policy
from policy.presets import DatabasePreset
from policy.report import Outcome
from tests.support.runs import manifest, policy, run

HOUR, DAY = 3600, 86400
NEVER = 2**63 - 1  # Java's Long.MAX_VALUE
POSTGRESQL, MARIADB, SQLITE = "postgresql", "mysql", "sqlite"
EVERYWHERE = (POSTGRESQL, MARIADB, SQLITE)


@dataclass(frozen=True)
class Known:
    """An application's table.

    Attributes:
        preset: its preset.
        databases: where the application runs.
        ddl: the table; {id}, {time}, {zoned} and {flag} stand for types that differ.
        id: column of the id.
        live: rows that must stay; a time is told as seconds from now.
        due: rows that must go.
        table: its name, where the preset's is spelt otherwise.
    """

    preset: DatabasePreset
    databases: tuple[str, ...]
    ddl: str
    id: str
    live: list[dict[str, Any]]
    due: list[dict[str, Any]]


@dataclass(frozen=True)
class Epoch:
    """Seconds from now, as a number since 1970."""

    seconds: float
    per_second: int = 1


@dataclass(frozen=True)
class Naive:
    """Seconds from now, as the time in UTC without a zone."""

    seconds: float


def u(number: int) -> str:
    return str(uuid.UUID(int=number))


KNOWN = [
    Known(
        DatabasePreset.LARAVEL,
        EVERYWHERE,
        "CREATE TABLE sessions (id varchar(255) PRIMARY KEY, user_id bigint NULL, ip_address varchar(45) NULL,"
        " user_agent text NULL, payload text NOT NULL, last_activity integer NOT NULL)",
        "id",
        [
            {"id": "used", "user_id": 7, "payload": "YTow", "last_activity": Epoch(-60)},
            # Two hours, as Laravel's own configuration has it, not the policy's half an hour.
            {"id": "an-hour-ago", "user_id": None, "payload": "YTow", "last_activity": Epoch(-HOUR)},
        ],
        [{"id": "idle", "user_id": 7, "payload": "YTow", "last_activity": Epoch(-3 * HOUR)}],
    ),
    Known(
        DatabasePreset.RAILS_ACTIVE_RECORD,
        EVERYWHERE,
        "CREATE TABLE sessions (id bigint PRIMARY KEY, session_id varchar(255) NOT NULL, data text,"
        " created_at {time} NOT NULL, updated_at {time} NOT NULL, UNIQUE (session_id))",
        "session_id",
        [
            {"id": 1, "session_id": "2::used", "created_at": Naive(-60 * DAY), "updated_at": Naive(-60)},
            {"id": 2, "session_id": "2::last-week", "created_at": Naive(-9 * DAY), "updated_at": Naive(-7 * DAY)},
        ],
        [{"id": 3, "session_id": "2::idle", "created_at": Naive(-60 * DAY), "updated_at": Naive(-31 * DAY)}],
    ),
    Known(
        DatabasePreset.SPRING_JDBC,
        EVERYWHERE,
        "CREATE TABLE SPRING_SESSION (PRIMARY_ID char(36) NOT NULL PRIMARY KEY, SESSION_ID char(36) NOT NULL,"
        " CREATION_TIME bigint NOT NULL, LAST_ACCESS_TIME bigint NOT NULL, MAX_INACTIVE_INTERVAL int NOT NULL,"
        " EXPIRY_TIME bigint NOT NULL, PRINCIPAL_NAME varchar(100))",
        "PRIMARY_ID",
        [
            {"PRIMARY_ID": u(1), "EXPIRY_TIME": Epoch(HOUR, 1000), "PRINCIPAL_NAME": "ann"},
            {"PRIMARY_ID": u(2), "EXPIRY_TIME": NEVER, "PRINCIPAL_NAME": None},
        ],
        [{"PRIMARY_ID": u(3), "EXPIRY_TIME": Epoch(-60, 1000), "PRINCIPAL_NAME": "ann"}],
    ),
    Known(
        DatabasePreset.KRATOS,
        EVERYWHERE,
        "CREATE TABLE sessions (id {id} NOT NULL PRIMARY KEY, issued_at {time} NOT NULL, expires_at {time} NULL,"
        " authenticated_at {time} NULL, identity_id {id} NOT NULL, nid {id} NULL, active {flag})",
        "id",
        [
            {"id": u(1), "issued_at": Naive(-HOUR), "expires_at": Naive(DAY), "identity_id": u(9), "active": True},
            {"id": u(2), "issued_at": Naive(-90 * DAY), "expires_at": None, "identity_id": u(9), "active": True},
        ],
        [{"id": u(3), "issued_at": Naive(-2 * DAY), "expires_at": Naive(-60), "identity_id": u(9), "active": True}],
    ),
    Known(
        DatabasePreset.SUPABASE,
        (POSTGRESQL,),
        "CREATE SCHEMA auth; CREATE TABLE auth.sessions (id uuid PRIMARY KEY, user_id uuid NOT NULL,"
        " created_at timestamptz, updated_at timestamptz, not_after timestamptz, refreshed_at timestamp,"
        " user_agent text, ip inet)",
        "id",
        [
            {"id": u(1), "user_id": u(9), "created_at": Naive(-HOUR), "not_after": Naive(HOUR), "ip": "192.0.2.1"},
            {"id": u(2), "user_id": u(9), "created_at": Naive(-90 * DAY), "not_after": None, "ip": None},
        ],
        [{"id": u(3), "user_id": u(9), "created_at": Naive(-HOUR), "not_after": Naive(-60), "ip": "2001:db8::1"}],
    ),
]


def types(kind: str) -> dict[str, str]:
    return {
        "time": {POSTGRESQL: "timestamp", MARIADB: "datetime(6)", SQLITE: "datetime"}[kind],
        "id": "uuid" if kind == POSTGRESQL else "char(36)",
        "flag": {POSTGRESQL: "boolean DEFAULT false", MARIADB: "tinyint(1) DEFAULT 0", SQLITE: "NUMERIC DEFAULT 0"}[
            kind
        ],
    }


def stored(value: Any, now: datetime) -> Any:
    if isinstance(value, Epoch):
        return int((now.timestamp() + value.seconds) * value.per_second)
    if isinstance(value, Naive):
        return (now + timedelta(seconds=value.seconds)).replace(tzinfo=None).isoformat(" ")
    return value


# What Spring's table has besides, that no preset needs.
FILLERS = {
    DatabasePreset.SPRING_JDBC: {
        "SESSION_ID": "s",
        "CREATION_TIME": 0,
        "LAST_ACCESS_TIME": 0,
        "MAX_INACTIVE_INTERVAL": 1800,
    }
}  # fmt: skip


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: k.preset.value)
def test_r3_4_expired_sessions_go_and_live_ones_stay(database_url: str, known: Known) -> None:
    kind = sa.make_url(database_url).get_backend_name()
    if kind not in known.databases:
        pytest.skip(f"{known.preset.value} is for {', '.join(known.databases)} only")
    engine = sa.create_engine(database_url)
    now = datetime.now(UTC)
    table = "auth.sessions" if known.preset is DatabasePreset.SUPABASE else known.preset.table.name
    with engine.begin() as connection:
        if kind == POSTGRESQL:
            connection.exec_driver_sql("SET LOCAL TimeZone TO 'UTC'")
        connection.exec_driver_sql(known.ddl.format(**types(kind)))
        for row in known.live + known.due:
            complete = {**FILLERS.get(known.preset, {}), **row}
            names = ", ".join(complete)
            values = ", ".join(f":{name}" for name in complete)
            # Unquoted, as the application writes them: each database spells them its own way.
            connection.execute(
                sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"),
                {name: stored(value, now) for name, value in complete.items()},
            )
    made = manifest()
    made["spec"]["stores"]["database"]["preset"] = known.preset.value
    result = run(parse_policy(made), database_url)
    assert (result.report.outcome, result.deleted) == (Outcome.SUCCEEDED, len(known.due)), result.report
    with engine.begin() as connection:
        left = {str(i) for i in connection.scalars(sa.text(f"SELECT {known.id} FROM {table}"))}
    assert left == {str(row[known.id]) for row in known.live}
    assert run(parse_policy(made), database_url).deleted == 0
    engine.dispose()


def laravel(url: str, seen: dict[str, int]) -> sa.Engine:
    engine = sa.create_engine(url)
    now = int(datetime.now(UTC).timestamp())
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE sessions (id varchar(255) PRIMARY KEY, user_id bigint, ip_address varchar(45),"
            " user_agent text, last_activity integer NOT NULL)"
        )
        connection.execute(
            sa.text("INSERT INTO sessions VALUES (:id, 7, NULL, NULL, :seen)"),
            [{"id": i, "seen": now - age} for i, age in seen.items()],
        )
    return engine


def test_r2_5_evicting_by_what_a_preset_does_not_tell_is_refused(database_url: str) -> None:
    engine = laravel(database_url, {"a": 1, "b": 2, "c": 3})
    made = manifest(maxConcurrentSessions=1, concurrency={"onExceed": "EvictOldest"})
    made["spec"]["stores"]["database"]["preset"] = "Laravel"
    result = run(parse_policy(made), database_url)
    assert (result.exit_code, "concurrency.onExceed" in result.report.message) == (2, True)
    with engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM sessions")) == 3
    engine.dispose()


def test_r2_5_where_no_access_is_noted_the_session_that_began_first_goes(database_url: str) -> None:
    """Not the one whose id happens to come first."""
    engine = sa.create_engine(database_url)
    now = int(datetime.now(UTC).timestamp() * 1000)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE SPRING_SESSION (PRIMARY_ID char(36) PRIMARY KEY, CREATION_TIME bigint, EXPIRY_TIME bigint,"
            " PRINCIPAL_NAME varchar(100))"
        )
        connection.execute(
            sa.text("INSERT INTO SPRING_SESSION VALUES (:id, :began, :ends, 'ann')"),
            [{"id": u(n), "began": now - age, "ends": now + 10**7} for n, age in enumerate([5000, 1000, 9000, 3000])],
        )
    made = manifest(maxConcurrentSessions=2)
    made["spec"]["stores"]["database"]["preset"] = "SpringJdbc"
    assert run(parse_policy(made), database_url).report.sessions.evicted == 2
    with engine.begin() as connection:
        left = set(connection.scalars(sa.text("SELECT PRIMARY_ID FROM SPRING_SESSION")))
    assert left == {u(1), u(3)}
    engine.dispose()


# --- a schema nobody has heard of ------------------------------------------------------------------------------------


def odd(name: str) -> sa.quoted_name:
    return sa.quoted_name(name, quote=True)


def test_r3_4_reserved_words_spaces_quotes_and_mixed_case(database_url: str) -> None:
    """Times in three encodings, a user inside JSON, a flag: by mapping alone."""
    kind = sa.make_url(database_url).get_backend_name()
    quote = "`" if kind == MARIADB else '"'
    names = {
        "table": f"Select {quote}the{quote} Übersicht; DROP",
        "id": "Primary Key %s",
        "json": "From:where",
        "began": "order",
        "used": "Last  Used?",
        "ends": "Ends'At",
        "gone": "is gone",
    }
    table = sa.Table(
        odd(names["table"]),
        sa.MetaData(),
        sa.Column(odd(names["id"]), sa.String(64), primary_key=True, key="id"),
        sa.Column(odd(names["json"]), sa.JSON, key="json"),
        sa.Column(odd(names["began"]), sa.BigInteger, key="began"),
        sa.Column(odd(names["used"]), sa.Double, key="used"),
        sa.Column(odd(names["ends"]), sa.DateTime, key="ends"),
        sa.Column(odd(names["gone"]), sa.Boolean, key="gone"),
    )
    now = datetime.now(UTC)

    def row(
        name: str, user: Any, *, began: float = HOUR, used: float = 60, ends: float | None = None
    ) -> dict[str, Any]:
        return {
            "id": name,
            "json": {"Who is it": {"it's me": user}},
            "began": int((now.timestamp() - began) * 1000),
            "used": (now.timestamp() - used) / DAY + 2440587.5,
            "ends": None if ends is None else (now + timedelta(seconds=ends, hours=9)).replace(tzinfo=None),
            "gone": False,
        }

    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(
            table.insert(),
            [
                row("live", "ann"),
                row("live too", "Ann", ends=600),
                row("nobody's", None),
                row("an object's", {"a": 1}),
                row("another object's", {"a": 1}),
                row("idle", "ann", used=1900),
                row("old", "ann", began=2 * DAY),
                row("ended", "ann", ends=-60),
                row("one too many", 42, used=90),
                row("just one", 42, used=30),
            ],
        )
    columns = {
        "id": {"name": names["id"]},
        "userId": {"name": names["json"], "path": ["Who is it", "it's me"]},
        "createdAt": {"name": names["began"], "encoding": "EpochMilliseconds"},
        "lastAccessedAt": {"name": names["used"], "encoding": "JulianDay"},
        "expiresAt": {"name": names["ends"], "encoding": "NaiveTimestamp", "timeZone": "Asia/Tokyo"},
        "revoked": {"name": names["gone"]},
    }
    obeyed = policy(
        table={"name": names["table"], "columns": columns}, absoluteTimeoutSeconds=DAY, maxConcurrentSessions=1
    )
    result = run(obeyed, database_url)
    assert result.report.outcome is Outcome.SUCCEEDED, result.report
    with engine.begin() as connection:
        left = set(connection.scalars(sa.select(table.c.id)))
    assert left == {"live", "live too", "nobody's", "an object's", "another object's", "just one"}
    assert (result.report.sessions.expired, result.report.sessions.evicted) == (3, 1)
    engine.dispose()


def test_r3_4_json_that_is_none_stops_no_run(database_url: str) -> None:
    """A column that should hold JSON, and does not always: nobody is known to own such a session."""
    kind = sa.make_url(database_url).get_backend_name()
    if kind == POSTGRESQL:
        pytest.skip("PostgreSQL's json holds nothing else")
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE s (id varchar(20) PRIMARY KEY, data text, seen bigint)")
        connection.execute(
            sa.text("INSERT INTO s VALUES (:id, :data, :seen)"),
            [
                {"id": f"s{n}", "data": data, "seen": int(datetime.now(UTC).timestamp())}
                for n, data in enumerate(["", "{", "a|s:1", '{"user": null}', '{"user": 7}', '{"user": 7}', None])
            ],
        )
    columns = {
        "id": {"name": "id"},
        "userId": {"name": "data", "path": ["user"]},
        "lastAccessedAt": {"name": "seen", "encoding": "EpochSeconds"},
    }
    result = run(policy(table={"name": "s", "columns": columns}, maxConcurrentSessions=1), database_url)
    assert (result.report.outcome, result.report.sessions.evicted) == (Outcome.SUCCEEDED, 1), result.report
    engine.dispose()
