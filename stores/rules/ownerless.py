"""Ownerless: a session without an owner, where each must have one."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from stores.rules.details import SessionDetails, has_owner
from stores.rules.detector import Detector, RequiredField, SessionColumns


class Ownerless(Detector):
    """Finds sessions that belong to no user; an empty text is no user."""

    requires = (RequiredField.USER_ID,)

    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:
        """Whether the row names no user."""
        return sa.not_(columns.has_owner)

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether it belongs to no user."""
        return not has_owner(details.session)
