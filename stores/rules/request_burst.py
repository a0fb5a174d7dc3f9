"""RequestBurst: a session that is used more often than a person would."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from stores.rules.details import SessionDetails
from stores.rules.detector import MAX_LOG_ENTRIES, Detector, RequiredField


class RequestBurst(Detector):
    """Finds sessions with more than ``count`` accesses within ``withinSeconds``."""

    requires = (RequiredField.ACCESS_LOG,)

    @property
    def unusable(self) -> str:
        """Why so many accesses cannot be counted."""
        count = self.numbers["count"]
        if count < MAX_LOG_ENTRIES:
            return ""
        return f"rules.count is {count}; only the newest {MAX_LOG_ENTRIES} accesses of a session are read"

    @property
    def log_entries(self) -> int:
        """A burst needs more entries than the number that is still normal."""
        return max(super().log_entries, min(2 * self.numbers["count"], MAX_LOG_ENTRIES))

    @property
    def collapsible_entries(self) -> int:
        """So many accesses are no burst, whenever they were."""
        return self.numbers["count"]

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether more accesses than are normal lie within the time looked at."""
        normal = self.numbers["count"]
        if len(details.accesses) <= normal:
            return False
        times = (access.at for access in details.accesses if access.at)
        return has_burst(times, normal, timedelta(seconds=self.numbers["within_seconds"]))


def has_burst(times: Iterable[datetime], normal: int, within: timedelta) -> bool:
    """Whether any time span of this length, its ends included, holds more than the normal number of times."""
    ordered = sorted(times)
    return any(later - earlier <= within for earlier, later in zip(ordered, ordered[normal:], strict=False))
