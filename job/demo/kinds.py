"""What kind of session each is, judged in plain Python by what both stores hold: a second opinion on the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import Enum
from itertools import combinations
from math import acos, cos, radians, sin

from job.demo.snapshot import Row, Snapshot
from policy.lifetime import resolve_lifetime
from policy.rules import RuleAction, RuleType
from policy.spec import DuplicateAction, OnExceed, OnMissingRedisSession, SessionPolicySpec
from stores.model.cutoffs import Cutoffs, cutoffs
from stores.rules.details import Access, GeoPoint

# The rules' defaults; the demo's ids are written in hexadecimal digits.
_FAR, _SOON = 1000, timedelta(hours=1)
_WEAK, _BITS_OF_DIGIT = 128, 4


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
_SEVERITY = (None, RuleAction.REPORT, RuleAction.DELETE, RuleAction.LOGOUT_EVERYWHERE)


def classify(stores: Snapshot, spec: SessionPolicySpec) -> dict[str, Kind]:
    """The kind of every session in the stores, by session id."""
    limits = cutoffs(stores.taken_at, resolve_lifetime(spec), spec.safety.clock_skew_seconds)
    kinds = {i: _of_row(row, stores, limits) for i, row in stores.rows.items()}
    kinds.update({i: Kind.ORPHANED for i in stores.ttls.keys() - stores.rows.keys()})
    live = {i: row for i, row in stores.rows.items() if _ending(row, limits) is None}
    logged_out: set[str] = set()
    for session_id, row in live.items():
        if broken := [kind for kind in RULES if _breaks(kind, row, stores)]:
            kinds[session_id] = max(broken, key=lambda kind: _SEVERITY.index(action(kind, spec)))
            if action(kinds[session_id], spec) is RuleAction.LOGOUT_EVERYWHERE:
                logged_out.add(row.user_id)
    for session_id, row in stores.rows.items():
        if row.user_id in logged_out and stays(kinds[session_id], spec):
            kinds[session_id] = Kind.LOGGED_OUT
    kinds.update(dict.fromkeys(replaced_by(stores, spec), Kind.DUPLICATE))
    for sessions in live_by_user(stores, spec).values():
        kinds.update({row.session_id: Kind.OVER_LIMIT for row in sessions[spec.max_concurrent_sessions :]})
    return kinds


def action(kind: Kind, spec: SessionPolicySpec) -> RuleAction | None:
    """What the policy's rules do to sessions of this kind; None if no rule is about them."""
    actions = [rule.action for rule in spec.session_rules if rule.type is RULES.get(kind)]
    return max(actions, key=_SEVERITY.index, default=None)


def stays(kind: Kind, spec: SessionPolicySpec) -> bool:
    """Whether the policy wants sessions of this kind to stay."""
    if kind in RULES:
        return action(kind, spec) in (None, RuleAction.REPORT)
    if kind is Kind.DUPLICATE:
        return spec.duplicates.action is DuplicateAction.REPORT
    if kind is Kind.NOT_IN_REDIS:
        return spec.sync.on_missing_redis_session is OnMissingRedisSession.REPORT
    return kind in (Kind.LIVE, Kind.NO_TTL, Kind.USED_SINCE)


def is_abnormal(kind: Kind, spec: SessionPolicySpec) -> bool:
    """Whether one of the policy's rules applies to sessions of this kind."""
    return action(kind, spec) is not None


def replaced_by(stores: Snapshot, spec: SessionPolicySpec) -> dict[str, Row]:
    """The newest live session of the same user on the same client, by the id of each older one."""
    newest: dict[tuple[str, str], Row] = {}
    replaced: dict[str, Row] = {}
    for row in sorted(_live(stores, spec), key=lambda row: (-row.created_at.timestamp(), row.session_id)):
        kept = newest.setdefault((row.user_id, row.client), row)
        if kept is not row:
            replaced[row.session_id] = kept
    return replaced


def live_by_user(stores: Snapshot, spec: SessionPolicySpec) -> dict[str, list[Row]]:
    """The live sessions of each user who has to lose some, from the one to keep first."""
    limit, order = spec.max_concurrent_sessions, _ORDERS.get(spec.concurrency.on_exceed)
    if not limit or order is None:
        return {}
    # What goes as a duplicate is gone when the limit is looked at.
    gone = {} if stays(Kind.DUPLICATE, spec) else replaced_by(stores, spec)
    by_user: defaultdict[str, list[Row]] = defaultdict(list)
    for row in _live(stores, spec):
        if row.session_id not in gone and row.user_id not in spec.concurrency.exempt_users:
            by_user[row.user_id].append(row)
    return {
        user: sorted(rows, key=lambda row: (order(row), row.session_id))
        for user, rows in by_user.items()
        if len(rows) > limit
    }


def journey(accesses: Sequence[Access]) -> tuple[float, timedelta] | None:
    """The longest way, in kilometres, between two accesses that nobody can have made, and how long it took."""
    seen = [(access.at, access.place) for access in accesses if access.at and access.place]
    ways = [
        (_kilometres(one, other), abs(at - then)) for (at, one), (then, other) in combinations(seen, 2) if one != other
    ]
    return max((way for way in ways if way[0] > _FAR and way[1] <= _SOON), default=None)


_ORDERS: dict[OnExceed, Callable[[Row], float]] = {
    OnExceed.EVICT_LEAST_RECENTLY_USED: lambda row: -row.last_accessed_at.timestamp(),
    OnExceed.EVICT_OLDEST: lambda row: -row.created_at.timestamp(),
    OnExceed.EVICT_NEWEST: lambda row: row.created_at.timestamp(),
}


def _ending(row: Row, limits: Cutoffs) -> Kind | None:
    """Why the database alone calls a session expired; None if it is live."""
    if limits.absolute and row.created_at < limits.absolute:
        return Kind.TOO_OLD
    if row.expires_at and row.expires_at < limits.expiry:
        return Kind.ENDED
    return Kind.IDLE if row.last_accessed_at < limits.idle else None


def _of_row(row: Row, stores: Snapshot, limits: Cutoffs) -> Kind:
    ending = _ending(row, limits)
    if ending is Kind.IDLE and stores.redis_says_used(row.session_id, limits.idle):
        return Kind.USED_SINCE
    if ending is not None:
        return ending
    if row.session_id not in stores.ttls:
        return Kind.NOT_IN_REDIS
    return Kind.NO_TTL if stores.ttls[row.session_id] is None else Kind.LIVE


def _live(stores: Snapshot, spec: SessionPolicySpec) -> list[Row]:
    limits = cutoffs(stores.taken_at, resolve_lifetime(spec), spec.safety.clock_skew_seconds)
    return [row for row in stores.rows.values() if _ending(row, limits) is None]


def _breaks(kind: Kind, row: Row, stores: Snapshot) -> bool:
    accesses = stores.logs.get(row.session_id, ())
    match kind:
        case Kind.REVOKED:
            return row.revoked_at is not None
        case Kind.TRAVELLED:
            return journey(accesses) is not None
        case Kind.NEW_ADDRESS:
            return bool(accesses) and accesses[0].address != row.address
        case _:
            return len(row.session_id) * _BITS_OF_DIGIT < _WEAK


def _kilometres(one: GeoPoint, other: GeoPoint) -> float:
    """Along the earth's surface: its radius times the angle between the two places."""
    latitude_1, latitude_2 = radians(one.latitude), radians(other.latitude)
    longitude = radians(other.longitude - one.longitude)
    return 6371 * acos(sin(latitude_1) * sin(latitude_2) + cos(latitude_1) * cos(latitude_2) * cos(longitude))
