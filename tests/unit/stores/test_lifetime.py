"""R4.1, R4.2: which lifetime a policy asks for, and when a session has reached its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.lifetime import resolve_lifetime
from policy.profiles import PROFILES, Lifetime, Profile
from stores.model.cutoffs import cutoffs, narrowest
from tests.support.runs import policy

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
seconds = st.integers(60, 10**7)
optional = st.one_of(st.none(), seconds)


@given(
    idle=seconds, absolute=optional, skew=st.integers(0, 300), unused=st.integers(0, 10**7), age=st.integers(0, 10**7)
)
def test_r4_1_whichever_timeout_comes_first_ends_a_session(
    idle: int, absolute: int | None, skew: int, unused: int, age: int
) -> None:
    ends = cutoffs(NOW, Lifetime(idle, absolute), skew)
    by_idle = NOW - timedelta(seconds=unused) < ends.idle
    by_age = ends.absolute is not None and NOW - timedelta(seconds=age) < ends.absolute
    assert by_idle == (unused > idle + skew)
    assert by_age == (absolute is not None and age > absolute + skew)
    assert ends.expiry == NOW - timedelta(seconds=skew)


@given(idle=seconds, absolute=optional, stored_idle=optional, stored_absolute=optional)
def test_r4_1_a_stored_setting_only_ever_narrows(
    idle: int, absolute: int | None, stored_idle: int | None, stored_absolute: int | None
) -> None:
    narrowed = narrowest(Lifetime(idle, absolute), stored_idle, stored_absolute)
    assert narrowed.idle == min([idle, *([stored_idle] if stored_idle else [])])
    limits = [limit for limit in (absolute, stored_absolute) if limit]
    assert narrowed.absolute == (min(limits) if limits else None)


# The requirement's ranges, in seconds: (idle from, idle to, absolute from, absolute to).
RANGES = {
    Profile.FINANCE: (300, 600, 900, 1800),
    Profile.HEALTHCARE: (900, 900, 1800, 3600),
    Profile.ECOMMERCE: (1800, 1800, 86400, 86400),
    Profile.MEDIA: (3600, 3600, 7 * 86400, 7 * 86400),
    Profile.GAMES: (7200, 7200, 30 * 86400, 30 * 86400),
}


@pytest.mark.parametrize("profile", list(Profile))
def test_r4_2_profiles_are_within_what_is_required(profile: Profile) -> None:
    lifetime = PROFILES[profile]
    least_idle, most_idle, least_absolute, most_absolute = RANGES[profile]
    assert least_idle <= lifetime.idle <= most_idle
    assert lifetime.absolute is not None
    assert least_absolute <= lifetime.absolute <= most_absolute


@pytest.mark.parametrize("profile", list(Profile))
def test_r4_2_where_a_range_is_customary_a_profile_takes_its_longer_end(profile: Profile) -> None:
    _, longest_idle, _, longest_absolute = RANGES[profile]
    assert PROFILES[profile] == Lifetime(longest_idle, longest_absolute)


@pytest.mark.parametrize("profile", [None, *Profile])
@given(idle=optional, absolute=optional)
def test_r4_2_explicit_fields_win(profile: Profile | None, idle: int | None, absolute: int | None) -> None:
    if idle and absolute and idle > absolute:
        idle, absolute = absolute, idle
    explicit: dict[str, Any] = {"sessionTimeoutSeconds": idle, "absoluteTimeoutSeconds": absolute}
    fields = {k: v for k, v in explicit.items() if v} | ({"profile": profile.value} if profile else {})
    lifetime = resolve_lifetime(policy(**fields).spec)
    base = PROFILES[profile] if profile else Lifetime(1800, None)
    assert lifetime.absolute == (absolute or base.absolute)
    assert lifetime.idle == (idle or base.idle)
