"""What happened to whom, and why: a few sessions of each kind, as the stores tell it before and after the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from job.demo.kinds import Kind, action, journey, live_by_user, replaced_by
from job.demo.snapshot import Row, Snapshot
from job.demo.span import spoken, spoken_exactly
from policy.rules import RuleAction
from policy.spec import SessionPolicySpec

_ID_SHOWN = 6
_BITS_OF_DIGIT = 4  # the demo's ids are written in hexadecimal digits
_REMARKS = {
    Kind.NO_TTL: ", but its key has no TTL",
    Kind.NOT_IN_REDIS: ", but has no key in Redis",
    Kind.NEW_ADDRESS: ", from a new IP address",
    Kind.LOGGED_OUT: ", by the same user",
}


@dataclass(frozen=True, slots=True)
class Story:
    """One session.

    Attributes:
        user: whose it is; these users are made up.
        session_id: the id, shortened: whoever knows a whole one can take the session over.
        found: what the stores held before the run.
        fate: what they hold after it.
        is_there: whether the session is still in each store that held it.
    """

    user: str
    session_id: str
    found: str
    fate: str
    is_there: bool


class Storyteller:
    """Tells of sessions.

    Args:
        before: the stores before the run.
        kinds: what kind of session each was.
        after: the stores after the run.
        spec: what the run obeyed.
    """

    def __init__(self, before: Snapshot, kinds: Mapping[str, Kind], after: Snapshot, spec: SessionPolicySpec) -> None:
        self._before, self._kinds, self._after, self._spec = before, kinds, after, spec
        self._owners = {session_id: user for user, session_id in before.index}
        self._owners.update({i: row.user_id for i, row in before.rows.items()})
        self._over = live_by_user(before, spec)
        self._replaced = replaced_by(before, spec)
        self._ranks = {
            row.session_id: (rank, len(rows)) for rows in self._over.values() for rank, row in enumerate(rows, 1)
        }

    def stories(self) -> Iterator[Story]:
        """A session of each kind: of a user with a name, where there is one, and no user twice, if that can be.

        But of a user who is logged out everywhere, it is both the session that was the cause and another one.
        """
        of_kind: defaultdict[Kind, list[str]] = defaultdict(list)
        for session_id, kind in self._kinds.items():
            of_kind[kind].append(session_id)
        told: set[str] = set()
        for kind in Kind:
            wanted = kind is Kind.LOGGED_OUT
            order = sorted(
                of_kind[kind],
                key=lambda i: ((self._user(i) in told) is not wanted, not self._user(i).isalpha(), self._user(i), i),
            )
            for session_id in order[:1]:
                told.add(self._user(session_id))
                yield self._story(session_id, kind)

    def over_limit(self) -> str | None:
        """All live sessions of one user over the limit, in a sentence; None if nobody was."""
        if not self._over:
            return None
        user = min(self._over, key=lambda u: (not u.isalpha(), u))
        sessions = self._over[user]
        stay = [self._minutes(row) for row in sessions if row.session_id in self._after.rows]
        went = [self._minutes(row) for row in sessions if row.session_id not in self._after.rows]
        return (
            f"{user} had {len(sessions)} live sessions: {len(stay)} stay{_used(stay)}; {len(went)} went{_used(went)}."
        )

    def _minutes(self, row: Row) -> str:
        return str(self._since(row.last_accessed_at) // timedelta(minutes=1) or "<1")

    def _story(self, session_id: str, kind: Kind) -> Story:
        fate, is_there = self._fate(session_id)
        if is_there and action(kind, self._spec) is RuleAction.REPORT:
            fate += ", reported"
        return Story(
            self._user(session_id), session_id[:_ID_SHOWN] + "…", self._found(session_id, kind), fate, is_there
        )

    def _user(self, session_id: str) -> str:
        return self._owners.get(session_id, "")

    def _since(self, moment: datetime) -> timedelta:
        return self._before.taken_at - moment

    def _found(self, session_id: str, kind: Kind) -> str:
        row = self._before.rows.get(session_id)
        if row is None:
            return "in Redis, but no row in PostgreSQL"
        used = spoken(self._since(row.last_accessed_at))
        found = f"used {used} ago{_REMARKS.get(kind, '')}"
        match kind:
            case Kind.WEAK_ID:
                found += f"; its id has {len(session_id) * _BITS_OF_DIGIT} bits"
            case Kind.DUPLICATE:
                newer = spoken(self._since(self._replaced[session_id].created_at))
                found = f"{spoken(self._since(row.created_at))} old; newer on its client: {newer}"
            case Kind.REVOKED if row.revoked_at:
                found = f"revoked {spoken(self._since(row.revoked_at))} ago"
            case Kind.TRAVELLED if way := journey(self._before.logs.get(session_id, ())):
                found = f"used {way[0]:,.0f} km apart within {spoken(way[1])}"
            case Kind.USED_SINCE:
                redis = spoken(self._since(self._before.used[session_id]))
                found = f"used {redis} ago (PostgreSQL: {used} ago)"
            case Kind.OVER_LIMIT:
                rank, count = self._ranks[session_id]
                found += f", number {rank} of {count}"
            case Kind.IDLE:
                found = f"not used for {used}"
            case Kind.TOO_OLD:
                found = f"{spoken_exactly(self._since(row.created_at))} old, {found}"
            case Kind.ENDED if row.expires_at:
                found = f"its own expiry passed {spoken(self._since(row.expires_at))} ago"
        return found

    def _fate(self, session_id: str) -> tuple[str, bool]:
        before, after = self._before, self._after
        places = (("row", before.rows, after.rows), ("key", before.ttls, after.ttls))
        gone = [what for what, had, has in places if session_id in had and session_id not in has]
        left = [what for what, had, has in places if session_id in had and session_id in has]
        if gone:
            return f"{' and '.join(gone)} gone" + "".join(f", {what} left" for what in left), False
        ttl = after.ttls.get(session_id)
        if ttl is not None and before.ttls.get(session_id) is None:
            return f"stays, TTL {spoken(timedelta(seconds=ttl))}", True
        return "stays", True


def _used(minutes: Sequence[str]) -> str:
    *most, last = minutes or [""]
    return f", used {' and '.join(filter(None, (', '.join(most), last)))} min ago" if last else ""
