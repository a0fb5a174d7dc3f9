"""LoginBurst: a user who begins sessions faster than a person would."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from policy.rules import SessionRule
from stores.rules.facts import Facts, Survey


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
