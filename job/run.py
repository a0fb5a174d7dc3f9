"""One run of one policy: the steps in their order, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from job.alerts.problems import Problem, problems, report_alerts, too_many_failed
from job.logs.logs import SessionLog, safe_traceback
from job.steps import abnormal, active, duplicates, settings_verification, vitals
from job.steps.assess import Counted, assess, count
from job.steps.concurrency import enforce_limit
from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.initialise import Opened, Urls, initialise
from job.steps.overview import look
from job.steps.progress import Progress, Silent
from job.steps.safety import Budget
from job.steps.statistics import count_again, keep_statistics, tell_active
from job.steps.sync.sync import synchronise, tidy
from job.steps.vitals_thresholds import reported
from job.telemetry.trace import Trace, Untraced
from job.workers.lead import Leader, prepare_to_lead
from policy.manifest import SessionPolicy
from policy.names import REDIS_URL_ENV
from policy.report import Outcome, RunReport, printable
from stores.model.errors import ConfigurationError, LockHeldError, StopRequestedError
from stores.model.sessions import Sessions
from stores.model.tally import Tally
from stores.redis.content.access_log import AccessLogs
from stores.redis.primary.opening import open_redis
from stores.redis.store import RedisStore
from stores.sql.connection.connect import as_run_error
from stores.sql.connection.run_connection import RunConnection
from stores.sql.queries import RuleQueries
from stores.waiting.clock import RunClock
from stores.waiting.estimate import DeletingTime, in_words


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
        audit: the logs of single sessions; None for none.
        trace: is told of each step.
        environment: of the process: whether others help is told there.
        findings: what the steps have found that somebody should know.
        problems: what is worth an alert, once the run has ended.
    """

    policy: SessionPolicy
    urls: Urls
    run_id: str
    clock: RunClock
    log: Any
    dry_run: bool = False
    progress: Progress = field(default_factory=Silent)
    tally: Tally = field(default_factory=Tally)
    audit: SessionLog | None = None
    trace: Trace = field(default_factory=Untraced)
    environment: Mapping[str, str] = field(default_factory=dict)
    findings: list[Problem] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    _measured: vitals.Vitals = field(default_factory=vitals.Vitals)
    _deleting: DeletingTime = field(init=False)
    _concluded: RunReport | None = None
    _started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self._deleting = DeletingTime(self.clock)

    def execute(self) -> tuple[RunReport, int]:
        """Runs all steps. Returns the report and the exit code of the process; raises nothing."""
        dry_run = self.dry_run or self.policy.spec.dry_run
        self.log.info(
            "run started",
            policy=self.policy.metadata.name,
            namespace=self.policy.metadata.namespace,
            dryRun=dry_run,
        )
        report, exit_code = self._in_time(dry_run)
        self.problems = problems(report, self.policy.spec.alerts.thresholds, self.findings)
        report = report.model_copy(update={"alerts": report_alerts(self.problems)})
        self.log.info("run finished", **report.to_json_object())
        return report, exit_code

    def _in_time(self, dry_run: bool) -> tuple[RunReport, int]:
        """The steps, in a thread that is left behind if it hangs: whatever a store does, there is a report in time.

        A store may fall silent in the middle of an answer, or of a commit, and not even a connection that is cut may
        say so. Where the thread goes on after all, it stops before its next batch. The process ends soon.
        """
        ended = threading.Event()
        outcome: list[tuple[RunReport, int] | BaseException] = []

        def work() -> None:
            try:
                outcome.append(self._guarded(dry_run))
            except BaseException as error:  # raised again below, where it would have been without a thread
                outcome.append(error)
            finally:
                ended.set()

        threading.Thread(target=copy_context().run, args=(work,), name="run", daemon=True).start()
        if not self.clock.wait_for_end(ended):
            return self._left_behind(dry_run), 0
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _left_behind(self, dry_run: bool) -> RunReport:
        if self._concluded:  # all that was missing is its row of statistics
            self.log.warning("statistics not kept", because="the database did not answer in time")
            return self._concluded
        stopped = self.clock.why_to_stop() or "DeadlineReached"
        self.log.error("run left behind", reason=stopped, because="a store did not answer, nor let the run go")
        what = _summary(self.tally, dry_run)
        return self._report(Outcome.DEGRADED, stopped, f"{_STOPPED[stopped]}; a store did not answer: {what}", dry_run)

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
            failure = as_run_error(error)
            self.log.error("run failed", reason=failure.reason, message=str(failure), trace=safe_traceback(error))
            return self._report(Outcome.FAILED, failure.reason, str(failure), dry_run), failure.exit_code

    def _steps(self, dry_run: bool) -> RunReport:
        if self.policy.spec.stores.database is None:
            return self._steps_on_redis(dry_run)
        with self._step("initialise"):
            opened = initialise(self.policy.spec, self.urls, self.clock, self.log, audit=self.audit)
        try:
            return self._work(self._context(dry_run, opened.database, opened.redis), opened)
        finally:
            opened.connection.close()
            if opened.redis:
                opened.redis.close()

    def _steps_on_redis(self, dry_run: bool) -> RunReport:
        """The steps that Redis alone can do: it knows no statistics, and no rules but the timeouts and the limit."""
        spec = self.policy.spec
        if not self.urls.redis:
            raise ConfigurationError(f"the policy has stores.redis, but {REDIS_URL_ENV} is not set")
        with self._step("initialise"):
            opened = open_redis(spec, self.urls.redis, self.clock, self.log, self.audit)
        stopped: str | None = None
        would_refuse = False
        try:
            context = self._context(dry_run, opened.sessions, None)
            try:
                with self._step("vitals"):
                    self._measured = vitals.step_on_redis(context, opened.store.server)
                self.findings += self._measured.problems
                with self._step("assess"):
                    found = assess(context, count(context, spec.max_concurrent_sessions))
                would_refuse = found.would_refuse
                with self._deleting.running(), self._step("expired"):
                    kept = delete_expired(context, found.census.expired)
                    context.tally.active = found.census.active + kept
                with self._deleting.running(), self._step("concurrency"):
                    enforce_limit(context, spec.max_concurrent_sessions, found.evicting)
                with self._step("count"):
                    tell_active(context, opened.sessions.totals() if self.tally.deleted else found.census, kept)
                with self._step("tidy"):
                    tidy(context, opened.store)
            except StopRequestedError as stop:
                stopped = stop.reason
            context.tally.redis.deleted = context.tally.deleted
            return self._conclude(context, stopped, would_refuse)
        finally:
            opened.close()

    def _context(self, dry_run: bool, sessions: Sessions, redis: RedisStore | None) -> RunContext:
        return RunContext(
            policy=self.policy,
            dry_run=dry_run,
            database=sessions,
            redis=redis,
            clock=self.clock,
            tally=self.tally,
            progress=self.progress,
            log=self.log,
            budget=Budget(self.policy.spec.safety.max_deletions),
            audit=self.audit,
        )

    def _work(self, context: RunContext, opened: Opened) -> RunReport:
        statistics = opened.connection if opened.keeps_statistics else None
        seen = _Seen()
        stopped: str | None = None
        leader = prepare_to_lead(
            opened, self.policy.spec, self.run_id, self.environment, self.log, dry_run=context.dry_run
        )
        try:
            self._clean(context, opened, statistics, seen, leader)
        except StopRequestedError as stop:
            stopped = stop.reason
            opened.connection.conclude()
        finally:
            if leader:
                leader.dismiss()
        opened.connection.conclude()
        report = self._concluded = self._conclude(context, stopped, seen.would_refuse)
        if statistics and not context.dry_run:  # a dry run changes nothing at all
            with self._step("statistics"):
                keep_statistics(
                    context, statistics, self.run_id, seen.active_users, seen.created, report, self._started
                )
        return report

    def _clean(
        self, context: RunContext, opened: Opened, statistics: RunConnection | None, seen: _Seen, leader: Leader | None
    ) -> None:
        """The steps R2.2 to R2.9, in their order; what goes is counted first, and refused if it is too much."""
        queries = RuleQueries(opened.database)
        logs = AccessLogs(context.redis.server, context.redis.names) if context.redis else None

        with self._step("overview"):
            earlier = vitals.earlier_runs(context, statistics, self.run_id)
            overview = look(context, queries, opened.max_sessions, [run.started for run in earlier[:1]])
        owners = overview.owners
        # Before the run's own look-ups count in Redis, and before anything is deleted.
        with self._step("vitals"):
            self._measured = measured = vitals.step(context, earlier, overview)
        seen.created = measured.creation.sessions if measured.creation else None
        self.findings += measured.problems
        with self._step("assess abnormal"):
            suspected = abnormal.assess(context, queries, logs, owners.most)
        self.findings += suspected.problems()
        with self._step("assess"):
            same = duplicates.assess(context, queries, owners.duplicates)
            evicting = owners.over_limit_apart if same else owners.over_limit
            found = assess(context, Counted(overview.census, owners.over_limit, evicting, suspected.due + same))
        seen.active_users, seen.would_refuse = found.census.users, found.would_refuse

        with self._deleting.running(), self._step("expired"):
            delete = leader.delete_expired if leader else delete_expired
            kept = delete(context, found.census.expired)
            context.tally.active = found.census.active + kept
        with self._step("active"):
            active.step(context, queries, statistics, overview)
        # What a rule deletes goes before duplicates and the limit: a revoked session must not cost its user a good one.
        with self._deleting.running(), self._step("abnormal"):
            by_rules = abnormal.step(context, queries, logs, suspected)
        with self._deleting.running(), self._step("duplicates"):
            duplicates.step(context, queries, same)
        with self._deleting.running(), self._step("concurrency"):
            enforce_limit(context, opened.max_sessions, found.evicting)
        with self._step("count"):
            left = count_again(context, queries, found.census, users_gone=by_rules > 0)
            seen.active_users = tell_active(context, left, kept)
        if context.redis:
            with self._step("sync"):
                synchronise(context)
        with self._step("settings"):
            self.findings += settings_verification.problems(
                settings_verification.step(context, queries, opened.settings)
            )

    def _step(self, name: str) -> AbstractContextManager[None]:
        return self.trace.step(name, self.tally)

    def _conclude(self, context: RunContext, stopped: str | None, would_refuse: bool) -> RunReport:
        tally, thresholds = self.tally, context.spec.alerts.thresholds
        what = _summary(tally, context.dry_run)
        if would_refuse:
            what += "; a run would refuse to delete so many, see safety.maxDeletePercent"
        if stopped:
            return self._report(Outcome.DEGRADED, stopped, f"{_STOPPED[stopped]}: {what}", context.dry_run)
        if too_many_failed(tally.counts(), thresholds):
            return self._report(
                Outcome.DEGRADED,
                "DeletionsFailed",
                f"more than {thresholds.failed_percent} % of the deletions failed: {what}",
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
        left = self._deleting.seconds_for(self.tally.remaining, self.tally.deleted)
        if left is not None:
            message += f"; {in_words(left)} of deleting remain{'s' if left == 1 else ''}"
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
            estimated_seconds_remaining=left,
            vitals=reported(self._measured.redis, self._measured.creation, self.tally.durations.average_seconds),
        )


@dataclass(slots=True)
class _Seen:
    """What later steps have to know of earlier ones."""

    active_users: int = 0
    created: int | None = None
    would_refuse: bool = False


_STOPPED = {
    "DeadlineReached": "the time limit was reached; the next run goes on",
    "Interrupted": "the run was told to stop; the next run goes on",
}


def _summary(tally: Tally, dry_run: bool) -> str:
    if dry_run:
        return f"dry run: {tally.expired:,} expired and {tally.over_limit:,} over the limit; nothing was changed"
    parts = [f"{tally.deleted:,} deleted ({tally.expired:,} expired, {tally.evicted:,} over the limit)"]
    further = (
        (tally.duplicate, "duplicates found"),
        (tally.abnormal, "abnormal found"),
        (tally.redis.orphaned, "orphaned Redis sessions"),
        (tally.failed, "failed"),
        (tally.remaining, "remaining"),
    )
    parts += [f"{count:,} {what}" for count, what in further if count]
    return ", ".join(parts) + f", {tally.active:,} active"
