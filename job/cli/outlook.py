"""What a run would do, found without the lock and without changing anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from job.revocation.stores import OpenStores
from job.steps import abnormal, duplicates
from job.steps.context import RunContext
from job.steps.expired import expired_batches
from job.steps.initialise import Opened
from job.steps.overview import look
from job.steps.progress import Silent
from job.steps.safety import share_refusal
from job.steps.sync.sync import synchronise
from policy.rules import RuleAction
from policy.spec import DuplicateAction
from stores.model.sessions import Session, SessionTotals
from stores.model.strategy import Choice
from stores.model.tally import Tally
from stores.redis.content.access_log import AccessLogs
from stores.rules.table import missing_needs
from stores.sql.owners import Owners
from stores.sql.queries import RuleQueries

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Line:
    """What a run would do by one rule.

    Attributes:
        rule: the rule.
        action: what happens to what it finds.
        found: how many sessions (or keys) it applies to; None where it cannot be judged.
        examples: some of them.
        note: why it cannot be judged, or what else to know.
    """

    rule: str
    action: str
    found: int | None
    examples: list[Session] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a run would do.

    Attributes:
        sessions: how many there are.
        deleting: how many would be deleted; one that a rule applies to may count twice, as a duplicate as well.
        lines: by rule, in the order of the run's steps.
        refusal: why a run would refuse to delete so many; None if it would not.
        choice: how it would find what has expired, and why.
    """

    sessions: int
    deleting: int
    lines: list[Line]
    refusal: str | None
    choice: Choice


def look_ahead(place: OpenStores, opened: Opened, log: Any) -> Outlook:
    """What a run of the policy would do now.

    Args:
        place: the policy's stores, without the lock.
        opened: its database.
        log: for warnings.

    Raises:
        RunError: a store cannot be reached.
        StopRequestedError: it takes too long.
    """
    context = RunContext(
        policy=place.policy,
        dry_run=True,
        database=opened.database,
        redis=opened.redis,
        clock=place.clock,
        tally=Tally(),
        progress=Silent(),
        log=log,
    )
    queries = RuleQueries(opened.database)
    logs = AccessLogs(opened.redis.server, opened.redis.names) if opened.redis else None
    overview = look(context, queries, opened.max_sessions)
    census = overview.census
    expired = _expired(context, census)
    over_limit = _over_limit(context, opened, overview.owners)
    alike = _duplicates(context, queries, overview.owners)
    rules, abnormal_due = _rules(context, queries, logs, overview.owners)
    deleting = (
        sum(line.found or 0 for line in (expired, over_limit, alike) if line.action != RuleAction.REPORT) + abnormal_due
    )
    if RuleAction.REPORT not in (over_limit.action, alike.action):
        # Duplicates go first; most often that leaves fewer over the limit.
        deleting -= overview.owners.over_limit - overview.owners.over_limit_apart
    return Outlook(
        sessions=census.total,
        deleting=deleting,
        lines=[expired, alike, over_limit, *rules, *_sync(context)],
        refusal=share_refusal(deleting, census.total, context.spec.safety),
        choice=opened.database.strategy(),
    )


def _expired(context: RunContext, census: SessionTotals) -> Line:
    found, examples = _count(batch.due for batch in expired_batches(context))
    kept = census.expired - found
    note = f"{kept} more are kept, for Redis has seen them in use" if kept > 0 else ""
    return Line("Expired", "Delete", found, examples, note)


def _over_limit(context: RunContext, opened: Opened, owners: Owners) -> Line:
    policy, limit = context.spec.concurrency, opened.max_sessions
    if not limit or opened.database.table.user_id is None:
        note = "there is no limit" if not limit else "not mapped: columns.userId"
        return Line("ConcurrencyLimit", policy.on_exceed.value, None, note=note)
    pages = opened.database.over_limit_pages(limit, policy.on_exceed, policy.exempt_users)
    found = owners.over_limit
    first = next(iter(pages), []) if found else []
    note = f"more than {limit} sessions of one user, or what a stored setting allows"
    return Line("ConcurrencyLimit", policy.on_exceed.value, found, first[:_EXAMPLES], note)


def _duplicates(context: RunContext, queries: RuleQueries, owners: Owners) -> Line:
    action = context.spec.duplicates.action
    if not queries.knows_duplicates:
        return Line("Duplicates", action.value, None, note="not mapped: columns.userId and columns.client")
    due = duplicates.assess(context, queries, owners.duplicates)
    first = next(iter(queries.duplicate_pages()), []) if queries.knows_newest and context.tally.duplicate else []
    counted = action is DuplicateAction.KEEP_NEWEST and not due and context.tally.duplicate > 0
    shown = DuplicateAction.REPORT if counted else action
    return Line(
        "Duplicates",
        shown.value,
        context.tally.duplicate,
        first[:_EXAMPLES],
        "KeepNewest needs columns.createdAt" if counted else "",
    )


def _rules(
    context: RunContext, queries: RuleQueries, logs: AccessLogs | None, owners: Owners
) -> tuple[list[Line], int]:
    assessed = abnormal.assess(context, queries, logs, owners.most)
    examples: defaultdict[Any, list[Session]] = defaultdict(list)
    wanted = {kind: min(_EXAMPLES, number) for kind, number in assessed.found.items() if number}
    for page in abnormal.suspects_of(context, queries, logs, assessed) if wanted else ():
        for suspect in page:
            for kind in {rule.type for rule in suspect.rules}:
                if len(examples[kind]) < _EXAMPLES:
                    examples[kind].append(suspect.session)
        if all(len(examples[kind]) >= most for kind, most in wanted.items()):
            break
    lines = []
    for rule in context.spec.session_rules:
        if rule in assessed.rules:
            line = Line(rule.type.value, rule.action.value, assessed.found.get(rule.type, 0), examples[rule.type])
        else:
            met = queries.met
            missing = [
                name for name in missing_needs(rule, met) if not (name.endswith("accessLog") and logs and logs.exist)
            ]
            note = f"not mapped: {', '.join(missing)}" if missing else "cannot be judged"
            line = Line(rule.type.value, rule.action.value, None, note=note)
        if rule.action is RuleAction.LOGOUT_EVERYWHERE and line.found:
            line = replace(line, note="and all other sessions of their users")
        lines.append(line)
    return lines, assessed.due


def _sync(context: RunContext) -> list[Line]:
    if context.redis is None:
        return []
    synchronise(context)
    counts = context.tally.redis
    missing = context.spec.sync.on_missing_redis_session.value
    return [
        Line("RedisWithoutRow", "Delete", counts.orphaned, note="session keys without a row"),
        Line("RowWithoutRedis", missing, counts.missing, note="live rows without a session key"),
    ]


def _count(pages: Iterable[Sequence[Session]]) -> tuple[int, list[Session]]:
    found, examples = 0, list[Session]()
    for page in pages:
        found += len(page)
        examples += page[: _EXAMPLES - len(examples)]
    return found, examples
