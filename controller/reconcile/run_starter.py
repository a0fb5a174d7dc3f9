"""Starts the run that a policy's ``run-requested-at`` annotation asks for, once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from controller.api.kube import JOBS, AlreadyExistsError, ConflictError, Kube, Resource
from controller.cache.object_cache import ObjectCache
from controller.runs.run_request import build_job
from controller.status.event_posting import post_events
from controller.status.events import PolicyEvent, Severity
from policy.names import RUN_REQUEST_ANNOTATION


class RunStarter:
    """Creates the Jobs of requested runs."""

    def __init__(self, kube: Kube, cache: ObjectCache, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._cache = cache
        self._clock = clock

    async def start(self, resource: Resource, cron_job: Resource, token: str) -> str | None:
        """Create the Job of a requested run, unless it exists.

        Args:
            resource: the policy.
            cron_job: its own CronJob, which the Job is made from.
            token: the request's token.

        Returns:
            The token; None if another Job has the run's name.

        Raises:
            ConflictError: the CronJob, or the Job, is not what was seen last.
        """
        metadata = cron_job["metadata"]
        live = await self._kube.get_cron_job(metadata["namespace"], metadata["name"])
        if live is None or live["metadata"]["uid"] != metadata["uid"]:
            # A Job of an owner that is gone would be collected at once, and the run never start.
            raise ConflictError(f"CronJob {metadata['name']} was deleted or replaced meanwhile")
        job = build_job(cron_job, resource["metadata"]["uid"], token)
        try:
            self._cache.upsert(JOBS, await self._kube.create_job(job))
        except AlreadyExistsError:
            return await self._existing_run(resource, job, token)
        return token

    async def _existing_run(self, resource: Resource, wanted: Resource, token: str) -> str | None:
        """The request's token if the Job that has the run's name is that run."""
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        found = await self._kube.get_job(namespace, name)
        if found is None:
            raise ConflictError(f"Job {name} was deleted meanwhile")
        self._cache.upsert(JOBS, found)
        # The CronJob that it was made from may have been replaced since.
        if (found["metadata"].get("annotations") or {}).get(RUN_REQUEST_ANNOTATION) == token:
            return token
        message = f"the requested run cannot start: Job {name} exists and is not owned by this policy; delete it"
        await post_events(self._kube, resource, [PolicyEvent(Severity.WARNING, "RunBlocked", message)], self._clock())
        return None
