"""What holds for a run holds however it finds what has expired: tests of other modules, once with each strategy.

Where those try much at random, or for long, these try less of it: they are about what differs between the strategies.
"""

# ruff: noqa: F401 - the imported tests are this module's, too

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from stores.sql.dialects.postgresql import row_locations
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
from tests.stores.test_killed_anywhere import check_death_at_every_step, check_sigkill
from tests.stores.test_live_sessions import (
    check_runs_beside_an_application,
    test_sessions_touched_at_the_last_moment_survive,
)
from tests.stores.test_model import (
    FROM_THE_FUTURE,
    MANY,
    STRANGERS,
    World,
    check_with_redis,
    check_without_redis,
    specs,
    worlds,
)
from tests.stores.test_statistics import (
    test_r2_7_history_adds_up_over_batches_and_runs,
    test_r2_7_statistics_and_history_are_exact,
)
from tests.support import runs
from tests.support.databases import fresh_mariadb_database, fresh_postgres_database
from tests.support.session_stores import SessionStores

# Every strategy: the imported modules test the usual one, and test_strategies what is particular to each.
pytestmark = pytest.mark.exhaustive

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


@pytest.fixture(autouse=True)
def none_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they would all be looked for at once; see test_strategies_few.py."""
    monkeypatch.setattr(row_locations, "_MAX_ROWS", -1)


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


def test_live_sessions_survive_runs_beside_a_working_application(stores: SessionStores) -> None:
    check_runs_beside_an_application(stores, seconds=2)


def test_sigkill_at_random_moments(postgres_and_redis: SessionStores, tmp_path: Path) -> None:
    check_sigkill(postgres_and_redis, tmp_path, deaths=4)


def test_death_at_every_single_step(stores: SessionStores, monkeypatch: pytest.MonkeyPatch) -> None:
    # For the stores, to die before a step is to die after the one before.
    check_death_at_every_step(stores, monkeypatch, "after")


FEW = settings(MANY, max_examples=6)


@FEW
@given(world=worlds, spec=specs())
@example(world=STRANGERS, spec={"maxConcurrentSessions": 2, "rules": []})
@example(world=FROM_THE_FUTURE, spec={"rules": [{"type": "FutureTime", "action": "LogoutEverywhere"}]})
def test_r3_1_a_database_ends_up_as_the_requirements_say(
    database: SessionStores, world: World, spec: dict[str, Any]
) -> None:
    check_without_redis(database, world, spec)


@FEW
@given(world=worlds, spec=specs())
def test_r3_1_a_database_and_a_redis_end_up_as_the_requirements_say(
    stores: SessionStores, world: World, spec: dict[str, Any]
) -> None:
    check_with_redis(stores, world, spec)
