"""Revoked: a session that the application itself has flagged or revoked."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from stores.rules.details import SessionDetails
from stores.rules.detector import Detector, RequiredField, SessionColumns


class Revoked(Detector):
    """Finds sessions that are marked in the mapped column."""

    requires = (RequiredField.REVOKED,)

    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:
        """Whether the row is marked."""
        return sa.false() if columns.revoked is None else columns.revoked

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether it is marked."""
        return details.revoked
