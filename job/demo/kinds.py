"""What kind of session each is, judged in plain Python by what both stores hold: a second opinion on the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from itertools import combinations
from math import acos, cos, radians, sin

from job.demo.sessions import Access, Row, StoreContents
from policy.lifetime import resolve_lifetime
from policy.rules import RuleAction, RuleType
from policy.spec import DuplicateAction, OnExceed, OnMissingRedisSession, SessionPolicySpec
from stores.model.cutoffs import Cutoffs, cutoffs

# The rules' defaults; the demo's ids are written in hexadecimal digits.
_FAR_KILOMETRES, _SOON = 1000, timedelta(hours=1)
_WEAK_BITS, BITS_OF_DIGIT = 128, 4
_EARTH_RADIUS_KILOMETRES = 6371


class Kind(Enum):
    """Each session is of one kind; the order is that of the tables."""

    LIVE = "live"
    NEW_ADDRESS = "live, from a new IP address"
    WEAK_ID = "live, id below 128 bits"
    NO_TTL = "live, Redis key without a TTL"
    NOT_IN_REDIS = "live, Redis key lost"
    USED_SINCE = "live by Redis, idle by PostgreSQL"
    IDLE = "idle for too long"
    TOO_OLD = "past the absolute timeout"
    ENDED = "past the application's own expiry"
    DUPLICATE = "replaced on the same client"
    OVER_LIMIT = "over the limit per user"
    REVOKED = "revoked by the application"
    TRAVELLED = "used from places too far apart"
    LOGGED_OUT = "their users' other sessions"
    ORPHANED = "orphaned: in Redis only"


#: Kinds that a rule is about.
RULES = {
    Kind.REVOKED: RuleType.REVOKED,
    Kind.TRAVELLED: RuleType.IMPOSSIBLE_TRAVEL,
    Kind.NEW_ADDRESS: RuleType.ADDRESS_CHANGE,
    Kind.WEAK_ID: RuleType.WEAK_ID,
}
_BREAKS: Mapping[Kind, Callable[[Row, Sequence[Access]], object]] = {
    Kind.REVOKED: lambda row, _: row.revoked_at,
    Kind.TRAVELLED: lambda _, log: farthest_trip(log),
    Kind.NEW_ADDRESS: lambda row, log: log and log[0].address != row.address,
    Kind.WEAK_ID: lambda row, _: len(row.session_id) * BITS_OF_DIGIT < _WEAK_BITS,
}
_SEVERITY = (None, RuleAction.REPORT, RuleAction.DELETE, RuleAction.LOGOUT_EVERYWHERE)
_KEPT_FIRST: Mapping[OnExceed, Callable[[Row], float]] = {
    OnExceed.EVICT_LEAST_RECENTLY_USED: lambda row: -row.last_accessed_at.timestamp(),
    OnExceed.EVICT_OLDEST: lambda row: -row.created_at.timestamp(),
    OnExceed.EVICT_NEWEST: lambda row: row.created_at.timestamp(),
}


def classify(stores: StoreContents, spec: SessionPolicySpec) -> dict[str, Kind]:
    """The kind of every session in the stores, by session id."""
    limits = _cutoffs(stores, spec)
    kinds = {i: _kind_of_row(row, stores, limits) for i, row in stores.rows.items()}
    kinds |= dict.fromkeys(stores.keys.keys() - stores.rows.keys(), Kind.ORPHANED)
    logged_out: set[str] = set()
    for row in _live_rows(stores, spec):
        log = stores.logs.get(row.session_id, ())
        if broken := [kind for kind, breaks in _BREAKS.items() if breaks(row, log)]:
            kind = kinds[row.session_id] = max(broken, key=lambda kind: _SEVERITY.index(rule_action(kind, spec)))
            if rule_action(kind, spec) is RuleAction.LOGOUT_EVERYWHERE:
                logged_out.add(row.user_id)
    for session_id, row in stores.rows.items():
        if row.user_id in logged_out and stays(kinds[session_id], spec):
            kinds[session_id] = Kind.LOGGED_OUT
    kinds |= dict.fromkeys(newest_on_client(stores, spec), Kind.DUPLICATE)
    for rows in users_over_limit(stores, spec).values():
        kinds |= {row.session_id: Kind.OVER_LIMIT for row in rows[spec.max_concurrent_sessions :]}
    return kinds


def rule_action(kind: Kind, spec: SessionPolicySpec) -> RuleAction | None:
    """What the policy's rules do to sessions of this kind; None if no rule is about them."""
    actions = [rule.action for rule in spec.session_rules if rule.type is RULES.get(kind)]
    return max(actions, key=_SEVERITY.index, default=None)


def stays(kind: Kind, spec: SessionPolicySpec) -> bool:
    """Whether the policy keeps sessions of this kind."""
    if kind in RULES:
        return rule_action(kind, spec) in (None, RuleAction.REPORT)
    if kind is Kind.DUPLICATE:
        return spec.duplicates.action is DuplicateAction.REPORT
    if kind is Kind.NOT_IN_REDIS:
        return spec.sync.on_missing_redis_session is OnMissingRedisSession.REPORT
    return kind in (Kind.LIVE, Kind.NO_TTL, Kind.USED_SINCE)


def newest_on_client(stores: StoreContents, spec: SessionPolicySpec) -> dict[str, Row]:
    """The newest live session of the same user on the same client, by the id of each older one."""
    newest: dict[tuple[str, str], Row] = {}
    replaced: dict[str, Row] = {}
    for row in sorted(_live_rows(stores, spec), key=lambda row: (-row.created_at.timestamp(), row.session_id)):
        kept = newest.setdefault((row.user_id, row.client), row)
        if kept is not row:
            replaced[row.session_id] = kept
    return replaced


def users_over_limit(stores: StoreContents, spec: SessionPolicySpec) -> dict[str, list[Row]]:
    """The live sessions of each user who has to lose some; first those to keep."""
    limit, order = spec.max_concurrent_sessions, _KEPT_FIRST.get(spec.concurrency.on_exceed)
    if not limit or order is None:
        return {}
    # Duplicates that are deleted are gone before the limit is looked at.
    gone = {} if stays(Kind.DUPLICATE, spec) else newest_on_client(stores, spec)
    by_user: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(_live_rows(stores, spec), key=lambda row: (order(row), row.session_id)):
        if row.session_id not in gone and row.user_id not in spec.concurrency.exempt_users:
            by_user[row.user_id].append(row)
    return {user: rows for user, rows in by_user.items() if len(rows) > limit}


def farthest_trip(log: Sequence[Access]) -> tuple[float, timedelta] | None:
    """The longest way, in kilometres, that nobody can have made between two accesses, and how long it took."""
    trips = [(_kilometres(one, other), abs(one.at - other.at)) for one, other in combinations(log, 2)]
    return max((trip for trip in trips if trip[0] > _FAR_KILOMETRES and trip[1] <= _SOON), default=None)


def _kind_of_row(row: Row, stores: StoreContents, limits: Cutoffs) -> Kind:
    """The kind by timeouts and by the session's key."""
    expired, key = _expired(row, limits), stores.keys.get(row.session_id)
    if expired is Kind.IDLE and key and key.last_accessed_at and key.last_accessed_at >= limits.idle:
        return Kind.USED_SINCE
    if expired:
        return expired
    if key is None:
        return Kind.NOT_IN_REDIS
    return Kind.NO_TTL if key.ttl_seconds is None else Kind.LIVE


def _live_rows(stores: StoreContents, spec: SessionPolicySpec) -> list[Row]:
    """Sessions that are live by the table alone."""
    limits = _cutoffs(stores, spec)
    return [row for row in stores.rows.values() if _expired(row, limits) is None]


def _cutoffs(stores: StoreContents, spec: SessionPolicySpec) -> Cutoffs:
    return cutoffs(stores.taken_at, resolve_lifetime(spec), spec.safety.clock_skew_seconds)


def _expired(row: Row, limits: Cutoffs) -> Kind | None:
    """Why the table alone calls a session expired; None if it is live."""
    if limits.absolute and row.created_at < limits.absolute:
        return Kind.TOO_OLD
    if row.expires_at and row.expires_at < limits.expiry:
        return Kind.ENDED
    return Kind.IDLE if row.last_accessed_at < limits.idle else None


def _kilometres(one: Access, other: Access) -> float:
    """Along the earth's surface: its radius times the angle between the two places."""
    if (one.latitude, one.longitude) == (other.latitude, other.longitude):
        return 0
    latitude, other_latitude = radians(one.latitude), radians(other.latitude)
    east = cos(latitude) * cos(other_latitude) * cos(radians(other.longitude - one.longitude))
    return _EARTH_RADIUS_KILOMETRES * acos(sin(latitude) * sin(other_latitude) + east)
