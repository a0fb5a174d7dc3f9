"""What happened to whom, and why: one session of each kind, as the stores hold it before and after the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from job.demo.kinds import BITS_OF_DIGIT, Kind, farthest_trip, newest_on_client, rule_action, users_over_limit
from job.demo.sessions import Row, StoreContents
from policy.rules import RuleAction
from policy.spec import SessionPolicySpec

_ID_SHOWN = 6
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_FOUND = {
    Kind.NEW_ADDRESS: "used {used} ago, from a new IP address",
    Kind.WEAK_ID: "used {used} ago; its id has {bits} bits",
    Kind.NO_TTL: "used {used} ago, but its key has no TTL",
    Kind.NOT_IN_REDIS: "used {used} ago, but has no key in Redis",
    Kind.USED_SINCE: "used {used_by_redis} ago (PostgreSQL: {used} ago)",
    Kind.IDLE: "not used for {used}",
    Kind.TOO_OLD: "{age_exactly} old, used {used} ago",
    Kind.ENDED: "its own expiry passed {expired} ago",
    Kind.DUPLICATE: "{age} old; newer on its client: {newer}",
    Kind.OVER_LIMIT: "used {used} ago, number {rank} of {rivals}",
    Kind.REVOKED: "revoked {revoked} ago",
    Kind.TRAVELLED: "used {kilometres:,.0f} km apart within {within}",
    Kind.LOGGED_OUT: "used {used} ago, by the same user",
}


class SessionOutcome(NamedTuple):
    """A session before and after the run.

    Attributes:
        user: whose it is; these users are made up.
        session_id: shortened: whoever knows a whole id can take the session over.
        before: what the stores held.
        after: what became of it.
        stayed: whether it is still in each store that held it.
    """

    user: str
    session_id: str
    before: str
    after: str
    stayed: bool


class SessionOutcomes:
    """Compares sessions before and after a run.

    Args:
        before: the stores before the run.
        kinds: what kind of session each was.
        after: the stores after the run.
        spec: the policy.
    """

    def __init__(
        self, before: StoreContents, kinds: Mapping[str, Kind], after: StoreContents, spec: SessionPolicySpec
    ) -> None:
        self._before, self._kinds, self._after, self._spec = before, kinds, after, spec
        self._users = {session_id: user for user, session_id in before.index}
        self._users |= {i: row.user_id for i, row in before.rows.items()}
        self._over_limit = users_over_limit(before, spec)
        self._newest = newest_on_client(before, spec)

    def one_of_each_kind(self) -> Iterator[SessionOutcome]:
        """A session of each kind: of a user with a name where there is one, and of each user one if possible.

        But of a user who is logged out everywhere, both the session that was the cause and another one.
        """
        shown: set[str] = set()
        for kind in Kind:
            repeat = kind is Kind.LOGGED_OUT
            sessions = [(self._users.get(i, ""), i) for i, found in self._kinds.items() if found is kind]
            if sessions:
                user, session_id = min(sessions, key=lambda s: ((s[0] in shown) is not repeat, not s[0].isalpha(), *s))
                shown.add(user)
                yield self._outcome(user, session_id, kind)

    def over_limit(self) -> str | None:
        """All live sessions of one user over the limit, in a sentence; None if nobody was."""
        if not self._over_limit:
            return None
        user = min(self._over_limit, key=lambda user: (not user.isalpha(), user))
        rows = self._over_limit[user]
        stay = [self._minutes(row) for row in rows if row.session_id in self._after.rows]
        went = [self._minutes(row) for row in rows if row.session_id not in self._after.rows]
        return f"{user} had {len(rows)} live sessions: {len(stay)} stay{_used(stay)}; {len(went)} went{_used(went)}."

    def _outcome(self, user: str, session_id: str, kind: Kind) -> SessionOutcome:
        before, after = self._before, self._after
        had = {"row": session_id in before.rows, "key": session_id in before.keys}
        has = {"row": session_id in after.rows, "key": session_id in after.keys}
        gone = [part for part in had if had[part] and not has[part]]
        left = [part for part in had if had[part] and has[part]]
        if gone:
            text = f"{' and '.join(gone)} gone" + "".join(f", {part} left" for part in left)
        else:
            text = "stays"
            if has["key"] and before.keys[session_id].ttl_seconds is None:
                text += f", TTL {format_age(timedelta(seconds=after.keys[session_id].ttl_seconds or 0))}"
            if rule_action(kind, self._spec) is RuleAction.REPORT:
                text += ", reported"
        return SessionOutcome(user, session_id[:_ID_SHOWN] + "…", self._found(session_id, kind), text, not gone)

    def _found(self, session_id: str, kind: Kind) -> str:
        """What the stores held before the run, and why that makes a session of this kind."""
        row, key = self._before.rows.get(session_id), self._before.keys.get(session_id)
        if row is None:
            return "in Redis, but no row in PostgreSQL"
        rivals = self._over_limit.get(row.user_id, [])
        kilometres, within = farthest_trip(self._before.logs.get(session_id, ())) or (0, timedelta())
        newest = self._newest.get(session_id)
        return _FOUND.get(kind, "used {used} ago").format(
            used=self._age(row.last_accessed_at),
            used_by_redis=self._age(key.last_accessed_at if key else None),
            age=self._age(row.created_at),
            age_exactly=self._age(row.created_at, exactly=True),
            expired=self._age(row.expires_at),
            revoked=self._age(row.revoked_at),
            newer=self._age(newest.created_at if newest else None),
            bits=len(session_id) * BITS_OF_DIGIT,
            rank=rivals.index(row) + 1 if row in rivals else 0,
            rivals=len(rivals),
            kilometres=kilometres,
            within=format_age(within),
        )

    def _age(self, moment: datetime | None, *, exactly: bool = False) -> str:
        return format_age(self._before.taken_at - moment if moment else timedelta(), exactly=exactly)

    def _minutes(self, row: Row) -> str:
        return str((self._before.taken_at - row.last_accessed_at) // _MINUTE or "<1")


def format_age(age: timedelta, *, exactly: bool = False) -> str:
    """The age, cut, not rounded: ``45 s``, ``47 min``, ``3 h``, ``3 days``; exactly also ``24 h 10 min``."""
    if age < _MINUTE:
        return f"{max(0, int(age.total_seconds()))} s"
    if age < _HOUR:
        return f"{age // _MINUTE} min"
    if age >= 2 * _DAY:
        return f"{age // _DAY} days"
    minutes = age % _HOUR // _MINUTE
    return f"{age // _HOUR} h" + (f" {minutes} min" if exactly and minutes else "")


def _used(minutes: Sequence[str]) -> str:
    if not minutes:
        return ""
    *most, last = minutes
    return f", used {', '.join(most)} and {last} min ago" if most else f", used {last} min ago"
