"""Rules that tell abnormal and invalid sessions from good ones (R2.3, R2.6, R4.3 to R4.5).

A new rule is one line in :class:`RuleType` and one module in ``stores/rules``, see there.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field

from policy.model import Model, Rule

_YEAR_SECONDS = 366 * 24 * 3600
_NO_NUMBERS: Mapping[str, int] = {}


class RuleAction(StrEnum):
    """What happens to a session that a rule applies to; each deletes more than the one before."""

    REPORT = "Report"
    """It is counted and alerted."""
    DELETE = "Delete"
    """It is deleted from all stores."""
    LOGOUT_EVERYWHERE = "LogoutEverywhere"
    """All sessions of its user are deleted from all stores."""

    @property
    def severity(self) -> int:
        """How much it deletes, to compare with other actions."""
        return list(RuleAction).index(self)


class RuleType(StrEnum):
    """What makes a session abnormal or invalid.

    A line is all that the resource definition and its reference need of a type; the rest is in ``stores/rules``.

    Attributes:
        meaning: completes "applies to a session that ..."; read in the resource definition and in alerts.
        defaults: the numbers that a rule of this type may set, as fields of :class:`SessionRule`, with their defaults.
        default_action: what a policy without rules does about these sessions; None: it does not look for them.
    """

    LONG_RUNNING = "LongRunning", "has gone on for longer than afterSeconds", {"after_seconds": 86_400}
    WEAK_ID = "WeakId", "has an id of fewer than minBits bits, or one that follows from another", {"min_bits": 128}
    IMPOSSIBLE_TRAVEL = (
        "ImpossibleTravel",
        "was used from places farther apart than kilometers within withinSeconds",
        {"kilometers": 1000, "within_seconds": 3600},
    )
    ADDRESS_CHANGE = "AddressChange", "is used from another IP address than it began with"
    CLIENT_CHANGE = "ClientChange", "is used by another client than it began with"
    REQUEST_BURST = (
        "RequestBurst",
        "was used more than count times within withinSeconds",
        {"within_seconds": 60, "count": 600},
    )
    LOGIN_BURST = (
        "LoginBurst",
        "is one of more than count that its user began within withinSeconds",
        {"within_seconds": 60, "count": 20},
    )
    REVOKED = "Revoked", "is flagged or revoked by the application", _NO_NUMBERS, RuleAction.DELETE
    FUTURE_TIME = "FutureTime", "began, or was used, in the future"
    OWNERLESS = "Ownerless", "has no owner", _NO_NUMBERS, None

    meaning: str
    defaults: Mapping[str, int]
    default_action: RuleAction | None

    def __new__(
        cls,
        value: str,
        meaning: str,
        defaults: Mapping[str, int] = _NO_NUMBERS,
        default_action: RuleAction | None = RuleAction.REPORT,
    ) -> Self:
        """A member from its line."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning, member.defaults, member.default_action = meaning, defaults, default_action
        return member


def _types_with(number: str) -> list[RuleType]:
    return [kind for kind in RuleType if number in kind.defaults]


def _number_text(number: str, meaning: str) -> str:
    """The description of a number: which types take it, with their defaults, and what it means."""
    takers = (f"{kind} (default {kind.defaults[number]})" for kind in _types_with(number))
    return f"{', '.join(takers)}: {meaning}"


def _type_text() -> str:
    meanings = "; ".join(f"{kind}: {kind.meaning}" for kind in RuleType)
    return (
        f"Which sessions the rule applies to. {meanings}. A rule whose columns or access log are not mapped finds "
        "nothing, and the log says so."
    )


def _only_for(number: str) -> Rule:
    alias = "".join(part.capitalize() if n else part for n, part in enumerate(number.split("_")))
    types = _types_with(number)
    quoted = ", ".join(f"'{t.value}'" for t in types)
    return Rule(
        cel=f"!has(self.{alias}) || self.type in [{quoted}]",
        message=f"{alias} only goes with type {' or '.join(t.value for t in types)}",
        holds=lambda rule: getattr(rule, number) is None or rule.type in types,
    )


class SessionRule(Model):
    """One rule and what happens to the sessions it applies to."""

    type: RuleType = Field(description=_type_text())
    action: RuleAction = RuleAction.REPORT
    """Report, Delete the session, or LogoutEverywhere: delete all sessions of its user."""
    after_seconds: Annotated[int, Field(ge=60, le=10 * _YEAR_SECONDS)] | None = Field(
        default=None, description=_number_text("after_seconds", "how long a session may go on, in seconds.")
    )
    min_bits: Annotated[int, Field(ge=16, le=1024)] | None = Field(
        default=None,
        description=_number_text("min_bits", "the fewest bits an id may have; 256 random bits are recommended."),
    )
    kilometers: Annotated[int, Field(ge=1, le=20_038)] | None = Field(
        default=None, description=_number_text("kilometers", "how far apart two places may be.")
    )
    within_seconds: Annotated[int, Field(ge=1, le=86400)] | None = Field(
        default=None, description=_number_text("within_seconds", "the time looked at, in seconds.")
    )
    count: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description=_number_text("count", "how often within that time is still normal.")
    )

    rules = tuple(map(_only_for, dict.fromkeys(number for kind in RuleType for number in kind.defaults)))

    @property
    def numbers(self) -> dict[str, int]:
        """The numbers that apply, by field: the policy's own, else the type's defaults."""
        return {number: getattr(self, number) or default for number, default in self.type.defaults.items()}


DEFAULT_RULES: tuple[SessionRule, ...] = tuple(
    SessionRule(type=kind, action=kind.default_action)
    for kind in sorted(RuleType, key=lambda kind: kind.default_action is not RuleAction.DELETE)
    if kind.default_action
)
"""What applies where a policy has no rules of its own. Only what the application itself has revoked is deleted."""
