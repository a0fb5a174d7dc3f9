"""Finds what a run would do, without the lock and without changing anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from job.revocation.open_stores import OpenStores
from job.steps.abnormal import find_abnormal_sessions, mapped_fields, rule_matches
from job.steps.context import RunContext
from job.steps.duplicates import count_due_duplicates
from job.steps.expired import expired_batches
from job.steps.initialise import RunStores
from job.steps.overview import count_sessions
from job.steps.progress import NoProgress
from job.steps.safety import share_exceeded
from job.steps.sync.sync import synchronise
from policy.rules import RuleAction
from policy.spec import DuplicateAction
from stores.model.sessions import Session, SessionTotals
from stores.model.strategy import Choice
from stores.model.tally import Tally
from stores.redis.content.access_log import AccessLogs
from stores.rules.table import missing_fields
from stores.sql.duplicates import DuplicateQueries
from stores.sql.owners import Owners
from stores.sql.queries import RuleQueries

_MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """What a run would do by one rule.

    Attributes:
        rule: name of the rule.
        action: what happens to the sessions it finds.
        found: how many sessions (or keys) it finds; None if it cannot be evaluated.
        examples: some of them.
        note: why it cannot be evaluated, or what else to know.
    """

    rule: str
    action: str
    found: int | None
    examples: list[Session] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        sessions: number of sessions.
        deleting: number that would be deleted; a session may count twice, by a rule and as a duplicate.
        actions: by rule, in the order of the run's steps.
        refusal: why a run would refuse to delete so many; None if it would not.
        choice: how it would find expired sessions, and why.
    """

    sessions: int
    deleting: int
    actions: list[PlannedAction]
    refusal: str | None
    choice: Choice


def make_plan(stores: OpenStores, opened: RunStores, log: Any) -> Plan:
    """What a run of the policy would do now.

    Args:
        stores: of the policy, without the lock.
        opened: its database.
        log: for warnings.

    Raises:
        RunError: a store cannot be reached.
        StopRequestedError: the time limit was reached.
    """
    context = RunContext(
        policy=stores.policy,
        dry_run=True,
        sessions=opened.database,
        redis=opened.redis,
        clock=stores.clock,
        tally=Tally(),
        progress=NoProgress(),
        log=log,
    )
    queries = RuleQueries(opened.database)
    logs = AccessLogs(opened.redis.server, opened.redis.names) if opened.redis else None
    overview = count_sessions(context, queries, opened.max_sessions)
    census = overview.totals
    expired = _expired(context, census)
    over_limit = _over_limit(context, opened, overview.owners)
    duplicated = _duplicates(context, DuplicateQueries(opened.database), overview.owners)
    rules, abnormal_due = _rules(context, queries, logs, overview.owners)
    deleting = (
        sum(action.found or 0 for action in (expired, over_limit, duplicated) if action.action != RuleAction.REPORT)
        + abnormal_due
    )
    if RuleAction.REPORT not in (over_limit.action, duplicated.action):
        # Duplicates are deleted first, which usually leaves fewer over the limit.
        deleting -= overview.owners.over_limit - overview.owners.over_limit_apart
    return Plan(
        sessions=census.total,
        deleting=deleting,
        actions=[expired, duplicated, over_limit, *rules, *_sync(context)],
        refusal=share_exceeded(deleting, census.total, context.spec.safety),
        choice=opened.database.strategy(),
    )


def _expired(context: RunContext, census: SessionTotals) -> PlannedAction:
    found, examples = _count_with_examples(batch.due for batch in expired_batches(context))
    kept = census.expired - found
    note = f"{kept} more are kept: Redis has a later access" if kept > 0 else ""
    return PlannedAction("Expired", "Delete", found, examples, note)


def _over_limit(context: RunContext, opened: RunStores, owners: Owners) -> PlannedAction:
    policy, limit = context.spec.concurrency, opened.max_sessions
    if not limit or opened.database.table.user_id is None:
        note = "no limit is set" if not limit else "not mapped: columns.userId"
        return PlannedAction("ConcurrencyLimit", policy.on_exceed.value, None, note=note)
    pages = opened.database.over_limit_pages(limit, policy.on_exceed, policy.exempt_users)
    found = owners.over_limit
    first = next(iter(pages), []) if found else []
    note = f"more than {limit} sessions per user, or than a stored setting allows"
    return PlannedAction("ConcurrencyLimit", policy.on_exceed.value, found, first[:_MAX_EXAMPLES], note)


def _duplicates(context: RunContext, queries: DuplicateQueries, owners: Owners) -> PlannedAction:
    action = context.spec.duplicates.action
    if not queries.are_known:
        return PlannedAction("Duplicates", action.value, None, note="not mapped: columns.userId and columns.client")
    due = count_due_duplicates(context, queries, owners.duplicates)
    first = next(iter(queries.pages()), []) if queries.newest_is_known and context.tally.duplicate else []
    counted = action is DuplicateAction.KEEP_NEWEST and not due and context.tally.duplicate > 0
    shown = DuplicateAction.REPORT if counted else action
    return PlannedAction(
        "Duplicates",
        shown.value,
        context.tally.duplicate,
        first[:_MAX_EXAMPLES],
        "KeepNewest needs columns.createdAt" if counted else "",
    )


def _rules(
    context: RunContext, queries: RuleQueries, logs: AccessLogs | None, owners: Owners
) -> tuple[list[PlannedAction], int]:
    assessed = find_abnormal_sessions(context, queries, logs, owners.most)
    examples: defaultdict[Any, list[Session]] = defaultdict(list)
    wanted = {kind: min(_MAX_EXAMPLES, number) for kind, number in assessed.found.items() if number}
    for page in rule_matches(context, queries, logs, assessed) if wanted else ():
        for match in page:
            for kind in {rule.type for rule in match.rules}:
                if len(examples[kind]) < _MAX_EXAMPLES:
                    examples[kind].append(match.session)
        if all(len(examples[kind]) >= most for kind, most in wanted.items()):
            break
    mapped = mapped_fields(queries, has_access_logs=bool(logs and logs.exist))
    actions = []
    for rule in context.spec.session_rules:
        if rule in assessed.rules:
            action = PlannedAction(
                rule.type.value, rule.action.value, assessed.found.get(rule.type, 0), examples[rule.type]
            )
        else:
            missing = missing_fields(rule, mapped)
            note = f"not mapped: {', '.join(missing)}" if missing else "cannot be evaluated"
            action = PlannedAction(rule.type.value, rule.action.value, None, note=note)
        if rule.action is RuleAction.LOGOUT_EVERYWHERE and action.found:
            action = replace(action, note="and all other sessions of their users")
        actions.append(action)
    return actions, assessed.due


def _sync(context: RunContext) -> list[PlannedAction]:
    if context.redis is None:
        return []
    synchronise(context)
    counts = context.tally.redis
    missing = context.spec.sync.on_missing_redis_session.value
    return [
        PlannedAction("RedisWithoutRow", "Delete", counts.orphaned, note="session keys without a row"),
        PlannedAction("RowWithoutRedis", missing, counts.missing, note="live rows without a session key"),
    ]


def _count_with_examples(pages: Iterable[Sequence[Session]]) -> tuple[int, list[Session]]:
    found, examples = 0, list[Session]()
    for page in pages:
        found += len(page)
        examples += page[: _MAX_EXAMPLES - len(examples)]
    return found, examples
