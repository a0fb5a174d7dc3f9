"""What a run in a container imports: only what its policy and its stores need. A start costs CPU, each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from policy.names import DATABASE_URL_ENV, REDIS_URL_ENV, SPEC_ENV
from tests.support.otlp import collector
from tests.support.runs import manifest
from tests.support.session_stores import SessionStores

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

ALL_RULES = [{"type": kind} for kind in ("Revoked", "ImpossibleTravel", "AddressChange", "WeakId", "LongRunning")]
OF_OTHERS = {
    # For people at a terminal, for the cluster's side, and for features that nobody has switched on.
    *("rich", "yaml", "opentelemetry", "apprise", "requests", "urllib3"),
    *("kopf", "kubernetes", "aiohttp", "prometheus_client"),
    *(
        "alembic",
        "sqlalchemy.orm",
        "policy.crd",
        "policy.descriptions",
        "job.demo",
        "job.demo.servers",
        "job.telemetry.opentelemetry_export",
    ),
}
DATABASES = {
    "postgresql": {"psycopg"},
    "mysql": {"pymysql", "sqlalchemy.dialects.mysql"},
    "sqlite": {"sqlalchemy.dialects.sqlite"},
}

# What the installed script does, and at the end a list of what was imported.
COMMAND = """
import atexit, sys
from job.cli.start import main
atexit.register(lambda: print(*(name for name, module in sys.modules.items() if module), file=sys.stderr))
main()
"""


def imported(stores: SessionStores, **environment: str) -> set[str]:
    """Runs the command as a container does. Returns the names of all modules and packages that it imported."""
    document = manifest(redis=stores.redis_url is not None, rules=ALL_RULES, duplicates={"action": "KeepNewest"})
    urls = {DATABASE_URL_ENV: stores.database_url, REDIS_URL_ENV: stores.redis_url}
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, "run"],
        env={**os.environ, **{k: v for k, v in urls.items() if v}, SPEC_ENV: json.dumps(document), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["outcome"] for line in said if line["event"] == "run finished"] == ["Succeeded"]
    return set(ended.stderr.split())


def fill(stores: SessionStores) -> None:
    stores.add("expired", used=7200)
    stores.add("live")


def of_other_databases(stores: SessionStores) -> set[str]:
    used = "sqlite" if stores.is_sqlite else "mysql" if stores.is_mysql else "postgresql"
    return {module for database, modules in DATABASES.items() if database != used for module in modules}


def test_a_run_imports_what_its_stores_need(stores: SessionStores) -> None:
    fill(stores)
    names = imported(stores)
    assert sorted(names & (OF_OTHERS | of_other_databases(stores))) == []
    assert {"job.run", "sqlalchemy", "redis"} <= names  # or the list shows nothing


def test_only_a_run_with_a_collector_imports_opentelemetry(postgres: SessionStores) -> None:
    fill(postgres)
    with collector() as taken:
        names = imported(postgres, **taken.environment)
    assert {"opentelemetry", "job.telemetry.opentelemetry_export"} <= names
    assert taken.spans


def test_what_a_run_leaves_alone_is_there() -> None:
    """A name that is misspelt, or of a package long gone, would prove nothing."""
    names = OF_OTHERS.union(*DATABASES.values())
    assert [name for name in sorted(names) if find_spec(name) is None] == []
