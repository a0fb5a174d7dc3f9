"""The cached objects of one kind, indexed by name, by owner label and by controlling owner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controller.api.kube import Resource
from controller.cache.compression import decompress

Key = tuple[str, str]
"""Namespace and name of an object."""

Owner = tuple[str, str]
"""Namespace and owner label: what a policy, or a revocation, and all that was made for it have in common."""


@dataclass(frozen=True, slots=True)
class CachedObject:
    """An object in the cache.

    Attributes:
        uid: its UID.
        resource_version: its resourceVersion; None if that is no integer.
        label: the label value that leads to its policy.
        controlled_by: UID of its controlling owner; empty if it has none.
        ended: when it finished, if it is a Job that has.
        relevant_fields: hash of the fields that a reconciliation depends on.
        compressed: the object itself.
    """

    uid: str
    resource_version: int | None
    label: str
    controlled_by: str
    ended: datetime | None
    relevant_fields: int
    compressed: bytes

    def resource(self) -> Resource:
        """The object; the caller may change it."""
        return decompress(self.compressed)


class Indexer:
    """The objects of one kind, and which of them are known to have been deleted."""

    def __init__(self) -> None:
        self.objects: dict[Key, CachedObject] = {}
        self.deletions: dict[Key, int] = {}  # resourceVersions of deletions that are newer than the last list
        self._listed: dict[str | None, int] = {}  # resourceVersion of the last list, by namespace
        self._by_label: dict[Owner, dict[Key, None]] = {}
        self._by_controller: dict[str, dict[Key, None]] = {}

    def put(self, key: Key, cached: CachedObject) -> None:
        """Add the object, or replace the one of this name."""
        self._unindex(key)
        self.deletions.pop(key, None)
        self.objects[key] = cached
        self._by_label.setdefault((key[0], cached.label), {})[key] = None
        if cached.controlled_by:
            self._by_controller.setdefault(cached.controlled_by, {})[key] = None

    def remove(self, key: Key, version: int | None) -> None:
        """Remove the object, and remember the resourceVersion of its deletion."""
        self._unindex(key)
        self.objects.pop(key, None)
        if version is not None:
            self.deletions[key] = max(version, self.deletions.get(key, version))

    def absent_at(self, key: Key) -> int | None:
        """The newest resourceVersion at which it is known that there was no such object."""
        known = (self.deletions.get(key), self._listed.get(key[0]), self._listed.get(None))
        return max((version for version in known if version is not None), default=None)

    def listed(self, namespace: str | None, version: int | None) -> None:
        """Note that everything in a list has been put, and everything that is not in it has been removed."""
        if version is None:
            return
        self._listed[namespace] = max(version, self._listed.get(namespace, version))
        self.deletions = {
            key: deleted
            for key, deleted in self.deletions.items()
            if deleted > version or namespace not in (None, key[0])
        }

    def by_label(self, owner: Owner) -> Iterator[Key]:
        """The objects with this owner label."""
        return iter(self._by_label.get(owner, {}))

    def by_controller(self, uid: str) -> Iterator[Key]:
        """The objects whose controlling owner has this UID."""
        return iter(self._by_controller.get(uid, {}))

    def _unindex(self, key: Key) -> None:
        cached = self.objects.get(key)
        if cached is not None:
            _drop(self._by_label, (key[0], cached.label), key)
            _drop(self._by_controller, cached.controlled_by, key)


def _drop(index: dict[Any, dict[Key, None]], value: Any, key: Key) -> None:
    keys = index.get(value)
    if keys is not None:
        keys.pop(key, None)
        if not keys:
            del index[value]
