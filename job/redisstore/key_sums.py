"""Comparing two walks through many keys with a few megabytes of memory, however many keys there are."""

from __future__ import annotations

from collections.abc import Iterable

_GROUPS = 2**16
_GROUP_OF = _GROUPS - 1


class KeySums:
    """Tells which keys may not have been met equally often by two walks.

    Keys are put into groups by their hashes, and the hashes of each group are summed up: added by one walk, subtracted
    by the other. A group whose sum is zero was met alike: that its keys differ nevertheless has a chance of about one
    in 2**64. No key is empty. Hashes are salted anew in each process, so that what a run misses the next one finds.
    """

    def __init__(self) -> None:
        self._sums = [0] * _GROUPS

    def add(self, keys: Iterable[bytes]) -> None:
        """What the one walk has met."""
        sums, group_of = self._sums, _GROUP_OF  # looked up once: this is done with every key there is
        for hashed in map(hash, keys):
            sums[hashed & group_of] += hashed

    def subtract(self, keys: Iterable[bytes]) -> None:
        """What the other walk has met."""
        sums, group_of = self._sums, _GROUP_OF
        for hashed in map(hash, keys):
            sums[hashed & group_of] -= hashed

    @property
    def differ(self) -> bool:
        """Whether there is a key that one walk met more often than the other."""
        return any(self._sums)

    def doubtful(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys whose group was not met alike: all that differ are among them, and some that do not."""
        sums = self._sums
        return [key for key in keys if sums[hash(key) & _GROUP_OF]]
