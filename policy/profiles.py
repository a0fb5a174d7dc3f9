"""Customary session timeouts by kind of application (R4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_IDLE_SECONDS = 1800

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


class Profile(StrEnum):
    """A kind of application with customary session lifetimes."""

    FINANCE = "Finance"
    HEALTHCARE = "Healthcare"
    ECOMMERCE = "ECommerce"
    MEDIA = "Media"
    GAMES = "Games"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Idle and absolute timeout of sessions, in seconds.

    Attributes:
        idle: since the last access (sliding).
        absolute: since the session began; None for no such limit. With both, whichever comes first ends the session.
    """

    idle: int
    absolute: int | None


# Where a range is customary (finance: 5-10 minutes idle), the profile takes the longer end, so that no session ends
# sooner than users of that kind of application expect.
PROFILES: dict[Profile, Lifetime] = {
    Profile.FINANCE: Lifetime(idle=10 * _MINUTE, absolute=30 * _MINUTE),
    Profile.HEALTHCARE: Lifetime(idle=15 * _MINUTE, absolute=60 * _MINUTE),
    Profile.ECOMMERCE: Lifetime(idle=30 * _MINUTE, absolute=24 * _HOUR),
    Profile.MEDIA: Lifetime(idle=1 * _HOUR, absolute=7 * _DAY),
    Profile.GAMES: Lifetime(idle=2 * _HOUR, absolute=30 * _DAY),
}
