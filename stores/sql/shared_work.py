"""A table in which several workers share the parts of one run.

A worker claims a part before it works on it. Each batch of its deletions also adds to the part's counts, in one
transaction and only while the claim stands: so the counts are exactly what was committed, whichever worker was
killed at what moment, and a worker whose part was taken over deletes nothing more.

A worker is alive while its connection holds a lock of its own. The leader's is the exclusive lock of
the run: the other workers delete nothing once that is gone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

import sqlalchemy as sa

from stores.model.key_range import KeyRange, Strategy
from stores.model.sessions import DeletionTotals, Session
from stores.model.tally import Durations, Tally
from stores.sql.connection.run_connection import RunConnection
from stores.sql.dialects.lock import Lock
from stores.sql.schema.tables import work

# A worker whose machine is lost may keep its lock until the server misses it. No statement takes as long as this.
_SILENT_FOR = timedelta(minutes=3)
# A run that was killed leaves its rows behind; none takes as long as this.
_FORGET_AFTER = timedelta(days=2)
_LEADER_CHECK_SECONDS = 1.0

_RUN = 0
_NOW: sa.ColumnClause[datetime] = sa.literal_column("CURRENT_TIMESTAMP(6)")


class RunState(StrEnum):
    """How far the run is."""

    PREPARING = "Preparing"
    """The leader counts; there are no parts yet."""
    OPEN = "Open"
    """The parts can be claimed."""
    CLOSED = "Closed"
    """There is nothing to do any more."""


class _PartState(StrEnum):
    WAITING = "Waiting"
    CLAIMED = "Claimed"
    DONE = "Done"
    STOPPED = "Stopped"


class ClaimLostError(Exception):
    """The part was taken over, or the run has ended: the transaction is rolled back."""


class LeaderGoneError(Exception):
    """The leader does not hold the exclusive lock any more: nothing may be deleted for its run."""


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What all workers of a run go by.

    Attributes:
        moment: the run's present, by the database's clock, so that all workers decide alike.
        fingerprint: a hash of policy and stored settings.
    """

    moment: datetime
    fingerprint: str

    def to_text(self) -> str:
        """The text in the table."""
        return json.dumps({"moment": self.moment.isoformat(), "fingerprint": self.fingerprint})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From the text in the table."""
        said = json.loads(text)
        return cls(datetime.fromisoformat(said["moment"]), said["fingerprint"])


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """A run as its workers see it in the table.

    Attributes:
        state: how far it is; None if the run is not known (yet).
        is_led: whether its leader is there.
        terms: what its workers go by, once there are parts.
    """

    state: RunState | None = None
    is_led: bool = False
    terms: RunTerms | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of all workers together.

    Attributes:
        parts: how many there were.
        unfinished: how many of them are not done.
        workers: how many workers there were at the end of a part.
        deleted: sessions deleted.
        failed: sessions that could not be deleted.
        kept: sessions that the database calls idle, and Redis saw in use.
        redis_deleted: session keys deleted from Redis.
        durations: of the deleted sessions.
    """

    parts: int
    unfinished: int
    workers: int
    deleted: int
    failed: int
    kept: int
    redis_deleted: int
    durations: Durations


@dataclass(slots=True)
class Claim:
    """A part that this worker works on.

    Attributes:
        number: of the part.
        key_range: which part of the table it is.
        redis_deleted: session keys that earlier attempts at this part deleted.
    """

    number: int
    key_range: KeyRange
    redis_deleted: int = 0


class WorkTable:
    """The table in which the workers of one run share its parts.

    Args:
        connection: the worker's connection; of the leader the one that holds the exclusive lock.
        run_id: names the run: the same in all its workers.
        lock: the exclusive lock of the session table, to see who holds it.
        worker: names this process, and no other one.
        leads: whether this is the leader.
    """

    def __init__(self, connection: RunConnection, run_id: str, lock: Lock, worker: str, *, leads: bool) -> None:
        self._connection = connection
        self._run_id = run_id
        self._lock = lock
        self._worker = worker
        self._leads = leads
        self._checked_at = 0.0

    @staticmethod
    def exists(connection: RunConnection) -> bool:
        """Whether there is such a table."""
        return connection.inspect(lambda inspector: inspector.has_table(work.name))

    # --- the leader ----------------------------------------------------------------------------------------------

    def announce(self) -> None:
        """Enters the run. What an earlier attempt at it left is deleted, and what other runs left long ago.

        A worker that still works on one of those parts cannot commit any more.
        """

        def write(connection: sa.Connection) -> None:
            old = self._now(connection) - _FORGET_AFTER
            connection.execute(sa.delete(work).where(sa.or_(work.c.run_id == self._run_id, work.c.touched_at < old)))
            header = {"state": RunState.PREPARING.value, "leader": self._lock.held_by(connection)}
            connection.execute(sa.insert(work).values(run_id=self._run_id, number=_RUN, touched_at=_NOW, **header))

        self._connection.transaction(write)

    def offer(self, terms: RunTerms, key_ranges: Sequence[KeyRange]) -> None:
        """Enters the parts, for workers to claim."""
        text = terms.to_text()
        parts = [
            {
                "run_id": self._run_id,
                "number": number,
                "state": _PartState.WAITING.value,
                "content": _to_text(key_range),
            }
            for number, key_range in enumerate(key_ranges, start=_RUN + 1)
        ]

        def write(connection: sa.Connection) -> None:
            opened = connection.execute(
                sa.update(work)
                .where(self._row(_RUN), work.c.state == RunState.PREPARING.value)
                .values(state=RunState.OPEN.value, content=text, touched_at=_NOW)
            )
            if opened.rowcount:  # else an answer was lost on its way, and work has begun
                connection.execute(sa.insert(work).values(touched_at=_NOW), parts)

        self._connection.transaction(write)

    def take_over(self) -> Claim | None:
        """Claims a part whose worker is gone, or has not been heard of for long."""

        def write(connection: sa.Connection) -> Claim | None:
            silent_since = self._now(connection) - _SILENT_FOR
            mine = work.c.claimed_by == self._worker
            for row in connection.execute(self._parts(work.c.state == _PartState.CLAIMED.value, ~mine)).all():
                presence = self._connection.dialect.presence(row.claimed_by)
                is_there = presence is not None and presence.held_by(connection) is not None
                if is_there and _in_utc(row.touched_at) > silent_since:
                    continue
                if claim := self._claim(connection, row, work.c.claimed_by == row.claimed_by):
                    return claim
            return None

        return self._connection.transaction(write)

    def is_done(self) -> bool:
        """Whether every part is done."""
        query = sa.select(sa.func.count()).where(self._is_part, work.c.state != _PartState.DONE.value)
        return self._connection.transaction(lambda connection: connection.scalar(query)) == 0

    def close(self) -> Totals:
        """Ends the run: what is not committed now will not be. Returns what was."""

        def write(connection: sa.Connection) -> Totals:
            closed = {"state": RunState.CLOSED.value, "touched_at": _NOW}
            connection.execute(sa.update(work).where(self._row(_RUN)).values(**closed))
            under_way = (_PartState.WAITING.value, _PartState.CLAIMED.value)
            connection.execute(
                sa.update(work)
                .where(self._is_part, work.c.state.in_(under_way))
                .values(state=_PartState.STOPPED.value, touched_at=_NOW)
            )
            return self._totals(connection)

        return self._connection.transaction(write)

    # --- every worker --------------------------------------------------------------------------------------------

    def observe(self) -> ObservedRun:
        """Reads how far the run is."""

        def read(connection: sa.Connection) -> ObservedRun:
            row = connection.execute(sa.select(work).where(self._row(_RUN))).first()
            if row is None:
                return ObservedRun()
            is_led = row.leader is not None and row.leader == self._lock.held_by(connection)
            terms = RunTerms.from_text(row.content) if row.content else None
            return ObservedRun(RunState(row.state), is_led, terms)

        return self._connection.transaction(read)

    def claim(self, terms: RunTerms) -> Claim | None:
        """Claims a part that nobody works on; None if there is none.

        Args:
            terms: of the worker. The parts of another attempt at the run are not for it.
        """
        mine = sa.and_(work.c.state == _PartState.CLAIMED.value, work.c.claimed_by == self._worker)
        # A part that is ours already: we did not hear that our last claim was committed.
        free = sa.or_(mine, work.c.state == _PartState.WAITING.value)

        def write(connection: sa.Connection) -> Claim | None:
            self._check_leader(connection)
            # Locked, so that no other attempt begins just now.
            header = sa.select(work.c.content).where(self._row(_RUN), work.c.state == RunState.OPEN.value)
            if connection.scalar(header.with_for_update(read=True)) != terms.to_text():
                return None
            row = connection.execute(self._parts(free).limit(1).with_for_update(skip_locked=True)).first()
            return self._claim(connection, row, free) if row else None

        return self._connection.transaction(write)

    def count(self, claim: Claim, tally: Tally) -> Callable[[sa.Connection, Sequence[Session] | DeletionTotals], None]:
        """The function that adds each batch of the part to its counts; see the module.

        Args:
            claim: the part.
            tally: of this attempt at it.

        The function raises ClaimLostError or LeaderGoneError, so that the batch is taken back.
        """

        def add(connection: sa.Connection, gone: Sequence[Session] | DeletionTotals) -> None:
            self._check_leader(connection)
            lasted = Durations()
            lasted.add(gone)
            self._write(
                connection,
                claim,
                deleted=work.c.deleted + len(gone),
                measured=work.c.measured + lasted.sessions,
                measured_seconds=work.c.measured_seconds + lasted.seconds,
                **_progress(claim, tally),
            )

        return add

    def finish(self, claim: Claim, tally: Tally, kept: int) -> None:
        """Marks the part as done.

        Raises:
            ClaimLostError: somebody else does it again. What was deleted is counted nevertheless.
        """
        self._leave(claim, _PartState.DONE, kept=kept, **_progress(claim, tally))

    def give_back(self, claim: Claim, tally: Tally) -> None:
        """Gives the part back: it is not done, and this worker has to stop."""
        self._leave(claim, _PartState.WAITING, **_progress(claim, tally))

    # --- parts ---------------------------------------------------------------------------------------------------

    def _claim(self, connection: sa.Connection, row: sa.Row[Any], still: sa.ColumnElement[bool]) -> Claim | None:
        # What it deleted is deleted; the rest of the part is looked at again, and with it what failed or was kept.
        anew = {"state": _PartState.CLAIMED.value, "claimed_by": self._worker, "failed": 0, "kept": 0}
        claimed = connection.execute(
            sa.update(work).where(self._row(row.number), still).values(touched_at=_NOW, **anew)
        )
        return Claim(row.number, _from_text(row.content), row.redis_deleted) if claimed.rowcount else None

    def _leave(self, claim: Claim, state: _PartState, **counts: Any) -> None:
        left = {"state": state.value, **counts}

        def write(connection: sa.Connection) -> None:
            done = sa.and_(self._row(claim.number), work.c.state == state.value, work.c.claimed_by == self._worker)
            if connection.scalar(sa.select(sa.func.count()).where(done)) == 0:  # else its answer was lost
                self._write(connection, claim, **left)

        self._connection.transaction(write)

    def _write(self, connection: sa.Connection, claim: Claim, **values: Any) -> None:
        ours = sa.and_(work.c.state == _PartState.CLAIMED.value, work.c.claimed_by == self._worker)
        changed = connection.execute(
            sa.update(work).where(self._row(claim.number), ours).values(touched_at=_NOW, **values)
        )
        if changed.rowcount != 1:
            raise ClaimLostError

    def _check_leader(self, connection: sa.Connection) -> None:
        """Of the leader itself: says under which number it is connected now. Not at every batch: it is a query."""
        if time.monotonic() < self._checked_at + _LEADER_CHECK_SECONDS:
            return
        holder = self._lock.held_by(connection)
        leader = connection.scalar(sa.select(work.c.leader).where(self._row(_RUN)))
        if self._leads and leader != holder:
            connection.execute(sa.update(work).where(self._row(_RUN)).values(leader=holder, touched_at=_NOW))
        elif holder is None or leader != holder:
            raise LeaderGoneError
        self._checked_at = time.monotonic()

    def _totals(self, connection: sa.Connection) -> Totals:
        rows = connection.execute(self._parts(sa.true())).all()
        return Totals(
            parts=len(rows),
            unfinished=sum(row.state != _PartState.DONE.value for row in rows),
            workers=len({row.claimed_by for row in rows} - {None}),
            deleted=sum(row.deleted for row in rows),
            failed=sum(row.failed for row in rows),
            kept=sum(row.kept for row in rows),
            redis_deleted=sum(row.redis_deleted for row in rows),
            durations=Durations(sum(row.measured for row in rows), sum(row.measured_seconds for row in rows)),
        )

    @property
    def _is_part(self) -> sa.ColumnElement[bool]:
        return sa.and_(work.c.run_id == self._run_id, work.c.number > _RUN)

    def _row(self, number: int) -> sa.ColumnElement[bool]:
        return sa.and_(work.c.run_id == self._run_id, work.c.number == number)

    def _parts(self, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        return sa.select(work).where(self._is_part, *conditions).order_by(work.c.number)

    def _now(self, connection: sa.Connection) -> datetime:
        return self._connection.dialect.now(connection) or datetime.now(UTC)


def _progress(claim: Claim, tally: Tally) -> dict[str, int]:
    """What is known of this attempt apart from the database's own deletions; of Redis also what earlier ones did."""
    return {"failed": tally.failed, "redis_deleted": claim.redis_deleted + tally.redis.deleted}


def _to_text(key_range: KeyRange) -> str:
    return json.dumps({"strategy": key_range.strategy.value, "after": key_range.after, "upTo": key_range.up_to})


def _from_text(text: str) -> KeyRange:
    said = json.loads(text)
    return KeyRange(Strategy(said["strategy"]), said["after"], said["upTo"])


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
