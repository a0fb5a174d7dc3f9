"""The leader of several workers: it alone holds the lock, runs the other steps and reports."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.initialise import RunStores
from job.workers.claimed_range import delete_claimed_range
from job.workers.parallelism import POLL_SECONDS, RANGES_PER_WORKER, fingerprint, why_not_parallel
from policy.spec import SessionPolicySpec
from stores.model.errors import LockLostError, RunError, StopRequestedError
from stores.model.sessions import Cause
from stores.sql.connection.connect import translate
from stores.sql.connection.run_connection import RunConnection
from stores.sql.shared_work import ClaimLostError, RunTerms, Totals, WorkTable
from stores.sql.store import SessionDatabase


class Leader:
    """Shares the deletion of expired sessions with the other workers.

    Args:
        table: where ranges of the session table are claimed; it has been announced there that the run begins.
        stores: of the run.
        spec: what the run obeys.
        log: of the run.
    """

    def __init__(self, table: WorkTable, stores: RunStores, spec: SessionPolicySpec, log: Any) -> None:
        self._table = table
        self._database: SessionDatabase = stores.database
        self._connection = stores.connection
        self._records = stores.records
        self._terms = RunTerms(stores.moment, fingerprint(spec, stores.settings))
        self._workers = spec.job.parallelism
        self._log = log
        self._closed = False

    def delete_expired(self, context: RunContext, found: int) -> int:
        """As :func:`job.steps.expired.delete_expired`, together with the other workers.

        The counts are those of all workers, and exact: they were committed with the deletions.
        """
        key_ranges = self._database.partition(self._workers * RANGES_PER_WORKER)
        if found <= self._database.batch_size or len(key_ranges) == 1:
            self.dismiss_workers()
            context.log.info("parallelism disabled", because="too few sessions have expired")
            return delete_expired(context, found)
        self._table.offer(self._terms, key_ranges)
        choice = self._database.strategy()
        context.log.info("strategy chosen", chosen=choice.strategy.value, because=choice.because, **choice.figures())
        context.log.info("parallelism enabled", parts=len(key_ranges), workers=self._workers)
        context.progress.start("Expired sessions", found)
        try:
            self._work(context)
        except StopRequestedError:
            self._connection.conclude()  # what is left is short, and must be done
            _add(context, self._close(), found)
            raise
        except ClaimLostError as error:
            raise LockLostError("another attempt at this run has begun") from error
        except BaseException:
            with contextlib.suppress(RunError, sa.exc.SQLAlchemyError):
                _add(context, self._close(), found)
            raise
        totals = self._close()
        _add(context, totals, found)
        tally = context.tally
        context.progress.finish(f"{tally.expired:,} found, {tally.deleted:,} deleted")
        context.log.info(
            "expired sessions",
            found=tally.expired,
            deleted=tally.deleted,
            failed=tally.failed,
            keptByRedis=totals.kept,
            parts=totals.parts,
            workers=totals.workers,
        )
        return totals.kept

    def dismiss_workers(self) -> None:
        """Tells the other workers that there is nothing (more) to do; never raises."""
        if self._closed:
            return
        try:
            self._close()
        except (RunError, sa.exc.SQLAlchemyError) as error:
            # They end by themselves once the lock is free.
            self._log.warning("workers not notified", error=type(error).__name__)

    def _work(self, context: RunContext) -> None:
        while True:
            context.clock.checkpoint()
            claim = self._table.claim(self._terms) or self._table.take_over()
            if claim:
                delete_claimed_range(context, self._table, self._records, claim)
            elif self._table.is_done():
                return
            else:
                context.clock.wait(POLL_SECONDS)

    def _close(self) -> Totals:
        totals = self._table.close()
        self._closed = True
        return totals


def prepare_leader(
    stores: RunStores, spec: SessionPolicySpec, run_id: str, environment: Mapping[str, str], log: Any, *, dry_run: bool
) -> Leader | None:
    """The leader of a run that other workers may share, announced to them; None for a run of one worker."""
    table = WorkTable(stores.connection, run_id, stores.lock, uuid4().hex, leads=True)
    reason = why_not_parallel(spec, environment, dry_run=dry_run) or _announce(stores.connection, table)
    if reason is None:
        return Leader(table, stores, spec, log)
    if spec.job.parallelism > 1:
        log.info("parallelism disabled", because=reason)
    return None


def _announce(connection: RunConnection, table: WorkTable) -> str | None:
    """Announces the run to the other workers. Returns why that cannot be done; None where it was."""
    if connection.dialect.presence("") is None:
        return "only PostgreSQL, MySQL and MariaDB support several workers"
    try:
        if not WorkTable.exists(connection):
            return "the table session_work is missing: run `session-policy init`"
        table.announce()
    except sa.exc.DBAPIError as error:
        return f"the table session_work cannot be used: {translate(error)}"
    return None


def _add(context: RunContext, totals: Totals, found: int) -> None:
    """Puts what all workers did into the run's tally."""
    tally = context.tally
    tally.expired = max(0, found - totals.kept)
    tally.deleted += totals.deleted
    tally.failed += totals.failed
    tally.due.expect(Cause.EXPIRED, found)
    tally.due.settle(Cause.EXPIRED, totals.kept + totals.deleted + totals.failed)
    if not totals.unfinished:
        tally.due.finish(Cause.EXPIRED)
    tally.durations.sessions += totals.durations.sessions
    tally.durations.seconds += totals.durations.seconds
    tally.redis.deleted += totals.redis_deleted
