"""LongRunning: a session that has gone on for longer than it may."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from stores.rules.details import SessionDetails
from stores.rules.detector import Detector, RequiredField, SessionColumns


class LongRunning(Detector):
    """Finds sessions that began longer ago than ``afterSeconds``, by more than clocks may differ."""

    requires = (RequiredField.CREATED_AT,)

    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:
        """Whether the row's session began that long ago."""
        return columns.created_at.before(self._latest(now)) if columns.created_at else sa.false()

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether it began that long ago."""
        began = details.session.created_at
        return began is not None and began < self._latest(now)

    def _latest(self, now: datetime) -> datetime:
        return now - self.skew - timedelta(seconds=self.numbers["after_seconds"])
