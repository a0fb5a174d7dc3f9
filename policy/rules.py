"""Rules that tell abnormal and invalid sessions from good ones (R2.3, R2.6, R4.3 to R4.5)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from policy.model import Model, Rule

_YEAR_SECONDS = 366 * 24 * 3600


class RuleType(StrEnum):
    """What makes a session abnormal or invalid."""

    LONG_RUNNING = "LongRunning"
    """It has gone on for longer than afterSeconds."""
    WEAK_ID = "WeakId"
    """Its id is shorter than minBits, or follows from another one."""
    IMPOSSIBLE_TRAVEL = "ImpossibleTravel"
    """It was used from places over kilometers apart within withinSeconds."""
    ADDRESS_CHANGE = "AddressChange"
    """It is used from another IP address than it began with."""
    CLIENT_CHANGE = "ClientChange"
    """It is used by another client than it began with."""
    REQUEST_BURST = "RequestBurst"
    """It was used more than count times within withinSeconds."""
    LOGIN_BURST = "LoginBurst"
    """Its user began more than count sessions within withinSeconds."""
    REVOKED = "Revoked"
    """The application has flagged or revoked it."""
    FUTURE_TIME = "FutureTime"
    """It began, or was used, in the future."""
    OWNERLESS = "Ownerless"
    """It has no owner."""


class RuleAction(StrEnum):
    """What happens to a session that a rule applies to."""

    REPORT = "Report"
    """It is counted and alerted."""
    DELETE = "Delete"
    """It is deleted from all stores."""
    LOGOUT_EVERYWHERE = "LogoutEverywhere"
    """All sessions of its user are deleted from all stores."""


_TAKES: dict[str, tuple[RuleType, ...]] = {
    "after_seconds": (RuleType.LONG_RUNNING,),
    "min_bits": (RuleType.WEAK_ID,),
    "kilometers": (RuleType.IMPOSSIBLE_TRAVEL,),
    "within_seconds": (RuleType.IMPOSSIBLE_TRAVEL, RuleType.REQUEST_BURST, RuleType.LOGIN_BURST),
    "count": (RuleType.REQUEST_BURST, RuleType.LOGIN_BURST),
}


def _only_for(field: str) -> Rule:
    alias = "".join(part.capitalize() if n else part for n, part in enumerate(field.split("_")))
    types = _TAKES[field]
    quoted = ", ".join(f"'{t.value}'" for t in types)
    return Rule(
        cel=f"!has(self.{alias}) || self.type in [{quoted}]",
        message=f"{alias} only goes with type {' or '.join(t.value for t in types)}",
        holds=lambda rule: getattr(rule, field) is None or rule.type in types,
    )


class SessionRule(Model):
    """One rule and what happens to the sessions it applies to."""

    type: RuleType
    """LongRunning, WeakId, ImpossibleTravel, AddressChange, ClientChange, RequestBurst, LoginBurst, Revoked, FutureTime
    or Ownerless. A rule whose columns or access log are not mapped finds nothing, and the log says so."""
    action: RuleAction = RuleAction.REPORT
    """Report, Delete the session, or LogoutEverywhere: delete all sessions of its user."""
    after_seconds: Annotated[int, Field(ge=60, le=10 * _YEAR_SECONDS)] | None = None
    """LongRunning: how long a session may go on, in seconds. Default 86400."""
    min_bits: Annotated[int, Field(ge=16, le=1024)] | None = None
    """WeakId: the fewest bits an id may have. Default 128; 256 random bits are recommended."""
    kilometers: Annotated[int, Field(ge=1, le=20_038)] | None = None
    """ImpossibleTravel: how far apart two places may be. Default 1000."""
    within_seconds: Annotated[int, Field(ge=1, le=86400)] | None = None
    """ImpossibleTravel (default 3600), RequestBurst and LoginBurst (default 60): the time looked at, in seconds."""
    count: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """RequestBurst (default 600), LoginBurst (default 20): how often within that time is still normal."""

    rules = tuple(_only_for(field) for field in _TAKES)


DEFAULT_RULES: tuple[SessionRule, ...] = (
    SessionRule(type=RuleType.REVOKED, action=RuleAction.DELETE),
    SessionRule(type=RuleType.FUTURE_TIME),
    SessionRule(type=RuleType.LONG_RUNNING),
    SessionRule(type=RuleType.WEAK_ID),
    SessionRule(type=RuleType.IMPOSSIBLE_TRAVEL),
    # Mobile networks change addresses all the time: by itself that is a warning at most.
    SessionRule(type=RuleType.ADDRESS_CHANGE),
    SessionRule(type=RuleType.CLIENT_CHANGE),
    SessionRule(type=RuleType.REQUEST_BURST),
    SessionRule(type=RuleType.LOGIN_BURST),
)
"""What applies where a policy has no rules of its own. Only what the application itself has revoked is deleted."""
