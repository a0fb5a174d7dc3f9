"""The parts that workers share, whatever happens in whatever order: each is done once, and every count is true."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.spec import Retry
from stores.model.key_range import KeyRange, Strategy
from stores.model.sessions import Session
from stores.model.tally import Tally
from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.connection.run_connection import RunConnection
from stores.sql.schema.tables import work
from stores.sql.shared_work import Claim, ClaimLostError, LeaderGoneError, RunTerms, WorkTable
from stores.waiting.clock import RunClock
from tests.support.examples import at_most
from tests.support.runs import Log
from tests.support.session_stores import TABLE, SessionStores

PARTS = 4
TERMS = RunTerms(datetime(2026, 3, 1, tzinfo=UTC), "fingerprint")
NEXT = RunTerms(datetime(2026, 3, 2, tzinfo=UTC), "fingerprint")
KEY_RANGES = [KeyRange(Strategy.ID_ORDER, n, n + 1) for n in range(PARTS)]


class Worker:
    """A connection, a claim, and what it has committed."""

    def __init__(self, url: str, name: str, *, leads: bool = False) -> None:
        parsed = parse_url(url)
        self.connection = RunConnection(create_engine(parsed), Retry(attempts=0), RunClock(600), Log())
        lock = self.connection.dialect.lock(parsed.database, None, TABLE.name)
        presence = self.connection.dialect.presence(name)
        assert presence is not None
        self.connection.lock(lock if leads else presence)
        self.table = WorkTable(self.connection, "run", lock, name, leads=leads)
        self.claim: Claim | None = None
        self.tally = Tally()

    def begin(self, claim: Claim | None) -> None:
        self.claim, self.tally = claim, Tally()

    def delete(self, number: int) -> int:
        """A batch; returns how many sessions of it were committed."""
        assert self.claim is not None
        add = self.table.count(self.claim, self.tally)
        try:
            self.connection.transaction(lambda connection: add(connection, [Session(n) for n in range(number)]))
        except ClaimLostError:
            self.claim = None
            return 0
        return number

    def finish(self, done: list[int]) -> None:
        """Adds the part's number to those done, if it was still this worker's."""
        assert self.claim is not None
        claim, self.claim = self.claim, None
        with suppress(ClaimLostError):
            self.table.finish(claim, self.tally, kept=0)
            done.append(claim.number)

    def give_back(self) -> None:
        assert self.claim is not None
        claim, self.claim = self.claim, None
        with suppress(ClaimLostError):
            self.table.give_back(claim, self.tally)

    def do(self, claim: Claim, done: list[int]) -> int:
        """A whole part; returns how many sessions of it were committed."""
        self.begin(claim)
        committed = self.delete(1)
        self.finish(done)
        return committed


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "delete", "delete", "finish", "give back", "die", "silent", "take over"]),
        st.integers(0, 2),
    ),
    max_size=25,
)


@pytest.mark.exhaustive
@pytest.mark.representative(kind=["postgres_url"])
@pytest.mark.parametrize("kind", ["postgres_url", "mariadb_url"])
@settings(max_examples=at_most(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_r6_every_part_is_done_once_and_the_counts_are_what_was_committed(
    request: pytest.FixtureRequest, kind: str, actions: list[tuple[str, int]]
) -> None:
    url: str = request.getfixturevalue(kind)
    SessionStores(url).close()  # the tables
    names = iter(range(1000))
    leader = Worker(url, "leader", leads=True)
    helpers = [Worker(url, f"helper-{next(names)}") for _ in range(3)]
    done: list[int] = []
    committed = 0
    try:
        leader.table.announce()
        leader.table.offer(TERMS, KEY_RANGES)
        for action, which in actions:
            helper = helpers[which]
            if action == "die":
                helper.connection.close()
                helpers[which] = Worker(url, f"helper-{next(names)}")
            elif action == "take over":
                if claim := leader.table.take_over():
                    committed += leader.do(claim, done)
            elif helper.claim is None:
                helper.begin(helper.table.claim(TERMS))
                held = [w.claim.number for w in helpers if w.claim]
                assert len(held) == len(set(held))
            elif action == "delete":
                committed += helper.delete(which + 1)
            elif action == "finish":
                helper.finish(done)
            elif action == "give back":
                helper.give_back()
            elif action == "silent":
                make_silent(leader, helper.claim.number)
        # The leader does the rest. Whom it gives up has committed all it will.
        for helper in helpers:
            if helper.claim:
                make_silent(leader, helper.claim.number)
        while claim := leader.table.claim(TERMS) or leader.table.take_over():
            committed += leader.do(claim, done)
        given_up = [helper for helper in helpers if helper.claim]
        assert [helper.delete(5) for helper in given_up] == [0] * len(given_up)
        assert leader.table.is_done()
        totals = leader.table.close()
        assert sorted(done) == list(range(1, PARTS + 1))
        assert (totals.deleted, totals.parts, totals.unfinished) == (committed, PARTS, 0)
        assert all(helper.table.claim(TERMS) is None for helper in helpers)
    finally:
        for worker in (leader, *helpers):
            worker.connection.close()


def make_silent(leader: Worker, number: int) -> None:
    """As if nothing had been heard of the part's worker for long."""

    def change(connection: sa.Connection) -> None:
        long_ago = datetime.now(UTC).replace(year=2020)
        connection.execute(sa.update(work).where(work.c.number == number).values(touched_at=long_ago))

    leader.connection.transaction(change)


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def workers(request: pytest.FixtureRequest) -> Any:
    url: str = request.getfixturevalue(request.param)
    SessionStores(url).close()
    leader, helper = Worker(url, "leader", leads=True), Worker(url, "helper")
    leader.table.announce()
    leader.table.offer(TERMS, KEY_RANGES)
    yield leader, helper, url
    leader.connection.close()
    helper.connection.close()


def test_r6_a_worker_that_is_there_keeps_its_part(workers: Any) -> None:
    leader, helper, _ = workers
    helper.begin(helper.table.claim(TERMS))
    assert leader.table.take_over() is None
    helper.connection.close()
    assert leader.table.take_over() is not None


def test_r6_what_a_dead_worker_has_deleted_stays_counted_and_what_failed_is_tried_again(workers: Any) -> None:
    leader, helper, _ = workers
    helper.begin(helper.table.claim(TERMS))
    helper.tally.failed, helper.tally.redis.deleted = 3, 7
    assert helper.delete(10) == 10
    helper.connection.close()
    claim = leader.table.take_over()
    assert claim is not None
    leader.begin(claim)
    leader.tally.redis.deleted = 2
    leader.finish([])
    totals = leader.table.close()
    assert (totals.deleted, totals.failed, totals.redis_deleted, totals.unfinished) == (10, 0, 9, PARTS - 1)


def test_r6_once_closed_nothing_more_is_committed(workers: Any) -> None:
    leader, helper, _ = workers
    helper.begin(helper.table.claim(TERMS))
    assert helper.delete(2) == 2
    assert leader.table.close().deleted == 2
    assert helper.delete(3) == 0
    assert leader.table.close().deleted == 2


def test_r6_a_helper_stops_when_the_leader_has_lost_the_lock(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.sql.shared_work._LEADER_CHECK_SECONDS", 0.0)
    leader, helper, url = workers
    helper.begin(helper.table.claim(TERMS))
    leader.connection.close()
    with pytest.raises(LeaderGoneError):
        helper.delete(1)
    # Another run on the table is not its leader.
    other = Worker(url, "other", leads=True)
    with pytest.raises(LeaderGoneError):
        helper.delete(1)
    assert not helper.table.observe().is_led
    other.connection.close()


def test_r6_the_parts_of_the_next_attempt_are_not_for_a_helper_of_the_first(workers: Any) -> None:
    leader, helper, url = workers
    helper.begin(helper.table.claim(TERMS))
    assert helper.delete(4) == 4
    leader.connection.close()
    second = Worker(url, "second", leads=True)
    second.table.announce()
    assert helper.delete(4) == 0
    second.table.offer(NEXT, KEY_RANGES)
    assert helper.table.claim(TERMS) is None
    assert helper.table.observe().terms == NEXT
    assert second.table.close().deleted == 0
    second.connection.close()


def test_posting_again_after_a_lost_answer_forgets_no_work(workers: Any) -> None:
    leader, helper, _ = workers
    helper.begin(helper.table.claim(TERMS))
    assert helper.delete(4) == 4
    leader.table.offer(TERMS, KEY_RANGES)
    done: list[int] = []
    helper.finish(done)
    assert done == [1]
    assert leader.table.close().deleted == 4
