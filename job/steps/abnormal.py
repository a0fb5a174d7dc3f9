"""R2.6, R4.3 to R4.5: finds the sessions that the policy's rules apply to, and does what each rule says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from job.alerts.problems import Audience, Problem
from job.steps.context import RunContext
from job.steps.deletion import LiveSessionDeletion
from job.steps.rule_scan import RuleMatch, RuleScan
from policy.rules import RuleAction, RuleType, SessionRule
from stores.model.batches import batches
from stores.model.sessions import Cause, Session
from stores.redis.content.access_log import AccessLogs
from stores.rules.details import has_owner
from stores.rules.detector import Detector, RequiredField
from stores.rules.table import make_detector, missing_fields
from stores.sql.queries import RuleQueries

# Beyond so many users, the sessions of one may be counted twice: it only makes the safety share stricter.
_MOST_USERS = 100_000
_USERS_AT_ONCE = 500
# Of more matches than so many the ids are not held in memory: they are looked for again.
_MOST_REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class AbnormalSessions:
    """What was found before anything was deleted.

    Attributes:
        detectors: of the policy's rules that can be checked.
        offset: how far the database's clock is ahead of this process's.
        found: how many sessions each rule type applies to; a session may match several.
        due: how many sessions are to be deleted.
        ids: the sessions for whose sake they are; None where they are too many to be remembered.
    """

    detectors: tuple[Detector, ...] = ()
    offset: timedelta = timedelta(0)
    found: Mapping[RuleType, int] = field(default_factory=dict)
    due: int = 0
    ids: Sequence[Any] | None = ()

    @property
    def rules(self) -> list[SessionRule]:
        """The policy's rules that can be checked."""
        return [detector.rule for detector in self.detectors]

    def problems(self) -> list[Problem]:
        """The alerts for security: one for each rule type that found something."""
        return [
            Problem(
                reason=kind.value,
                audience=Audience.SECURITY,
                message=f"{sessions} session{'' if sessions == 1 else 's'} found by rule {kind}: "
                f"{'it' if sessions == 1 else 'each'} {kind.meaning}",
                count=sessions,
            )
            for kind, sessions in self.found.items()
        ]

    def now(self) -> datetime:
        """The time by the database's clock."""
        return datetime.now(UTC) + self.offset


def find_abnormal_sessions(
    context: RunContext, queries: RuleQueries, logs: AccessLogs | None, max_per_user: int
) -> AbnormalSessions:
    """Checks all live sessions, before anything is deleted, and counts the matches in ``tally.abnormal``.

    Args:
        context: the run.
        queries: of the session table.
        logs: the access logs; None without Redis.
        max_per_user: the most live sessions that one user has.

    Raises:
        StopRequestedError: the run has to stop.
        RedisUnavailableError, DatabaseUnavailableError: a store cannot be reached.
    """
    detectors = _usable_detectors(context, queries, logs)
    _prepare(context, queries, detectors, max_per_user)
    abnormal = AbnormalSessions(detectors, queries.clock_offset())
    context.progress.start("Abnormal sessions")
    found: Counter[RuleType] = Counter()
    users: set[Any] = set()
    due = 0
    ids: list[Any] | None = []
    for matches in rule_matches(context, queries, logs, abnormal):
        _log_matches(context, matches)
        context.tally.abnormal += len(matches)
        found.update(kind for match in matches for kind in {rule.type for rule in match.rules})
        due += sum(map(_deletes_session, matches))
        ids = _remembered(ids, matches)
        for some in batches(_users_to_log_out(matches) - users, _USERS_AT_ONCE):
            due += queries.count_of_users(some)
            users.update(some[: max(0, _MOST_USERS - len(users))])
    context.progress.finish(f"{context.tally.abnormal} found")
    context.log.info("abnormal", found=context.tally.abnormal, byRule={k.value: n for k, n in sorted(found.items())})
    return replace(abnormal, found=dict(found), due=due, ids=ids)


def _remembered(before: list[Any] | None, matches: Iterable[RuleMatch]) -> list[Any] | None:
    """The sessions that something is to be done about, with those of before; None when they are too many."""
    if before is None:
        return None
    before += [match.session.id for match in matches if match.deciding.rule.action is not RuleAction.REPORT]
    return before if len(before) <= _MOST_REMEMBERED else None


def _log_matches(context: RunContext, matches: Sequence[RuleMatch]) -> None:
    """Writes the alert log: a line for each session and each rule that applies to it."""
    if context.audit is None:
        return
    by_rule: dict[SessionRule, list[Session]] = {}
    for match in matches:
        for rule in match.rules:
            by_rule.setdefault(rule, []).append(match.session)
    for rule, sessions in by_rule.items():
        context.audit.abnormal(sessions, rule.type.value, rule.action.value)


def handle_abnormal_sessions(
    context: RunContext, queries: RuleQueries, logs: AccessLogs | None, abnormal: AbnormalSessions
) -> int:
    """Deletes what the rules' actions say. Each session is checked anew, and again in the statement that deletes it.

    Args:
        context: the run.
        queries: of the session table.
        logs: the access logs; None without Redis.
        abnormal: what :func:`find_abnormal_sessions` has found; its ``due`` is part of ``tally.due``.

    Returns:
        How many were deleted.

    Raises:
        StopRequestedError: the run has to stop; what was not reached remains in ``tally.due``.
    """
    deleting = [detector for detector in abnormal.detectors if detector.rule.action is not RuleAction.REPORT]
    if context.dry_run or not abnormal.due or not deleting:
        return 0
    context.progress.start("Abnormal sessions", abnormal.due)
    deletion = _RuleDeletion(context, queries, abnormal)
    scan = RuleScan(context, queries, logs, abnormal.offset, deleting)
    for matches in scan.all_sessions() if abnormal.ids is None else scan.some_sessions(abnormal.ids):
        context.clock.checkpoint()
        by_detector: dict[Detector, list[Session]] = {}
        for match in matches:
            if _deletes_session(match):
                by_detector.setdefault(match.deciding, []).append(match.session)
        for detector, sessions in by_detector.items():
            deletion.of_sessions(detector, sessions)
        now = abnormal.now()
        for some in batches(_users_to_log_out(matches), _USERS_AT_ONCE):
            deletion.of_users(some)
        # What has a beginning in the future is taken for a new login, unless it is itself what is wrong.
        for match in filter(_logs_user_out, matches):
            if match.session.created_at is not None and match.session.created_at >= now:
                deletion.of_sessions(match.deciding, [match.session])
    deletion.finish()
    context.progress.finish(f"{deletion.deleted} deleted")
    context.log.info("abnormal sessions deleted", deleted=deletion.deleted)
    return deletion.deleted


def rule_matches(
    context: RunContext, queries: RuleQueries, logs: AccessLogs | None, abnormal: AbnormalSessions
) -> Iterator[list[RuleMatch]]:
    """The sessions that :func:`find_abnormal_sessions` counts, a batch at a time, for whoever wants to see some."""
    return RuleScan(context, queries, logs, abnormal.offset, abnormal.detectors).all_sessions()


def _deletes_session(match: RuleMatch) -> bool:
    """Whether only the session itself is deleted: so says the rule, or there is no user to log out everywhere."""
    action = match.deciding.rule.action
    return action is RuleAction.DELETE or (action is not RuleAction.REPORT and not has_owner(match.session))


def _logs_user_out(match: RuleMatch) -> bool:
    """Whether the session's user is to be logged out everywhere."""
    return match.deciding.rule.action is RuleAction.LOGOUT_EVERYWHERE and has_owner(match.session)


def _users_to_log_out(matches: Iterable[RuleMatch]) -> set[Any]:
    """The users to log out everywhere."""
    return {match.session.user_id for match in matches if _logs_user_out(match)}


# --- before -----------------------------------------------------------------------------------------------------------


def mapped_fields(queries: RuleQueries, *, has_access_logs: bool) -> frozenset[RequiredField]:
    """What the policy maps of what rules require.

    Args:
        queries: of the session table.
        has_access_logs: whether the policy names access logs in Redis.
    """
    return queries.mapped | ({RequiredField.ACCESS_LOG} if has_access_logs else frozenset())


def _usable_detectors(context: RunContext, queries: RuleQueries, logs: AccessLogs | None) -> tuple[Detector, ...]:
    """Those of the policy's rules, without the ones that cannot find anything; the log says why."""
    mapped = mapped_fields(queries, has_access_logs=bool(logs and logs.exist))
    skew = timedelta(seconds=context.spec.safety.clock_skew_seconds)
    usable: list[Detector] = []
    for rule in context.spec.session_rules:
        if missing := missing_fields(rule, mapped):
            context.log.info("rule skipped", rule=rule.type.value, because=f"not mapped: {', '.join(missing)}")
            continue
        detector = make_detector(rule, skew)
        if detector.unusable:
            context.log.warning("rule skipped", rule=rule.type.value, because=detector.unusable)
            continue
        usable.append(detector)
    return tuple(usable)


def _prepare(context: RunContext, queries: RuleQueries, detectors: Iterable[Detector], max_per_user: int) -> None:
    for detector in detectors:
        detector.prepare(queries, max_per_user)
        if detector.incomplete:
            context.log.warning("rule incomplete", rule=detector.rule.type.value, because=detector.incomplete)


# --- deleting --------------------------------------------------------------------------------------------------------


class _RuleDeletion(LiveSessionDeletion):
    """Deletes what rules apply to."""

    def __init__(self, context: RunContext, queries: RuleQueries, abnormal: AbnormalSessions) -> None:
        super().__init__(context, Cause.ABNORMAL)
        self._queries = queries
        self._abnormal = abnormal

    def of_sessions(self, detector: Detector, sessions: Sequence[Session]) -> None:
        """Deletes sessions that a rule applies to."""
        allowed = self.allowed(sessions)
        condition = detector.sql_condition(self._queries.columns, self._abnormal.now())
        self.count(sessions, allowed, self._queries.delete_matching(allowed, condition))

    def of_users(self, users: Sequence[Any]) -> None:
        """Deletes all sessions of users. One that a user begins from now on is a new login, and stays."""
        now = self._abnormal.now()
        for page in self._queries.pages_of_users(users, now):
            self._context.clock.checkpoint()
            allowed = self.allowed(page)
            self.count(page, allowed, self._queries.delete_of_users(allowed, users, now))
