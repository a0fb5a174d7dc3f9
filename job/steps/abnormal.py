"""R2.6, R4.3 to R4.5: sessions that break the policy's rules are found, and handled as each rule says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from job.alerts.problems import Audience, Problem
from job.steps.context import RunContext
from job.steps.deletion import LiveSessionDeletion
from job.steps.suspects import Search, Suspect
from policy.rules import RuleAction, RuleType, SessionRule
from stores.model.batches import batches
from stores.model.sessions import Cause, Session
from stores.redis.content.access_log import AccessLogs
from stores.rules.defaults import count, min_bits
from stores.rules.facts import Bursts, Survey
from stores.rules.ownerless import has_owner
from stores.rules.table import MOST_ENTRIES, Need, missing_needs
from stores.rules.weak_id import judge_ids
from stores.sql.queries import RuleQueries

_SAMPLE = 1000
# Beyond so many users, the sessions of one may be counted twice: it only makes the safety share stricter.
_MOST_USERS = 100_000
_USERS_AT_ONCE = 500
# Of more suspects than so many the ids are not held in memory: they are looked for again.
_MOST_REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class Abnormal:
    """What was found before anything was deleted.

    Attributes:
        rules: the policy's rules that can be judged.
        survey: what was learnt of all sessions.
        offset: how far the database's clock is ahead of this process's.
        found: how many sessions each rule type applies to; a session may break several.
        due: how many sessions are to go.
        suspected: the sessions for whose sake they are to go; None where they are too many to be remembered.
    """

    rules: tuple[SessionRule, ...] = ()
    survey: Survey = field(default_factory=Survey)
    offset: timedelta = timedelta(0)
    found: Mapping[RuleType, int] = field(default_factory=dict)
    due: int = 0
    suspected: Sequence[Any] | None = ()

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
    sample = queries.newest_ids(_SAMPLE) if any(rule.type is RuleType.WEAK_ID for rule in rules) else []
    survey = _survey(context, queries, rules, skew, [str(i) for i in sample], most_per_user)
    abnormal = Abnormal(rules, survey, queries.clock_offset())
    context.progress.start("Abnormal sessions")
    found: Counter[RuleType] = Counter()
    users: set[Any] = set()
    due = 0
    suspected: list[Any] | None = []
    for suspects in suspects_of(context, queries, logs, abnormal):
        _tell(context, suspects)
        context.tally.abnormal += len(suspects)
        found.update(kind for s in suspects for kind in {rule.type for rule in s.rules})
        due += sum(map(_is_alone, suspects))
        suspected = _remembered(suspected, suspects)
        for some in batches(_owners(suspects) - users, _USERS_AT_ONCE):
            due += queries.count_of_users(some)
            users.update(some[: max(0, _MOST_USERS - len(users))])
    context.progress.finish(f"{context.tally.abnormal} found")
    context.log.info("abnormal", found=context.tally.abnormal, byRule={k.value: n for k, n in sorted(found.items())})
    return replace(abnormal, found=dict(found), due=due, suspected=suspected)


def _remembered(before: list[Any] | None, suspects: Iterable[Suspect]) -> list[Any] | None:
    """The sessions that something is to be done about, with those of before; None when they are too many."""
    if before is None:
        return None
    before += [s.session.id for s in suspects if s.deciding.action is not RuleAction.REPORT]
    return before if len(before) <= _MOST_REMEMBERED else None


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
        abnormal: what :func:`assess` has found; its ``due`` is part of ``tally.due``.

    Raises:
        StopRequestedError: the run has to stop; what was not reached remains in ``tally.due``.
    """
    deleting = tuple(rule for rule in abnormal.rules if rule.action is not RuleAction.REPORT)
    if context.dry_run or not abnormal.due or not deleting:
        return 0
    context.progress.start("Abnormal sessions", abnormal.due)
    removal = _RuleDeletion(context, queries, abnormal)
    search = _search(context, queries, logs, abnormal, deleting)
    known = abnormal.suspected
    for suspects in search.everywhere() if known is None else search.among(known):
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


def suspects_of(
    context: RunContext, queries: RuleQueries, logs: AccessLogs | None, abnormal: Abnormal
) -> Iterator[list[Suspect]]:
    """The sessions that :func:`assess` counts, a batch at a time, for whoever wants to see some of them."""
    return _search(context, queries, logs, abnormal, abnormal.rules).everywhere()


def _search(
    context: RunContext,
    queries: RuleQueries,
    logs: AccessLogs | None,
    abnormal: Abnormal,
    rules: Sequence[SessionRule],
) -> Search:
    return Search(context, queries, logs, abnormal.survey, abnormal.offset, rules)


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


# --- before -----------------------------------------------------------------------------------------------------------


def _judgeable(context: RunContext, queries: RuleQueries, logs: AccessLogs | None) -> tuple[SessionRule, ...]:
    met = queries.met | ({Need.ACCESS_LOG} if logs and logs.exist else frozenset())
    judgeable: list[SessionRule] = []
    for rule in context.spec.session_rules:
        if missing := missing_needs(rule, met):
            context.log.info("rule skipped", rule=rule.type.value, because=f"not mapped: {', '.join(missing)}")
            continue
        if rule.type is RuleType.REQUEST_BURST and count(rule) >= MOST_ENTRIES:
            context.log.warning(
                "rule skipped",
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


# --- deleting --------------------------------------------------------------------------------------------------------


class _RuleDeletion(LiveSessionDeletion):
    """Deletes what rules apply to."""

    def __init__(self, context: RunContext, queries: RuleQueries, abnormal: Abnormal) -> None:
        super().__init__(context, Cause.ABNORMAL)
        self._queries = queries
        self._abnormal = abnormal

    def of_sessions(self, rule: SessionRule, sessions: Sequence[Session]) -> None:
        """Deletes sessions that a rule applies to."""
        allowed = self.allowed(sessions)
        now = self._abnormal.now()
        self.count(sessions, allowed, self._queries.delete_matching(allowed, rule, self._abnormal.survey, now))

    def of_users(self, users: Sequence[Any]) -> None:
        """Deletes all sessions of users. One that a user begins from now on is a new login, and stays."""
        now = self._abnormal.now()
        for page in self._queries.pages_of_users(users, now):
            self._context.clock.checkpoint()
            allowed = self.allowed(page)
            self.count(page, allowed, self._queries.delete_of_users(allowed, users, now))
