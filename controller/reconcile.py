"""One reconciliation: makes a policy's CronJob what the policy says, and its status what the cluster shows.

Level-triggered: it reads everything anew and needs nothing from the event that led to it. Repeated at any point, also
after being killed half-way, it comes to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from controller.cronjob import build_cron_job
from controller.drift import foreign_managers, is_owned_by, matches, take_over
from controller.events import PolicyEvent, Severity, build_event, changes
from controller.kube import AlreadyExistsError, ForbiddenError, InvalidError, Kube, KubeError, Resource
from controller.missed import Punctuality, UnfinishedRun, last_schedule_time, punctuality
from controller.outcome import Job, is_finished, run_record, trigger
from controller.pods import Pod, Problem
from controller.progress import Progress, progress, stall_of_job
from controller.run_request import build_job, requested_run
from controller.schedule import next_run
from controller.settings import Settings
from controller.status import APPLIED, SUSPENDED, Observation, Readiness, condition, is_recorded, observe, stored_status
from policy.manifest import InvalidPolicyError, SessionPolicy, parse_policy
from policy.names import cron_job_name
from policy.report import Message, printable
from policy.status import Condition, ConditionStatus, ConditionType, RunRecord, SessionPolicyStatus, Trigger

log = structlog.get_logger("controller.reconcile")

# Nothing tells when these end: somebody removes a foreign CronJob, raises a quota.
_RECHECK_SECONDS: Final = 60.0

_SCHEDULE_FIELDS: Final = frozenset({"spec.schedule", "spec.timeZone"})
_FIRST_SIGHT: Final = Readiness(ConditionStatus.UNKNOWN, "Progressing", "the CronJob is being made")


@dataclass(frozen=True, slots=True)
class Convergence:
    """What became of the CronJob.

    Attributes:
        readiness: for the Ready condition.
        cron_job: the policy's own CronJob as it is now; None if there is none.
        event: what was done, if anything.
        spec_refused: nothing but a new spec (or an end to the name clash) helps.
        recheck: no event will tell when it can go on.
    """

    readiness: Readiness
    cron_job: Resource | None = None
    event: PolicyEvent | None = None
    spec_refused: bool = False
    recheck: bool = False


@dataclass(frozen=True, slots=True)
class Runs:
    """What the policy's Jobs show."""

    finished: tuple[RunRecord, ...] = ()
    running: str | None = None
    running_since: datetime | None = None
    scheduled: UnfinishedRun | None = None
    stalled: Problem | None = None
    recheck_seconds: float | None = None


class Reconciler:
    """Reconciles policies, one call at a time for each."""

    def __init__(self, kube: Kube, settings: Settings, clock: Callable[[], datetime] | None = None) -> None:
        self._kube = kube
        self._settings = settings
        self._clock = clock or kube.now

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one policy up to date.

        Returns:
            After how many seconds to look again although nothing happened; None if events will tell.

        Raises:
            KubeError: the API server could not do something just now; try again.
        """
        resource = await self._kube.get_policy(namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None  # owner references clean up
        before = stored_status(resource)
        if condition(before, ConditionType.READY) is None:
            resource, before = await self._first_sight(resource, before)

        policy, converged = await self._converge(resource)
        if converged.event:
            await self._tell(resource, [converged.event])
        runs = await self._observe_runs(converged.cron_job, before)
        due = await self._punctuality(policy, converged, before)
        now = self._clock()
        stalled = runs.stalled or due.problem
        if converged.spec_refused:
            stalled = Problem(converged.readiness.reason, converged.readiness.message)
        seen = Observation(
            now=now,
            generation=resource["metadata"]["generation"],
            readiness=converged.readiness,
            cron_job_name=converged.cron_job["metadata"]["name"] if converged.cron_job else None,
            last_schedule_time=last_schedule_time(converged.cron_job),
            next_schedule_time=next_run(policy.spec, now) if policy and _is_ready(converged) else None,
            newly_missed=due.newly_missed,
            finished=runs.finished,
            running=runs.running,
            running_since=runs.running_since,
            scheduled_run=runs.scheduled,
            stalled=stalled,
            handled_run_request=await self._start_requested_run(resource, before, converged),
        )
        after = observe(before, seen)
        if after != before:
            await self._kube.replace_policy_status(resource, after.to_json_object())
            await self._tell(resource, changes(before, after))
        waits = [_RECHECK_SECONDS] if converged.recheck else []
        waits += [seconds for seconds in (runs.recheck_seconds, due.look_again_seconds) if seconds is not None]
        return min(waits, default=None)

    async def _first_sight(
        self, resource: Resource, before: SessionPolicyStatus
    ) -> tuple[Resource, SessionPolicyStatus]:
        """Say that the policy is being worked on: tools take an object without conditions for a finished one."""
        seen = Observation(now=self._clock(), generation=resource["metadata"]["generation"], readiness=_FIRST_SIGHT)
        status = observe(before, seen)
        return await self._kube.replace_policy_status(resource, status.to_json_object()), status

    async def _converge(self, resource: Resource) -> tuple[SessionPolicy | None, Convergence]:
        """Make the CronJob what the policy says. What stands in the way becomes the Ready condition."""
        metadata = resource["metadata"]
        cron_job = await self._kube.get_cron_job(metadata["namespace"], cron_job_name(metadata["name"]))
        own = cron_job if cron_job and is_owned_by(cron_job, metadata["uid"]) else None
        try:
            policy = parse_policy(resource)
            desired = build_cron_job(policy, metadata["uid"], self._settings)
        except InvalidPolicyError as error:
            refused = Readiness(ConditionStatus.FALSE, "InvalidSpec", printable("; ".join(error.problems)))
            return None, Convergence(refused, own, spec_refused=True)
        if cron_job is not None and own is None:
            return policy, _not_owned(cron_job)
        try:
            return policy, await self._apply(policy, desired, own)
        except AlreadyExistsError:
            # Made by somebody between our look and our attempt; the next look tells by whom.
            return policy, _not_owned(desired)
        except InvalidError as error:
            return policy, Convergence(_refusal(error), own, spec_refused=True)
        except ForbiddenError as error:
            forbidden = Readiness(
                ConditionStatus.FALSE, "Forbidden", _message(f"the CronJob may not be written: {error}")
            )
            return policy, Convergence(forbidden, own, recheck=True)

    async def _apply(self, policy: SessionPolicy, desired: Resource, own: Resource | None) -> Convergence:
        namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
        if own is None:
            created = await self._kube.create_cron_job(desired)
            told = PolicyEvent(Severity.NORMAL, "CronJobCreated", f"CronJob {name} created")
            return Convergence(_ready(policy), created, told)
        intruders = foreign_managers(own)
        if matches(desired, own) and not intruders:
            return Convergence(_ready(policy), own)
        patch = take_over(own)
        if patch is not None:
            await self._kube.patch_cron_job(namespace, name, patch)
        applied = await self._kube.apply_cron_job(desired, own["metadata"]["uid"])
        if intruders:
            who = printable(", ".join(intruders), 200)
            told = PolicyEvent(
                Severity.WARNING, "DriftCorrected", f"CronJob {name} had been changed by {who} and was put back"
            )
        elif applied["metadata"]["resourceVersion"] != own["metadata"]["resourceVersion"]:
            told = PolicyEvent(Severity.NORMAL, "CronJobUpdated", f"CronJob {name} was made to match the policy")
        else:
            return Convergence(_ready(policy), applied)  # an admission webhook keeps it different
        return Convergence(_ready(policy), applied, told)

    async def _observe_runs(self, cron_job: Resource | None, status: SessionPolicyStatus) -> Runs:
        """Read the Jobs of the policy's CronJob, and their Pods where they matter."""
        if cron_job is None:
            return Runs()
        namespace, name = cron_job["metadata"]["namespace"], cron_job["metadata"]["name"]
        jobs = [
            job
            for job in await self._kube.list_jobs(namespace, name)
            if is_owned_by(job, cron_job["metadata"]["uid"]) and not is_recorded(status, job["metadata"]["uid"])
        ]
        if not jobs:
            return Runs()
        pods = await self._kube.list_pods(namespace, name)
        was = condition(status, ConditionType.STALLED)
        active = sorted(
            (job for job in jobs if not is_finished(job)), key=lambda job: job["metadata"]["creationTimestamp"]
        )
        standing = [await self._progress(job, pods, was) for job in active]
        unfinished = [(trigger(job), _unfinished(job)) for job in active]
        return Runs(
            finished=tuple(r for job in jobs if (r := run_record(job, pods, stall_of_job(was, job)))),
            running=active[-1]["metadata"]["name"] if active else None,
            running_since=unfinished[0][1].since if unfinished else None,
            scheduled=next((run for started_by, run in unfinished if started_by is Trigger.SCHEDULE), None),
            stalled=next((p.stalled for p in reversed(standing) if p.stalled), None),
            recheck_seconds=min((p.recheck_seconds for p in standing if p.recheck_seconds is not None), default=None),
        )

    async def _progress(self, job: Job, pods: Sequence[Pod], was: Condition | None) -> Progress:
        """How an unfinished Job stands; where it and its Pods do not tell, Kubernetes' Events on them are asked."""
        found = progress(job, pods, was, self._clock())
        if found.unexplained_uid is None:
            return found
        try:
            warnings = await self._kube.list_warnings(job["metadata"]["namespace"], found.unexplained_uid)
        except ForbiddenError as error:
            log.warning("events may not be read", job=job["metadata"]["name"], error=str(error))
            warnings = []
        return progress(job, pods, was, self._clock(), warnings)

    async def _punctuality(
        self, policy: SessionPolicy | None, converged: Convergence, before: SessionPolicyStatus
    ) -> Punctuality:
        """Whether runs were started when they were due.

        That one was not is said only after a second look: it takes the latest answer and the server's present clock.
        """
        if policy is None or not _is_ready(converged) or converged.cron_job is None:
            return Punctuality()
        seen = punctuality(policy.spec, converged.cron_job, before, self._clock())
        if not seen.newly_missed and seen.problem is None:
            return seen
        metadata = converged.cron_job["metadata"]
        latest = await self._kube.get_cron_job(metadata["namespace"], metadata["name"])
        if latest is None or latest["metadata"]["uid"] != metadata["uid"]:
            return Punctuality(look_again_seconds=seen.look_again_seconds)
        return punctuality(policy.spec, latest, before, self._clock())

    async def _start_requested_run(
        self, resource: Resource, status: SessionPolicyStatus, converged: Convergence
    ) -> str | None:
        """Make the Job that the policy's annotation asks for, once, and return the request's token."""
        token = requested_run(resource)
        if token is None or token == status.last_handled_run_request or not _is_ready(converged):
            return None
        assert converged.cron_job is not None
        job = build_job(converged.cron_job, resource["metadata"]["uid"], token)
        try:
            await self._kube.create_job(job)
        except AlreadyExistsError:
            log.info("requested run has its job already", job=job["metadata"]["name"])
        return token

    async def _tell(self, resource: Resource, happened: list[PolicyEvent]) -> None:
        """Create Events. They are a courtesy: one that cannot be created is logged and let go."""
        metadata = resource["metadata"]
        for event in happened:
            log.info(event.message, reason=event.reason, policy=metadata["name"], namespace=metadata["namespace"])
            try:
                await self._kube.create_event(build_event(resource, event, self._clock()))
            except AlreadyExistsError:
                pass  # told by the controller that worked before
            except KubeError as error:
                log.warning("event not created", reason=event.reason, error=str(error))


def _is_ready(converged: Convergence) -> bool:
    return converged.readiness.status is ConditionStatus.TRUE


def _ready(policy: SessionPolicy) -> Readiness:
    if policy.spec.suspend:
        return Readiness(ConditionStatus.TRUE, SUSPENDED, "no runs are scheduled until spec.suspend is false")
    return Readiness(ConditionStatus.TRUE, APPLIED, "the CronJob matches the policy")


def _not_owned(cron_job: Mapping[str, Any]) -> Convergence:
    name = cron_job["metadata"]["name"]
    readiness = Readiness(
        ConditionStatus.FALSE,
        "NotOwned",
        f"there is a CronJob {name} that this policy did not make; it is left alone: delete it, or rename the policy",
    )
    return Convergence(readiness, spec_refused=True, recheck=True)


def _refusal(error: InvalidError) -> Readiness:
    """The server's own words on a spec that it refused."""
    reason = "InvalidSchedule" if any(c.field in _SCHEDULE_FIELDS for c in error.causes) else "InvalidSpec"
    words = "; ".join(f"{c.field}: {c.message}" for c in error.causes) or str(error)
    return Readiness(ConditionStatus.FALSE, reason, _message(words))


def _unfinished(job: Job) -> UnfinishedRun:
    metadata = job["metadata"]
    return UnfinishedRun(metadata["name"], datetime.fromisoformat(metadata["creationTimestamp"]))


def _message(words: str) -> Message:
    return printable(words)
