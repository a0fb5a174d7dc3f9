"""Stores the alert state of a policy, so that it outlives the Pod: in the database, in Redis and on the log volume.

Each of these that the policy has gets a copy, and the latest readable copy counts: the store that is down is often the
very problem to send an alert about.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from job.alerts.alert_state import EMPTY_STATE, AlertState
from job.logs.log_files import FOLDERS, LogName, open_folder
from policy.manifest import SessionPolicy
from policy.stores import RedisStore
from stores.redis.connection.connect import connect
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.schema.tables import alerts
from stores.waiting.bounded_wait import call_all, has_succeeded

_KEY_PREFIX = "session-policy:alerts:"
_TTL_SECONDS = 90 * 86400
_FOLDER = FOLDERS[LogName.ALERT]
# Others can write to the volume: follow no symlink, do not wait for a FIFO, read no endless file.
_SAFE_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """One copy of the state. Either function may raise anything if its store is not available.

    Attributes:
        load: returns the JSON saved last; None if there is none.
        save: replaces it.
    """

    load: Callable[[], str | bytes | None]
    save: Callable[[AlertState], None]


class AlertMemory:
    """The alert state of one policy, in every store the policy has.

    Args:
        copies: from :func:`database_copy`, :func:`redis_copy` and :func:`file_copy`; none for no memory.
    """

    def __init__(self, *copies: StoredCopy) -> None:
        self.copies = copies

    @classmethod
    def of_policy(
        cls, policy: SessionPolicy, database_url: str | None, redis_url: str | None, log_directory: Path | None
    ) -> Self:
        """With a copy in each store of the policy. Nothing is opened yet."""
        name, redis = f"{policy.metadata.namespace}/{policy.metadata.name}", policy.spec.stores.redis
        copies: list[StoredCopy] = []
        if database_url:
            copies.append(database_copy(database_url, name))
        if redis_url and redis:
            copies.append(redis_copy(redis_url, redis, name))
        if log_directory:
            copies.append(file_copy(log_directory, name))
        return cls(*copies)

    def load(self, seconds: float) -> AlertState:
        """The latest state that can be read within so many seconds; an empty one if there is none."""
        outcomes = call_all([copy.load for copy in self.copies], "alert", seconds)
        texts = [outcome.result() for outcome in outcomes if has_succeeded(outcome)]
        states = [state for text in texts if (state := AlertState.from_text(text)) is not None]
        return max(states, key=lambda state: state.updated_at, default=EMPTY_STATE)

    def save(self, state: AlertState, seconds: float) -> int:
        """Saves the state in every store that takes it within so many seconds. Returns in how many."""
        outcomes = call_all([partial(copy.save, state) for copy in self.copies], "alert", seconds)
        return sum(map(has_succeeded, outcomes))


def database_copy(url: str, policy: str) -> StoredCopy:
    """A row of ``session_alerts``, which ``session-policy init`` creates.

    Args:
        url: of the database.
        policy: namespace and name.
    """
    own_row = alerts.c.policy == policy

    @contextmanager
    def transaction() -> Iterator[sa.Connection]:
        engine = create_engine(parse_url(url))
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def load() -> str | None:
        with transaction() as connection:
            found: str | None = connection.scalar(sa.select(alerts.c.state).where(own_row))
        return found

    def save(state: AlertState) -> None:
        # If two runs do this at the same time, either wins.
        with transaction() as connection:
            connection.execute(sa.delete(alerts).where(own_row))
            connection.execute(
                sa.insert(alerts).values(policy=policy, updated_at=state.updated_at, state=state.to_text())
            )

    return StoredCopy(load, save)


def redis_copy(url: str, store: RedisStore, policy: str) -> StoredCopy:
    """A key ``session-policy:alerts:NAMESPACE/NAME`` in the policy's Redis.

    Args:
        url: of Redis.
        store: stores.redis of the policy.
        policy: namespace and name.
    """
    key = f"{_KEY_PREFIX}{policy}"

    def execute(*command: str | int) -> bytes | None:
        with closing(connect(url, store)) as connection:
            reply: bytes | Exception | None = connection.pipeline([command])[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def save(state: AlertState) -> None:
        execute("SET", key, state.to_text(), "EX", _TTL_SECONDS)

    return StoredCopy(partial(execute, "GET", key), save)


def file_copy(directory: Path, policy: str) -> StoredCopy:
    """A file in the folder ``alerts`` of the log volume.

    Args:
        directory: of the volume.
        policy: namespace and name.
    """
    name = f"state.{policy.replace('/', '.')}.json"

    def load() -> bytes | None:
        with open_folder(directory, _FOLDER) as folder:
            try:
                descriptor = os.open(name, os.O_RDONLY | _SAFE_OPEN, dir_fd=folder)
            except FileNotFoundError:
                return None
        with open(descriptor, "rb") as file:
            return file.read(_MAX_FILE_BYTES)

    def save(state: AlertState) -> None:
        new = f"{name}.{os.getpid()}.new"
        with open_folder(directory, _FOLDER) as folder:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=folder)  # left by a run that was killed, or somebody's symlink
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE_OPEN, 0o640, dir_fd=folder)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(state.to_text())
            os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)

    return StoredCopy(load, save)
