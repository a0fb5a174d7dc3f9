"""A Bloom filter for keys: a few megabytes of memory, however many keys."""

from __future__ import annotations

from collections.abc import Iterable

_BUCKETS = 2**22
_BUCKET_MASK = _BUCKETS - 1


class KeyBloomFilter:
    """Holds every added key, with false positives: callers must check what it returns.

    It uses one hash function: of four million other keys, about as many are false positives as were added.
    """

    def __init__(self) -> None:
        self._buckets = bytearray(_BUCKETS)
        self._any = False

    def __bool__(self) -> bool:
        return self._any

    def add(self, keys: Iterable[bytes]) -> None:
        """Adds keys."""
        for hashed in map(hash, keys):
            self._buckets[hashed & _BUCKET_MASK] = 1
            self._any = True

    def matching(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys that were added, and a few false positives."""
        buckets = self._buckets
        return [key for key in keys if buckets[hash(key) & _BUCKET_MASK]]
