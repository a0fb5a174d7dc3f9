"""FutureTime: a session that began, or was used, in the future. No timeout would ever end it."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from stores.rules.details import SessionDetails
from stores.rules.detector import Detector, RequiredField, SessionColumns


class FutureTime(Detector):
    """Finds sessions with a time that is ahead by more than clocks may differ."""

    requires = (RequiredField.CREATED_OR_LAST_ACCESSED_AT,)

    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:
        """Whether one of the row's times is ahead."""
        times = (columns.created_at, columns.last_accessed_at)
        return sa.or_(sa.false(), *(sa.not_(time.before(now + self.skew)) for time in times if time))

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether one of its times is ahead."""
        latest = now + self.skew
        times = (details.session.created_at, details.session.last_accessed_at)
        return any(moment is not None and moment > latest for moment in times)
