"""ClientChange: a session that is used by another client than it began with. An update of the client is no change."""

from __future__ import annotations

import sys
from datetime import datetime

from stores.rules.clients import signature
from stores.rules.details import SessionDetails
from stores.rules.detector import Detector, RequiredField


class ClientChange(Detector):
    """Finds sessions whose newest known client is not the one they began with.

    Where no column holds that one, it is the oldest in the access log.
    """

    requires = (RequiredField.ACCESS_LOG,)
    compares_with_origin = True
    collapsible_entries = sys.maxsize

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether the newest known client is another one."""
        newest = next((access.client for access in details.accesses if access.client), None)
        first = details.client or next((a.client for a in reversed(details.accesses) if a.client), None)
        return newest is not None and first is not None and signature(newest) != signature(first)
