"""What holds for a run holds where all that has expired is looked for at once: tests of other modules, once more."""

# ruff: noqa: F401 - the imported tests are this module's, too

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stores.sql.dialects.postgresql import row_locations
from tests.stores.test_batches import (
    test_r2_2_a_row_that_cannot_be_deleted_does_not_stop_the_rest,
    test_what_hangs_on_a_session_goes_with_it_where_the_application_says_so,
)
from tests.stores.test_expired import (
    test_a_session_without_an_owner_expires_like_any_other,
    test_r2_2_many_expired_sessions_go_in_many_batches,
    test_r2_2_the_applications_own_expiry_counts_besides_and_null_means_never,
    test_r4_1_a_stored_setting_narrows_the_policy_and_never_widens_it,
    test_r4_1_whichever_timeout_comes_first_ends_a_session,
    test_times_no_calendar_knows_stop_no_run,
)
from tests.stores.test_model import test_r3_1_a_database_ends_up_as_the_requirements_say
from tests.stores.test_row_locations import no_ranges
from tests.stores.test_statistics import test_r2_7_statistics_and_history_are_exact
from tests.stores.test_strategies import (
    INDEX,
    RANGES,
    test_a_row_that_somebody_keeps_locked_costs_its_neighbours_nothing,
    test_an_answer_to_a_commit_that_gets_lost_counts_nothing_twice,
    test_death_at_any_range_leaves_history_and_table_in_agreement,
    test_one_row_that_refuses_costs_its_range_nothing_but_itself,
    test_r2_2_sessions_that_are_used_while_the_table_is_walked_survive,
    test_sessions_of_one_and_the_same_time_all_go,
    test_what_was_rolled_back_with_a_lost_connection_is_done_again,
)
from tests.support import runs
from tests.support.databases import fresh_postgres_database

# test_row_locations has what is particular to this way.
pytestmark = pytest.mark.exhaustive


@pytest.fixture(autouse=True)
def all_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any share of the sessions; and nothing is deleted in ranges."""
    no_ranges(monkeypatch)
    monkeypatch.setattr(row_locations, "_MAX_PERCENT", 1000)
    monkeypatch.setattr(runs, "CLEANUP", RANGES)


@pytest.fixture(params=[RANGES, INDEX], ids=["blocks", "index"])
def database_url(
    postgres_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URL of an empty database whose expired sessions are looked for in one way."""
    monkeypatch.setattr(runs, "CLEANUP", request.param)
    with fresh_postgres_database(postgres_server) as url:
        yield url
