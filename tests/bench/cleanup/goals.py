"""Goals, what was found of each, and what that means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from tests.bench.figures import Figure

#: What figures call this project's own.
OURS = "this project"


class Bound(StrEnum):
    """Which side of its limit a value has to be on."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


class Verdict(StrEnum):
    """Whether a goal is reached."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached.

    Attributes:
        what: the work.
        limit: what it may cost.
    """

    what: str
    limit: str


@dataclass(frozen=True, slots=True)
class Check:
    """One number held against one limit.

    Attributes:
        what: what the number is.
        value: the number.
        bound: which side of the limit is good.
        limit: the limit.
        unit: of both; × for a multiple.
    """

    what: str
    value: float
    bound: Bound
    limit: float
    unit: str = "×"

    @property
    def holds(self) -> bool:
        """Whether the number is on the good side; not a number never is."""
        return self.value <= self.limit if self.bound is Bound.AT_MOST else self.value >= self.limit

    @property
    def used(self) -> float:
        """How much of what is allowed is used: up to 1 is good, whatever the bound."""
        if self.bound is Bound.AT_LEAST:
            return self.limit / self.value if self.value > 0 else math.inf
        if self.limit > 0:
            return self.value / self.limit
        return 0.0 if self.value <= 0 else math.inf

    def __str__(self) -> str:
        """As the table has it."""
        return f"{self.what} {quantity(self.value, self.unit)} ({self.bound} {quantity(self.limit, self.unit)})"


@dataclass(frozen=True, slots=True)
class Curve:
    """How a quantity goes with the number of sessions.

    Attributes:
        title: what it is.
        unit: of the quantity.
        points: sessions and quantity, fewest sessions first.
    """

    title: str
    unit: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a goal.

    Attributes:
        goal: the goal.
        checks: what was measured; the goal is met if all of them hold.
        size: what it was measured on.
        unmeasured: why there is no verdict, even if there are numbers.
        notes: what a reader has to know besides.
        figures: the numbers behind the checks.
        curves: likewise.
    """

    goal: Goal
    checks: tuple[Check, ...] = ()
    size: str = ""
    unmeasured: str = ""
    notes: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    curves: tuple[Curve, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Whether the goal is met."""
        if self.unmeasured or not self.checks:
            return Verdict.NOT_MEASURED
        return Verdict.MET if all(check.holds for check in self.checks) else Verdict.MISSED


def quantity(value: float, unit: str) -> str:
    """A number with its unit, to three digits."""
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}".rstrip() if unit != "×" else f"{digits} ×"


def count(number: int) -> str:
    """A number of sessions: 300 k, 2 M."""
    for limit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {letter}"
    return str(number)


def sizes(goal: int, here: int) -> str:
    """What the goal is for, and what it was measured on."""
    return f"{count(here)} sessions" if here >= goal else f"{count(here)} sessions; the goal is for {count(goal)}"
