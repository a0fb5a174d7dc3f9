"""A worker that helps: it deletes expired sessions in the parts that the leader offers, and reports nothing.

Whatever happens to it, the run goes on without it. So it never fails a run: its exit code is 0, or 1 where another
attempt may help, and never the one that tells of a bad configuration, which ends a Job at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from job.logs.logs import SessionLog, safe_traceback
from job.steps.context import RunContext
from job.steps.initialise import Opened, Urls, initialise
from job.steps.progress import Silent
from job.steps.safety import Budget
from job.workers.part import work_on
from job.workers.plan import POLL_SECONDS, fingerprint, why_alone
from policy.manifest import SessionPolicy
from policy.presets import resolve_table
from stores.model.errors import ConfigurationError, StopRequestedError
from stores.model.tally import Tally
from stores.sql.connection.connect import as_run_error, create_engine, parse_url
from stores.sql.connection.run_connection import RunConnection
from stores.sql.shared_work import ClaimLostError, LeaderGoneError, RunState, RunTerms, WorkTable
from stores.waiting.clock import RunClock

# What a leader may need to be scheduled and started, on a node that has to pull the image, or again after it died.
_PATIENCE_SECONDS = 120.0

_NO_WORK = "there is nothing to share, or nothing left"


@dataclass(frozen=True, slots=True)
class Follower:
    """One worker that helps.

    Attributes:
        policy: what it obeys.
        urls: where the stores are.
        run_id: of the run that it helps.
        clock: deadline and stop requests.
        log: structured log.
        dry_run: as asked for on the command line.
        audit: the logs of single sessions; None for none.
    """

    policy: SessionPolicy
    urls: Urls
    run_id: str
    clock: RunClock
    log: Any
    dry_run: bool = False
    audit: SessionLog | None = None

    def execute(self, environment: Mapping[str, str]) -> int:
        """Helps until there is nothing to do any more. Returns the exit code of the process; raises nothing."""
        reason = why_alone(self.policy.spec, environment, dry_run=self.dry_run)
        try:
            because = reason or self._help()
        except StopRequestedError as stop:
            because = stop.reason
        except Exception as error:
            failure = as_run_error(error)
            told = {"reason": failure.reason, "message": str(failure), "trace": safe_traceback(error)}
            self.log.error("worker failed", **told)
            # The leader finds the same, and reports it.
            return 0 if isinstance(failure, ConfigurationError) else 1
        self.log.info("worker finished", because=because)
        return 0

    def _help(self) -> str:
        """Helps. Returns why it has ended."""
        while True:
            ending, terms = self._await_terms()
            if terms is None:
                return ending
            with suppress(LeaderGoneError):  # it may come back, or a new attempt may begin
                return self._help_with(terms)

    def _await_terms(self) -> tuple[str, RunTerms | None]:
        """What the leader goes by, as soon as it has said so; or why there is nothing to wait for."""
        spec, url = self.policy.spec, parse_url(self.urls.database or "")
        wanted = resolve_table(spec.stores.database) if spec.stores.database else None
        assert wanted is not None
        connection = RunConnection(create_engine(url), spec.retries.database, self.clock, self.log)
        try:
            if connection.dialect.presence("") is None or not WorkTable.exists(connection):
                return "the leader works alone: there is no table session_work", None
            lock = connection.dialect.lock(url.database, wanted.schema, wanted.name)
            table = WorkTable(connection, self.run_id, lock, "", leads=False)
            led_at = self.clock.elapsed_seconds
            while True:
                run = table.observe()
                if run.state is RunState.CLOSED:
                    return _NO_WORK, None
                if run.is_led:
                    led_at = self.clock.elapsed_seconds
                    if run.terms:
                        return "", run.terms
                elif self.clock.elapsed_seconds > led_at + _PATIENCE_SECONDS:
                    return "there is no leader", None
                self.clock.wait(POLL_SECONDS)
        finally:
            connection.close()

    def _help_with(self, terms: RunTerms) -> str:
        """Works on parts until there are none. Returns why it has ended."""
        opened = initialise(
            self.policy.spec, self.urls, self.clock, self.log, exclusive=False, audit=self.audit, at=terms.moment
        )
        try:
            if fingerprint(self.policy.spec, opened.settings) != terms.fingerprint:
                return "the stored settings are no longer those that the leader goes by"
            return self._work(opened, terms)
        finally:
            opened.connection.close()
            if opened.redis:
                opened.redis.close()

    def _work(self, opened: Opened, terms: RunTerms) -> str:
        name = uuid4().hex
        presence = opened.connection.dialect.presence(name)
        assert presence is not None
        opened.connection.lock(presence)
        table = WorkTable(opened.connection, self.run_id, opened.lock, name, leads=False)
        context = RunContext(
            policy=self.policy,
            dry_run=False,
            database=opened.database,
            redis=opened.redis,
            clock=self.clock,
            tally=Tally(),
            progress=Silent(),
            log=self.log,
            budget=Budget(),
            audit=self.audit,
        )
        while True:
            self.clock.checkpoint()
            claim = table.claim(terms)
            if claim:
                try:
                    work_on(context, table, opened.records, claim)
                except ClaimLostError:
                    self.log.warning("part lost", part=claim.number, because="somebody else has taken it over")
                continue
            run = table.observe()
            if run.state is RunState.CLOSED:
                return _NO_WORK
            if not run.is_led or run.terms != terms:
                raise LeaderGoneError
            self.clock.wait(POLL_SECONDS)
