"""A run's steps by themselves, on stores that a test has filled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from job.steps.abnormal import AbnormalSessions, find_abnormal_sessions, handle_abnormal_sessions
from job.steps.assess import Forecast, check_deletion_share
from job.steps.concurrency import enforce_limit
from job.steps.context import RunContext
from job.steps.duplicates import count_due_duplicates, delete_duplicates
from job.steps.expired import delete_expired
from job.steps.initialise import RunStores, Urls, initialise
from job.steps.overview import Overview, count_sessions
from job.steps.progress import NoProgress
from job.steps.safety import DeletionLimit
from policy.manifest import SessionPolicy
from stores.model.tally import Tally
from stores.redis.content.access_log import AccessLogs
from stores.sql.duplicates import DuplicateQueries
from stores.sql.queries import RuleQueries
from stores.waiting.clock import RunClock
from tests.support.runs import Log
from tests.support.session_stores import SessionStores


@dataclass
class Steps:
    """An opened run."""

    context: RunContext
    opened: RunStores
    log: Log
    deletion_limit: DeletionLimit
    queries: RuleQueries
    logs: AccessLogs | None
    found: AbnormalSessions = field(default_factory=AbnormalSessions)

    @property
    def duplicates(self) -> DuplicateQueries:
        return DuplicateQueries(self.opened.database)

    @cached_property
    def overview(self) -> Overview:
        """As it is when it is first asked for."""
        return self.look()

    def look(self, *since: datetime) -> Overview:
        return count_sessions(self.context, self.queries, self.opened.max_sessions, since)

    @property
    def tally(self) -> Tally:
        return self.context.tally

    def clean(self) -> Tally:
        """The steps that delete, in their order."""
        owners = self.overview.owners
        self.found = find_abnormal_sessions(self.context, self.queries, self.logs, owners.most)
        same = count_due_duplicates(self.context, self.duplicates, owners.duplicates)
        evicting = owners.over_limit_apart if same else owners.over_limit
        forecast = Forecast(self.overview.totals, owners.over_limit, evicting, self.found.due, same)
        check_deletion_share(self.context, forecast)
        kept = delete_expired(self.context, forecast.totals.expired)
        self.tally.active = forecast.totals.active + kept
        handle_abnormal_sessions(self.context, self.queries, self.logs, self.found)
        delete_duplicates(self.context, self.duplicates, same)
        enforce_limit(self.context, self.opened.max_sessions)
        return self.tally


@contextmanager
def steps(obeyed: SessionPolicy, stores: SessionStores, *, dry_run: bool = False) -> Iterator[Steps]:
    """Opens the stores as a run does."""
    clock, log = RunClock(600), Log()
    opened = initialise(obeyed.spec, Urls(stores.database_url, stores.redis_url), clock, log)
    try:
        logs = AccessLogs(opened.redis.server, opened.redis.names) if opened.redis else None
        deletion_limit = DeletionLimit(obeyed.spec.safety.max_deletions)
        context = RunContext(
            obeyed,
            dry_run,
            opened.database,
            opened.redis,
            clock,
            Tally(),
            NoProgress(),
            log,
            deletion_limit=deletion_limit,
        )
        yield Steps(context, opened, log, deletion_limit, RuleQueries(opened.database), logs)
    finally:
        opened.close()
