"""The newest known state of each watched object. Reconciliations read from here instead of asking the API server.

Fed by watch events, by lists, and by the answers to the controller's own writes, in any order and any number of times:
the newest of each object is what stays, and an object that was deleted does not come back. "Newest" is judged by
resourceVersion. Those of one resource can be compared as integers (documented since Kubernetes 1.35, true of etcd
before). Where one is no integer, the order is unknown, and what arrives last counts.

A Job that is deleted after it finished is kept as a tombstone until its outcome is in its policy's status, and so are
the Pods that tell why. Tombstones are bounded in number, and live as long as the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from controller.api.kube import CRON_JOBS, JOBS, KINDS, PODS, POLICIES, REVOCATIONS, Kind, Resource
from controller.cache.compression import compress
from controller.cache.indexer import CachedObject, Indexer, Key, Owner
from controller.cache.owner_label import is_of_revocation, owner_label
from controller.cache.relevant_fields import relevant_fields
from controller.runs.job_state import ended_at

log = structlog.get_logger("controller.cache.object_cache")

Body = Mapping[str, Any]

# More than a policy can have in flight while its status cannot be written for hours.
_MOST_JOB_TOMBSTONES: Final = 50
_MOST_POD_TOMBSTONES: Final = 20
_MOST_CRON_JOB_TOMBSTONES: Final = 10


@dataclass(frozen=True, slots=True)
class PodsOfJob:
    """The Pods of one Job.

    Attributes:
        present: those that exist.
        deleted: those that were deleted, as they were last seen.
    """

    present: tuple[Resource, ...] = ()
    deleted: tuple[Resource, ...] = ()

    @property
    def all(self) -> tuple[Resource, ...]:
        """Whatever can tell how the Job went."""
        return self.present + self.deleted


class ObjectCache:
    """The newest known state of every object of the controller's kinds."""

    def __init__(self) -> None:
        self._indexers = {kind: Indexer() for kind in KINDS}
        self._job_tombstones: dict[Owner, dict[str, CachedObject]] = {}
        self._pod_tombstones: dict[str, dict[str, CachedObject]] = {}  # by UID of their Job
        self._cron_job_tombstones: dict[Owner, dict[str, str]] = {}  # UID of each and of its policy

    def upsert(self, kind: Kind, body: Body) -> bool:
        """Add or update an object, unless a newer state of it is known.

        Returns:
            Whether anything changed that a reconciliation depends on.
        """
        if not owner_label(kind, body):
            return False
        indexer, key, version = self._indexers[kind], _key(body), _version(body)
        cached = indexer.objects.get(key)
        if not _is_after(version, cached.resource_version if cached else indexer.absent_at(key)):
            return False
        now = _cached(kind, body, version)
        if cached and cached.uid != now.uid:
            self._add_tombstone(kind, key, cached)
        indexer.put(key, now)
        return cached is None or (cached.uid, cached.relevant_fields) != (now.uid, now.relevant_fields)

    def delete(self, kind: Kind, body: Body) -> bool:
        """Remove an object that was deleted.

        Args:
            kind: the object's kind.
            body: the object's last state, with the resourceVersion of its deletion.

        Returns:
            Whether the deletion was not known.
        """
        if not owner_label(kind, body):
            return False
        indexer, key, version = self._indexers[kind], _key(body), _version(body)
        cached = indexer.objects.get(key)
        if cached is None:
            if version is not None and indexer.deletions.get(key) == version:
                return False
        elif _is_newer(cached.resource_version, version) or (version is None and cached.uid != body["metadata"]["uid"]):
            return False  # created again since
        # Also of an object that is not cached: this may be the only word of how it ended.
        indexer.remove(key, version)
        self._add_tombstone(kind, key, _cached(kind, body, version))
        return True

    def delete_if_unchanged(self, kind: Kind, key: Key, version: int | None) -> bool:
        """Remove an object that a request did not find, unless it was updated since the request was sent.

        Args:
            kind: the object's kind.
            key: its namespace and name.
            version: what `resource_version` returned before the request; whatever came in meanwhile is newer than the
                answer.

        Returns:
            Whether it was removed.
        """
        indexer = self._indexers[kind]
        cached = indexer.objects.get(key)
        if cached is None or cached.resource_version != version:
            return False
        indexer.remove(key, cached.resource_version)
        self._add_tombstone(kind, key, cached)
        return True

    def replace(self, kind: Kind, namespace: str | None, listed: set[Key], version: int | None) -> set[Owner]:
        """Remove whatever a complete list does not contain; what it contains has been upserted already.

        Args:
            kind: the objects' kind.
            namespace: the namespace that was listed; None for all.
            listed: all that are in the list.
            version: resourceVersion of the list. What is newer than the list stays though the list does not have it.

        Returns:
            The owners of the objects that were removed.
        """
        indexer = self._indexers[kind]
        gone = [
            (key, cached)
            for key, cached in indexer.objects.items()
            if namespace in (None, key[0]) and key not in listed and not _is_newer(cached.resource_version, version)
        ]
        for key, cached in gone:
            indexer.remove(key, cached.resource_version)
            self._add_tombstone(kind, key, cached)
        indexer.listed(namespace, version)
        if kind is JOBS:
            self._drop_pods_without_job(version)
        return {(key[0], cached.label) for key, cached in gone}

    def resource_version(self, kind: Kind, key: Key) -> int | None:
        """The resourceVersion of the cached object; None if there is none, or if it is no integer."""
        cached = self._indexers[kind].objects.get(key)
        return cached.resource_version if cached else None

    def policy(self, namespace: str, name: str) -> Resource | None:
        """The policy, or None."""
        return self._resource(POLICIES, (namespace, name))

    def cron_job(self, namespace: str, name: str) -> Resource | None:
        """The CronJob with a policy's label, or None."""
        return self._resource(CRON_JOBS, (namespace, name))

    def keys(self, kind: Kind, namespace: str | None) -> list[Key]:
        """Namespace and name of every object of a kind, in one namespace or, with None, in all."""
        return [key for key in self._indexers[kind].objects if namespace in (None, key[0])]

    def policy_of(self, owner: Owner) -> Key:
        """Namespace and name of the policy that a label leads to.

        Of a policy that is not known it is the label itself, which is right for all but very long names.
        """
        return next(self._indexers[POLICIES].by_label(owner), owner)

    def revocation_of(self, owner: Owner) -> Key | None:
        """Namespace and name of the revocation that a label leads to, if it is known."""
        return next(self._indexers[REVOCATIONS].by_label(owner), None)

    def jobs(self, owner: Owner) -> list[CachedObject]:
        """The Jobs with a policy's label, and those that were deleted since they finished."""
        indexer = self._indexers[JOBS]
        present = [indexer.objects[key] for key in indexer.by_label(owner)]
        return present + list(self._job_tombstones.get(owner, {}).values())

    def pods(self, job_uid: str) -> PodsOfJob:
        """The Pods of a Job."""
        indexer = self._indexers[PODS]
        cached_pods = (indexer.objects[key] for key in indexer.by_controller(job_uid))
        present = {cached.uid: cached for cached in cached_pods}
        deleted = self._pod_tombstones.get(job_uid, {})
        return PodsOfJob(
            tuple(cached.resource() for cached in present.values()),
            tuple(cached.resource() for uid, cached in deleted.items() if uid not in present),
        )

    def deleted_cron_jobs(self, owner: Owner, policy_uid: str) -> set[str]:
        """UIDs of the policy's CronJobs that were deleted; their Jobs are its runs nevertheless."""
        return {uid for uid, policy in self._cron_job_tombstones.get(owner, {}).items() if policy == policy_uid}

    def drop_tombstones(self, owner: Owner, job_uids: Iterable[str]) -> None:
        """Forget the deleted ones of these Jobs, and their Pods: their outcomes are in the policy's status."""
        tombstones = self._job_tombstones.get(owner, {})
        for uid in job_uids:
            tombstones.pop(uid, None)
            self._pod_tombstones.pop(uid, None)
        if owner in self._job_tombstones and not tombstones:
            del self._job_tombstones[owner]
        cron_jobs = self._cron_job_tombstones.get(owner)
        if cron_jobs:
            needed = {job.controlled_by for job in self.jobs(owner)}
            self._cron_job_tombstones[owner] = {uid: policy for uid, policy in cron_jobs.items() if uid in needed}
            if not self._cron_job_tombstones[owner]:
                del self._cron_job_tombstones[owner]

    def drop_all_tombstones(self, owner: Owner) -> None:
        """Forget everything deleted of a policy that does not exist any more: it has no status to record it in."""
        for uid in self._job_tombstones.pop(owner, {}):
            self._pod_tombstones.pop(uid, None)
        self._cron_job_tombstones.pop(owner, None)

    def _resource(self, kind: Kind, key: Key) -> Resource | None:
        cached = self._indexers[kind].objects.get(key)
        return cached.resource() if cached else None

    def _add_tombstone(self, kind: Kind, key: Key, last: CachedObject) -> None:
        """Keep of an object that was deleted what is still needed."""
        if is_of_revocation(last.label):
            return  # a revocation asks the API server, not the cache
        owner = (key[0], last.label)
        if kind is POLICIES:
            self.drop_all_tombstones(owner)
        elif kind is CRON_JOBS:
            cron_jobs = self._cron_job_tombstones.setdefault(owner, {})
            _put_bounded(cron_jobs, last.uid, last.controlled_by, _MOST_CRON_JOB_TOMBSTONES)
        elif kind is JOBS and last.ended:
            jobs = self._job_tombstones.setdefault(owner, {})
            dropped = _put_bounded(jobs, last.uid, last, _MOST_JOB_TOMBSTONES)
            if dropped:
                log.error("outcome of a deleted job lost", namespace=owner[0], policy=owner[1], job_uid=dropped)
                self._pod_tombstones.pop(dropped, None)
        elif kind is PODS and last.controlled_by:
            pods = self._pod_tombstones.setdefault(last.controlled_by, {})
            _put_bounded(pods, last.uid, last, _MOST_POD_TOMBSTONES)

    def _drop_pods_without_job(self, version: int | None) -> None:
        """Forget deleted Pods that are older than a list of all Jobs, and of no known Job."""
        jobs = {cached.uid for cached in self._indexers[JOBS].objects.values()}
        jobs.update(uid for tombstones in self._job_tombstones.values() for uid in tombstones)
        for uid in [uid for uid in self._pod_tombstones if uid not in jobs]:
            if not any(_is_newer(pod.resource_version, version) for pod in self._pod_tombstones[uid].values()):
                del self._pod_tombstones[uid]


def parse_version(text: str) -> int | None:
    """A resourceVersion as a number; None if it is no integer."""
    return int(text) if text.isascii() and text.isdigit() else None


def _cached(kind: Kind, body: Body, version: int | None) -> CachedObject:
    metadata = body["metadata"]
    controllers = [o["uid"] for o in metadata.get("ownerReferences") or [] if o.get("controller")]
    return CachedObject(
        uid=metadata["uid"],
        resource_version=version,
        label=owner_label(kind, body),
        controlled_by=controllers[0] if controllers else "",
        ended=ended_at(body) if kind is JOBS else None,
        relevant_fields=hash(relevant_fields(kind, body)),
        compressed=compress(kind, body),
    )


def _key(body: Body) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _version(body: Body) -> int | None:
    return parse_version(body["metadata"].get("resourceVersion", ""))


def _is_after(version: int | None, known: int | None) -> bool:
    return version is None or known is None or version > known


def _is_newer(version: int | None, known: int | None) -> bool:
    return version is not None and known is not None and version > known


def _put_bounded(entries: dict[str, Any], uid: str, entry: Any, most: int) -> str | None:
    """Add to a bounded dictionary, and return the key of the oldest entry if that had to be dropped for it."""
    entries.pop(uid, None)
    entries[uid] = entry
    if len(entries) <= most:
        return None
    oldest = next(iter(entries))
    del entries[oldest]
    return oldest
