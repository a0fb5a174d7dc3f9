"""Two workers on one run: the processes that an Indexed Job's Pods start, each with its index."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from job.demo.servers import EmbeddedPostgres
from job.steps.initialise import Urls
from policy.names import JOB_UID_ENV
from tests.bench.cleanup.goals import Bound, Check, Goal, Row, sizes
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.process import Ended, environment, prepared, run_policy
from tests.bench.cleanup.rounds import alternate, medians, spread
from tests.bench.cleanup.servers import postgres
from tests.bench.cleanup.sessions_sql import IDLE, IDLE_SECONDS, autocommit, copy_of, fill_postgres, number
from tests.bench.figures import Figure
from tests.support.runs import manifest

_FULL = 2_000_000
_ROUNDS = 3
_INDEX_ENV = "JOB_COMPLETION_INDEX"
# What makes the server, and not the run, the one that is busy: as an application does that keeps who logged out when.
_AUDIT = (
    "CREATE TABLE session_audit (session_id text, user_id text, at timestamptz, why text)",
    "CREATE INDEX ON session_audit (user_id, at)",
    "CREATE FUNCTION audit_session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO session_audit "
    "VALUES (OLD.session_id, OLD.user_id, now(), md5(OLD.client || OLD.address)); RETURN OLD; END $$",
    "CREATE TRIGGER audit AFTER DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION audit_session()",
)

# A server that waits for its disk more than it computes: so its cores are no limit.
_WAITING = (
    "CREATE FUNCTION wait_for_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); "
    "RETURN OLD; END $$",
    "CREATE TRIGGER waits AFTER DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION wait_for_disk()",
)

GOAL = Goal("two workers, a server-bound case", "≥ 1.6 × as fast as one, where the server has the cores; one report")
DISK = Goal(
    "two workers, a server that waits 1 ms for each row (pg_sleep in a trigger)",
    "≥ 1.6 × as fast as one; one report",
)


def _measure(setting: Setting) -> list[Row]:
    cpu = _compare(
        setting,
        GOAL,
        setting.size(1_000_000, _FULL),
        _AUDIT,
        (
            "A trigger writes an audit row for each deleted session, which makes the server the busy one.",
            "Two cores here, shared by both workers and their two server processes: less than the goal asks for.",
        ),
    )
    disk = _compare(
        setting,
        DISK,
        setting.size(20_000, 200_000),
        _WAITING,
        ("A trigger sleeps for each deleted session: what two workers gain where the server does not lack cores.",),
    )
    return [cpu, disk]


def _compare(setting: Setting, goal: Goal, sessions: int, triggers: Sequence[str], notes: tuple[str, ...]) -> Row:
    with postgres(autovacuum=False) as server:
        with autocommit(server.url) as connection:
            connection.execute("CREATE DATABASE filled")
        filled = server.url_of("filled")
        fill_postgres(filled, sessions, 0.5)
        with autocommit(filled) as connection:
            for statement in triggers:
                connection.execute(statement)
        expired = number(filled, f"SELECT count(*) FROM sessions WHERE {IDLE}")
        ways = {
            f"{workers} worker{'s' * (workers > 1)}": partial(_run, server, workers, expired, setting.directory)
            for workers in (1, 2)
        }
        ended = alternate(_ROUNDS, ways)
    deleting = {name: [_deleting(one) for one in each] for name, each in ended.items()}
    whole = {name: [one.usage.wall_seconds for one in each] for name, each in ended.items()}
    step, run = medians(deleting), medians(whole)
    one, two = step
    return Row(
        goal,
        (Check("deleting, one to two", step[one] / step[two], Bound.AT_LEAST, 1.6),),
        sizes(_FULL, sessions) if goal is GOAL else f"{sessions:,} sessions, half of them expired",
        figures=(
            *(Figure(f"deleting step, {name}", step[name], "s", note=spread(deleting[name])) for name in step),
            *(Figure(f"whole run, {name}", run[name], "s", note=spread(whole[name])) for name in run),
        ),
        notes=notes,
    )


def _run(server: EmbeddedPostgres, workers: int, expired: int, directory: Path) -> Ended:
    copy_of(server.url, "filled", "work")
    urls = Urls(server.url_of("work"))
    number(server.url_of("work"), "SELECT count(*) FROM sessions")
    document = manifest(
        sessionTimeoutSeconds=IDLE_SECONDS,
        maxConcurrentSessions=0,
        rules=[],
        cleanup={},
        statistics={"enabled": False},
        # Lines are written by the run's own processes: it is the server that is to be the busy one.
        logs={"deletedSessions": False},
        job={"parallelism": workers, "timeoutSeconds": 3600},
    )
    run_id = str(uuid.uuid4())
    with prepared(document, directory) as (command, place):
        helpers = [
            subprocess.Popen(
                command,
                env=environment(urls, {JOB_UID_ENV: run_id, _INDEX_ENV: str(index)}),
                stdout=(place / f"worker-{index}.log").open("wb"),
                stderr=subprocess.STDOUT,
            )
            for index in range(1, workers)
        ]
        ended = run_policy(document, urls, directory, {JOB_UID_ENV: run_id, _INDEX_ENV: "0"})
        codes = [helper.wait(60) for helper in helpers]
        if any(codes) or ended.report["sessions"]["deleted"] != expired:
            said = "".join((place / f"worker-{index}.log").read_text()[-500:] for index in range(1, workers))
            raise RuntimeError(f"the workers ended with {codes}, and the report says {dict(ended.report)}: {said}")
    return ended


def _deleting(ended: Ended) -> float:
    # The one that leads also tells of each part of the table that it has worked through.
    return sum(seconds for event, seconds in ended.steps if event in ("parallelism enabled", "expired sessions"))


PART = Part("workers", (GOAL, DISK), _measure)
