"""The running controller: events fill a queue, workers reconcile, and a periodic resync makes up for lost events.

Events and lists feed the cache; a change that matters there has its policy reconciled. No policy is reconciled before
everything in its namespace has been listed once: one whose CronJob is not cached yet would look as if it had none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import structlog

from controller.api.kube import (
    KINDS,
    POLICIES,
    REVOCATIONS,
    ConflictError,
    Kind,
    Kube,
    KubeError,
    NotFoundError,
    UnavailableError,
)
from controller.cache.indexer import Key, Owner
from controller.cache.object_cache import ObjectCache, parse_version
from controller.cache.owner_label import is_of_revocation, owner_label
from controller.cache.relevant_fields import is_ended
from controller.metrics.controller_metrics import Metrics, Result
from controller.reconcile.policy_reconciler import PolicyReconciler
from controller.revocation.revocation_reconciler import RevocationReconciler
from controller.runtime.leader_election import Leadership
from controller.runtime.workqueue import WorkQueue
from controller.settings.controller_settings import Settings
from controller.tracing.interface import Tracing

log = structlog.get_logger("controller")


class Subject(NamedTuple):
    """What is reconciled: a policy or a revocation."""

    kind: Kind
    namespace: str
    name: str


Body = Mapping[str, Any]

_WORKERS: Final = 16
# A Job, its Pod and its CronJob change within moments of each other: one reconciliation is enough for all.
_DEBOUNCE_SECONDS: Final = 0.1
# Several requests, but far less than a Pod's usual grace of 30 seconds.
_FINISH_SECONDS: Final = 5.0
_CRD_POLL_SECONDS: Final = 2.0
# No event reports what was deleted between the first list and the beginning of the watch.
_FIRST_RESYNC_SECONDS: Final = 30.0
_FIRST_LIST_RETRY_SECONDS: Final = 1.0
_LONGEST_LIST_RETRY_SECONDS: Final = 60.0


class Controller:
    """Owns the cache, the queue and its workers. Handlers only pass events on to :meth:`on_event`."""

    def __init__(
        self, kube: Kube, settings: Settings, metrics: Metrics, leadership: Leadership, tracing: Tracing
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._metrics = metrics
        self._leadership = leadership
        self._cache = ObjectCache()
        self._policies = PolicyReconciler(kube, self._cache, settings, tracing=tracing)
        self._revocations = RevocationReconciler(kube, settings)
        self._queue: WorkQueue[Subject] = WorkQueue(metrics.queue_wait.observe)
        metrics.watch_queue(self._queue.__len__)
        self._listed: set[str | None] = set()  # namespaces of which everything has been listed once; None is all
        self._unfinished: dict[Subject, set[Subject]] = {}  # revocations that have not ended, by their policy
        self._workers: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Wait for the CustomResourceDefinitions, then begin to work."""
        await self._await_crd()
        self._workers = [
            asyncio.create_task(self._queue.work(self._process), name=f"reconcile worker {n}") for n in range(_WORKERS)
        ]
        self._background = [
            asyncio.create_task(self._resync(scope), name=f"resync of {scope or 'all namespaces'}")
            for scope in self._settings.watch_namespaces or (None,)
        ]

    async def stop(self) -> None:
        """Stop working. Reconciliations under way are finished, if that takes no longer than a few seconds.

        A reconciliation that is cut short is repeated by the next controller.
        """
        self._queue.close()
        if self._workers:
            await asyncio.wait(self._workers, timeout=_FINISH_SECONDS)
        tasks = [*self._workers, *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def is_healthy(self) -> bool:
        """Whether all workers are alive."""
        return bool(self._workers) and not any(task.done() for task in [*self._workers, *self._background])

    def on_event(self, kind: Kind, body: Body, *, deleted: bool) -> None:
        """Update the cache with an object that was listed, added, changed or deleted, and queue what depends on it."""
        try:
            changed = self._cache.delete(kind, body) if deleted else self._cache.upsert(kind, body)
            if kind is REVOCATIONS:
                self._track_unfinished(body, deleted=deleted)
        except (KeyError, TypeError, ValueError, AttributeError):
            # One object with invalid content must not keep the rest of a list from being cached.
            log.exception("object ignored: invalid content", resource=kind.plural, name=body["metadata"].get("name"))
            return
        if kind is POLICIES:
            self._update_metrics((body["metadata"]["namespace"], body["metadata"]["name"]))
        if changed:
            self._enqueue(kind, (body["metadata"]["namespace"], owner_label(kind, body)))

    def _track_unfinished(self, body: Body, *, deleted: bool) -> None:
        """Remember which revocations have to be reconciled when their policy changes."""
        metadata = body["metadata"]
        policy = Subject(POLICIES, metadata["namespace"], body["spec"]["policyName"])
        waiting = self._unfinished.setdefault(policy, set())
        (waiting.discard if deleted or is_ended(body) else waiting.add)(
            Subject(REVOCATIONS, metadata["namespace"], metadata["name"])
        )
        if not waiting:
            del self._unfinished[policy]

    def _update_metrics(self, key: Key) -> None:
        """Have the metrics show the policy as the cache has it, which an event or a list may lag behind."""
        policy = self._cache.policy(*key)
        if policy is None:
            self._metrics.policies.delete(key)
        else:
            self._metrics.policies.upsert(policy)

    def _enqueue(self, kind: Kind, owner: Owner) -> None:
        """Queue the policy or revocation that an object of this kind belongs to, or is."""
        subject = self._subject_of(owner)
        if subject is None or not self._is_listed(subject.namespace):
            return  # everything in its namespace is queued once that is listed
        if kind is not subject.kind:
            self._queue.add_after(subject, _DEBOUNCE_SECONDS)
            return
        self._queue.add(subject)
        for revocation in self._unfinished.get(subject, ()):
            self._queue.add(revocation)

    def _subject_of(self, owner: Owner) -> Subject | None:
        if is_of_revocation(owner[1]):
            revocation = self._cache.revocation_of(owner)
            return Subject(REVOCATIONS, *revocation) if revocation else None
        return Subject(POLICIES, *self._cache.policy_of(owner))

    def _is_listed(self, namespace: str) -> bool:
        return bool(self._listed & {None, namespace})

    async def _process(self, subject: Subject) -> None:
        names = {"resource": subject.kind.plural, "name": subject.name, "namespace": subject.namespace}
        await self._leadership.wait_until_leading()
        began, result = time.monotonic(), Result.SUCCESS
        try:
            recheck_seconds = await self._reconcile(subject)
        except (ConflictError, NotFoundError):
            result = Result.CONFLICT
            self._queue.retry(subject)  # somebody wrote at the same time
        except UnavailableError as error:
            result = Result.UNAVAILABLE
            delay = self._queue.retry(subject, error.retry_after_seconds)
            log.warning("reconciliation will be retried", **names, error=str(error), delay_seconds=delay)
        except KubeError as error:
            result = Result.ERROR
            delay = self._queue.retry(subject)
            log.error("reconciliation will be retried", **names, error=str(error), delay_seconds=delay)
        except Exception:
            result = Result.ERROR
            # A bug that one policy triggers must not keep the others from being reconciled.
            self._queue.retry(subject)
            log.exception("reconciliation failed", **names)
        else:
            self._queue.forget(subject)
            if recheck_seconds is not None:
                self._queue.add_after(subject, recheck_seconds)
        self._metrics.reconciled(result, time.monotonic() - began)

    async def _reconcile(self, subject: Subject) -> float | None:
        _, namespace, name = subject
        if subject.kind is REVOCATIONS:
            return await self._revocations.reconcile(namespace, name)
        try:
            return await self._policies.reconcile(namespace, name)
        except (ConflictError, NotFoundError):
            # The watch may be far behind, or cut.
            await self._policies.refresh(namespace, name)
            raise

    async def _resync(self, scope: str | None) -> None:
        """List everything in one namespace or in all, at the start and periodically, and queue all of it."""
        period = float(self._settings.resync_seconds)
        retry_seconds = _FIRST_LIST_RETRY_SECONDS
        while True:
            first = scope not in self._listed
            try:
                for kind in KINDS:
                    await self._list(kind, scope)
            except KubeError as error:
                log.warning("list will be retried", namespace=scope, error=str(error), delay_seconds=retry_seconds)
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _LONGEST_LIST_RETRY_SECONDS)
                continue
            retry_seconds = _FIRST_LIST_RETRY_SECONDS
            self._listed.add(scope)
            subjects = [
                Subject(kind, *key) for kind in (POLICIES, REVOCATIONS) for key in self._cache.keys(kind, scope)
            ]
            for number, subject in enumerate(subjects):
                self._queue.add_after(subject, 0 if first else period * number / len(subjects))
            await asyncio.sleep(min(period, _FIRST_RESYNC_SECONDS) if first else period)

    async def _list(self, kind: Kind, scope: str | None) -> None:
        """Bring the cache up to date with all objects of a kind. Only a complete list tells what was deleted."""
        listed: set[Key] = set()
        version = ""
        async for page in self._kube.list_pages(kind, scope):
            version = version or page.version
            for body in page.items:
                listed.add((body["metadata"]["namespace"], body["metadata"]["name"]))
                self.on_event(kind, body, deleted=False)
        for owner in self._cache.replace(kind, scope, listed, parse_version(version)):
            self._enqueue(kind, owner)
        if kind is POLICIES:
            self._metrics.policies.retain(self._cache.keys(POLICIES, None))

    async def _await_crd(self) -> None:
        while True:
            try:
                missing = await self._kube.missing_definitions()
                if not missing:
                    return
                log.warning("waiting for CustomResourceDefinitions; install them", missing=missing)
            except KubeError as error:
                log.warning("waiting for the API server", error=str(error))
            await asyncio.sleep(_CRD_POLL_SECONDS)
