"""One reconciliation: makes a policy's CronJob what the policy says, and its status what the cluster shows.

Level-triggered: it looks at everything anew and needs nothing from the event that led to it. Repeated at any point,
also after being killed half-way, it comes to the same end.

It looks into the cache, which may lag behind the cluster. So whatever it writes is bound to what it saw: by
resourceVersion or UID, or because it creates what must not be there. Where the server finds a difference, the live
object decides.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import structlog

from controller.api.kube import (
    CRON_JOBS,
    JOBS,
    PODS,
    POLICIES,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    Kube,
    Resource,
)
from controller.cache.object_cache import Cache, Owner
from controller.manifests.cronjob import build_cron_job
from controller.manifests.drift import foreign_managers, is_owned_by, matches, take_over
from controller.manifests.trace_link import link, linked
from controller.runs.evidence import is_complete
from controller.runs.missed_schedules import Punctuality, UnfinishedRun, last_schedule_time, punctuality
from controller.runs.pods import Pod, Problem
from controller.runs.run_record import Attempt, Job, recorded_attempt, run_record, trigger
from controller.runs.run_request import build_job, requested_run
from controller.runs.schedule import next_run
from controller.runs.stall_checks import Progress, progress, stall_of_job
from controller.settings.controller_settings import Settings
from controller.settings.limits import NotAllowedError
from controller.status.event_posting import post_events
from controller.status.events import PolicyEvent, Severity, changes
from controller.status.policy_status import (
    APPLIED,
    SUSPENDED,
    Observation,
    Readiness,
    condition,
    is_recorded,
    is_settled,
    observe,
    stored_status,
)
from controller.tracing.interface import Tracing, Untraced
from policy.manifest import InvalidPolicyError, SessionPolicy, parse_policy
from policy.names import POLICY_LABEL, RUN_REQUEST_ANNOTATION, cron_job_name
from policy.report import Message, printable
from policy.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    RunRecord,
    SessionPolicyStatus,
    Trigger,
)

log = structlog.get_logger("controller.reconcile")

# Nothing tells when these end: somebody removes a foreign CronJob, raises a quota.
_RECHECK_SECONDS: Final = 60.0

_SCHEDULE_FIELDS: Final = frozenset({"spec.schedule", "spec.timeZone"})
_SUSPENDED: Final = "no runs are started, because the CronJob asks for more than is allowed by now"
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
    """What the policy's Jobs show.

    Attributes:
        finished: records of those that finished and are not in the status.
        attempts: by the UIDs of those, the Pods that the records are made from.
        running: name of the newest that has not.
        running_since: when the oldest of those was made.
        scheduled: the one of those that was started by schedule.
        requested: tokens of those that were asked for by annotation.
        stalled: why it cannot go on.
        recheck_seconds: when to look again, where no event will tell.
        settled: UIDs of all that finished; once the status is written, nothing more is needed of them.
    """

    finished: tuple[RunRecord, ...] = ()
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    running: str | None = None
    running_since: datetime | None = None
    scheduled: UnfinishedRun | None = None
    requested: frozenset[str] = frozenset()
    stalled: Problem | None = None
    recheck_seconds: float | None = None
    settled: tuple[str, ...] = ()


class Reconciler:
    """Reconciles policies, one call at a time for each."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        settings: Settings,
        clock: Callable[[], datetime] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._tracing = tracing or Untraced()
        self._clock = clock or kube.now

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
            self._cache.abandon(owner)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None  # owner references clean up
        before = stored_status(resource)
        if condition(before, ConditionType.READY) is None:
            resource, before = await self._first_sight(resource, before)

        policy, converged = await self._converge(resource)
        if converged.cron_job and not _is_ready(converged):
            converged = await self._hold_back(converged.cron_job, converged)
        if converged.event:
            await post_events(self._kube, resource, [converged.event], self._clock())
        runs = await self._observe_runs(owner, resource["metadata"]["uid"], converged.cron_job, before)
        due = await self._punctuality(policy, converged, before)
        now = self._clock()
        stalled = runs.stalled or due.problem
        if converged.spec_refused:
            stalled = Problem(converged.readiness.reason, converged.readiness.message)
        request = self._request(resource, before, converged)
        # One at a time: whoever may annotate a policy must not fill the cluster with Jobs. The next one starts when the
        # end of this one is seen; of several that were asked for meanwhile, the last.
        waiting = request if runs.requested and request not in runs.requested else None
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
            waiting_run_request=waiting,
            handled_run_request=None if waiting else await self._start(resource, converged, request),
        )
        after = observe(before, seen)
        if after != before:
            self._cache.see(POLICIES, await self._kube.replace_policy_status(resource, after.to_json_object()))
            self._trace_outcomes(owner[0], name, before, after, runs)
            await post_events(self._kube, resource, changes(before, after), self._clock())
        self._cache.settle(owner, runs.settled)
        waits = [_RECHECK_SECONDS] if converged.recheck else []
        waits += [seconds for seconds in (runs.recheck_seconds, due.look_again_seconds) if seconds is not None]
        return min(waits, default=None)

    async def refresh(self, namespace: str, name: str) -> None:
        """Have the cache know the policy and its CronJob as they are now.

        Raises:
            KubeError: the API server could not tell.
        """
        cron_job = (namespace, cron_job_name(name))
        known = self._cache.version(POLICIES, (namespace, name)), self._cache.version(CRON_JOBS, cron_job)
        policy = await self._kube.get_policy(namespace, name)
        if policy:
            self._cache.see(POLICIES, policy)
        else:
            self._cache.see_absent(POLICIES, (namespace, name), known[0])
        found = await self._kube.get_cron_job(*cron_job)
        if found:
            self._cache.see(CRON_JOBS, found)
        else:
            self._cache.see_absent(CRON_JOBS, cron_job, known[1])

    def _trace_outcomes(
        self, namespace: str, name: str, before: SessionPolicyStatus, after: SessionPolicyStatus, runs: Runs
    ) -> None:
        for record in after.history:
            if not is_recorded(before, record.job_uid):
                attempt = runs.attempts[record.job_uid]
                self._tracing.record_outcome(
                    namespace, name, record, pod_uid=attempt.pod_uid, reported=attempt.reported
                )

    async def _first_sight(
        self, resource: Resource, before: SessionPolicyStatus
    ) -> tuple[Resource, SessionPolicyStatus]:
        """Say that the policy is being worked on: tools take an object without conditions for a finished one."""
        seen = Observation(now=self._clock(), generation=resource["metadata"]["generation"], readiness=_FIRST_SIGHT)
        status = observe(before, seen)
        written = await self._kube.replace_policy_status(resource, status.to_json_object())
        self._cache.see(POLICIES, written)
        return written, status

    async def _converge(self, resource: Resource) -> tuple[SessionPolicy | None, Convergence]:
        """Make the CronJob what the policy says. What stands in the way becomes the Ready condition."""
        metadata = resource["metadata"]
        cron_job = self._cache.cron_job(metadata["namespace"], cron_job_name(metadata["name"]))
        own = cron_job if cron_job and is_owned_by(cron_job, metadata["uid"]) else None
        try:
            policy = parse_policy(resource)
            desired = build_cron_job(policy, metadata["uid"], self._settings)
        except InvalidPolicyError as error:
            reason = "NotAllowed" if isinstance(error, NotAllowedError) else "InvalidSpec"
            refused = Readiness(ConditionStatus.FALSE, reason, _message("; ".join(error.problems)))
            return None, Convergence(refused, own, spec_refused=True)
        traceparent = self._tracing.traceparent(desired)
        desired = linked(desired, traceparent)
        began_ns = time.time_ns()
        refusal: InvalidError | ForbiddenError | None = None
        try:
            converged = await self._make(policy, metadata["uid"], desired, cron_job)
        except InvalidError as error:
            converged, refusal = Convergence(_refusal(error), own, spec_refused=True), error
        except ForbiddenError as error:
            forbidden = Readiness(
                ConditionStatus.FALSE, "Forbidden", _message(f"the CronJob may not be written: {error}")
            )
            converged, refusal = Convergence(forbidden, own, recheck=True), error
        if traceparent is not None and link(desired) and (converged.event or refusal):
            is_repair = own is not None and link(own) == traceparent
            self._tracing.record_reconciliation(policy, traceparent, began_ns, is_repair=is_repair, error=refusal)
        return policy, converged

    async def _make(
        self, policy: SessionPolicy, policy_uid: str, desired: Resource, found: Resource | None
    ) -> Convergence:
        """Create the CronJob if none was found, else put right what was found if it is the policy's own."""
        namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
        if found is None:
            try:
                created = await self._kube.create_cron_job(desired)
            except AlreadyExistsError:
                # Just made, or without the label by which CronJobs are followed. The live one tells whose it is.
                found = await self._kube.get_cron_job(namespace, name)
                if found is None:
                    raise ConflictError("the CronJob was there and is gone") from None
                self._cache.see(CRON_JOBS, found)
            else:
                self._cache.see(CRON_JOBS, created)
                told = PolicyEvent(Severity.NORMAL, "CronJobCreated", f"CronJob {name} created")
                return Convergence(_ready(policy), created, told)
        if not is_owned_by(found, policy_uid):
            return _not_owned(found)
        return await self._apply(policy, desired, found)

    async def _hold_back(self, cron_job: Resource, converged: Convergence) -> Convergence:
        """Let a CronJob that could not be made what its policy says start no runs that are no longer allowed.

        One that was refused an edit goes on as it was. But it may ask for more than the operator's configuration, which
        has changed since it was made, allows.
        """
        spec = cron_job["spec"]
        if not self._settings.limits.excesses(spec["jobTemplate"]["spec"]):
            return converged
        if not spec.get("suspend"):
            metadata = cron_job["metadata"]
            patch = [
                {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
                {"op": "add", "path": "/spec/suspend", "value": True},
            ]
            cron_job = await self._kube.patch_cron_job(metadata["namespace"], metadata["name"], patch)
            self._cache.see(CRON_JOBS, cron_job)
        was = converged.readiness
        words = f"{_SUSPENDED}: {was.message}"
        return dataclasses.replace(
            converged, readiness=dataclasses.replace(was, message=_message(words)), cron_job=cron_job
        )

    async def _apply(self, policy: SessionPolicy, desired: Resource, own: Resource) -> Convergence:
        namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
        intruders = foreign_managers(own)
        if matches(desired, own) and not intruders:
            return Convergence(_ready(policy), own)
        patch = take_over(own)
        if patch is not None:
            await self._kube.patch_cron_job(namespace, name, patch)
        applied = await self._kube.apply_cron_job(desired, own["metadata"]["uid"])
        self._cache.see(CRON_JOBS, applied)
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

    async def _observe_runs(
        self, owner: Owner, policy_uid: str, cron_job: Resource | None, status: SessionPolicyStatus
    ) -> Runs:
        """Look at the Jobs of the policy's CronJob, and their Pods where they matter."""
        cron_jobs = self._cache.former_cron_jobs(owner, policy_uid)
        cron_jobs |= {cron_job["metadata"]["uid"]} if cron_job else set()
        known = self._cache.jobs(owner)
        held = [job for job in known if job.controlled_by in cron_jobs]
        was = condition(status, ConditionType.STALLED)
        finished: list[RunRecord] = []
        attempts: dict[str, Attempt] = {}
        active: list[tuple[Resource, Progress]] = []
        has_read_pods = False
        for found in held:
            if found.ended and is_settled(status, found.uid, found.ended, self._clock()):
                continue
            job = found.resource()
            pods = self._cache.pods(found.uid)
            if not has_read_pods and not is_complete(job, pods.all):
                has_read_pods = True
                await self._read_pods(owner)
                pods = self._cache.pods(found.uid)
            record = run_record(job, pods.all, stall_of_job(was, job), stands_in=self._tracing.is_on)
            if record:
                finished.append(record)
                attempts[found.uid] = recorded_attempt(job, pods.all)
            else:
                active.append((job, await self._progress(job, pods.present, was)))
            # There may be thousands, and the health endpoint must not wait for all.
            await asyncio.sleep(0)
        active.sort(key=lambda entry: entry[0]["metadata"]["creationTimestamp"])
        standing = [stands for _, stands in active]
        unfinished = [(trigger(job), _unfinished(job)) for job, _ in active]
        return Runs(
            finished=tuple(finished),
            attempts=attempts,
            running=active[-1][0]["metadata"]["name"] if active else None,
            running_since=unfinished[0][1].since if unfinished else None,
            scheduled=next((run for started_by, run in unfinished if started_by is Trigger.SCHEDULE), None),
            requested=frozenset(
                job["metadata"]["annotations"][RUN_REQUEST_ANNOTATION]
                for job, _ in active
                if trigger(job) is Trigger.REQUEST
            ),
            stalled=next((p.stalled for p in reversed(standing) if p.stalled), None),
            recheck_seconds=min((p.recheck_seconds for p in standing if p.recheck_seconds is not None), default=None),
            # Jobs that only bear the label are nobody's; that can be told where there is a CronJob.
            settled=tuple(job.uid for job in (known if cron_job else held) if job.ended),
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

    async def _read_pods(self, owner: Owner) -> None:
        """Read the policy's Pods where a finished Job shows that the watch of Pods is behind that of Jobs."""
        namespace, label = owner
        async for page in self._kube.list_pages(PODS, namespace, f"{POLICY_LABEL}={label}"):
            for pod in page.items:
                self._cache.see(PODS, pod)

    def _request(self, resource: Resource, status: SessionPolicyStatus, converged: Convergence) -> str | None:
        """The token of a run that is asked for, was not made yet, and can be."""
        token = requested_run(resource)
        return None if token == status.last_handled_run_request or not _is_ready(converged) else token

    async def _start(self, resource: Resource, converged: Convergence, token: str | None) -> str | None:
        """Make the Job that the policy's annotation asks for, once, and return the request's token."""
        if token is None:
            return None
        assert converged.cron_job is not None
        metadata = converged.cron_job["metadata"]
        live = await self._kube.get_cron_job(metadata["namespace"], metadata["name"])
        if live is None or live["metadata"]["uid"] != metadata["uid"]:
            # A Job of an owner that is gone would be collected at once, and the run never be.
            raise ConflictError("the CronJob is not the one that was seen last")
        job = build_job(converged.cron_job, resource["metadata"]["uid"], token)
        try:
            self._cache.see(JOBS, await self._kube.create_job(job))
        except AlreadyExistsError:
            return await self._existing_run(resource, job, token)
        return token

    async def _existing_run(self, resource: Resource, wanted: Resource, token: str) -> str | None:
        """The request's token if the Job that has the run's name is that run."""
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        found = await self._kube.get_job(namespace, name)
        if found is None:
            raise ConflictError("the Job was there and is gone")
        self._cache.see(JOBS, found)
        # The CronJob that it was made from may have been replaced since.
        if (found["metadata"].get("annotations") or {}).get(RUN_REQUEST_ANNOTATION) == token:
            return token
        blocked = f"the requested run cannot start: there is a Job {name} that is not this policy's; delete it"
        await post_events(self._kube, resource, [PolicyEvent(Severity.WARNING, "RunBlocked", blocked)], self._clock())
        return None


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
