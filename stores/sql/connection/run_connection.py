"""The one connection a run works on. It holds the exclusive lock: when the connection is lost, so is the lock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from policy.spec import Retry
from stores.model.calls import Store, calling
from stores.model.errors import DatabaseUnavailableError, LockHeldError, LockLostError
from stores.sql.connection.connect import is_connection_lost, is_transient, translate
from stores.sql.dialects import Dialect, dialect_of
from stores.sql.dialects.lock import Lock, NoLock
from stores.waiting.clock import RunClock
from stores.waiting.retry import Retrier

T = TypeVar("T")

_LONGEST_PAUSE_SECONDS = 0.1


class RunConnection:
    """The database connection of a run. When it is lost it is opened again, and takes its lock again.

    Args:
        engine: where to connect.
        retry: how often and after which pause a connection is tried again.
        clock: of the run.
        log: of the run.
    """

    def __init__(self, engine: sa.Engine, retry: Retry, clock: RunClock, log: Any) -> None:
        self._engine = engine
        # After a reconnect, the lock may still be held by our old connection, until the server knows that it is gone.
        self._retrier = Retrier(retry, (DatabaseUnavailableError, LockLostError), clock, log, "database")
        self._clock = clock
        self._connection: sa.Connection | None = None
        self._lock: Lock = NoLock()
        self._concluding = False
        clock.when_overdue(self._cancel)

    @property
    def dialect(self) -> Dialect:
        """The kind of database."""
        return dialect_of(self._engine)

    def transaction(self, work: Callable[[sa.Connection], T], *, retry_transient: bool = True) -> T:
        """Runs work in one short transaction of its own.

        When the connection is lost, it is opened again, the lock is taken again, and work is called again: it must find
        out by itself whether its first attempt was committed.

        Args:
            work: what to do in the transaction.
            retry_transient: whether lock time-outs, deadlocks and the like count as an unreachable database, or are
                left to the caller, who has another patience for them.

        Raises:
            DatabaseUnavailableError: the database stays unreachable.
            LockLostError: meanwhile another run has taken the lock.
            sqlalchemy.exc.DBAPIError: the statement failed, but the connection is fine.
        """
        return self._retrier(lambda: self._timed(work, retry_transient))

    def inspect(self, work: Callable[[sa.Inspector], T]) -> T:
        """As :meth:`transaction`, with an inspector of the schema."""
        return self.transaction(lambda connection: work(sa.inspect(connection)))

    def lock(self, lock: Lock) -> None:
        """Takes the exclusive lock and keeps it until :meth:`close`.

        Raises:
            LockHeldError: another run holds it.
        """
        try:
            self.transaction(lock.acquire)
        except BaseException:
            lock.close()  # it may have been taken before whatever failed
            raise
        self._lock = lock

    def conclude(self) -> None:
        """From now on, no statement is cancelled: what is left to do is short, and must be done."""
        self._concluding = True

    def close(self) -> None:
        """Releases lock and connection; never raises."""
        self.conclude()
        connection, self._connection = self._connection, None
        if connection is not None:
            # A closed connection releases its lock on the server, even one that cannot say so any more.
            connection.invalidate()
            connection.close()
        self._lock.close()
        self._engine.dispose()

    def _timed(self, work: Callable[[sa.Connection], T], retry_transient: bool) -> T:
        with calling(Store.DATABASE):
            return self._attempt(work, retry_transient)

    def _attempt(self, work: Callable[[sa.Connection], T], retry_transient: bool) -> T:
        try:
            connection = self._connection or self._open()
            with connection.begin():
                begun = time.monotonic()
                self._lock.verify(connection)
                result = work(connection)
            if self.dialect.rests_after_transactions:
                time.sleep(min(time.monotonic() - begun, _LONGEST_PAUSE_SECONDS))
            return result
        except sa.exc.SQLAlchemyError as error:
            if self._connection is None:
                raise translate(error) from error
            if is_connection_lost(error):
                self._drop()
                raise translate(error) from error
            if is_transient(error):
                self._clock.checkpoint()  # cancelled because the run has to stop
            if retry_transient and is_transient(error):
                raise translate(error) from error
            raise

    def _cancel(self) -> bool:
        """Ends the statement that is running, from another thread; its transaction is rolled back.

        Returns whether there may be more to cancel.
        """
        if self._concluding:
            return False
        # What fails here fails because the statement, or the connection, has just ended by itself.
        with contextlib.suppress(Exception):
            connection = self._connection
            driver = connection.connection.driver_connection if connection and not connection.closed else None
            if driver is not None:
                self.dialect.cancel(self._engine, driver)
        return True

    def _open(self) -> sa.Connection:
        connection = self._engine.connect()
        try:
            with connection.begin():
                self._lock.acquire(connection)
        except LockHeldError as error:
            connection.close()
            raise LockLostError("the connection was lost, and another run has taken the lock meanwhile") from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
