"""The leader of several workers: it alone holds the lock, judges, runs the other steps and reports."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.initialise import Opened
from job.workers.part import work_on
from job.workers.plan import PARTS_PER_WORKER, POLL_SECONDS, fingerprint, why_alone
from policy.spec import SessionPolicySpec
from stores.model.errors import LockLostError, RunError, StopRequestedError
from stores.sql.connection.connect import translate
from stores.sql.removal.history import DeletionRecorder
from stores.sql.shared_work import ClaimLostError, RunTerms, Totals, WorkTable
from stores.sql.store import SessionDatabase


class Leader:
    """Shares the deletion of expired sessions with the workers that help.

    Args:
        table: where the parts are; it has been announced there that the run begins.
        opened: the stores of the run.
        records: what is written with each batch.
        spec: what the run obeys.
        log: of the run.
    """

    def __init__(
        self, table: WorkTable, opened: Opened, records: DeletionRecorder, spec: SessionPolicySpec, log: Any
    ) -> None:
        self._table = table
        self._database: SessionDatabase = opened.database
        self._connection = opened.connection
        self._records = records
        self._terms = RunTerms(opened.moment, fingerprint(spec, opened.settings))
        self._workers = spec.job.parallelism
        self._log = log
        self._closed = False

    def delete_expired(self, context: RunContext, found: int) -> int:
        """As :func:`job.steps.expired.delete_expired`, together with those who help.

        The counts are those of all workers, and exact: they were committed with the deletions.
        """
        key_ranges = self._database.partition(self._workers * PARTS_PER_WORKER)
        if found <= self._database.batch_size or len(key_ranges) == 1:
            self.dismiss()
            context.log.info("works alone", because="there is too little to share")
            return delete_expired(context, found)
        self._table.offer(self._terms, key_ranges)
        choice = self._database.strategy()
        context.log.info("strategy", chosen=choice.strategy.value, because=choice.because, **choice.figures())
        context.log.info("work shared", parts=len(key_ranges), workers=self._workers)
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
            "expired",
            found=tally.expired,
            deleted=tally.deleted,
            failed=tally.failed,
            keptByRedis=totals.kept,
            parts=totals.parts,
            workers=totals.workers,
        )
        return totals.kept

    def dismiss(self) -> None:
        """Lets those who help go, if there is nothing (more) to do for them; never raises."""
        if self._closed:
            return
        try:
            self._close()
        except (RunError, sa.exc.SQLAlchemyError) as error:
            # They go by themselves once the lock is free.
            self._log.warning("helpers not told", error=type(error).__name__)

    def _work(self, context: RunContext) -> None:
        while True:
            context.clock.checkpoint()
            claim = self._table.claim(self._terms) or self._table.take_over()
            if claim:
                work_on(context, self._table, self._records, claim)
            elif self._table.is_done():
                return
            else:
                context.clock.wait(POLL_SECONDS)

    def _close(self) -> Totals:
        totals = self._table.close()
        self._closed = True
        return totals


def prepare_to_lead(
    opened: Opened, spec: SessionPolicySpec, run_id: str, environment: Mapping[str, str], log: Any, *, dry_run: bool
) -> Leader | None:
    """The leader of a run that may be shared, announced to those who help; None for one that works alone."""
    reason = why_alone(spec, environment, dry_run=dry_run)
    if reason is None and opened.connection.dialect.presence("") is None:
        reason = "only PostgreSQL, MySQL and MariaDB can be shared"
    table = WorkTable(opened.connection, run_id, opened.lock, uuid4().hex, leads=True)
    try:
        if reason is None and not WorkTable.exists(opened.connection):
            reason = "there is no table session_work: run `session-policy init`"
        if reason is None:
            table.announce()
    except sa.exc.DBAPIError as error:
        reason = f"the table session_work cannot be used: {translate(error)}"
    if reason is None:
        return Leader(table, opened, opened.records, spec, log)
    if spec.job.parallelism > 1:
        log.info("works alone", because=reason)
    return None


def _add(context: RunContext, totals: Totals, found: int) -> None:
    """Puts what all workers did into the run's tally."""
    tally = context.tally
    behind = tally.remaining - tally.expired
    tally.expired = max(0, found - totals.kept)
    tally.deleted += totals.deleted
    tally.failed += totals.failed
    left = tally.expired - totals.deleted - totals.failed
    tally.remaining = behind + (max(0, left) if totals.unfinished else 0)
    tally.durations.sessions += totals.durations.sessions
    tally.durations.seconds += totals.durations.seconds
    tally.redis.deleted += totals.redis_deleted
