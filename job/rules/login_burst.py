"""LoginBurst: a user who begins sessions faster than a person would."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from job.rules.facts import Facts, Survey
    from policy.rules import SessionRule


@dataclass(slots=True)
class Bursts:
    """Who began too many sessions, and when.

    Attributes:
        by_user: the stretches of time, by user; both ends belong to them.
    """

    by_user: dict[Any, list[tuple[datetime, datetime]]] = field(default_factory=dict)

    @property
    def users(self) -> Collection[Any]:
        """The users."""
        return self.by_user.keys()

    def cover(self, user: Any, moment: datetime | None) -> bool:
        """Whether a session that the user began at the moment belongs to a burst."""
        return moment is not None and any(first <= moment <= last for first, last in self.by_user.get(user, ()))


def burst_spans(times: Iterable[datetime], normal: int, within: timedelta) -> list[tuple[datetime, datetime]]:
    """The stretches in which more than the normal number lie within this time, joined where they overlap."""
    ordered = sorted(times)
    spans: list[tuple[datetime, datetime]] = []
    for first, last in zip(ordered, ordered[normal:], strict=False):
        if last - first > within:
            continue
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


def belongs_to_burst(rule: SessionRule, facts: Facts, survey: Survey, _now: datetime) -> bool:
    """Whether its user began it amid too many others."""
    bursts = survey.bursts.get(rule)
    return bursts is not None and bursts.cover(facts.session.user_id, facts.session.created_at)
