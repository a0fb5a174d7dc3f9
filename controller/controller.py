"""The running controller: events come in, workers reconcile, and a resync makes up for whatever events were lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

import structlog

from controller.election import Leadership
from controller.facts import policy_facts, policy_label
from controller.kube import ConflictError, Kube, KubeError, UnavailableError
from controller.metrics import Metrics, Result
from controller.reconcile import Reconciler
from controller.settings import Settings
from controller.workqueue import WorkQueue
from policy.names import cron_job_name

log = structlog.get_logger("controller")

PolicyKey = tuple[str, str]
"""Namespace and name of a policy."""

Body = Mapping[str, Any]

_WORKERS: Final = 16
# A Job, its Pod and its CronJob change within moments of each other: one look is enough for all.
_SETTLE_SECONDS: Final = 0.1
# Several requests, but far less than a Pod's usual grace of 30 seconds.
_FINISH_SECONDS: Final = 5.0
_CRD_POLL_SECONDS: Final = 2.0


class Controller:
    """Owns the queue and its workers. Handlers only report what they were told."""

    def __init__(self, kube: Kube, settings: Settings, metrics: Metrics, leadership: Leadership) -> None:
        self._kube = kube
        self._settings = settings
        self._reconciler = Reconciler(kube, settings)
        self._metrics = metrics
        self._leadership = leadership
        self._queue: WorkQueue[PolicyKey] = WorkQueue(metrics.queue_wait.observe)
        metrics.watch_queue(self._queue.__len__)
        self._facts: dict[str, Hashable] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Wait for the CustomResourceDefinition, then begin to work."""
        await self._await_crd()
        self._workers = [
            asyncio.create_task(self._queue.work(self._process), name=f"reconcile worker {n}") for n in range(_WORKERS)
        ]
        self._background = [asyncio.create_task(self._resync(), name="resync")]

    async def stop(self) -> None:
        """Stop working. What is in hand is finished, if that takes no longer than a few seconds.

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

    def policy_seen(self, body: Body, *, deleted: bool) -> None:
        """A policy was listed, added, changed or deleted."""
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        label = (key[0], cron_job_name(key[1]))
        if deleted:
            self._names.pop(label, None)
            self._metrics.policies.gone(key)
        else:
            self._names[label] = key[1]
            self._metrics.policies.seen(body)
        if self._is_news(body, policy_facts, deleted=deleted):
            self._queue.add(key)

    def child_seen(self, body: Body, facts: Callable[[Body], Hashable], *, deleted: bool) -> None:
        """A CronJob, Job or Pod with a policy's label was listed, added, changed or deleted."""
        namespace, label = body["metadata"]["namespace"], policy_label(body)
        if label and self._is_news(body, facts, deleted=deleted):
            self._queue.add_after((namespace, self._names.get((namespace, label), label)), _SETTLE_SECONDS)

    def _is_news(self, body: Body, facts: Callable[[Body], Hashable], *, deleted: bool) -> bool:
        uid = body["metadata"]["uid"]
        if deleted:
            self._facts.pop(uid, None)
            return True
        # Only the hash is kept: there may be tens of thousands of objects.
        fact = hash(facts(body))
        if self._facts.get(uid) == fact:
            return False
        self._facts[uid] = fact
        return True

    async def _process(self, key: PolicyKey) -> None:
        namespace, name = key
        await self._leadership.confirmed()
        began, result = time.monotonic(), Result.SUCCESS
        try:
            recheck_seconds = await self._reconciler.reconcile(namespace, name)
        except ConflictError:
            result = Result.CONFLICT
            self._queue.retry(key)  # somebody wrote at the same time: look again
        except UnavailableError as error:
            result = Result.UNAVAILABLE
            delay = self._queue.retry(key, error.retry_after_seconds)
            log.warning("will retry", policy=name, namespace=namespace, error=str(error), delay_seconds=delay)
        except KubeError as error:
            result = Result.ERROR
            delay = self._queue.retry(key)
            log.error("will retry", policy=name, namespace=namespace, error=str(error), delay_seconds=delay)
        except Exception:
            result = Result.ERROR
            # A defect that one policy brings out must not keep the others from being served.
            self._queue.retry(key)
            log.exception("reconciliation failed", policy=name, namespace=namespace)
        else:
            self._queue.forget(key)
            if recheck_seconds is not None:
                self._queue.add_after(key, recheck_seconds)
        self._metrics.reconciled(result, time.monotonic() - began)

    async def _resync(self) -> None:
        """Look at every policy from time to time, evenly spread over the period."""
        period = self._settings.resync_seconds
        while True:
            await asyncio.sleep(period)
            try:
                keys = [
                    key
                    for scope in self._settings.watch_namespaces or (None,)
                    async for key in self._kube.policy_names(scope)
                ]
            except KubeError as error:
                log.warning("resync failed", error=str(error))
                continue
            self._metrics.policies.retain(keys)
            for number, key in enumerate(keys):
                self._queue.add_after(key, period * number / len(keys))

    async def _await_crd(self) -> None:
        while True:
            try:
                if await self._kube.serves_policies():
                    return
                log.warning("waiting for the CustomResourceDefinition of SessionPolicy")
            except KubeError as error:
                log.warning("waiting for the API server", error=str(error))
            await asyncio.sleep(_CRD_POLL_SECONDS)
