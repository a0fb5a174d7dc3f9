"""The servers that are measured on, with settings such as a small production server has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from tests.support.servers.mariadb import EmbeddedMariaDB

_POSTGRES = {
    "shared_buffers": "1GB",
    "effective_cache_size": "3GB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "8GB",
    # No checkpoint of its own choice in the middle of a measurement; each measurement begins just after one.
    "checkpoint_timeout": "30min",
}
# Its deadlocks and longer lock waits are found in the log.
_LOGGING = {
    "logging_collector": "on",
    "log_directory": "bench-log",
    "log_filename": "server.log",
    "log_line_prefix": "%m [%p] %d ",
    "log_lock_waits": "on",
    "deadlock_timeout": "100ms",
}
_MARIADB = {
    "innodb-buffer-pool-size": "1G",
    "innodb-log-file-size": "512M",
    "innodb-flush-log-at-trx-commit": "1",
    "innodb-flush-method": "O_DIRECT",
}

SETTINGS = (
    "PostgreSQL: shared_buffers 1 GB, max_wal_size 8 GB, fsync, full_page_writes and synchronous_commit on; autovacuum "
    "off where single statements are compared (they begin just after VACUUM ANALYZE and a checkpoint), on where whole "
    "runs are.",
    "MariaDB: InnoDB buffer pool 1 GB, log 512 MB, a flush at every commit, O_DIRECT; no binary log.",
    "Redis: one process, nothing saved to disk.",
)


def postgres(*, autovacuum: bool = True, logged: bool = False) -> EmbeddedPostgres:
    """A durable PostgreSQL.

    Args:
        autovacuum: off where it would come in the middle of one measurement and not of the next.
        logged: lock waits from 100 ms on go to :func:`log_of`.
    """
    settings = _POSTGRES | {"autovacuum": "on" if autovacuum else "off"} | (_LOGGING if logged else {})
    return EmbeddedPostgres(settings=settings, start_timeout_seconds=300)


def log_of(server: EmbeddedPostgres) -> str:
    """What a server that was started with ``logged`` has written."""
    return (server.data_dir / "bench-log" / "server.log").read_text(errors="replace")


def mariadb(directory: Path, settings: Mapping[str, str] | None = None) -> EmbeddedMariaDB:
    """A durable MariaDB with its data in a directory of the caller's."""
    return EmbeddedMariaDB(directory, settings=_MARIADB | dict(settings or {}), start_timeout_seconds=300)


def redis() -> EmbeddedRedis:
    """A stand-alone Redis."""
    return EmbeddedRedis()
