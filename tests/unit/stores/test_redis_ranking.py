"""R2.5 without a database: which sessions of a user are too many, found without holding them all."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.spec import OnExceed
from stores.model.sessions import Session
from stores.redis.redis_only.ranking import Ranking, UserCountSketch, rank

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
TIMES = st.one_of(st.none(), st.integers(0, 50).map(lambda n: NOON + timedelta(seconds=n)))
SESSIONS = st.lists(st.tuples(st.sampled_from("abc"), TIMES, TIMES), max_size=60)
EVICTING = [kind for kind in OnExceed if kind is not OnExceed.REPORT]


@pytest.mark.parametrize("on_exceed", EVICTING)
@given(made=SESSIONS, limit=st.integers(1, 5))
def test_r2_5_what_is_kept_is_the_best_of_each_user(
    on_exceed: OnExceed, made: list[tuple[str, datetime | None, datetime | None]], limit: int
) -> None:
    sessions = [Session(f"s{n}", user, created, used) for n, (user, created, used) in enumerate(made)]
    ranking = Ranking(limit, on_exceed)
    excess = {worst.key for session in sessions if (worst := ranking.add(session)) is not None}
    by_user = defaultdict(list)
    for session in sessions:
        by_user[session.user_id].append(session)
    for user, theirs in by_user.items():
        best = sorted(theirs, key=lambda s: rank(s, on_exceed), reverse=True)[:limit]
        assert {s.key for s in ranking.kept(user)} == {s.key for s in best}
        assert {s.key for s in theirs} & excess == {s.key for s in theirs} - {s.key for s in best}


@pytest.mark.parametrize(
    ("on_exceed", "first_to_go"),
    [
        (OnExceed.EVICT_LEAST_RECENTLY_USED, "old-new"),
        (OnExceed.EVICT_OLDEST, "old-new"),
        (OnExceed.EVICT_NEWEST, "new-old"),
    ],
)
def test_r2_5_each_kind_of_eviction_by_its_own_time(on_exceed: OnExceed, first_to_go: str) -> None:
    early, late = NOON, NOON + timedelta(hours=1)
    used_early = on_exceed is OnExceed.EVICT_LEAST_RECENTLY_USED
    sessions = [
        Session("old-new", "u", early, early if used_early else late),
        Session("new-old", "u", late, late if used_early else early),
        Session("unknown", "u"),
    ]
    ranking = Ranking(2, on_exceed)
    assert [worst.key for s in sessions if (worst := ranking.add(s))] == [first_to_go]


def test_a_session_met_twice_counts_once() -> None:
    ranking = Ranking(1, OnExceed.EVICT_OLDEST)
    assert ranking.add(Session("1", "u", NOON)) is None
    assert ranking.add(Session("1", "u", NOON)) is None


@settings(max_examples=15, deadline=None)  # each looks through four million buckets
@given(users=st.lists(st.integers(0, 30).map(str), max_size=300), limit=st.integers(1, 10), most=st.integers(1, 50))
def test_nobody_over_the_limit_is_overlooked(users: list[str], limit: int, most: int) -> None:
    sketch = UserCountSketch()
    for user in users:
        sketch.add(user)
    counts = Counter(users)
    groups = list(sketch.groups_over(limit, most))
    for user, count in counts.items():
        told = sum(user in group for group in groups)
        assert told == 1 if count > limit else told <= 1
    assert abs(sketch.users() - len(counts)) <= 1


def test_users_are_estimated_closely_and_in_bounded_memory() -> None:
    sketch = UserCountSketch()
    for number in range(200_000):
        sketch.add(f"user-{number}")
        sketch.add(f"user-{number}")
    assert abs(sketch.users() - 200_000) < 400
