"""What kind of session each is, judged in plain Python by what both stores hold: a second opinion on the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from enum import Enum

from job.demo.snapshot import Row, Snapshot
from job.lifetime import Cutoffs, cutoffs
from policy.profiles import resolve_lifetime
from policy.spec import OnExceed, OnMissingRedisSession, SessionPolicySpec


class Kind(Enum):
    """Each session is of one kind; the order is that of the tables."""

    LIVE = "live"
    NO_TTL = "live, Redis key without a TTL"
    NOT_IN_REDIS = "live, Redis key lost"
    USED_SINCE = "live by Redis, idle by PostgreSQL"
    OVER_LIMIT = "over the limit per user"
    IDLE = "idle for too long"
    TOO_OLD = "past the absolute timeout"
    ENDED = "past the application's own expiry"
    ORPHANED = "orphaned: in Redis only"


def classify(stores: Snapshot, spec: SessionPolicySpec) -> dict[str, Kind]:
    """The kind of every session in the stores, by session id."""
    limits = cutoffs(stores.taken_at, resolve_lifetime(spec), spec.safety.clock_skew_seconds)
    kinds = {i: _of_row(row, stores, limits) for i, row in stores.rows.items()}
    kinds.update({i: Kind.ORPHANED for i in stores.ttls.keys() - stores.rows.keys()})
    for sessions in live_by_user(stores, spec).values():
        kinds.update({row.session_id: Kind.OVER_LIMIT for row in sessions[spec.max_concurrent_sessions :]})
    return kinds


def stays(kind: Kind, spec: SessionPolicySpec) -> bool:
    """Whether the policy wants sessions of this kind to stay."""
    if kind is Kind.NOT_IN_REDIS:
        return spec.sync.on_missing_redis_session is OnMissingRedisSession.REPORT
    return kind in (Kind.LIVE, Kind.NO_TTL, Kind.USED_SINCE)


def live_by_user(stores: Snapshot, spec: SessionPolicySpec) -> dict[str, list[Row]]:
    """The live sessions of each user who has to lose some, from the one to keep first."""
    limit, order = spec.max_concurrent_sessions, _ORDERS.get(spec.concurrency.on_exceed)
    if not limit or order is None:
        return {}
    limits = cutoffs(stores.taken_at, resolve_lifetime(spec), spec.safety.clock_skew_seconds)
    by_user: defaultdict[str, list[Row]] = defaultdict(list)
    for row in stores.rows.values():
        if _ending(row, limits) is None and row.user_id not in spec.concurrency.exempt_users:
            by_user[row.user_id].append(row)
    return {
        user: sorted(rows, key=lambda row: (order(row), row.session_id))
        for user, rows in by_user.items()
        if len(rows) > limit
    }


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
