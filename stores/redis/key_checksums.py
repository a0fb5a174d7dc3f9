"""Comparing two walks through many keys with a few megabytes of memory, however many keys there are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

_FEWEST_GROUPS, _MOST_GROUPS = 2**12, 2**20
_SUM = 2**64 - 1


class KeyChecksums:
    """Tells which keys may not have been met equally often by two walks.

    Keys are put into groups by their hashes, and the hashes of each group are summed up: added by one walk, subtracted
    by the other. A group whose sum is zero was met alike: that its keys differ nevertheless has a chance of about one
    in 2**64. No key is empty. Hashes are salted anew in each process, so that what a run misses the next one finds.

    Args:
        expected: about how many keys there are. There are as many groups, within limits: so few keys share one with a
            key that differs, and eight megabytes are the most it takes.
    """

    def __init__(self, expected: int) -> None:
        groups = min(max(_FEWEST_GROUPS, 1 << expected.bit_length()), _MOST_GROUPS)
        self._sums = array("Q", bytes(8 * groups))
        self._group_of = groups - 1

    def add(self, keys: Iterable[bytes]) -> None:
        """What the one walk has met."""
        sums, group_of = self._sums, self._group_of  # looked up once: this is done with every key there is
        for hashed in map(hash, keys):
            group = hashed & group_of
            sums[group] = (sums[group] + hashed) & _SUM

    def subtract(self, keys: Iterable[bytes]) -> None:
        """What the other walk has met."""
        sums, group_of = self._sums, self._group_of
        for hashed in map(hash, keys):
            group = hashed & group_of
            sums[group] = (sums[group] - hashed) & _SUM

    @property
    def differ(self) -> bool:
        """Whether there is a key that one walk met more often than the other."""
        return any(self._sums)

    def doubtful(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys whose group was not met alike: all that differ are among them, and some that do not."""
        sums, group_of = self._sums, self._group_of
        return [key for key in keys if sums[hash(key) & group_of]]
