"""Stored settings (TBL-068): timeouts and limits that narrow the policy for everybody, a tenant, a role or a user.

Every setting that applies to a session counts, whatever its scope, and the narrowest of them and the policy wins: the
shortest timeout, the smallest limit. A setting can never make a session live longer than the policy says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from policy.profiles import Lifetime
from stores.model.cutoffs import narrowest

LARGEST = 2**31 - 1
"""A larger number of seconds (68 years) or sessions bounds nothing: such a setting has no effect."""

UNLIMITED = LARGEST
"""A limit per user that nobody reaches: what a policy without a limit has, where a setting gives one to some users."""

# Each different value becomes a condition in SQL.
_MOST_LEVELS = 16


class Scope(StrEnum):
    """Who a setting is for."""

    GLOBAL = "Global"
    TENANT = "Tenant"
    ROLE = "Role"
    USER = "User"


@dataclass(frozen=True, slots=True)
class Setting:
    """One or several equal rows of the settings table, without the names of those they are for.

    Attributes:
        scope: whom it is for.
        idle: idle timeout in seconds; None leaves the policy's.
        absolute: absolute timeout in seconds; None leaves the policy's.
        limit: sessions a user may have; None leaves the policy's.
        rows: how many rows say so.
    """

    scope: Scope
    idle: int | None = None
    absolute: int | None = None
    limit: int | None = None
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Level:
    """Settings whose value lies between two bounds; all of them count as the upper one.

    Attributes:
        above: lower bound, exclusive.
        value: upper bound: seconds of a timeout, or sessions of a limit.
    """

    above: int
    value: int


@dataclass(frozen=True, slots=True)
class Narrowing:
    """A policy's lifetime and limit, narrowed by the stored settings.

    Attributes:
        lifetime: for everybody: the policy's, narrowed by the Global settings.
        limit: likewise, sessions a user may have; 0 for any number.
        idle: shorter idle timeouts that some tenants, roles or users have, the shortest first.
        absolute: likewise, absolute timeouts.
        limits: likewise, smaller limits.
    """

    lifetime: Lifetime
    limit: int
    idle: tuple[Level, ...] = ()
    absolute: tuple[Level, ...] = ()
    limits: tuple[Level, ...] = ()

    @property
    def effective_limit(self) -> int:
        """The limit for those whom no setting gives a smaller one; 0 only where nobody has any."""
        return self.limit or (UNLIMITED if self.limits else 0)


def narrow(lifetime: Lifetime, limit: int, settings: Iterable[Setting]) -> Narrowing:
    """Applies the settings to a policy's lifetime and limit.

    Values that make no sense (not above zero, or too large) apply to nobody; the verification reports them.

    Args:
        lifetime: the policy's.
        limit: the policy's; 0 for any number.
        settings: all that are stored.
    """
    others: list[Setting] = []
    for setting in settings:
        if setting.scope is not Scope.GLOBAL:
            others.append(setting)
            continue
        lifetime = narrowest(lifetime, usable(setting.idle), usable(setting.absolute))
        limit = min((n for n in (limit, usable(setting.limit) or 0) if n > 0), default=0)
    return Narrowing(
        lifetime,
        limit,
        idle=levels((s.idle for s in others), lifetime.idle),
        absolute=levels((s.absolute for s in others), lifetime.absolute),
        limits=levels((s.limit for s in others), limit or None),
    )


def levels(values: Iterable[int | None], base: int | None, most: int = _MOST_LEVELS) -> tuple[Level, ...]:
    """The different values below the base, ascending.

    Of more than one statement can distinguish, some are taken for the next larger one: a session then lives a
    little longer than its setting says, never shorter.

    Args:
        values: of the settings.
        base: what applies without them; None for no bound.
        most: how many levels there may be.
    """
    different = sorted({v for value in values if (v := usable(value)) and (base is None or v < base)})
    count = min(most, len(different))
    chosen = [different[(n + 1) * len(different) // count - 1] for n in range(count)]
    return tuple(Level(above, value) for above, value in pairwise([0, *chosen]))


def effective(lifetime: Lifetime, limit: int, settings: Iterable[Setting]) -> tuple[Lifetime, int]:
    """What applies to one session, given the settings that apply to it: what the SQL must agree with."""
    for setting in settings:
        lifetime = narrowest(lifetime, usable(setting.idle), usable(setting.absolute))
        limit = min((n for n in (limit, usable(setting.limit) or 0) if n > 0), default=0)
    return lifetime, limit


def usable(value: int | None) -> int | None:
    """The value of a setting, if it can bound anything."""
    return value if value is not None and 0 < value < LARGEST else None
