"""What was last seen of each object. Reconciliations read from here instead of asking the API server.

Fed by watch events, by lists, and by the answers to the controller's own writes, in any order and any number of times:
the newest of each object is what stays, and an object that was deleted does not come back. "Newest" is judged by
resourceVersion. Those of one resource can be compared as integers (documented since Kubernetes 1.35, true of etcd
before). Where one is no integer, order cannot be told, and what is seen last counts.

A Job that is deleted after it finished stays known until its outcome is in its policy's status, and so do the Pods that
tell why. This evidence is bounded, and lives as long as the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from controller.api.kube import CRON_JOBS, JOBS, KINDS, PODS, POLICIES, REVOCATIONS, Kind, Resource
from controller.cache.compression import pack, unpack
from controller.cache.relevant_fields import facts, is_of_revocation, owner_label
from controller.runs.run_record import ended_at

log = structlog.get_logger("controller.cache.object_cache")

Body = Mapping[str, Any]

Key = tuple[str, str]
"""Namespace and name of an object."""

Owner = tuple[str, str]
"""Namespace and owner label: what a policy, or a revocation, and all that was made for it have in common."""

# More than a policy can have in flight while its status cannot be written for hours.
_MOST_DEPARTED_JOBS: Final = 50
_MOST_DEPARTED_PODS: Final = 20
_MOST_FORMER_CRON_JOBS: Final = 10


@dataclass(frozen=True, slots=True)
class Held:
    """An object in the cache.

    Attributes:
        uid: its UID.
        version: its resourceVersion; None if that is no integer.
        label: the label value that leads to its policy.
        controlled_by: UID of its controlling owner; empty if it has none.
        ended: when it finished, if it is a Job that has.
        facts: hash of what matters of it to a reconciliation.
        packed: the object itself.
    """

    uid: str
    version: int | None
    label: str
    controlled_by: str
    ended: datetime | None
    facts: int
    packed: bytes

    def resource(self) -> Resource:
        """The object; the caller may change it."""
        return unpack(self.packed)


@dataclass(frozen=True, slots=True)
class PodsOfJob:
    """The Pods of one Job.

    Attributes:
        present: those that exist.
        departed: those that were deleted, as they were last seen.
    """

    present: tuple[Resource, ...] = ()
    departed: tuple[Resource, ...] = ()

    @property
    def all(self) -> tuple[Resource, ...]:
        """Whatever can tell how the Job went."""
        return self.present + self.departed


class Cache:
    """The newest known state of every object of the controller's kinds."""

    def __init__(self) -> None:
        self._shelves = {kind: _Shelf() for kind in KINDS}
        self._departed_jobs: dict[Owner, dict[str, Held]] = {}
        self._departed_pods: dict[str, dict[str, Held]] = {}  # by UID of their Job
        self._former_cron_jobs: dict[Owner, dict[str, str]] = {}  # UID of each and of its policy

    def see(self, kind: Kind, body: Body) -> bool:
        """Take note of an object as it was at some time.

        Returns:
            Whether that is news: it was not known, and matters to a reconciliation.
        """
        if not owner_label(kind, body):
            return False
        shelf, key, version = self._shelves[kind], _key(body), _version(body)
        held = shelf.held.get(key)
        if not _is_after(version, held.version if held else shelf.known_absence(key)):
            return False
        now = _hold(kind, body, version)
        if held and held.uid != now.uid:
            self._depart(kind, key, held)
        shelf.put(key, now)
        return held is None or (held.uid, held.facts) != (now.uid, now.facts)

    def see_deleted(self, kind: Kind, body: Body) -> bool:
        """Take note of an object's deletion.

        Args:
            kind: the object's kind.
            body: the object's last state, with the resourceVersion of its deletion.

        Returns:
            Whether that is news.
        """
        if not owner_label(kind, body):
            return False
        shelf, key, version = self._shelves[kind], _key(body), _version(body)
        held = shelf.held.get(key)
        if held is None:
            if version is not None and shelf.deleted.get(key) == version:
                return False
        elif _is_newer(held.version, version) or (version is None and held.uid != body["metadata"]["uid"]):
            return False  # made again since
        # Also of an object that is not held: this may be the only word of how it ended.
        shelf.remove(key, version)
        self._depart(kind, key, _hold(kind, body, version))
        return True

    def see_absent(self, kind: Kind, key: Key, version: int | None) -> bool:
        """Take note that a request did not find the object.

        Args:
            kind: the object's kind.
            key: its namespace and name.
            version: what `version` said before the request; whatever came in meanwhile is newer than the answer.

        Returns:
            Whether that is news.
        """
        shelf = self._shelves[kind]
        held = shelf.held.get(key)
        if held is None or held.version != version:
            return False
        shelf.remove(key, held.version)
        self._depart(kind, key, held)
        return True

    def see_list(self, kind: Kind, namespace: str | None, listed: set[Key], version: int | None) -> set[Owner]:
        """Take note of which objects there are; each of them has been seen already.

        Args:
            kind: the objects' kind.
            namespace: the namespace that was listed; None for all.
            listed: all that are in the list.
            version: resourceVersion of the list. What is newer than the list stays though the list does not have it.

        Returns:
            The owners of objects that turn out to be gone.
        """
        shelf = self._shelves[kind]
        gone = [
            (key, held)
            for key, held in shelf.held.items()
            if namespace in (None, key[0]) and key not in listed and not _is_newer(held.version, version)
        ]
        for key, held in gone:
            shelf.remove(key, held.version)
            self._depart(kind, key, held)
        shelf.listed(namespace, version)
        if kind is JOBS:
            self._drop_pods_without_job(version)
        return {(key[0], held.label) for key, held in gone}

    def version(self, kind: Kind, key: Key) -> int | None:
        """The resourceVersion of what is held; None if nothing is, or if it is no integer."""
        held = self._shelves[kind].held.get(key)
        return held.version if held else None

    def policy(self, namespace: str, name: str) -> Resource | None:
        """The policy, or None."""
        return self._resource(POLICIES, (namespace, name))

    def cron_job(self, namespace: str, name: str) -> Resource | None:
        """The CronJob with a policy's label, or None."""
        return self._resource(CRON_JOBS, (namespace, name))

    def names(self, kind: Kind, namespace: str | None) -> list[Key]:
        """Namespace and name of every object of a kind, in one namespace or in all."""
        return [key for key in self._shelves[kind].held if namespace in (None, key[0])]

    def policy_of(self, owner: Owner) -> Key:
        """Namespace and name of the policy that a label leads to.

        Of a policy that is not known it is the label itself, which is right for all but very long names.
        """
        return next(self._shelves[POLICIES].labelled(owner), owner)

    def revocation_of(self, owner: Owner) -> Key | None:
        """Namespace and name of the revocation that a label leads to, if it is known."""
        return next(self._shelves[REVOCATIONS].labelled(owner), None)

    def jobs(self, owner: Owner) -> list[Held]:
        """The Jobs with a policy's label, and those that were deleted since they finished."""
        shelf = self._shelves[JOBS]
        present = [shelf.held[key] for key in shelf.labelled(owner)]
        return present + list(self._departed_jobs.get(owner, {}).values())

    def pods(self, job_uid: str) -> PodsOfJob:
        """The Pods of a Job."""
        shelf = self._shelves[PODS]
        present = {held.uid: held for held in (shelf.held[key] for key in shelf.controlled(job_uid))}
        departed = self._departed_pods.get(job_uid, {})
        return PodsOfJob(
            tuple(held.resource() for held in present.values()),
            tuple(held.resource() for uid, held in departed.items() if uid not in present),
        )

    def former_cron_jobs(self, owner: Owner, policy_uid: str) -> set[str]:
        """UIDs of the policy's CronJobs that are gone, whose Jobs are its runs nevertheless."""
        return {uid for uid, policy in self._former_cron_jobs.get(owner, {}).items() if policy == policy_uid}

    def settle(self, owner: Owner, job_uids: Iterable[str]) -> None:
        """The outcomes of these Jobs are in the policy's status: what is gone of them is needed no more."""
        departed = self._departed_jobs.get(owner, {})
        for uid in job_uids:
            departed.pop(uid, None)
            self._departed_pods.pop(uid, None)
        if owner in self._departed_jobs and not departed:
            del self._departed_jobs[owner]
        former = self._former_cron_jobs.get(owner)
        if former:
            needed = {job.controlled_by for job in self.jobs(owner)}
            self._former_cron_jobs[owner] = {uid: policy for uid, policy in former.items() if uid in needed}
            if not self._former_cron_jobs[owner]:
                del self._former_cron_jobs[owner]

    def abandon(self, owner: Owner) -> None:
        """There is no policy whose status could tell: what is gone of its Jobs is needed no more."""
        for uid in self._departed_jobs.pop(owner, {}):
            self._departed_pods.pop(uid, None)
        self._former_cron_jobs.pop(owner, None)

    def _resource(self, kind: Kind, key: Key) -> Resource | None:
        held = self._shelves[kind].held.get(key)
        return held.resource() if held else None

    def _depart(self, kind: Kind, key: Key, last: Held) -> None:
        """Keep of an object that is gone what is still needed."""
        if is_of_revocation(last.label):
            return  # a revocation asks the API server, not the cache
        owner = (key[0], last.label)
        if kind is POLICIES:
            self.abandon(owner)
        elif kind is CRON_JOBS:
            _keep(self._former_cron_jobs.setdefault(owner, {}), last.uid, last.controlled_by, _MOST_FORMER_CRON_JOBS)
        elif kind is JOBS and last.ended:
            lost = _keep(self._departed_jobs.setdefault(owner, {}), last.uid, last, _MOST_DEPARTED_JOBS)
            if lost:
                log.error("a deleted job's outcome could not be recorded", namespace=owner[0], policy=owner[1])
                self._departed_pods.pop(lost, None)
        elif kind is PODS and last.controlled_by:
            _keep(self._departed_pods.setdefault(last.controlled_by, {}), last.uid, last, _MOST_DEPARTED_PODS)

    def _drop_pods_without_job(self, version: int | None) -> None:
        """Let go of deleted Pods that are older than a list of all Jobs, and of no known Job."""
        jobs = {held.uid for held in self._shelves[JOBS].held.values()}
        jobs.update(uid for departed in self._departed_jobs.values() for uid in departed)
        for uid in [uid for uid in self._departed_pods if uid not in jobs]:
            if not any(_is_newer(pod.version, version) for pod in self._departed_pods[uid].values()):
                del self._departed_pods[uid]


class _Shelf:
    """The objects of one kind, found by name, by label and by controlling owner."""

    def __init__(self) -> None:
        self.held: dict[Key, Held] = {}
        self.deleted: dict[Key, int] = {}  # resourceVersions of deletions that are newer than the last list
        self._listed: dict[str | None, int] = {}  # resourceVersion of the last list, by namespace
        self._by_label: dict[Owner, dict[Key, None]] = {}
        self._by_controller: dict[str, dict[Key, None]] = {}

    def put(self, key: Key, held: Held) -> None:
        self._unindex(key)
        self.deleted.pop(key, None)
        self.held[key] = held
        self._by_label.setdefault((key[0], held.label), {})[key] = None
        if held.controlled_by:
            self._by_controller.setdefault(held.controlled_by, {})[key] = None

    def remove(self, key: Key, version: int | None) -> None:
        self._unindex(key)
        self.held.pop(key, None)
        if version is not None:
            self.deleted[key] = max(version, self.deleted.get(key, version))

    def known_absence(self, key: Key) -> int | None:
        """The resourceVersion at which it is known that there was no such object."""
        known = (self.deleted.get(key), self._listed.get(key[0]), self._listed.get(None))
        return max((version for version in known if version is not None), default=None)

    def listed(self, namespace: str | None, version: int | None) -> None:
        """All that is in a list has been put, and all that is not has been removed."""
        if version is None:
            return
        self._listed[namespace] = max(version, self._listed.get(namespace, version))
        self.deleted = {
            key: deleted
            for key, deleted in self.deleted.items()
            if deleted > version or namespace not in (None, key[0])
        }

    def labelled(self, owner: Owner) -> Iterator[Key]:
        return iter(self._by_label.get(owner, {}))

    def controlled(self, uid: str) -> Iterator[Key]:
        return iter(self._by_controller.get(uid, {}))

    def _unindex(self, key: Key) -> None:
        held = self.held.get(key)
        if held is not None:
            _drop(self._by_label, (key[0], held.label), key)
            _drop(self._by_controller, held.controlled_by, key)


def _hold(kind: Kind, body: Body, version: int | None) -> Held:
    metadata = body["metadata"]
    controllers = [o["uid"] for o in metadata.get("ownerReferences") or [] if o.get("controller")]
    return Held(
        uid=metadata["uid"],
        version=version,
        label=owner_label(kind, body),
        controlled_by=controllers[0] if controllers else "",
        ended=ended_at(body) if kind is JOBS else None,
        facts=hash(facts(kind, body)),
        packed=pack(kind, body),
    )


def _key(body: Body) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _version(body: Body) -> int | None:
    return parse_version(body["metadata"].get("resourceVersion", ""))


def parse_version(text: str) -> int | None:
    """A resourceVersion; None if it is no integer."""
    return int(text) if text.isascii() and text.isdigit() else None


def _is_after(version: int | None, known: int | None) -> bool:
    return version is None or known is None or version > known


def _is_newer(version: int | None, known: int | None) -> bool:
    return version is not None and known is not None and version > known


def _keep(kept: dict[str, Any], uid: str, what: Any, most: int) -> str | None:
    """Add to a bounded dictionary; returns which entry had to go for it, the oldest."""
    kept.pop(uid, None)
    kept[uid] = what
    if len(kept) <= most:
        return None
    oldest = next(iter(kept))
    del kept[oldest]
    return oldest


def _drop(index: dict[Any, dict[Key, None]], value: Any, key: Key) -> None:
    keys = index.get(value)
    if keys is not None:
        keys.pop(key, None)
        if not keys:
            del index[value]
