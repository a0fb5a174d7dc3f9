"""Which of very many keys are some that were noted, with a few megabytes of memory, however many were."""

from __future__ import annotations

from collections.abc import Iterable

_PLACES = 2**22
_PLACE_OF = _PLACES - 1


class KeyBloomFilter:
    """Knows every key that was noted, and takes a few others for such: whoever asks must look closer.

    It is a Bloom filter with one hash: of four million other keys, as many are taken for noted ones as were noted.
    """

    def __init__(self) -> None:
        self._marked = bytearray(_PLACES)
        self._any = False

    def __bool__(self) -> bool:
        return self._any

    def note(self, keys: Iterable[bytes]) -> None:
        """Notes keys."""
        for hashed in map(hash, keys):
            self._marked[hashed & _PLACE_OF] = 1
            self._any = True

    def among(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys that were noted, and few others."""
        marked = self._marked
        return [key for key in keys if marked[hash(key) & _PLACE_OF]]
