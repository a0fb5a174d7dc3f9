"""One reconciliation: makes a policy's CronJob what the policy says, and its status what the cluster shows.

Level-triggered: it reads everything again and needs nothing from the event that triggered it. Repeated at any point,
also after being killed half-way, it comes to the same end.

It reads the cache, which may lag behind the cluster. So whatever it writes is bound to what it saw: by resourceVersion
or UID, or because it creates what must not exist. Where the server finds a difference, the live object decides.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from controller.api.kube import CRON_JOBS, POLICIES, Kube, Resource
from controller.cache.indexer import Owner
from controller.cache.object_cache import ObjectCache
from controller.reconcile.cron_job_writer import Applied, CronJobWriter
from controller.reconcile.run_observer import ObservedRuns, RunObserver
from controller.reconcile.run_starter import RunStarter
from controller.runs.missed_schedules import ScheduleCheck, check_schedule, last_schedule_time
from controller.runs.pods import Problem
from controller.runs.run_request import requested_run
from controller.runs.schedule import next_run
from controller.settings.controller_settings import Settings
from controller.status.event_posting import post_events
from controller.status.events import events_between
from controller.status.policy_status import (
    Observation,
    Readiness,
    condition,
    is_recorded,
    next_status,
    stored_status,
)
from controller.tracing.interface import NoTracing, Tracing
from policy.names import cron_job_name
from policy.status import ConditionStatus, ConditionType, SessionPolicyStatus

# No event tells when these end: somebody removes a foreign CronJob, raises a quota.
_RECHECK_SECONDS: Final = 60.0

_PROGRESSING: Final = Readiness(ConditionStatus.UNKNOWN, "Progressing", "the CronJob is being created")


class PolicyReconciler:
    """Reconciles policies, one call at a time for each."""

    def __init__(
        self,
        kube: Kube,
        cache: ObjectCache,
        settings: Settings,
        clock: Callable[[], datetime] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._clock = clock or kube.now
        self._tracing = tracing or NoTracing()
        self._cron_jobs = CronJobWriter(kube, cache, settings, self._tracing)
        self._runs = RunObserver(kube, cache, self._clock, traces_runs=self._tracing.is_on)
        self._starter = RunStarter(kube, cache, self._clock)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one policy up to date.

        Returns:
            After how many seconds to look again although nothing happened; None if events will tell.

        Raises:
            ConflictError: the cluster is not what the cache says; refresh, and try again.
            NotFoundError: likewise.
            KubeError: the API server could not do something just now; try again.
        """
        owner: Owner = (namespace, cron_job_name(name))
        resource = self._cache.policy(namespace, name)
        if resource is None:
            self._cache.drop_all_tombstones(owner)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None  # owner references clean up
        before = stored_status(resource)
        if condition(before, ConditionType.READY) is None:
            resource, before = await self._mark_progressing(resource, before)

        applied = await self._cron_jobs.apply(resource)
        if applied.event:
            await post_events(self._kube, resource, [applied.event], self._clock())
        runs = await self._runs.observe(owner, resource["metadata"]["uid"], applied.cron_job, before)
        due = await self._check_schedule(applied, before)
        after = next_status(before, await self._observation(resource, before, applied, runs, due))
        if after != before:
            await self._write_status(resource, before, after, runs)
        self._cache.drop_tombstones(owner, runs.recorded)
        waits = [_RECHECK_SECONDS] if applied.recheck else []
        waits += [seconds for seconds in (runs.recheck_seconds, due.look_again_seconds) if seconds is not None]
        return min(waits, default=None)

    async def refresh(self, namespace: str, name: str) -> None:
        """Read the policy and its CronJob from the API server into the cache.

        Raises:
            KubeError: the API server could not tell.
        """
        policy, cron_job = (namespace, name), (namespace, cron_job_name(name))
        policy_version = self._cache.resource_version(POLICIES, policy)
        cron_job_version = self._cache.resource_version(CRON_JOBS, cron_job)
        if live_policy := await self._kube.get_policy(*policy):
            self._cache.upsert(POLICIES, live_policy)
        else:
            self._cache.delete_if_unchanged(POLICIES, policy, policy_version)
        if live_cron_job := await self._kube.get_cron_job(*cron_job):
            self._cache.upsert(CRON_JOBS, live_cron_job)
        else:
            self._cache.delete_if_unchanged(CRON_JOBS, cron_job, cron_job_version)

    async def _mark_progressing(
        self, resource: Resource, before: SessionPolicyStatus
    ) -> tuple[Resource, SessionPolicyStatus]:
        """Write a first status: tools take an object without conditions for a finished one."""
        seen = Observation(now=self._clock(), generation=resource["metadata"]["generation"], readiness=_PROGRESSING)
        status = next_status(before, seen)
        written = await self._kube.replace_policy_status(resource, status.to_json_object())
        self._cache.upsert(POLICIES, written)
        return written, status

    async def _check_schedule(self, applied: Applied, before: SessionPolicyStatus) -> ScheduleCheck:
        """Whether runs were started when they were due.

        A missed run is reported only after a second check, of the live CronJob and with the server's current time.
        """
        if applied.policy is None or not applied.is_ready or applied.cron_job is None:
            return ScheduleCheck()
        spec = applied.policy.spec
        seen = check_schedule(spec, applied.cron_job, before, self._clock())
        if not seen.newly_missed and seen.problem is None:
            return seen
        metadata = applied.cron_job["metadata"]
        live = await self._kube.get_cron_job(metadata["namespace"], metadata["name"])
        if live is None or live["metadata"]["uid"] != metadata["uid"]:
            return ScheduleCheck(look_again_seconds=seen.look_again_seconds)
        return check_schedule(spec, live, before, self._clock())

    async def _observation(
        self,
        resource: Resource,
        before: SessionPolicyStatus,
        applied: Applied,
        runs: ObservedRuns,
        due: ScheduleCheck,
    ) -> Observation:
        """All that was seen, as the next status is computed from it. Starts the requested run, if there is one."""
        now, cron_job = self._clock(), applied.cron_job
        stalled = runs.stalled or due.problem
        if applied.spec_refused:
            stalled = Problem(applied.readiness.reason, applied.readiness.message)
        token = requested_run(resource) if applied.is_ready else None
        if token == before.last_handled_run_request:
            token = None
        # One at a time: whoever may annotate a policy must not fill the cluster with Jobs. The next one starts when the
        # end of this one is seen; of several that were requested meanwhile, the last.
        must_wait = bool(runs.requested) and token not in runs.requested
        handled = None
        if token is not None and cron_job is not None and not must_wait:
            handled = await self._starter.start(resource, cron_job, token)
        return Observation(
            now=now,
            generation=resource["metadata"]["generation"],
            readiness=applied.readiness,
            cron_job_name=cron_job["metadata"]["name"] if cron_job else None,
            last_schedule_time=last_schedule_time(cron_job),
            next_schedule_time=next_run(applied.policy.spec, now) if applied.policy and applied.is_ready else None,
            newly_missed=due.newly_missed,
            finished=runs.finished,
            running=runs.running,
            running_since=runs.running_since,
            scheduled_run=runs.scheduled,
            stalled=stalled,
            stalled_job_uid=runs.stalled_job_uid if stalled is runs.stalled else None,
            waiting_run_request=token if must_wait else None,
            handled_run_request=handled,
        )

    async def _write_status(
        self, resource: Resource, before: SessionPolicyStatus, after: SessionPolicyStatus, runs: ObservedRuns
    ) -> None:
        """Write the status, then trace and post what is new in it."""
        self._cache.upsert(POLICIES, await self._kube.replace_policy_status(resource, after.to_json_object()))
        namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
        for record in after.history:
            if not is_recorded(before, record.job_uid):
                attempt = runs.attempts[record.job_uid]
                self._tracing.record_outcome(
                    namespace, name, record, pod_uid=attempt.pod_uid, reported=attempt.reported
                )
        await post_events(self._kube, resource, events_between(before, after), self._clock())
