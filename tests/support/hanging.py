"""A run that is out of time as soon as its database hangs: however long the machine takes until then, and no later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from stores.waiting.clock import RunClock
from tests.support.kube import eventually

_HANGS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event IN ('PgSleep', 'SyncRep')",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND state = 'User sleep'",
}


class UntilItHangs(RunClock):
    """Its deadline is the moment at which a statement sleeps, or a commit waits for a replica.

    Args:
        engine: to look with, from outside of the run.
        patience_seconds: how long the run may take from then on until it is given up.
    """

    def __init__(self, engine: sa.Engine, patience_seconds: float = 30) -> None:
        super().__init__(3600)
        self._patience = patience_seconds
        self._engine = engine

    def when_overdue(self, interrupt: Callable[[], bool]) -> None:
        """As its base, from that moment on."""

        def watch() -> None:
            eventually(self._hangs, what="a statement that hangs")
            self._deadline = time.monotonic()
            super(UntilItHangs, self).when_overdue(interrupt)

        threading.Thread(target=watch, daemon=True).start()

    def _hangs(self) -> bool:
        kind = "postgresql" if self._engine.dialect.name == "postgresql" else "mysql"
        with self._engine.connect() as connection:
            return bool(connection.exec_driver_sql(_HANGS[kind]).scalar())
