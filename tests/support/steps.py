"""A run's steps by themselves, on stores that a test has filled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from job.steps import abnormal, duplicates
from job.steps.assess import Counted, assess
from job.steps.concurrency import enforce_limit
from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.initialise import Opened, Urls, initialise
from job.steps.overview import Overview, look
from job.steps.progress import Silent
from job.steps.safety import Budget
from policy.manifest import SessionPolicy
from stores.model.tally import Tally
from stores.redis.content.access_log import AccessLogs
from stores.sql.queries import RuleQueries
from stores.waiting.clock import RunClock
from tests.support.runs import Log
from tests.support.session_stores import SessionStores


@dataclass
class Steps:
    """An opened run."""

    context: RunContext
    opened: Opened
    log: Log
    budget: Budget
    queries: RuleQueries
    logs: AccessLogs | None
    found: abnormal.Abnormal = field(default_factory=abnormal.Abnormal)

    @cached_property
    def overview(self) -> Overview:
        """As it is when it is first asked for."""
        return self.look()

    def look(self, *since: datetime) -> Overview:
        return look(self.context, self.queries, self.opened.max_sessions, since)

    @property
    def tally(self) -> Tally:
        return self.context.tally

    def clean(self) -> Tally:
        """The steps that delete, in their order."""
        owners = self.overview.owners
        self.found = abnormal.assess(self.context, self.queries, self.logs, owners.most)
        same = duplicates.assess(self.context, self.queries, owners.duplicates)
        evicting = owners.over_limit_apart if same else owners.over_limit
        counted = Counted(self.overview.census, owners.over_limit, evicting, self.found.due + same)
        found = assess(self.context, counted)
        kept = delete_expired(self.context, found.census.expired)
        self.tally.active = found.census.active + kept
        abnormal.step(self.context, self.queries, self.logs, self.found)
        duplicates.step(self.context, self.queries, same)
        enforce_limit(self.context, self.opened.max_sessions, found.evicting)
        return self.tally


@contextmanager
def steps(obeyed: SessionPolicy, stores: SessionStores, *, dry_run: bool = False) -> Iterator[Steps]:
    """Opens the stores as a run does."""
    clock, log = RunClock(600), Log()
    opened = initialise(obeyed.spec, Urls(stores.database_url, stores.redis_url), clock, log)
    try:
        logs = AccessLogs(opened.redis.server, opened.redis.names) if opened.redis else None
        budget = Budget(obeyed.spec.safety.max_deletions)
        context = RunContext(
            obeyed, dry_run, opened.database, opened.redis, clock, Tally(), Silent(), log, budget=budget
        )
        yield Steps(context, opened, log, budget, RuleQueries(opened.database), logs)
    finally:
        opened.connection.close()
        if opened.redis:
            opened.redis.close()
