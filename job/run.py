"""One run of one policy: the steps in their order, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from job.clock import RunClock
from job.context import RunContext
from job.database.connect import translate
from job.errors import LockHeldError, RunError, StopRequestedError
from job.logs import safe_traceback
from job.progress import Progress, Silent
from job.safety import Budget
from job.steps.assess import assess
from job.steps.concurrency import enforce_limit
from job.steps.expired import delete_expired
from job.steps.initialise import Opened, Urls, initialise
from job.steps.statistics import count_active, keep_statistics
from job.steps.sync import synchronise
from job.tally import Tally
from policy.manifest import SessionPolicy
from policy.report import Outcome, RunReport, printable


@dataclass(slots=True)
class Run:
    """A run and its counts.

    Attributes:
        policy: what it obeys.
        urls: where the stores are.
        run_id: names the run in the statistics: the Job's UID in a cluster, so that a retry replaces its row.
        clock: deadline and stop requests.
        log: structured log.
        dry_run: look, but change nothing, whatever the policy says.
        progress: for people at a terminal.
    """

    policy: SessionPolicy
    urls: Urls
    run_id: str
    clock: RunClock
    log: Any
    dry_run: bool = False
    progress: Progress = field(default_factory=Silent)
    tally: Tally = field(default_factory=Tally)
    _started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def execute(self) -> tuple[RunReport, int]:
        """Runs all steps. Returns the report and the exit code of the process; raises nothing."""
        dry_run = self.dry_run or self.policy.spec.dry_run
        self.log.info(
            "run started",
            policy=self.policy.metadata.name,
            namespace=self.policy.metadata.namespace,
            dryRun=dry_run,
        )
        report, exit_code = self._guarded(dry_run)
        self.log.info("run finished", **report.to_json_object())
        return report, exit_code

    def _guarded(self, dry_run: bool) -> tuple[RunReport, int]:
        """R2.11: whatever happens ends in a report that says so."""
        try:
            return self._steps(dry_run), 0
        except LockHeldError:
            return self._report(
                Outcome.SKIPPED,
                "LockHeld",
                "another run is at work on this session table; nothing was done",
                dry_run,
            ), 0
        except StopRequestedError as stop:
            # Before the first batch; later ones are handled where the counts are known.
            return self._report(Outcome.DEGRADED, stop.reason, _STOPPED[stop.reason], dry_run), 0
        except Exception as error:
            failure = _as_run_error(error)
            self.log.error("run failed", reason=failure.reason, message=str(failure), trace=safe_traceback(error))
            return self._report(Outcome.FAILED, failure.reason, str(failure), dry_run), failure.exit_code

    def _steps(self, dry_run: bool) -> RunReport:
        spec = self.policy.spec
        opened = initialise(spec, self.urls, self.clock, self.log)
        try:
            context = RunContext(
                policy=self.policy,
                dry_run=dry_run,
                database=opened.database,
                redis=opened.redis,
                clock=self.clock,
                tally=self.tally,
                progress=self.progress,
                log=self.log,
                budget=Budget(self.policy.spec.safety.max_deletions),
            )
            return self._work(context, opened)
        finally:
            opened.link.close()
            if opened.redis:
                opened.redis.close()

    def _work(self, context: RunContext, opened: Opened) -> RunReport:
        tally = self.tally
        found = assess(context, opened.cutoffs, opened.max_sessions)
        stopped: str | None = None
        active_users = found.census.users
        try:
            kept = delete_expired(context, found.census.expired, opened.cutoffs)
            tally.active = found.census.active + kept
            enforce_limit(context, opened.max_sessions)
            active_users = count_active(context, kept)
            if context.redis:
                synchronise(context)
        except StopRequestedError as stop:
            stopped = stop.reason
        opened.link.conclude()
        report = self._conclude(context, stopped, found.would_refuse)
        if opened.keeps_statistics and not context.dry_run:  # a dry run changes nothing at all
            keep_statistics(context, opened.link, self.run_id, active_users, report, self._started)
        return report

    def _conclude(self, context: RunContext, stopped: str | None, would_refuse: bool) -> RunReport:
        tally = self.tally
        what = _summary(tally, context.dry_run)
        if would_refuse:
            what += "; a run would refuse to delete so many, see safety.maxDeletePercent"
        if stopped:
            return self._report(Outcome.DEGRADED, stopped, f"{_STOPPED[stopped]}: {what}", context.dry_run)
        if tally.failed:
            return self._report(
                Outcome.DEGRADED,
                "DeletionsFailed",
                f"some sessions could not be deleted: {what}",
                context.dry_run,
            )
        if context.budget.exhausted:
            return self._report(
                Outcome.DEGRADED,
                "DeletionLimitReached",
                f"safety.maxDeletions was reached: {what}",
                context.dry_run,
            )
        return self._report(Outcome.SUCCEEDED, "DryRun" if context.dry_run else "Completed", what, context.dry_run)

    def _report(self, outcome: Outcome, reason: str, message: str, dry_run: bool) -> RunReport:
        return RunReport(
            outcome=outcome,
            reason=reason,
            message=printable(message),
            start_time=self._started,
            completion_time=datetime.now(UTC),
            duration_seconds=round(self.clock.elapsed_seconds, 3),
            dry_run=dry_run,
            policy_generation=self.policy.metadata.generation,
            sessions=self.tally.counts(),
            redis=self.tally.redis.counts() if self.policy.spec.stores.redis else None,
        )


_STOPPED = {
    "DeadlineReached": "the time limit was reached; the next run goes on",
    "Interrupted": "the run was told to stop; the next run goes on",
}


def _summary(tally: Tally, dry_run: bool) -> str:
    if dry_run:
        return f"dry run: {tally.expired:,} expired and {tally.over_limit:,} over the limit; nothing was changed"
    parts = [f"{tally.deleted:,} deleted ({tally.expired:,} expired, {tally.evicted:,} over the limit)"]
    further = (
        (tally.redis.orphaned, "orphaned Redis sessions"),
        (tally.failed, "failed"),
        (tally.remaining, "remaining"),
    )
    parts += [f"{count:,} {what}" for count, what in further if count]
    return ", ".join(parts) + f", {tally.active:,} active"


def _as_run_error(error: Exception) -> RunError:
    if isinstance(error, RunError):
        return error
    if isinstance(error, sa.exc.SQLAlchemyError):
        return translate(error)
    return RunError(f"unexpected {type(error).__name__}; the error log has the stack trace")
