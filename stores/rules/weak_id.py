"""WeakId: session ids that can be guessed, because they are short or follow from one another (R4.3)."""

from __future__ import annotations

import string
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import ceil, log2

import sqlalchemy as sa

from stores.rules.details import SessionDetails
from stores.rules.detector import Detector, SessionColumns, TableQueries

_SAMPLE = 1000

# Alphabets that ids are written in, the smallest first.
_ALPHABETS = (
    string.digits,
    string.digits + "abcdef",
    string.digits + "ABCDEF",
    "abcdefghijklmnopqrstuvwxyz234567",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
    string.digits + string.ascii_lowercase,
    string.digits + string.ascii_uppercase,
    string.digits + string.ascii_letters,
    string.digits + string.ascii_letters + "-_",
    string.digits + string.ascii_letters + "+/=",
    string.digits + string.ascii_letters + string.punctuation + " ",
)
# Of fewer ids than this nothing can be told but their length: what they have in common may be chance.
_ENOUGH = 20
# Ids this close to each other follow from one another. Random ones of 64 bits are never so close in any sample.
_NEXT = 1000
_DECIMAL, _HEXADECIMAL = 10, 16
_MOST_DIGITS = 128
_UUID_BITS = 128
# Versions made of the time and the machine: who has one can tell the next.
_TIME_BASED = frozenset({1, 2, 6})
_RANDOM_BITS = {7: 74}


@dataclass(frozen=True, slots=True)
class IdStrength:
    """How strong the ids of a table are.

    Attributes:
        all_weak: they follow from one another, or their kind holds too few bits: every one can be guessed.
        shortest: the fewest characters an id needs to have enough bits; 0 where its length says nothing.
    """

    all_weak: bool = False
    shortest: int = 0


class WeakId(Detector):
    """Finds sessions whose id has fewer than ``minBits`` bits, or follows from another one.

    Attributes:
        strength: of the table's ids, told from a sample; known once the detector is prepared.
    """

    strength = IdStrength()

    def prepare(self, table: TableQueries, max_per_user: int) -> None:
        """Tells from the newest ids how strong ids are."""
        self.strength = id_strength([str(i) for i in table.newest_ids(_SAMPLE)], self.numbers["min_bits"])

    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:
        """Whether the row's id can be guessed."""
        return sa.true() if self.strength.all_weak else columns.id_length < self.strength.shortest

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether its id can be guessed."""
        return self.strength.all_weak or len(details.session.key) < self.strength.shortest


def id_strength(sample: Sequence[str], wanted_bits: int) -> IdStrength:
    """How strong ids like these are.

    An id has as many bits as fit its length in the alphabet that the sample is written in; what all ids begin with
    counts for nothing. A UUID counts as its 128 bits, but for the versions that say less.

    Args:
        sample: ids that began one after the other, as far as that is known.
        wanted_bits: the fewest bits an id may have.
    """
    ids = list(dict.fromkeys(sample))
    if not ids:
        return IdStrength()
    versions = [_uuid_version(i) for i in ids]
    if None not in versions:
        bits = min(0 if v in _TIME_BASED else _RANDOM_BITS.get(v or 0, _UUID_BITS) for v in versions)
        return IdStrength(all_weak=bits < wanted_bits)
    same = _common_beginning(ids) if len(ids) >= _ENOUGH else 0
    parts = [i[same:] for i in ids]
    shortest = same + ceil(wanted_bits / log2(_alphabet("".join(parts))))
    return IdStrength(all_weak=_follow_each_other(parts), shortest=shortest)


def _common_beginning(ids: Sequence[str]) -> int:
    """How many characters all ids begin with."""
    first, last = min(ids), max(ids)  # whatever these two share, all in between share, too
    return next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _alphabet(text: str) -> int:
    used = set(text)
    # Of letters beyond these it is not known how many there are: as many as were used.
    return next((len(a) for a in _ALPHABETS if used.issubset(a)), max(len(used), len(_ALPHABETS[-1])))


def _follow_each_other(parts: Sequence[str]) -> bool:
    """Whether most ids, read as numbers, lie close to the one before."""
    if len(parts) < _ENOUGH:
        return False
    for base in (_DECIMAL, _HEXADECIMAL):
        if numbers := _numbers(parts, base):
            close = sum(later - earlier <= _NEXT for earlier, later in pairwise(sorted(numbers)))
            if close * 2 > len(numbers):
                return True
    return False


def _numbers(parts: Sequence[str], base: int) -> list[int]:
    """The ids as numbers; none if any is not a number in this base, or too long for one that is counted up."""
    digits = frozenset(string.digits if base == _DECIMAL else string.hexdigits)
    if not all(len(part) <= _MOST_DIGITS and digits.issuperset(part) for part in parts):
        return []
    return [int(part, base) for part in parts if part]


def _uuid_version(text: str) -> int | None:
    """The version of a UUID in its usual form; None if it is none."""
    if len(text) != 36 or text.count("-") != 4:  # noqa: PLR2004
        return None
    try:
        return uuid.UUID(text).version or 0
    except ValueError:
        return None
