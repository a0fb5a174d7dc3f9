"""What a policy's Jobs and Pods show: the runs that finished, those that are active, and what stalls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from controller.api.kube import PODS, ForbiddenError, Kube, Resource
from controller.cache.indexer import CachedObject, Owner
from controller.cache.object_cache import ObjectCache, PodsOfJob
from controller.runs.job_state import Job, has_all_pods, trigger
from controller.runs.missed_schedules import UnfinishedRun
from controller.runs.pods import Pod, Problem
from controller.runs.run_record import Attempt, recorded_attempt, run_record
from controller.runs.stall_checks import Progress, check_progress
from controller.status.policy_status import is_recorded_or_too_old, stall_of_job
from policy.names import POLICY_LABEL, RUN_REQUEST_ANNOTATION
from policy.status import RunRecord, SessionPolicyStatus, Trigger

log = structlog.get_logger("controller.reconcile")


@dataclass(frozen=True, slots=True)
class ObservedRuns:
    """What the policy's Jobs show.

    Attributes:
        finished: records of those that finished and are not in the status.
        attempts: by the UIDs of those, the Pods that the records are made from.
        running: name of the newest that has not finished.
        running_since: when the oldest of those was created.
        scheduled: the one of those that was started by schedule.
        requested: tokens of those that were requested by annotation.
        stalled: why it cannot go on.
        stalled_job_uid: UID of the Job that cannot.
        recheck_seconds: when to look again, where no event will tell.
        recorded: UIDs of all that finished; once the status is written, their tombstones can be dropped.
    """

    finished: tuple[RunRecord, ...] = ()
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    running: str | None = None
    running_since: datetime | None = None
    scheduled: UnfinishedRun | None = None
    requested: frozenset[str] = frozenset()
    stalled: Problem | None = None
    stalled_job_uid: str | None = None
    recheck_seconds: float | None = None
    recorded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _ActiveRun:
    """An unfinished Job, and whether it can go on."""

    job: Job
    progress: Progress

    @property
    def name(self) -> str:
        name: str = self.job["metadata"]["name"]
        return name

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.job["metadata"]["creationTimestamp"])


class RunObserver:
    """Reads the Jobs of policies from the cache, and asks the API server only where the cache is behind."""

    def __init__(self, kube: Kube, cache: ObjectCache, clock: Callable[[], datetime], *, traces_runs: bool) -> None:
        """Make an observer.

        Args:
            kube: the API server.
            cache: the objects last seen.
            clock: the present, by the control plane's clock.
            traces_runs: whether this controller writes the traces of runs that left no report.
        """
        self._kube = kube
        self._cache = cache
        self._clock = clock
        self._traces_runs = traces_runs

    async def observe(
        self, owner: Owner, policy_uid: str, cron_job: Resource | None, status: SessionPolicyStatus
    ) -> ObservedRuns:
        """Look at the Jobs of the policy's CronJob, and their Pods where they matter.

        Args:
            owner: the policy's namespace and label.
            policy_uid: its UID.
            cron_job: its own CronJob, if there is one.
            status: its status until now.
        """
        cron_jobs = self._cache.deleted_cron_jobs(owner, policy_uid)
        cron_jobs |= {cron_job["metadata"]["uid"]} if cron_job else set()
        labelled = self._cache.jobs(owner)
        own = [job for job in labelled if job.controlled_by in cron_jobs]
        finished: list[RunRecord] = []
        attempts: dict[str, Attempt] = {}
        active: list[_ActiveRun] = []
        has_listed_pods = False
        for cached in own:
            if cached.ended and is_recorded_or_too_old(status, cached.uid, cached.ended, self._clock()):
                continue
            job, pods = cached.resource(), self._cache.pods(cached.uid)
            if not has_listed_pods and not has_all_pods(job, pods.all):
                has_listed_pods = True
                pods = await self._list_pods(owner, cached.uid)
            known = stall_of_job(status, cached.uid)
            record = run_record(job, pods.all, known, stands_in=self._traces_runs)
            if record:
                finished.append(record)
                attempts[cached.uid] = recorded_attempt(job, pods.all)
            else:
                active.append(_ActiveRun(job, await self._progress(job, pods.present, known)))
            # There may be thousands, and the health endpoint must not wait for all.
            await asyncio.sleep(0)
        # Jobs that only have the label belong to no policy; that is certain where there is a CronJob.
        return _observed(finished, attempts, active, recorded=labelled if cron_job else own)

    async def _progress(self, job: Job, pods: Sequence[Pod], known: Problem | None) -> Progress:
        """Whether an unfinished Job can go on; where it and its Pods do not tell, their Warning Events are read."""
        found = check_progress(job, pods, known, self._clock())
        if found.unexplained_uid is None:
            return found
        try:
            warnings = await self._kube.list_warnings(job["metadata"]["namespace"], found.unexplained_uid)
        except ForbiddenError as error:
            log.warning("may not list events", job=job["metadata"]["name"], error=str(error))
            warnings = []
        return check_progress(job, pods, known, self._clock(), warnings)

    async def _list_pods(self, owner: Owner, job_uid: str) -> PodsOfJob:
        """The Job's Pods from the server: a finished Job shows that the watch of Pods is behind that of Jobs."""
        namespace, label = owner
        async for page in self._kube.list_pages(PODS, namespace, f"{POLICY_LABEL}={label}"):
            for pod in page.items:
                self._cache.upsert(PODS, pod)
        return self._cache.pods(job_uid)


def _observed(
    finished: Sequence[RunRecord],
    attempts: Mapping[str, Attempt],
    active: Sequence[_ActiveRun],
    recorded: Sequence[CachedObject],
) -> ObservedRuns:
    oldest_first = sorted(active, key=lambda run: run.job["metadata"]["creationTimestamp"])
    stalled = next((run for run in reversed(oldest_first) if run.progress.stalled), None)
    rechecks = (run.progress.recheck_seconds for run in active)
    scheduled = (run for run in oldest_first if trigger(run.job) is Trigger.SCHEDULE)
    return ObservedRuns(
        finished=tuple(finished),
        attempts=attempts,
        running=oldest_first[-1].name if active else None,
        running_since=oldest_first[0].created if active else None,
        scheduled=next((UnfinishedRun(run.name, run.created) for run in scheduled), None),
        requested=frozenset(
            run.job["metadata"]["annotations"][RUN_REQUEST_ANNOTATION]
            for run in active
            if trigger(run.job) is Trigger.REQUEST
        ),
        stalled=stalled.progress.stalled if stalled else None,
        stalled_job_uid=stalled.job["metadata"]["uid"] if stalled else None,
        recheck_seconds=min((seconds for seconds in rechecks if seconds is not None), default=None),
        recorded=tuple(job.uid for job in recorded if job.ended),
    )
