"""Where the memory of alerts is kept, so that it survives the Pod: the statistics database, Redis, the log volume.

Every place that can be reached gets a copy, and of the copies that can be read the latest counts: the place that is
down is the very thing to tell of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from job.alerts.memory import NOTHING, Memory
from job.logs.logfiles import FOLDERS, LogName, open_folder
from policy.manifest import SessionPolicy
from stores.redis.connection.connect import connect
from stores.redis.connection.link import Link
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.schema.tables import alerts
from stores.waiting.bounded_wait import call_all, has_succeeded

T = TypeVar("T")

_KEY_PREFIX = "session-policy:alerts:"
_TTL_SECONDS = 90 * 86400
_FOLDER = FOLDERS[LogName.ALERT]
# Others may write to the volume: no link, no pipe that nobody fills, no file without end.
_NO_TRICKS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LARGEST_BYTES = 1 << 20


class MemoryStore(Protocol):
    """A place for one policy's memory. Each method may raise anything when the place is not to be had."""

    def load(self) -> str | bytes | None:
        """What was saved last; None for nothing."""

    def save(self, memory: Memory) -> None:
        """Replaces it."""


class DatabaseMemory:
    """In the table ``session_alerts`` that ``session-policy init`` creates.

    Args:
        url: of the statistics database.
        policy: namespace and name.
    """

    def __init__(self, url: str, policy: str) -> None:
        self._url = url
        self._policy = policy

    def load(self) -> str | None:
        """What was saved last."""

        def work(connection: sa.Connection) -> str | None:
            found: str | None = connection.scalar(sa.select(alerts.c.state).where(alerts.c.policy == self._policy))
            return found

        return self._transaction(work)

    def save(self, memory: Memory) -> None:
        """Replaces it; where two runs do so at once, either wins."""
        row = {"policy": self._policy, "updated_at": memory.updated_at, "state": memory.to_text()}

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(alerts).where(alerts.c.policy == self._policy))
            connection.execute(sa.insert(alerts).values(row))

        self._transaction(work)

    def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        engine = create_engine(parse_url(self._url))
        try:
            with engine.begin() as connection:
                return work(connection)
        finally:
            engine.dispose()


class RedisMemory:
    """Under a key of its own.

    Args:
        connect: connects to Redis, in any mode.
        policy: namespace and name.
    """

    def __init__(self, connect: Callable[[], Link], policy: str) -> None:
        self._connect = connect
        self._key = f"{_KEY_PREFIX}{policy}"

    def load(self) -> bytes | None:
        """What was saved last."""
        with closing(self._connect()) as link:
            found: bytes | None = _answer(link.pipeline([("GET", self._key)]))
            return found

    def save(self, memory: Memory) -> None:
        """Replaces it."""
        with closing(self._connect()) as link:
            _answer(link.pipeline([("SET", self._key, memory.to_text(), "EX", _TTL_SECONDS)]))


def _answer(replies: list[Any]) -> Any:
    """The one reply; an error stands as a reply, and is raised."""
    (reply,) = replies
    if isinstance(reply, Exception):
        raise reply
    return reply


class FileMemory:
    """On the log volume.

    Args:
        directory: the volume.
        policy: namespace and name.
    """

    def __init__(self, directory: Path, policy: str) -> None:
        self._directory = directory
        self._name = f"state.{policy.replace('/', '.')}.json"

    def load(self) -> bytes | None:
        """What was saved last."""
        with open_folder(self._directory, _FOLDER) as folder:
            try:
                descriptor = os.open(self._name, os.O_RDONLY | _NO_TRICKS, dir_fd=folder)
            except FileNotFoundError:
                return None
        with open(descriptor, "rb") as file:
            return file.read(_LARGEST_BYTES)

    def save(self, memory: Memory) -> None:
        """Replaces it, as a whole or not at all."""
        new = f"{self._name}.{os.getpid()}.new"
        with open_folder(self._directory, _FOLDER) as folder:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=folder)  # of a run that died, or a link that somebody has laid
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_TRICKS, 0o640, dir_fd=folder)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(memory.to_text())
            os.replace(new, self._name, src_dir_fd=folder, dst_dir_fd=folder)


def memory_stores(
    policy: SessionPolicy, database_url: str | None, redis_url: str | None, log_directory: Path | None
) -> list[MemoryStore]:
    """Every place that a policy has for its memory. None is opened yet."""
    name = f"{policy.metadata.namespace}/{policy.metadata.name}"
    places: list[MemoryStore] = []
    if database_url:
        places.append(DatabaseMemory(database_url, name))
    store = policy.spec.stores.redis
    if redis_url and store:
        places.append(RedisMemory(lambda: connect(redis_url, store), name))
    if log_directory:
        places.append(FileMemory(log_directory, name))
    return places


def load(stores: Sequence[MemoryStore], seconds: float) -> Memory:
    """The latest memory that can be read in time; an empty one where there is none."""
    outcomes = call_all([store.load for store in stores], "alert", seconds)
    texts = [outcome.result() for outcome in outcomes if has_succeeded(outcome)]
    found = [memory for text in texts if (memory := Memory.from_text(text)) is not None]
    return max(found, key=lambda memory: memory.updated_at, default=NOTHING)


def save(stores: Sequence[MemoryStore], memory: Memory, seconds: float) -> int:
    """Saves it in every place that can be reached in time. Returns in how many."""
    outcomes = call_all([partial(store.save, memory) for store in stores], "alert", seconds)
    return sum(map(has_succeeded, outcomes))
