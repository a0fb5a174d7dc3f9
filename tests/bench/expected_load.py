"""What a run costs at the load most policies have: 2,000 live sessions and 500 expired ones.

The process is the container's: the same command, with the policy in its environment as the CronJob puts it there. The
stores are filled anew before each run. ``python -m tests.bench.expected_load --help``
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis as redis_client
import sqlalchemy as sa
import yaml

from controller.manifests.cronjob import build_cron_job
from controller.settings.controller_settings import Settings
from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from policy.manifest import parse_policy
from policy.names import DATABASE_URL_ENV, JOB_UID_ENV, REDIS_URL_ENV, SPEC_ENV
from policy.presets import DatabasePreset
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.schema.tables import create_tables, metadata, session_table
from tests.bench.usage import Usage, measure
from tests.support.otlp import collector

LIVE, EXPIRED = 2_000, 500
GOALS = {"wall": 1.5, "cpu": 1.2, "peak": 90.0}
"""Seconds, seconds and MB (10^6 bytes) of the whole process, on an otherwise idle machine."""

_EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.yaml"
_KINDS = ("both", "database", "sqlite", "redis")
_LIVE_AGE, _EXPIRED_AGE = timedelta(minutes=5), timedelta(hours=2)
_TTL_SECONDS = 86_400
_MB_PER_MIB = 1.048576


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the sessions are; None for a store that the policy does not have."""

    database: str | None
    redis: str | None


@dataclass(frozen=True, slots=True)
class _Session:
    id: str
    user: str
    client: str
    used: datetime


def expected_load(stores: Stores) -> None:
    """Fills the stores: nothing else is in them afterwards."""
    sessions = list(_sessions(datetime.now(UTC)))
    if stores.database:
        _fill_database(stores.database, sessions)
    if stores.redis:
        _fill_redis(stores.redis, sessions)


def _sessions(now: datetime) -> Iterator[_Session]:
    draw = random.Random(LIVE)
    for number in range(LIVE + EXPIRED):
        age = _LIVE_AGE if number < LIVE else _EXPIRED_AGE
        yield _Session(f"{draw.getrandbits(256):064x}", f"user-{number // 2}", f"Browser/{number % 2}", now - age)


def _fill_database(url: str, sessions: list[_Session]) -> None:
    engine = create_engine(parse_url(url), create_file=True)
    table = session_table(DatabasePreset.DEFAULT.table)
    with engine.begin() as connection:
        create_tables(connection, DatabasePreset.DEFAULT.table)
        for each in (table, *metadata.sorted_tables):
            connection.execute(sa.delete(each))
        connection.execute(
            table.insert(),
            [
                {
                    "session_id": s.id,
                    "user_id": s.user,
                    "created_at": s.used - timedelta(minutes=20),
                    "last_accessed_at": s.used,
                    "client": s.client,
                    "address": "192.0.2.1",
                }
                for s in sessions
            ],
        )
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def _fill_redis(url: str, sessions: list[_Session]) -> None:
    client = redis_client.Redis.from_url(url)
    client.flushdb()
    with client.pipeline(transaction=False) as pipeline:
        for s in sessions:
            content = {"userId": s.user, "createdAt": s.used.timestamp() - 1200, "lastAccessedAt": s.used.timestamp()}
            access = {"time": s.used.timestamp(), "ip": "192.0.2.1", "location": {"lat": 52.5, "lon": 13.4}}
            pipeline.set(f"sess:{s.id}", json.dumps(content), ex=_TTL_SECONDS)
            pipeline.sadd(f"user_sess:{s.user}", s.id)
            pipeline.rpush(f"access_log:{s.id}", json.dumps(access))
        pipeline.execute()
    client.close()


def container(kind: str, *, rules: bool, stores: Stores) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the container that the controller has Kubernetes start."""
    manifest: dict[str, Any] = yaml.safe_load(_EXAMPLE.read_text(encoding="utf-8"))
    spec = manifest["spec"]
    if not rules:
        spec["rules"], spec["duplicates"] = [], {"action": "Report"}
    if kind in ("database", "sqlite"):
        del spec["stores"]["redis"]
    if kind == "redis":
        del spec["stores"]["database"], spec["duplicates"], spec["rules"]
    manifest["metadata"] |= {"namespace": "web", "generation": 1}
    job = build_cron_job(parse_policy(manifest), "uid", Settings.from_environment(_CONTROLLER))
    (one,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (policy,) = (variable["value"] for variable in one["env"] if variable["name"] == SPEC_ENV)
    given = {DATABASE_URL_ENV: stores.database, REDIS_URL_ENV: stores.redis}
    environment = {k: v for k, v in given.items() if v}
    return one["args"], {SPEC_ENV: policy, JOB_UID_ENV: "00000000-0000-0000-0000-000000000001", **environment}


_CONTROLLER = {"SESSION_POLICY_JOB_IMAGE": "session-policy-job"}


@contextmanager
def running(kind: str) -> Iterator[Stores]:
    """The servers of a variant."""
    with ExitStack() as stack:
        database = None
        if kind in ("both", "database"):
            database = stack.enter_context(EmbeddedPostgres(durable=False)).url
        elif kind == "sqlite":
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            database = f"sqlite:///{directory}/sessions.db"
        redis = stack.enter_context(EmbeddedRedis()).url if kind in ("both", "redis") else None
        yield Stores(database, redis)


def measure_runs(kind: str, runs: int, *, rules: bool, traced: bool, python: list[str], keep: Path) -> list[Usage]:
    """Measures so many runs, and one before that does not count.

    Raises:
        RuntimeError: a run did not do what it should.
    """
    with running(kind) as stores, collector() if traced else nullcontext() as taken:
        arguments, environment = container(kind, rules=rules, stores=stores)
        if taken is not None:
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = taken.endpoint
        command = _program(python)
        environment = inherited() | environment
        found = []
        for _ in range(runs + 1):
            expected_load(stores)
            usage = measure([*command, *arguments], environment, keep / "stdout.log", keep / "stderr.log")
            _check(usage, keep / "stdout.log")
            found.append(usage)
    return found[1:]


def _program(python: list[str]) -> list[str]:
    """The console script as the image has it, or run by a given interpreter with options."""
    script = shutil.which("session-policy", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))
    if script is None:
        raise RuntimeError("session-policy is not installed beside this Python")
    return [*python, script] if python else [script]


def inherited() -> dict[str, str]:
    """What a run gets of our own environment."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "HOME") if name in os.environ}


def _check(usage: Usage, stdout: Path) -> None:
    said: list[Mapping[str, Any]] = [json.loads(line) for line in stdout.read_text().splitlines()]
    end = [line for line in said if line["event"] == "run finished"]
    if usage.exit_code or not end or (end[0]["outcome"], end[0]["sessions"]["deleted"]) != ("Succeeded", EXPIRED):
        raise RuntimeError(f"the run ended with exit code {usage.exit_code}, having said last: {said[-1:]}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.expected_load", description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="runs of each variant (%(default)s)")
    parser.add_argument("--stores", choices=_KINDS, default="both")
    parser.add_argument("--rules", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--traced", action="store_true", help="with a collector that takes the trace")
    parser.add_argument("--keep", type=Path, default=Path("build/bench"), help="folder for the last run's output")
    parser.add_argument("python", nargs="*", help="after --: an interpreter with options, as `python -X importtime`")
    chosen = parser.parse_args()
    chosen.keep.mkdir(parents=True, exist_ok=True)
    found = measure_runs(
        chosen.stores, chosen.runs, rules=chosen.rules, traced=chosen.traced, python=chosen.python, keep=chosen.keep
    )
    wall, cpu, peak = (
        sorted(values)
        for values in (
            [u.wall_seconds for u in found],
            [u.cpu_seconds for u in found],
            [u.peak_mib * _MB_PER_MIB for u in found],
        )
    )
    for name, unit, values in (("wall", "s", wall), ("cpu", "s", cpu), ("peak", "MB", peak)):
        print(
            f"{name:5} median {statistics.median(values):6.2f} {unit:2}  "
            f"({values[0]:.2f} to {values[-1]:.2f}; goal {GOALS[name]:g})"
        )


if __name__ == "__main__":
    main()
