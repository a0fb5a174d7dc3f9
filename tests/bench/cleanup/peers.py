"""Cleaners of frameworks beside this project, on the frameworks' tables: how long, and what an application feels."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from job.demo.servers import EmbeddedPostgres
from job.steps.initialise import Urls
from policy.manifest import parse_policy
from policy.presets import DatabasePreset
from tests.bench.cleanup.beside import latencies, some, touched
from tests.bench.cleanup.goals import OURS, Bound, Check, Goal, Row
from tests.bench.cleanup.opened import delete_all_expired
from tests.bench.cleanup.part import Part, PartUnavailableError, Setting
from tests.bench.cleanup.process import run_policy
from tests.bench.cleanup.rounds import alternate, spread
from tests.bench.cleanup.servers import postgres
from tests.bench.cleanup.sessions_sql import autocommit, copy_of, number, settle, without_indexes
from tests.bench.cleanup.touches import Told, Touching, Work
from tests.bench.figures import Figure
from tests.frameworks.django_app import DjangoApp
from tests.frameworks.node_app import SCRIPTS, NodeStore
from tests.frameworks.npm import NodeUnavailableError, install
from tests.support.runs import manifest

_ROUNDS = 3
_ALONE_SECONDS = 5.0
_BESIDE_OURS = f"beside {OURS}"
_LIVE, _RETURNING = 10_000, 3_000

DJANGO = Goal("Django clearsessions, one unbounded DELETE", "≤ 1.3 × its time")
CONNECT_PG_SIMPLE = Goal("connect-pg-simple's prune, one unbounded DELETE", "≤ 1.3 × its time")


@dataclass(frozen=True, slots=True)
class _Took:
    """Seconds of the cleaning by itself, and of the process around it, where it is one."""

    cleaning: float
    command: float


@dataclass(frozen=True, slots=True)
class _Peer:
    """A framework with a cleaner.

    Attributes:
        goal: what is measured.
        preset: its table's name in a policy.
        table: the table.
        key: column of the ids.
        expired: what its cleaner goes by.
        fill: the statement that makes so many sessions of which half have expired.
        touch: the statement an application prolongs a session by.
        create: makes the table.
        clean: runs the cleaner.
        is_command: whether the cleaner is a process of its own.
    """

    goal: Goal
    preset: DatabasePreset
    table: str
    key: str
    expired: str
    fill: str
    touch: str
    create: Callable[[str], object]
    clean: Callable[[str], _Took]
    is_command: bool


def _django() -> _Peer:
    def clean(url: str) -> _Took:
        app = DjangoApp(url)
        began = time.perf_counter()
        seconds = app.clear()
        return _Took(seconds, time.perf_counter() - began)

    return _Peer(
        DJANGO,
        DatabasePreset.DJANGO,
        table="django_session",
        key="session_key",
        expired="expire_date < now()",
        fill="INSERT INTO django_session (session_key, session_data, expire_date) SELECT substr(encode(sha256(('s' || "
        "i)::bytea), 'hex'), 1, 32), repeat(md5(i::text), 6), now() + (random() - 0.5) * interval '20 days' "
        "FROM generate_series(1, {sessions}) AS i",
        touch="UPDATE django_session SET expire_date = now() + interval '14 days' WHERE session_key = %s",
        create=DjangoApp,
        clean=clean,
        is_command=True,
    )


def _connect_pg_simple(directory: Path) -> _Peer:
    try:
        scripts = install(SCRIPTS, directory / "node-frameworks")
    except NodeUnavailableError as missing:
        raise PartUnavailableError(str(missing)) from missing

    def node_url(url: str) -> str:
        return url.replace("+psycopg", "")

    def create(url: str) -> None:
        NodeStore(scripts, "express_store.mjs", store="connect-pg-simple", url=node_url(url)).write({"first": 3600})

    def clean(url: str) -> _Took:
        began = time.perf_counter()
        done = subprocess.run(
            ["node", str(scripts / "connect_pg_simple_prune.mjs")],
            input=json.dumps({"url": node_url(url)}),
            check=True,
            capture_output=True,
            text=True,
        )
        return _Took(float(done.stdout), time.perf_counter() - began)

    return _Peer(
        CONNECT_PG_SIMPLE,
        DatabasePreset.CONNECT_PG_SIMPLE,
        table="session",
        key="sid",
        expired="expire < now()",
        fill="INSERT INTO session (sid, sess, expire) SELECT substr(encode(sha256(('s' || i)::bytea), 'base64'), 1, 32)"
        ", json_build_object('cookie', json_build_object('path', '/'), 'passport', json_build_object('user', i), "
        "'cart', md5(i::text)), now() + (random() - 0.5) * interval '20 days' FROM generate_series(1, {sessions}) AS i",
        touch="UPDATE session SET expire = now() + interval '14 days' WHERE sid = %s",
        create=create,
        clean=clean,
        is_command=False,
    )


def _measure(peer_of: Callable[[Setting], _Peer], setting: Setting) -> list[Row]:
    peer = peer_of(setting)
    sessions = setting.size(300_000, 2_000_000)
    with postgres(autovacuum=False) as server:
        with autocommit(server.url) as connection:
            connection.execute("CREATE DATABASE filled")
        filled = server.url_of("filled")
        peer.create(filled)
        with autocommit(filled) as connection:
            connection.execute(f"TRUNCATE {peer.table}")
            with without_indexes(connection, peer.table):
                connection.execute(peer.fill.format(sessions=sessions))
        settle(filled)
        return [_compare(peer, server, sessions, setting.directory)]


def _compare(peer: _Peer, server: EmbeddedPostgres, sessions: int, directory: Path) -> Row:
    work = server.url_of("work")
    document = manifest(statistics={"enabled": False}, rules=[], cleanup={})
    document["spec"]["stores"]["database"]["preset"] = peer.preset.value
    policy = parse_policy(document)

    def restored(way: Callable[[], _Took]) -> _Took:
        _restore(server, peer)
        took = way()
        _check(work, peer, sessions)
        return took

    def ours() -> _Took:
        step = delete_all_expired(policy, Urls(work))
        _restore(server, peer)
        return _Took(step, run_policy(document, Urls(work), directory).usage.wall_seconds)

    names: dict[str, Callable[[], _Took]] = {OURS: ours, peer.table: partial(peer.clean, work)}
    found = alternate(_ROUNDS, {name: partial(restored, way) for name, way in names.items()})
    mine, theirs = found[OURS], found[peer.table]
    cleaning = median(t.cleaning for t in mine) / median(t.cleaning for t in theirs)
    command = median(t.command for t in mine) / median(t.command for t in theirs)
    told = _felt(peer, server, document, directory)
    checks = [Check("deleting", cleaning, Bound.AT_MOST, 1.3)]
    if peer.is_command:
        checks.append(Check("whole command", command, Bound.AT_MOST, 1.3))
    return Row(
        peer.goal,
        tuple(checks),
        f"{sessions:,} sessions, half of them expired",
        figures=(*_times(OURS, mine), *_times("theirs", theirs), *latencies(told)),
        notes=(
            "Latencies are those of an application that touches 200 sessions a second, one in ten of them expired, "
            "from the start of the cleaner's process to its end.",
            *(() if peer.is_command else ("Its prune is part of the application: there is no command to compare.",)),
        ),
    )


def _felt(peer: _Peer, server: EmbeddedPostgres, document: dict[str, object], directory: Path) -> dict[str, list[Told]]:
    """What an application sees while it is alone, and beside each of the two."""
    url = server.url_of("work")
    told: dict[str, list[Told]] = {"alone": [], _BESIDE_OURS: [], "beside theirs": []}
    cleaners: dict[str, Callable[[], object]] = {
        _BESIDE_OURS: lambda: run_policy(document, Urls(url), directory),
        "beside theirs": lambda: peer.clean(url),
    }
    for _ in range(_ROUNDS):
        for name, clean in cleaners.items():
            _restore(server, peer)
            live = some(Urls(url), f"NOT {peer.expired}", _LIVE, peer.table, peer.key)
            returning = some(Urls(url), peer.expired, _RETURNING, peer.table, peer.key)
            told["alone"].append(touched(Work(url, peer.touch, "", live), directory, _ALONE_SECONDS))
            with Touching(Work(url, peer.touch, "", live, returning), directory) as application:
                clean()
            told[name].append(application.check())
    return told


def _restore(server: EmbeddedPostgres, peer: _Peer) -> None:
    copy_of(server.url, "filled", "work")
    number(server.url_of("work"), f"SELECT count(*) FROM {peer.table}")


def _check(url: str, peer: _Peer, sessions: int) -> None:
    left = number(url, f"SELECT count(*) FROM {peer.table}")
    ripe = number(url, f"SELECT count(*) FROM {peer.table} WHERE {peer.expired}")
    # A run gives sessions a few seconds more than their expiry, for clocks that differ; the last row is never exact.
    if ripe > sessions // 1000 or not sessions * 0.45 < left < sessions * 0.55:
        raise RuntimeError(f"{left} of {sessions} are left, {ripe} of them expired")


def _times(name: str, took: Sequence[_Took]) -> tuple[Figure, Figure]:
    cleaning, command = [t.cleaning for t in took], [t.command for t in took]
    return (
        Figure(f"{name}: deleting", median(cleaning), "s", note=spread(cleaning)),
        Figure(f"{name}: whole process", median(command), "s", note=spread(command)),
    )


def _part(name: str, goal: Goal, peer_of: Callable[[Setting], _Peer]) -> Part:
    return Part(name, (goal,), partial(_measure, peer_of))


PARTS = (
    _part("django", DJANGO, lambda setting: _django()),
    _part("connect-pg-simple", CONNECT_PG_SIMPLE, lambda setting: _connect_pg_simple(setting.directory)),
)
