"""One run of one policy: the steps in their order, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from job.alerts.problems import Problem, problems, report_alerts
from job.logs.run_logs import HashedSessionLog, safe_traceback
from job.steps.abnormal import AbnormalSessions, find_abnormal_sessions, handle_abnormal_sessions
from job.steps.active import report_usage
from job.steps.assess import Forecast, check_deletion_share, forecast_by_store
from job.steps.conclusion import STOPPED_MESSAGES, Conclusion, conclude, summary
from job.steps.concurrency import enforce_limit
from job.steps.context import RunContext
from job.steps.duplicates import count_due_duplicates, delete_duplicates
from job.steps.expired import delete_expired
from job.steps.initialise import RunStores, Urls, initialise
from job.steps.measurements import Measurements, measure, measure_redis, previous_runs
from job.steps.overview import Overview, count_sessions
from job.steps.progress import NoProgress, Progress
from job.steps.safety import DeletionLimit
from job.steps.settings_verification import settings_problems, verify_settings
from job.steps.statistics import count_after_deletions, report_active, save_run_statistics
from job.steps.sync.sync import synchronise, tidy
from job.steps.thresholds import vitals_of_report
from job.telemetry.trace import NoTrace, Trace
from job.workers.leader import Leader, prepare_leader
from policy.manifest import SessionPolicy
from policy.names import REDIS_URL_ENV
from policy.report import Outcome, RunReport, printable
from stores.model.errors import ConfigurationError, LockHeldError, StopRequestedError
from stores.model.sessions import Sessions
from stores.model.tally import Tally
from stores.redis.content.access_log import AccessLogs
from stores.redis.redis_only.opening import OpenedRedis, open_redis
from stores.redis.store import RedisStore
from stores.sql.connection.connect import as_run_error
from stores.sql.connection.run_connection import RunConnection
from stores.sql.duplicates import DuplicateQueries
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
        dry_run: change nothing, whatever the policy says.
        progress: for people at a terminal.
        audit: the logs of single sessions; None for none.
        trace: records each step.
        environment: of the process; says whether other workers take part.
        findings: problems that the steps have found.
        problems: all that is worth an alert, once the run has ended.
    """

    policy: SessionPolicy
    urls: Urls
    run_id: str
    clock: RunClock
    log: Any
    dry_run: bool = False
    progress: Progress = field(default_factory=NoProgress)
    tally: Tally = field(default_factory=Tally)
    audit: HashedSessionLog | None = None
    trace: Trace = field(default_factory=NoTrace)
    environment: Mapping[str, str] = field(default_factory=dict)
    findings: list[Problem] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    _measured: Measurements = field(default_factory=Measurements)
    _active_users: int = 0
    _would_refuse: bool = False
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
        """Runs the steps in a thread, which is abandoned if it hangs: whatever a store does, there is a report in time.

        A store may stop answering in the middle of a reply, or of a commit, and even closing the connection may not
        end that. Should the thread continue after all, it stops before its next batch. The process ends soon.
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
            return self._abandon(dry_run), 0
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _abandon(self, dry_run: bool) -> RunReport:
        if self._concluded:  # all that was missing is its row of statistics
            self.log.warning("statistics not saved", because="the database did not answer in time")
            return self._concluded
        reason = self.clock.why_to_stop() or "DeadlineReached"
        self.log.error("run abandoned", reason=reason, because="a store did not answer")
        message = f"{STOPPED_MESSAGES[reason]}; a store did not answer: {summary(self.tally, dry_run)}"
        return self._report(Conclusion(Outcome.DEGRADED, reason, message), dry_run)

    def _guarded(self, dry_run: bool) -> tuple[RunReport, int]:
        """R2.11: whatever happens ends in a report that says so."""
        exit_code = 0
        try:
            if self.policy.spec.stores.database is None:
                return self._run_on_redis(dry_run), exit_code
            return self._run_on_database(dry_run), exit_code
        except LockHeldError:
            message = "another run holds the lock on this session table; nothing was done"
            conclusion = Conclusion(Outcome.SKIPPED, "LockHeld", message)
        except StopRequestedError as stop:
            # Before the first batch; later ones are handled where the counts are known.
            conclusion = Conclusion(Outcome.DEGRADED, stop.reason, STOPPED_MESSAGES[stop.reason])
        except Exception as error:
            failure = as_run_error(error)
            self.log.error("run failed", reason=failure.reason, message=str(failure), trace=safe_traceback(error))
            conclusion, exit_code = Conclusion(Outcome.FAILED, failure.reason, str(failure)), failure.exit_code
        return self._report(conclusion, dry_run), exit_code

    # --- with a database -----------------------------------------------------------------------------------------

    def _run_on_database(self, dry_run: bool) -> RunReport:
        with self._step("initialise"):
            stores = initialise(self.policy.spec, self.urls, self.clock, self.log, audit=self.audit)
        with closing(stores):
            context = self._context(dry_run, stores.database, stores.redis)
            leader = prepare_leader(
                stores, self.policy.spec, self.run_id, self.environment, self.log, dry_run=context.dry_run
            )
            stopped: str | None = None
            try:
                self._run_steps(context, stores, leader)
            except StopRequestedError as stop:
                stopped = stop.reason
                stores.connection.conclude()
            finally:
                if leader:
                    leader.dismiss_workers()
            stores.connection.conclude()
            report = self._concluded = self._conclude(context, stopped)
            if stores.keeps_statistics and not context.dry_run:  # a dry run changes nothing at all
                with self._step("statistics"):
                    self._save_statistics(context, stores.connection, report)
            return report

    def _run_steps(self, context: RunContext, stores: RunStores, leader: Leader | None) -> None:
        """R2.2 to R2.9, in their order; what goes is counted first, and refused if it is too much."""
        queries = RuleQueries(stores.database)
        logs = AccessLogs(context.redis.server, context.redis.names) if context.redis else None
        assessed = self._assess(context, stores, queries, logs)
        kept_by_redis, by_rules = self._delete(context, stores, queries, logs, assessed, leader)
        with self._step("count"):
            left = count_after_deletions(context, queries, assessed.forecast.totals, users_gone=by_rules > 0)
            self._active_users = report_active(context, left, kept_by_redis)
        if context.redis:
            with self._step("sync"):
                synchronise(context)
        with self._step("settings"):
            self.findings += settings_problems(verify_settings(context, queries, stores.settings))

    def _assess(
        self, context: RunContext, stores: RunStores, queries: RuleQueries, logs: AccessLogs | None
    ) -> _Assessed:
        statistics = stores.connection if stores.keeps_statistics else None
        with self._step("overview"):
            previous = previous_runs(context, statistics, self.run_id)
            overview = count_sessions(context, queries, stores.max_sessions, [run.started for run in previous[:1]])
        owners = overview.owners
        # Before the run's own look-ups count in Redis, and before anything is deleted.
        with self._step("vitals"):
            self._measured = measure(context, previous, overview)
        self.findings += self._measured.problems
        with self._step("assess abnormal"):
            abnormal = find_abnormal_sessions(context, queries, logs, owners.most)
        self.findings += abnormal.problems()
        with self._step("assess"):
            same = count_due_duplicates(context, DuplicateQueries(stores.database), owners.duplicates)
            evicting = owners.over_limit_apart if same else owners.over_limit
            forecast = Forecast(overview.totals, owners.over_limit, evicting, abnormal.due, same)
            self._would_refuse = check_deletion_share(context, forecast)
        self._active_users = forecast.totals.users
        return _Assessed(overview, abnormal, forecast)

    def _delete(
        self,
        context: RunContext,
        stores: RunStores,
        queries: RuleQueries,
        logs: AccessLogs | None,
        assessed: _Assessed,
        leader: Leader | None,
    ) -> tuple[int, int]:
        """Returns how many expired sessions Redis saw in use, and how many live ones went by rules."""
        forecast = assessed.forecast
        with self._deleting.running(), self._step("expired"):
            delete = leader.delete_expired if leader else delete_expired
            kept_by_redis = delete(context, forecast.totals.expired)
            context.tally.active = forecast.totals.active + kept_by_redis
        with self._step("active"):
            report_usage(context, queries, stores.connection if stores.keeps_statistics else None, assessed.overview)
        # What a rule deletes goes before duplicates and the limit: a revoked session must not cost its user a good one.
        with self._deleting.running(), self._step("abnormal"):
            by_rules = handle_abnormal_sessions(context, queries, logs, assessed.abnormal)
        with self._deleting.running(), self._step("duplicates"):
            delete_duplicates(context, DuplicateQueries(stores.database), forecast.duplicates)
        with self._deleting.running(), self._step("concurrency"):
            enforce_limit(context, stores.max_sessions)
        return kept_by_redis, by_rules

    def _save_statistics(self, context: RunContext, connection: RunConnection, report: RunReport) -> None:
        creation = self._measured.creation
        save_run_statistics(
            context,
            connection,
            self.run_id,
            self._active_users,
            creation.sessions if creation else None,
            report,
            self._started,
        )

    # --- with Redis alone ----------------------------------------------------------------------------------------

    def _run_on_redis(self, dry_run: bool) -> RunReport:
        """The steps that Redis alone can do: it knows no statistics, and no rules but the timeouts and the limit."""
        if not self.urls.redis:
            raise ConfigurationError(f"the policy has stores.redis, but {REDIS_URL_ENV} is not set")
        with self._step("initialise"):
            stores = open_redis(self.policy.spec, self.urls.redis, self.clock, self.log, self.audit)
        with closing(stores):
            context = self._context(dry_run, stores.sessions, None)
            stopped: str | None = None
            try:
                self._run_redis_steps(context, stores)
            except StopRequestedError as stop:
                stopped = stop.reason
            context.tally.redis.deleted = context.tally.deleted
            return self._conclude(context, stopped)

    def _run_redis_steps(self, context: RunContext, stores: OpenedRedis) -> None:
        limit = self.policy.spec.max_concurrent_sessions
        with self._step("vitals"):
            self._measured = measure_redis(context, stores.store.server)
        self.findings += self._measured.problems
        with self._step("assess"):
            forecast = forecast_by_store(context, limit)
            self._would_refuse = check_deletion_share(context, forecast)
        with self._deleting.running(), self._step("expired"):
            kept = delete_expired(context, forecast.totals.expired)
            context.tally.active = forecast.totals.active + kept
        with self._deleting.running(), self._step("concurrency"):
            enforce_limit(context, limit)
        with self._step("count"):
            report_active(context, stores.sessions.totals() if self.tally.deleted else forecast.totals, kept)
        with self._step("tidy"):
            tidy(context, stores.store)

    # --- what both have in common --------------------------------------------------------------------------------

    def _context(self, dry_run: bool, sessions: Sessions, redis: RedisStore | None) -> RunContext:
        return RunContext(
            policy=self.policy,
            dry_run=dry_run,
            sessions=sessions,
            redis=redis,
            clock=self.clock,
            tally=self.tally,
            progress=self.progress,
            log=self.log,
            deletion_limit=DeletionLimit(self.policy.spec.safety.max_deletions),
            audit=self.audit,
        )

    def _step(self, name: str) -> AbstractContextManager[None]:
        return self.trace.step(name, self.tally)

    def _conclude(self, context: RunContext, stopped: str | None) -> RunReport:
        conclusion = conclude(
            self.tally,
            context.spec.alerts.thresholds,
            dry_run=context.dry_run,
            stopped=stopped,
            limit_reached=context.deletion_limit.reached,
            would_refuse=self._would_refuse,
        )
        return self._report(conclusion, context.dry_run)

    def _report(self, conclusion: Conclusion, dry_run: bool) -> RunReport:
        message = conclusion.message
        left = self._deleting.seconds_for(self.tally.remaining, self.tally.deleted)
        if left is not None:
            message += f"; {in_words(left)} of deleting remain{'s' if left == 1 else ''}"
        return RunReport(
            outcome=conclusion.outcome,
            reason=conclusion.reason,
            message=printable(message),
            start_time=self._started,
            completion_time=datetime.now(UTC),
            duration_seconds=round(self.clock.elapsed_seconds, 3),
            dry_run=dry_run,
            policy_generation=self.policy.metadata.generation,
            sessions=self.tally.counts(),
            redis=self.tally.redis.counts() if self.policy.spec.stores.redis else None,
            estimated_seconds_remaining=left,
            vitals=vitals_of_report(
                self._measured.redis, self._measured.creation, self.tally.durations.average_seconds
            ),
        )


@dataclass(frozen=True, slots=True)
class _Assessed:
    """What was found before anything is deleted.

    Attributes:
        overview: counts of the whole table.
        abnormal: live sessions that rules apply to.
        forecast: how many each step is going to delete.
    """

    overview: Overview
    abnormal: AbnormalSessions
    forecast: Forecast
