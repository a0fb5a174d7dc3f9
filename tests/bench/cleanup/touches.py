"""An application beside a run: a process of its own that touches sessions on a steady schedule.

The schedule is open: a touch is due when it is due, whether or not those before it are done, and its latency counts
from then. Otherwise a store that holds everything up for a second would cost one slow touch instead of two hundred.
"""

from __future__ import annotations

import json
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.figures import quantile

RATE = 200
"""Touches a second."""
_WORKERS = 8
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Work:
    """What the application does.

    Attributes:
        url: of the database, for its driver.
        update: the statement that touches the session in its one parameter.
        insert: the statement that begins a session with the id in its one parameter: one touch in ten; empty for none.
        live: sessions that are in use.
        returning: expired sessions whose users come back just now: one touch in ten.
        redis: URL, where it writes there as well.
    """

    url: str
    update: str
    insert: str
    live: Sequence[str]
    returning: Sequence[str] = ()
    redis: str | None = None


@dataclass(slots=True)
class Told:
    """What the application has seen.

    Attributes:
        latencies: seconds of each touch, from when it was due.
        due: when that was, in seconds since 1970.
        kept: sessions whose last touch found them: they must be there in the end.
        lost: live sessions whose row was not there any more.
        deadlocks: touches that the database has ended because of one.
        errors: what else went wrong.
    """

    latencies: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    deadlocks: int = 0
    errors: list[str] = field(default_factory=list)

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latencies in milliseconds."""
        return quantile(self.latencies, share) * 1000


class Touching:
    """The application, from outside: at work as long as a ``with`` block lasts.

    Args:
        work: what it does.
        directory: where its record is kept for the moment.
    """

    def __init__(self, work: Work, directory: Path) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="touches-", dir=directory)
        self._record = Path(self._directory.name) / "told.json"
        self._ask = Path(self._directory.name) / "ask.json"
        self._ask.write_text(json.dumps(asdict(work)))
        self.told = Told()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.cleanup.touches", str(self._ask), str(self._record)]
        self._process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError("the application beside the run did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate("end\n", timeout=120)
        if self._record.exists():
            self.told = Told(**json.loads(self._record.read_text()))
        self._directory.cleanup()

    def check(self) -> Told:
        """What it has told.

        Raises:
            RuntimeError: something went wrong there.
        """
        if self.told.errors or not self.told.latencies:
            raise RuntimeError(f"the application beside the run failed: {self.told.errors[:3]}")
        return self.told


# --- inside the process ----------------------------------------------------------------------------------------------


def touches_due(began: float, worker: int, ended: threading.Event) -> Any:
    """When each touch of a worker is due; waits until it is."""
    number = worker
    while not ended.is_set():
        due = began + number / RATE
        if (pause := due - time.monotonic()) > 0 and ended.wait(pause):
            return
        yield due
        number += _WORKERS


def _work(ask: Mapping[str, Any], worker: int, ready: threading.Barrier, ended: threading.Event, told: Told) -> None:
    draw = random.Random(worker)
    execute, touch_redis = _database(ask["url"]), _redis(ask)
    update, insert = ask["update"], ask["insert"]
    # Sessions of its own: whatever a touch waits for, it is no other touch.
    live, returning = ask["live"][worker::_WORKERS], ask["returning"][worker::_WORKERS]
    seen: dict[str, bool] = {}
    # First, so that connecting, preparing and the first look at the data are no part of it.
    for session in live[:20]:
        execute(update, session)
        touch_redis(session)
    ready.wait()
    for due in touches_due(time.monotonic() + 0.05, worker, ended):
        number = draw.random()
        back, new = bool(returning) and number < 0.1, bool(insert) and number > 0.9
        session = secrets.token_hex(32) if new else draw.choice(returning if back else live)
        try:
            there = execute(insert if new else update, session)
            if there:
                touch_redis(session)
        except Exception as error:  # whatever it is, it is told
            if "deadlock" in str(error).lower():
                told.deadlocks += 1
                continue
            told.errors.append(f"{type(error).__name__}: {error}")
            return
        now = time.monotonic()
        told.latencies.append(now - due)
        told.due.append(time.time() - (now - due))
        seen[session] = there
        if not there and not back:
            told.lost.append(session)
    told.kept += [session for session, there in seen.items() if there]


def _database(url: str) -> Callable[[str, str], bool]:
    """What executes a statement with a session, and tells whether that was there."""
    if url.startswith("mysql"):
        import pymysql
        from sqlalchemy.engine import make_url

        at = make_url(url)
        rows = pymysql.connect(
            host=at.host or "", port=at.port or 0, user=at.username, database=at.database, autocommit=True
        ).cursor()
        return lambda statement, session: bool(rows.execute(statement, (session,)))
    import psycopg

    connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
    return lambda statement, session: bool(connection.execute(statement, [session]).rowcount)


def _redis(ask: Mapping[str, Any]) -> Callable[[str], object]:
    if not ask["redis"]:
        return lambda session: None
    import redis

    client = redis.Redis.from_url(ask["redis"])

    def write(session: str) -> None:
        now = time.time()
        content = json.dumps({"userId": f"u-{session[:8]}", "createdAt": now - 600, "lastAccessedAt": now})
        client.set(f"sess:{session}", content, ex=86_400 * 30)

    return write


def _main(ask_path: str, record: str) -> None:
    ask = json.loads(Path(ask_path).read_text())
    ended, ready = threading.Event(), threading.Barrier(_WORKERS + 1)
    told = [Told() for _ in range(_WORKERS)]
    workers = [threading.Thread(target=_work, args=(ask, n, ready, ended, told[n])) for n in range(_WORKERS)]
    for worker in workers:
        worker.start()
    ready.wait(60)
    print("ready", flush=True)
    sys.stdin.readline()
    ended.set()
    for worker in workers:
        worker.join()
    whole = Told()
    for one in told:
        whole.latencies += one.latencies
        whole.due += one.due
        whole.kept += one.kept
        whole.lost += one.lost
        whole.deadlocks += one.deadlocks
        whole.errors += one.errors
    Path(record).write_text(json.dumps(asdict(whole)))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
