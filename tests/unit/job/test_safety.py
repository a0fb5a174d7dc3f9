"""R6: what one run may delete at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from job.steps.safety import DeletionLimit, exceeds_share, share_exceeded
from policy.spec import Safety

counts = st.integers(0, 10**7)


@given(total=counts, percent=st.integers(1, 100), always=st.integers(0, 10**6), data=st.data())
def test_r6_the_share(total: int, percent: int, always: int, data: st.DataObject) -> None:
    deleting = data.draw(st.integers(0, total))
    safety = Safety(max_delete_percent=percent, always_allowed_deletions=always)
    allowed = deleting <= always or deleting / max(total, 1) <= percent / 100
    assert exceeds_share(deleting, total, safety) is not allowed
    assert (share_exceeded(deleting, total, safety) is None) is allowed
    if percent == 100:
        assert allowed


@given(limit=st.integers(1, 1000), batches=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5)), max_size=50))
def test_r6_a_deletion_limit_is_never_exceeded_and_nothing_is_left_without_need(
    limit: int, batches: list[tuple[int, int]]
) -> None:
    deletion_limit, deleted = DeletionLimit(limit), 0
    for wanted, failing in batches:
        may = deletion_limit.allowed(wanted)
        assert may == min(wanted, limit - deleted)
        gone = max(0, may - failing)
        deletion_limit.count(gone)
        deleted += gone
    assert deleted <= limit


@given(wanted=counts)
def test_r6_zero_means_no_such_limit(wanted: int) -> None:
    deletion_limit = DeletionLimit(0)
    assert deletion_limit.allowed(wanted) == wanted
    deletion_limit.count(wanted)
    assert deletion_limit.allowed(wanted) == wanted
    assert not deletion_limit.reached


def test_r6_reached_means_that_something_was_left() -> None:
    deletion_limit = DeletionLimit(5)
    assert deletion_limit.allowed(5) == 5
    deletion_limit.count(5)
    assert not deletion_limit.reached
    assert deletion_limit.allowed(0) == 0
    assert not deletion_limit.reached
    assert deletion_limit.allowed(1) == 0
    assert deletion_limit.reached
