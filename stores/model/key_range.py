"""The order in which expired sessions are looked for, and ranges of the table in that order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Strategy(StrEnum):
    """How expired sessions are found."""

    EXPIRY_INDEX = "ExpiryIndex"
    PHYSICAL_RANGES = "PhysicalRanges"
    ID_ORDER = "IdOrder"


@dataclass(frozen=True, slots=True)
class KeyRange:
    """A range of the table in the order of a strategy; all of the table where both ends are None.

    Attributes:
        strategy: whose order.
        after: where the range begins, exclusive: the number of a block for PhysicalRanges, an id as
            text for IdOrder, None for the beginning of the table.
        up_to: where it ends, inclusive; None for the end of the table.
    """

    strategy: Strategy
    after: str | int | None = None
    up_to: str | int | None = None
