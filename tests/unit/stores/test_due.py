"""What remains for a run to delete."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stores.model.due import Due
from stores.model.sessions import Cause
from stores.model.tally import Tally

few = st.integers(0, 50)


@given(found=few, batches=st.lists(st.tuples(few, few), max_size=10))
def test_what_was_not_come_across_and_what_was_kept_back_remains(found: int, batches: list[tuple[int, int]]) -> None:
    due = Due()
    due.expect(Cause.EXPIRED, found)
    settled = kept_back = 0
    for come_across, wanted in batches:
        kept = min(wanted, come_across)
        due.settle(Cause.EXPIRED, come_across, kept)
        settled, kept_back = settled + come_across, kept_back + kept
        assert due.remaining == kept_back + max(0, found - settled)
    due.finish(Cause.EXPIRED)
    assert due.remaining == kept_back


def test_each_cause_is_counted_by_itself() -> None:
    tally = Tally()
    tally.due.expect(Cause.EXPIRED, 10)
    tally.due.expect(Cause.EVICTED, 3)
    tally.due.settle(Cause.EXPIRED, 12)  # more than were counted: some expired meanwhile
    assert tally.remaining == 3
    tally.due.settle(Cause.DESYNCED, 2, kept_back=1)
    tally.due.finish(Cause.EVICTED)
    assert (tally.remaining, tally.counts().remaining) == (1, 1)
