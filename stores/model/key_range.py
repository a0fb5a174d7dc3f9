"""In which order expired sessions are looked for, and a part of the table in that order."""

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
    """A part of the table, in the order in which a strategy walks it; all of it where both ends are open.

    Attributes:
        strategy: whose order.
        after: where the part begins, without that place itself: the number of a block for PhysicalRanges, an id as
            text for IdOrder, None for the beginning of the table.
        up_to: where it ends, with that place itself; None for the end of the table.
    """

    strategy: Strategy
    after: str | int | None = None
    up_to: str | int | None = None
