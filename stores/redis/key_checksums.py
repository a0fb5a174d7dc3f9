"""Compares two scans of keys by checksums: at most eight megabytes of memory, however many keys."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

_MIN_GROUPS, _MAX_GROUPS = 2**12, 2**20
_UINT64 = 2**64 - 1


class KeyChecksums:
    """Finds keys that two scans did not return equally often.

    Keys are grouped by hash, and each group keeps the sum of its hashes: one scan adds, the other subtracts. A group
    whose sum is zero is the same in both scans; that its keys differ all the same has a chance of about one in 2**64.
    Python salts hashes anew in each process, so what one run misses the next one finds. Keys must not be empty.

    Args:
        expected: about how many keys there are. There are as many groups, within limits, so that few keys share a
            group with a differing key.
    """

    def __init__(self, expected: int) -> None:
        groups = min(max(_MIN_GROUPS, 1 << expected.bit_length()), _MAX_GROUPS)
        self._sums = array("Q", bytes(8 * groups))
        self._group_of = groups - 1

    def add(self, keys: Iterable[bytes]) -> None:
        """Adds keys that the first scan returned."""
        sums, group_of = self._sums, self._group_of  # local names: this runs for every key
        for hashed in map(hash, keys):
            group = hashed & group_of
            sums[group] = (sums[group] + hashed) & _UINT64

    def subtract(self, keys: Iterable[bytes]) -> None:
        """Subtracts keys that the second scan returned."""
        sums, group_of = self._sums, self._group_of
        for hashed in map(hash, keys):
            group = hashed & group_of
            sums[group] = (sums[group] - hashed) & _UINT64

    @property
    def differ(self) -> bool:
        """Whether the two scans differ in any key."""
        return any(self._sums)

    def possibly_different(self, keys: Iterable[bytes]) -> list[bytes]:
        """The keys of groups that differ: every differing key, and some that do not differ."""
        sums, group_of = self._sums, self._group_of
        return [key for key in keys if sums[hash(key) & group_of]]
