"""R2.9, TBL-068: settings narrow, never widen; and what is wrong with them is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.steps.settings_verification import SettingsFinding, find_risky_settings, settings_problems
from policy.profiles import Lifetime
from stores.model.stored_settings import LARGEST, Level, Narrowing, Scope, Setting, effective, levels, narrow
from tests.support.runs import policy

VALUES = st.none() | st.integers(-5, 200) | st.sampled_from([LARGEST - 1, LARGEST, 2**62])
SETTINGS = st.lists(st.builds(Setting, st.sampled_from(Scope), VALUES, VALUES, VALUES), max_size=30)
LIFETIMES = st.builds(Lifetime, st.integers(1, 100), st.none() | st.integers(1, 100))


def taken_for(levels: tuple[Level, ...], value: int | None, base: int | None) -> int | None:
    """What a value of a setting comes to, as the SQL has it."""
    return next((lv.value for lv in levels if value is not None and lv.above < value <= lv.value), base)


@given(LIFETIMES, st.integers(0, 50), SETTINGS)
def test_r2_1_the_narrowest_wins(lifetime: Lifetime, limit: int, settings: list[Setting]) -> None:
    narrowing = narrow(lifetime, limit, settings)
    for_everybody = [s for s in settings if s.scope is Scope.GLOBAL]
    assert (narrowing.lifetime, narrowing.limit) == effective(lifetime, limit, for_everybody)
    if len(settings) > 16:
        return  # some values may be taken for larger ones
    for one in settings:
        if one.scope is Scope.GLOBAL:
            continue
        shortest, fewest = effective(lifetime, limit, [*for_everybody, one])
        assert taken_for(narrowing.idle, one.idle, narrowing.lifetime.idle) == shortest.idle
        assert taken_for(narrowing.absolute, one.absolute, narrowing.lifetime.absolute) == shortest.absolute
        assert taken_for(narrowing.limits, one.limit, narrowing.limit) == fewest


@given(LIFETIMES, st.integers(0, 50), SETTINGS)
def test_r2_1_a_setting_never_widens(lifetime: Lifetime, limit: int, settings: list[Setting]) -> None:
    shortest, fewest = effective(lifetime, limit, settings)
    assert shortest.idle <= lifetime.idle
    assert lifetime.absolute is None or (shortest.absolute or 10**9) <= lifetime.absolute
    assert limit == 0 or 0 < fewest <= limit


@given(st.lists(VALUES, max_size=80), st.none() | st.integers(1, 150), st.integers(1, 8))
def test_r2_1_too_many_values_are_taken_for_larger_ones(values: list[int | None], base: int | None, most: int) -> None:
    found = levels(values, base, most)
    assert len(found) <= most
    assert [lv.above for lv in found] == [0, *(lv.value for lv in found)][: len(found)]
    for value in values:
        if value is None or not 0 < value < LARGEST or (base is not None and value >= base):
            assert value is None or value <= 0 or taken_for(found, value, base) == base
        else:
            taken = taken_for(found, value, None)
            assert taken is not None
            assert value <= taken
            assert base is None or taken < base


def test_no_settings_change_nothing() -> None:
    lifetime = Lifetime(1800, None)
    assert narrow(lifetime, 0, []) == Narrowing(lifetime, 0)
    assert narrow(lifetime, 0, []).effective_limit == 0
    assert narrow(lifetime, 0, [Setting(Scope.USER, limit=2)]).effective_limit > 10**9


EVERY = frozenset(Scope)
SANE = {"absoluteTimeoutSeconds": 7200, "sessionTimeoutSeconds": 1800, "maxConcurrentSessions": 10}


def findings(*settings: Setting, **spec: object) -> list[SettingsFinding]:
    return find_risky_settings(policy(**{**SANE, **spec}).spec, settings, EVERY, {})


def fields(*settings: Setting, **spec: object) -> list[str]:
    return [finding.field for finding in findings(*settings, **spec)]


def test_r2_9_good_settings_have_no_findings() -> None:
    assert findings(Setting(Scope.USER, idle=600, absolute=3600, limit=2), Setting(Scope.GLOBAL, limit=5)) == []


def test_r2_9_a_setting_that_says_what_the_policy_says_has_no_finding() -> None:
    assert findings(Setting(Scope.USER, idle=1800, absolute=7200, limit=10)) == []


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        (Setting(Scope.USER, idle=0), "User.idle_timeout_seconds"),
        (Setting(Scope.ROLE, absolute=-1), "Role.absolute_timeout_seconds"),
        (Setting(Scope.TENANT, limit=0), "Tenant.max_sessions"),
        (Setting(Scope.USER, idle=1801), "User.idle_timeout_seconds"),
        (Setting(Scope.USER, limit=11), "User.max_sessions"),
        (Setting(Scope.GLOBAL, idle=900, absolute=600), "Global.idle_timeout_seconds"),
        (Setting(Scope.GLOBAL), "Global.*"),
        (Setting(Scope.USER, limit=2**40), "User.max_sessions"),
    ],
)
def test_r2_9_bad_settings_are_found_with_field_and_remedy(setting: Setting, field: str) -> None:
    (finding,) = findings(setting)
    assert finding.field == field
    assert finding.message
    assert finding.remedy


def test_r2_9_an_unbounded_policy_is_found_unless_a_setting_bounds_it() -> None:
    unbounded = {"absoluteTimeoutSeconds": None, "maxConcurrentSessions": 0}
    assert fields(**unbounded) == ["spec.absoluteTimeoutSeconds", "spec.maxConcurrentSessions"]
    assert fields(Setting(Scope.GLOBAL, absolute=3600, limit=5), **unbounded) == []
    assert len(fields(Setting(Scope.USER, absolute=3600, limit=5), **unbounded)) == 2


def test_r2_9_a_policy_weaker_than_its_profile_is_found() -> None:
    assert fields(profile="Finance") == ["spec.sessionTimeoutSeconds", "spec.absoluteTimeoutSeconds"]
    assert fields(profile="Games") == []


def test_r2_9_settings_alike_are_one_finding_that_counts_the_rows() -> None:
    (finding,) = findings(Setting(Scope.USER, idle=0, rows=3), Setting(Scope.USER, idle=-7, rows=4))
    assert finding.rows == 7
    (problem,) = settings_problems([finding])
    assert (problem.reason, problem.count) == ("RiskySettings", 7)
    assert settings_problems([]) == []


def test_r2_9_settings_for_nobody_and_of_scopes_that_are_not_mapped() -> None:
    settings = [Setting(Scope.ROLE, idle=60, rows=2), Setting(Scope.USER, idle=60, rows=5)]
    found = find_risky_settings(policy(**SANE).spec, settings, {Scope.GLOBAL, Scope.USER}, {Scope.USER: 3})
    assert {(f.field, f.rows) for f in found} == {("Role.subject", 2), ("User.subject", 3)}
