"""A worker that is not the leader: it claims ranges of the table, deletes what has expired there, and reports nothing.

Whatever happens to it, the run continues without it. So it never fails a run: its exit code is 0, or 1 where another
attempt may help, and never 2, which means a bad configuration and ends a Job at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from job.logs.run_logs import HashedSessionLog, safe_traceback
from job.steps.context import RunContext
from job.steps.initialise import RunStores, Urls, initialise
from job.steps.progress import NoProgress
from job.steps.safety import DeletionLimit
from job.workers.claimed_range import delete_claimed_range
from job.workers.parallelism import POLL_SECONDS, fingerprint, why_not_parallel
from policy.manifest import SessionPolicy
from stores.model.errors import ConfigurationError, StopRequestedError
from stores.model.tally import Tally
from stores.sql.connection.connect import as_run_error, create_engine, parse_url
from stores.sql.connection.run_connection import RunConnection
from stores.sql.shared_work import ClaimLostError, LeaderGoneError, RunState, RunTerms, WorkTable
from stores.waiting.clock import RunClock

# What a leader may need to be scheduled and started, on a node that has to pull the image, or again after it died.
_LEADER_PATIENCE_SECONDS = 120.0

_NO_WORK = "there is nothing to do, or nothing left"


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker that is not the leader.

    Attributes:
        policy: what it obeys.
        urls: where the stores are.
        run_id: of the run that it takes part in.
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
    audit: HashedSessionLog | None = None

    def execute(self, environment: Mapping[str, str]) -> int:
        """Works until there is nothing to do any more. Returns the exit code of the process; raises nothing."""
        reason = why_not_parallel(self.policy.spec, environment, dry_run=self.dry_run)
        try:
            because = reason or self._take_part()
        except StopRequestedError as stop:
            because = stop.reason
        except Exception as error:
            failure = as_run_error(error)
            failed = {"reason": failure.reason, "message": str(failure), "trace": safe_traceback(error)}
            self.log.error("worker failed", **failed)
            # The leader finds the same, and reports it.
            return 0 if isinstance(failure, ConfigurationError) else 1
        self.log.info("worker finished", because=because)
        return 0

    def _take_part(self) -> str:
        """Returns why there is nothing more to do."""
        while True:
            ending, terms = self._await_terms()
            if terms is None:
                return ending
            with suppress(LeaderGoneError):  # it may come back, or a new attempt may begin
                return self._work_for(terms)

    def _await_terms(self) -> tuple[str, RunTerms | None]:
        """Waits until the leader offers ranges to claim; without any, returns why there is nothing to wait for."""
        spec, url = self.policy.spec, parse_url(self.urls.database or "")
        wanted = spec.stores.database.session_table if spec.stores.database else None
        assert wanted is not None
        connection = RunConnection(create_engine(url), spec.retries.database, self.clock, self.log)
        try:
            if connection.dialect.presence("") is None or not WorkTable.exists(connection):
                return "parallelism is disabled: the table session_work is missing", None
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
                elif self.clock.elapsed_seconds > led_at + _LEADER_PATIENCE_SECONDS:
                    return "there is no leader", None
                self.clock.wait(POLL_SECONDS)
        finally:
            connection.close()

    def _work_for(self, terms: RunTerms) -> str:
        """Claims ranges until there are none. Returns why there is nothing more to do."""
        stores = initialise(
            self.policy.spec, self.urls, self.clock, self.log, exclusive=False, audit=self.audit, at=terms.moment
        )
        try:
            if fingerprint(self.policy.spec, stores.settings) != terms.fingerprint:
                return "the stored settings have changed since the leader read them"
            return self._work(stores, terms)
        finally:
            stores.close()

    def _work(self, stores: RunStores, terms: RunTerms) -> str:
        name = uuid4().hex
        presence = stores.connection.dialect.presence(name)
        assert presence is not None
        stores.connection.lock(presence)
        table = WorkTable(stores.connection, self.run_id, stores.lock, name, leads=False)
        context = RunContext(
            policy=self.policy,
            dry_run=False,
            sessions=stores.database,
            redis=stores.redis,
            clock=self.clock,
            tally=Tally(),
            progress=NoProgress(),
            log=self.log,
            deletion_limit=DeletionLimit(),
            audit=self.audit,
        )
        while True:
            self.clock.checkpoint()
            claim = table.claim(terms)
            if claim:
                try:
                    delete_claimed_range(context, table, stores.records, claim)
                except ClaimLostError:
                    self.log.warning("claim lost", part=claim.number, because="another worker has taken it over")
                continue
            run = table.observe()
            if run.state is RunState.CLOSED:
                return _NO_WORK
            if not run.is_led or run.terms != terms:
                raise LeaderGoneError
            self.clock.wait(POLL_SECONDS)
