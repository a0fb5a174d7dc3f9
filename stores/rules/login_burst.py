"""LoginBurst: a user who begins sessions faster than a person would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from stores.rules.details import SessionDetails
from stores.rules.detector import Detector, RequiredField, SessionColumns, TableQueries

# Users that are held in memory.
_MAX_USERS = 10_000

Span = tuple[datetime, datetime]
"""A time span; both ends belong to it."""


class LoginBurst(Detector):
    """Finds sessions that are among more than ``count`` which their user began within ``withinSeconds``.

    Attributes:
        bursts: when each user with too many new sessions began them; known once the detector is prepared.
    """

    requires = (RequiredField.USER_ID, RequiredField.CREATED_AT)
    bursts: Mapping[Any, Sequence[Span]] = {}

    def prepare(self, table: TableQueries, max_per_user: int) -> None:
        """Looks at when the sessions of each user with more than ``count`` of them began."""
        normal, within = self.numbers["count"], timedelta(seconds=self.numbers["within_seconds"])
        if max_per_user <= normal:
            return
        found: dict[Any, Sequence[Span]] = {}
        for times_by_user in table.creation_times(more_than=normal):
            for user, times in times_by_user.items():
                if spans := burst_spans(times, normal, within):
                    found[user] = spans
                if len(found) >= _MAX_USERS:
                    self.incomplete = f"only the first {_MAX_USERS} users with bursts are looked at"
                    self.bursts = found
                    return
        self.bursts = found

    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:
        """Whether the row belongs to a user with a burst."""
        return columns.user_in(self.bursts.keys()) if self.bursts else sa.false()

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether it began within a burst of its user."""
        began = details.session.created_at
        spans = self.bursts.get(details.session.user_id, ())
        return began is not None and any(first <= began <= last for first, last in spans)


def burst_spans(times: Iterable[datetime], normal: int, within: timedelta) -> list[Span]:
    """The stretches in which more than the normal number lie within this time, joined where they overlap."""
    ordered = sorted(times)
    spans: list[Span] = []
    for first, last in zip(ordered, ordered[normal:], strict=False):
        if last - first > within:
            continue
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans
