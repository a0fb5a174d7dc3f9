"""What holds for a run holds however it finds what has expired: tests of other modules, once with each strategy."""

# ruff: noqa: F401 - the imported tests are this module's, too

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.stores.test_batches import (
    test_a_session_meets_the_limit_only_once,
    test_a_trigger_that_refuses_a_row_does_not_stop_the_rest,
    test_r2_2_a_row_that_cannot_be_deleted_does_not_stop_the_rest,
    test_r2_2_a_row_the_application_works_on_is_skipped_and_not_waited_for,
    test_r6_no_more_than_max_deletions_go_and_the_next_run_goes_on,
    test_r6_the_limit_is_one_for_expired_and_evicted_together,
    test_what_hangs_on_a_session_goes_with_it_where_the_application_says_so,
)
from tests.stores.test_expired import (
    test_a_session_without_an_owner_expires_like_any_other,
    test_r2_2_a_session_used_in_redis_since_is_live,
    test_r2_2_idle_sessions_go_and_others_stay,
    test_r2_2_many_expired_sessions_go_in_many_batches,
    test_r2_2_the_applications_own_expiry_counts_besides_and_null_means_never,
    test_r4_1_a_stored_setting_narrows_the_policy_and_never_widens_it,
    test_r4_1_whichever_timeout_comes_first_ends_a_session,
    test_times_no_calendar_knows_stop_no_run,
)
from tests.stores.test_killed_anywhere import test_death_at_every_single_step, test_sigkill_at_random_moments
from tests.stores.test_live_sessions import (
    test_live_sessions_survive_runs_beside_a_working_application,
    test_sessions_touched_at_the_last_moment_survive,
)
from tests.stores.test_model import (
    test_r3_1_a_database_and_a_redis_end_up_as_the_requirements_say,
    test_r3_1_a_database_ends_up_as_the_requirements_say,
)
from tests.stores.test_statistics import (
    test_r2_7_history_adds_up_over_batches_and_runs,
    test_r2_7_statistics_and_history_are_exact,
)
from tests.support import runs
from tests.support.databases import fresh_mariadb_database, fresh_postgres_database

_POSTGRES: dict[str, dict[str, Any]] = {
    "index": {"strategy": "ExpiryIndex", "batchSizing": "Fixed"},
    "index at once": {"strategy": "ExpiryIndex"},
    "ranges": {"strategy": "PhysicalRanges", "batchSizing": "Fixed"},
    "ranges at once": {"strategy": "PhysicalRanges"},
}
_MARIADB: dict[str, dict[str, Any]] = {
    "index": {"strategy": "ExpiryIndex", "batchSizing": "Fixed"},
    "ids at once": {"strategy": "IdOrder"},
}
_ALL = [("postgres", name) for name in _POSTGRES] + [("mariadb", name) for name in _MARIADB]


@pytest.fixture(params=_ALL, ids=" ".join)
def database_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty database whose expired sessions are found in one way."""
    kind, way = request.param
    monkeypatch.setattr(runs, "CLEANUP", (_POSTGRES if kind == "postgres" else _MARIADB)[way])
    fresh = fresh_postgres_database if kind == "postgres" else fresh_mariadb_database
    with fresh(request.getfixturevalue(f"{kind}_server")) as url:
        yield url


@pytest.fixture(params=_POSTGRES)
def postgres_url(
    postgres_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Likewise, in PostgreSQL."""
    monkeypatch.setattr(runs, "CLEANUP", _POSTGRES[request.param])
    with fresh_postgres_database(postgres_server) as url:
        yield url
