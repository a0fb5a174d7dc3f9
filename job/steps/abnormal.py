"""R2.6, R4.3 to R4.5: sessions that break the policy's rules are found, and handled as each rule says."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.alerts.problems import Audience, Problem
from job.context import RunContext
from job.database.queries import RuleQueries
from job.redisstore.access_log import AccessLogs
from job.redisstore.batches import batches
from job.rules.defaults import count, min_bits
from job.rules.facts import Facts, Survey
from job.rules.login_burst import Bursts
from job.rules.ownerless import has_owner
from job.rules.table import KINDS, MOST_ENTRIES, Need, entries_wanted, gravest, matching, missing_needs
from job.rules.weak_id import judge_ids
from job.sessions import Session
from job.steps.removal import Removal
from policy.rules import RuleAction, RuleType, SessionRule

_SAMPLE = 1000
# Beyond so many users, the sessions of one may be counted twice: it only makes the safety share stricter.
_MOST_USERS = 100_000
_USERS_AT_ONCE = 500
# Reading the access log of every session may take long. So much of the run's time it may have, each time.
_LOGS_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Suspect:
    """A session that some rules apply to.

    Attributes:
        session: its row.
        rules: the rules.
    """

    session: Session
    rules: Sequence[SessionRule]

    @property
    def deciding(self) -> SessionRule:
        """The rule whose action is taken."""
        return gravest(self.rules)


@dataclass(frozen=True, slots=True)
class Abnormal:
    """What was found before anything was deleted.

    Attributes:
        rules: the policy's rules that can be judged.
        survey: what was learnt of all sessions.
        start: id after which access logs are read first, another one in each run: where there are more than a run has
            time for, no session is left out for ever.
        offset: how far the database's clock is ahead of this process's.
        found: how many sessions each rule type applies to; a session may break several.
        due: how many sessions are to go.
    """

    rules: tuple[SessionRule, ...] = ()
    survey: Survey = field(default_factory=Survey)
    start: Any = None
    offset: timedelta = timedelta(0)
    found: Mapping[RuleType, int] = field(default_factory=dict)
    due: int = 0

    def problems(self) -> list[Problem]:
        """What security is told: one problem for each rule type that found something."""
        return [
            Problem(
                reason=kind.value,
                audience=Audience.SECURITY,
                message=f"{sessions} session{'' if sessions == 1 else 's'} found by rule {kind}",
                count=sessions,
            )
            for kind, sessions in self.found.items()
        ]

    def now(self) -> datetime:
        """The time by the database's clock."""
        return datetime.now(UTC) + self.offset


def assess(context: RunContext, queries: RuleQueries, logs: AccessLogs | None, most_per_user: int) -> Abnormal:
    """Judges all live sessions, before anything is deleted, and counts them in ``tally.abnormal``.

    Args:
        context: the run.
        queries: of the session table.
        logs: the access logs; None without Redis.
        most_per_user: the most live sessions that one user has.

    Raises:
        StopRequestedError: the run has to stop.
        RedisUnavailableError, DatabaseUnavailableError: a store cannot be reached.
    """
    rules = _judgeable(context, queries, logs)
    skew = timedelta(seconds=context.spec.safety.clock_skew_seconds)
    looks_at_ids = any(rule.type is RuleType.WEAK_ID or KINDS[rule.type].reads_log for rule in rules)
    sample = queries.newest_ids(_SAMPLE) if looks_at_ids else []
    survey = _survey(context, queries, rules, skew, [str(i) for i in sample], most_per_user)
    start = secrets.choice(sample) if sample else None
    abnormal = Abnormal(rules, survey, start, queries.clock_offset())
    context.progress.start("Abnormal sessions")
    found: Counter[RuleType] = Counter()
    users: set[Any] = set()
    due = 0
    for suspects in _scan(context, queries, logs, abnormal, rules):
        _tell(context, suspects)
        context.tally.abnormal += len(suspects)
        found.update(kind for s in suspects for kind in {rule.type for rule in s.rules})
        due += sum(map(_is_alone, suspects))
        for some in batches(_owners(suspects) - users, _USERS_AT_ONCE):
            due += queries.count_of_users(some)
            users.update(some[: max(0, _MOST_USERS - len(users))])
    context.progress.finish(f"{context.tally.abnormal} found")
    context.log.info("abnormal", found=context.tally.abnormal, byRule={k.value: n for k, n in sorted(found.items())})
    return replace(abnormal, found=dict(found), due=due)


def _tell(context: RunContext, suspects: Sequence[Suspect]) -> None:
    """Writes the alert log: a line for each session and each rule that applies to it."""
    if context.audit is None:
        return
    by_rule: dict[SessionRule, list[Session]] = {}
    for suspect in suspects:
        for rule in suspect.rules:
            by_rule.setdefault(rule, []).append(suspect.session)
    for rule, sessions in by_rule.items():
        context.audit.abnormal(sessions, rule.type.value, rule.action.value)


def step(context: RunContext, queries: RuleQueries, logs: AccessLogs | None, abnormal: Abnormal) -> int:
    """Deletes the sessions that a rule says should go. Each is judged anew, and again in the statement that deletes it.

    Returns how many were deleted.

    Args:
        context: the run.
        queries: of the session table.
        logs: the access logs; None without Redis.
        abnormal: what :func:`assess` has found; its ``due`` is part of ``tally.remaining``.

    Raises:
        StopRequestedError: the run has to stop; what was not reached stays in ``tally.remaining``.
    """
    deleting = tuple(rule for rule in abnormal.rules if rule.action is not RuleAction.REPORT)
    if context.dry_run or not abnormal.due or not deleting:
        return 0
    context.progress.start("Abnormal sessions", abnormal.due)
    removal = _Removal(context, queries, abnormal)
    for suspects in _scan(context, queries, logs, abnormal, deleting):
        context.clock.checkpoint()
        by_rule: dict[SessionRule, list[Session]] = {}
        for suspect in suspects:
            if _is_alone(suspect):
                by_rule.setdefault(suspect.deciding, []).append(suspect.session)
        for rule, sessions in by_rule.items():
            removal.of_sessions(rule, sessions)
        now = abnormal.now()
        for some in batches(_owners(suspects), _USERS_AT_ONCE):
            removal.of_users(some)
        # What has a beginning in the future is taken for a new login, unless it is itself what is wrong.
        for suspect in filter(_logs_out, suspects):
            if suspect.session.created_at is not None and suspect.session.created_at >= now:
                removal.of_sessions(suspect.deciding, [suspect.session])
    removal.finish()
    context.progress.finish(f"{removal.deleted} deleted")
    context.log.info("abnormal sessions deleted", deleted=removal.deleted)
    return removal.deleted


def suspects(
    context: RunContext, queries: RuleQueries, logs: AccessLogs | None, abnormal: Abnormal
) -> Iterator[list[Suspect]]:
    """The sessions that :func:`assess` has counted, a batch at a time, for whoever wants to see some of them."""
    yield from _scan(context, queries, logs, abnormal, abnormal.rules)


def _is_alone(suspect: Suspect) -> bool:
    """Whether the session itself is all that goes: so says the rule, or there is no user to log out everywhere."""
    action = suspect.deciding.action
    return action is RuleAction.DELETE or (action is not RuleAction.REPORT and not has_owner(suspect.session))


def _logs_out(suspect: Suspect) -> bool:
    """Whether its user is to be logged out everywhere."""
    return suspect.deciding.action is RuleAction.LOGOUT_EVERYWHERE and has_owner(suspect.session)


def _owners(suspects: Iterable[Suspect]) -> set[Any]:
    """The users to log out everywhere."""
    return {s.session.user_id for s in suspects if _logs_out(s)}


# --- finding ---------------------------------------------------------------------------------------------------------


def _judgeable(context: RunContext, queries: RuleQueries, logs: AccessLogs | None) -> tuple[SessionRule, ...]:
    met = queries.met | ({Need.ACCESS_LOG} if logs and logs.exist else frozenset())
    judgeable: list[SessionRule] = []
    for rule in context.spec.session_rules:
        if missing := missing_needs(rule, met):
            context.log.info("rule off", rule=rule.type.value, because=f"not mapped: {', '.join(missing)}")
            continue
        if rule.type is RuleType.REQUEST_BURST and count(rule) >= MOST_ENTRIES:
            context.log.warning(
                "rule off",
                rule=rule.type.value,
                because=f"rules.count is {count(rule)}; only the newest {MOST_ENTRIES} accesses of a session are read",
            )
            continue
        judgeable.append(rule)
    return tuple(judgeable)


def _survey(
    context: RunContext,
    queries: RuleQueries,
    rules: Sequence[SessionRule],
    skew: timedelta,
    sample: Sequence[str],
    most_per_user: int,
) -> Survey:
    wanted = {min_bits(rule) for rule in rules if rule.type is RuleType.WEAK_ID}
    bursts: dict[SessionRule, Bursts] = {}
    for rule in rules:
        if rule.type is RuleType.LOGIN_BURST and most_per_user > count(rule):
            bursts[rule], incomplete = queries.login_bursts(rule)
            if incomplete:
                context.log.warning(
                    "rule incomplete", rule=rule.type.value, because="too many users to look at them all"
                )
    return Survey(skew, {bits: judge_ids(sample, bits) for bits in wanted}, bursts)


@dataclass(slots=True)
class _Unread:
    """The ranges of ids whose access logs were not read: after the first, up to the second; None for no bound."""

    ranges: list[tuple[Any, Any]]


def _scan(
    context: RunContext,
    queries: RuleQueries,
    logs: AccessLogs | None,
    abnormal: Abnormal,
    rules: Sequence[SessionRule],
) -> Iterator[list[Suspect]]:
    """The live sessions that any of the rules applies to, a batch at a time.

    For rules about access logs every live session has to be looked at. When that has taken its share of the run's time,
    the rest is judged by the other rules alone.
    """
    by_table = tuple(rule for rule in rules if not KINDS[rule.type].reads_log)
    unread = _Unread([(None, None)])
    if logs is not None and len(by_table) < len(rules):
        if abnormal.start is not None:
            unread = _Unread([(abnormal.start, None), (None, abnormal.start)])
        yield from _scan_logs(context, queries, logs, abnormal, rules, unread)
    if not by_table:
        return
    condition = sa.or_(*(queries.may_match(rule, abnormal.survey, abnormal.now()) for rule in by_table))
    for after_id, up_to_id in unread.ranges:
        # Most often there is nothing, and to count that is less work than to walk through all ids.
        context.clock.checkpoint()
        number = queries.count_facts(condition, after_id, up_to_id)
        for page in queries.fact_pages(condition, after_id, up_to_id, number) if number else ():
            yield _judge(context, abnormal, by_table, page)


def _scan_logs(
    context: RunContext,
    queries: RuleQueries,
    logs: AccessLogs,
    abnormal: Abnormal,
    rules: Sequence[SessionRule],
    unread: _Unread,
) -> Iterator[list[Suspect]]:
    """As far as the time allows; takes what it has read out of ``unread``."""
    entries = entries_wanted(rules)
    until = context.clock.elapsed_seconds + _LOGS_SHARE * context.spec.job.timeout_seconds
    while unread.ranges:
        after_id, up_to_id = unread.ranges[0]
        for page in queries.fact_pages(sa.true(), after_id, up_to_id):
            if context.clock.elapsed_seconds >= until:
                context.log.warning(
                    "rules incomplete",
                    because="there are more access logs than the run has time to read; the next run begins elsewhere",
                    remedy="raise job.timeoutSeconds",
                )
                return
            yield _judge(context, abnormal, rules, _with_accesses(page, logs, entries))
            unread.ranges[0] = (page[-1].session.id, up_to_id)
        del unread.ranges[0]


def _judge(
    context: RunContext, abnormal: Abnormal, rules: Sequence[SessionRule], page: Iterable[Facts]
) -> list[Suspect]:
    context.clock.checkpoint()
    suspects: list[Suspect] = []
    judged = 0
    for facts in page:
        judged += 1
        # The time after the row was read: a session used since the run began is not one from the future.
        if broken := matching(rules, facts, abnormal.survey, abnormal.now()):
            suspects.append(Suspect(facts.session, broken))
    context.progress.advance(judged)
    return suspects


def _with_accesses(page: Sequence[Facts], logs: AccessLogs, entries: int) -> Iterator[Facts]:
    by_key = {facts.session.key: facts for facts in page}
    for key, accesses in logs.read(by_key, entries):
        yield replace(by_key[key], accesses=accesses)


# --- deleting --------------------------------------------------------------------------------------------------------


class _Removal(Removal):
    """Deletes what rules apply to."""

    def __init__(self, context: RunContext, queries: RuleQueries, abnormal: Abnormal) -> None:
        super().__init__(context, abnormal.due)
        self._queries = queries
        self._abnormal = abnormal

    def of_sessions(self, rule: SessionRule, sessions: Sequence[Session]) -> None:
        """Deletes sessions that a rule applies to."""
        reached = self.reached(sessions)
        now = self._abnormal.now()
        self.count(sessions, reached, self._queries.delete_matching(reached, rule, self._abnormal.survey, now))

    def of_users(self, users: Sequence[Any]) -> None:
        """Deletes all sessions of users. One that a user begins from now on is a new login, and stays."""
        now = self._abnormal.now()
        for page in self._queries.pages_of_users(users, now):
            self._context.clock.checkpoint()
            reached = self.reached(page)
            self.count(page, reached, self._queries.delete_of_users(reached, users, now))
