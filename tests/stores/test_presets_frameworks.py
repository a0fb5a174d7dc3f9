"""R3.4: presets against the frameworks themselves. After a run they find every live session, and nothing else.

Each framework writes its sessions with its own code and is asked for them again with its own code.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from policy.manifest import SessionPolicy, parse_policy
from policy.report import Outcome
from tests.frameworks.django_app import DjangoApp
from tests.frameworks.node_app import SCRIPTS, NodeStore
from tests.frameworks.npm import NodeUnavailableError, install
from tests.support.runs import SECRET, manifest, run

HOUR, DAY = 3600, 86400
# Seconds that each session has left.
LIVE = {"just-begun": DAY, "nearly-over": 600, "for-long": 300 * DAY}
EXPIRED = {"a-minute-ago": -60, "yesterday": -DAY, "last-year": -400 * DAY}
ALL = {**LIVE, **EXPIRED}


def preset_policy(preset: str, *, redis_keys: str | None = None, **table: Any) -> SessionPolicy:
    made = manifest(redis=redis_keys is not None)
    made["spec"]["stores"]["database"]["preset"] = preset
    if table:
        made["spec"]["stores"]["database"]["table"] = table
    if redis_keys:
        made["spec"]["stores"]["redis"] = {"urlFrom": SECRET, "keys": {"session": redis_keys}}
    return parse_policy(made)


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Node.js frameworks are installed; in pytest's cache, so that the next run need not do it again."""
    cache = getattr(request.config, "cache", None)
    try:
        return install(SCRIPTS, cache.mkdir("node-frameworks") if cache else tmp_path_factory.mktemp("node-frameworks"))
    except NodeUnavailableError as missing:
        pytest.skip(str(missing))


def clean(obeyed: SessionPolicy, database_url: str, redis_url: str | None = None) -> int:
    """A run, and one after it that finds nothing to do. Returns how many sessions the first one deleted."""
    first = run(obeyed, database_url, redis_url)
    assert (first.report.outcome, first.exit_code) == (Outcome.SUCCEEDED, 0), first.report
    assert run(obeyed, database_url, redis_url).deleted == 0
    return first.deleted


# --- Django ----------------------------------------------------------------------------------------------------------


@pytest.mark.representative(database_url=["postgresql"])
def test_r3_4_django_with_its_database_back_end(database_url: str) -> None:
    app = DjangoApp(database_url)
    keys = app.write(ALL)
    assert clean(preset_policy("Django"), database_url) == len(EXPIRED)
    assert app.find(keys) == {"loaded": sorted(LIVE), "rows": sorted(LIVE), "cached": []}


@pytest.mark.representative(database_url=["postgresql"])
def test_r3_4_django_without_time_zones(database_url: str) -> None:
    """USE_TZ = False: MySQL and SQLite hold the local time of the settings; PostgreSQL's column has a zone anyway."""
    zone = "Asia/Kolkata"  # ahead of UTC: taken for UTC, sessions would live hours too long
    app = DjangoApp(database_url, use_tz=False, time_zone=zone)
    keys = app.write(ALL)
    encoding = "Timestamp" if database_url.startswith("postgresql") else "NaiveTimestamp"
    columns = {
        "id": {"name": "session_key"},
        "expiresAt": {"name": "expire_date", "encoding": encoding, "timeZone": zone},
    }
    assert clean(preset_policy("Django", name="django_session", columns=columns), database_url) == len(EXPIRED)
    assert app.find(keys) == {"loaded": sorted(LIVE), "rows": sorted(LIVE), "cached": []}


@pytest.mark.representative(database_url=["postgresql"])
def test_r3_4_r3_5_django_with_a_cache_before_its_database(database_url: str, redis_url: str) -> None:
    app = DjangoApp(database_url, redis_url, engine="cached_db")
    keys = app.write(ALL)
    before = app.find(keys)
    # Without a run, the copy in the cache keeps a session alive whose row has expired.
    assert before["loaded"] == sorted(ALL)
    obeyed = preset_policy("Django", redis_keys=":1:django.contrib.sessions.cached_db{id}")
    assert clean(obeyed, database_url, redis_url) == len(EXPIRED)
    assert app.find(keys) == {"loaded": sorted(LIVE), "rows": sorted(LIVE), "cached": sorted(LIVE)}


# --- express-session -------------------------------------------------------------------------------------------------


@pytest.mark.representative(zone=["America/New_York"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_r3_4_connect_pg_simple_in_whatever_zone_its_database_is(node: Path, postgres_url: str, zone: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        name = sa.make_url(postgres_url).database
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET timezone TO '{zone}'")
    store = NodeStore(node, "express_store.mjs", store="connect-pg-simple", url=for_node(postgres_url))
    store.write(ALL)
    assert clean(preset_policy("ConnectPgSimple"), postgres_url) == len(EXPIRED)
    assert store.find(ALL) == set(LIVE)
    with engine.begin() as connection:
        assert set(connection.scalars(sa.text("SELECT sid FROM session"))) == set(LIVE)
    engine.dispose()


def test_r2_5_connect_pg_simple_with_the_user_inside_its_json(node: Path, postgres_url: str) -> None:
    """What passport keeps: three live sessions of three users, and then a second one of one of them."""
    store = NodeStore(node, "express_store.mjs", store="connect-pg-simple", url=for_node(postgres_url))
    store.write(LIVE)
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO session SELECT 'second', sess, expire - interval '1 hour' FROM session WHERE sid = 'for-long'"
        )
    made = manifest(maxConcurrentSessions=1, concurrency={"onExceed": "Report"})
    made["spec"]["stores"]["database"]["table"] = {
        "name": "session",
        "columns": {
            "id": {"name": "sid"},
            "userId": {"name": "sess", "path": ["passport", "user", "id"]},
            "expiresAt": {"name": "expire", "encoding": "NaiveTimestamp", "timeZone": "Server"},
        },
    }
    counts = run(parse_policy(made), postgres_url).report.sessions
    assert (counts.active, counts.over_limit) == (4, 1)
    engine.dispose()


def test_r3_4_express_mysql_session(node: Path, mariadb_url: str) -> None:
    store = NodeStore(node, "express_store.mjs", store="express-mysql-session", url=for_node(mariadb_url))
    store.write(ALL)
    assert clean(preset_policy("ExpressMySQL"), mariadb_url) == len(EXPIRED)
    assert store.find(ALL) == set(LIVE)
    engine = sa.create_engine(mariadb_url)
    with engine.begin() as connection:
        assert set(connection.scalars(sa.text("SELECT session_id FROM sessions"))) == set(LIVE)
    engine.dispose()


def test_r3_4_r3_5_connect_redis(
    node: Path, database_url: str, redis_url: str, rows: Callable[[dict[str, int]], None]
) -> None:
    """Its keys beside the default table: what has a live row stays, and gets a TTL where the store writes none."""
    store = NodeStore(node, "express_store.mjs", store="connect-redis", url=redis_url, disableTTL=True)
    store.write(ALL)
    rows(ALL)
    store.write({"orphan": DAY})
    made = manifest(redis=True)
    made["spec"]["stores"]["redis"] = {"urlFrom": SECRET, "keys": {"session": "sess:{id}"}}
    first = run(parse_policy(made), database_url, redis_url)
    assert first.report.outcome is Outcome.SUCCEEDED, first.report
    assert store.find({**ALL, "orphan": DAY}) == set(LIVE)
    with redis.Redis.from_url(redis_url) as client:
        assert {key.decode(): client.ttl(key) > 0 for key in client.scan_iter()} == {f"sess:{i}": True for i in LIVE}


@pytest.fixture
def rows(database_url: str) -> Callable[[dict[str, int]], None]:
    """Puts sessions into the default table."""
    from datetime import timedelta

    from tests.support.session_stores import SessionStores

    def insert(sessions: dict[str, int]) -> None:
        stores = SessionStores(database_url)
        now = datetime.now(UTC)
        stores.rows(
            {"session_id": i, "user_id": i, "expires_at": now + timedelta(seconds=left)} for i, left in sessions.items()
        )
        stores.close()

    return insert


# --- Auth.js ---------------------------------------------------------------------------------------------------------

# The tables that the adapter's documentation asks for, as far as sessions need them.
AUTH_JS = """
CREATE TABLE users (id serial PRIMARY KEY, name varchar(255), email varchar(255), "emailVerified" timestamptz,
                    image text);
CREATE TABLE sessions (id serial PRIMARY KEY, "userId" integer NOT NULL, expires timestamptz NOT NULL,
                       "sessionToken" varchar(255) NOT NULL);
"""


def test_r3_4_auth_js_with_its_postgresql_adapter(node: Path, postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(AUTH_JS)
    store = NodeStore(node, "auth_js.mjs", url=for_node(postgres_url))
    store.write(ALL)
    assert clean(preset_policy("AuthJs"), postgres_url) == len(EXPIRED)
    assert store.find(ALL) == set(LIVE)
    with engine.begin() as connection:
        assert set(connection.scalars(sa.text('SELECT "sessionToken" FROM sessions'))) == set(LIVE)
        assert connection.scalar(sa.text("SELECT count(*) FROM users")) == len(ALL)
    engine.dispose()


def for_node(url: str) -> str:
    """The URL without the name of a Python driver."""
    made = sa.make_url(url)
    plain = {"mysql": "mysql", "postgresql": "postgresql"}[made.get_backend_name()]
    return made.set(drivername=plain).render_as_string(hide_password=False)
