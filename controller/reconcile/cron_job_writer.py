"""Creates a policy's CronJob, and keeps it what the policy says. What stands in the way becomes the Ready condition."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.api.kube import (
    CRON_JOBS,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    Kube,
    Resource,
)
from controller.cache.object_cache import ObjectCache
from controller.manifests.cronjob import build_cron_job
from controller.manifests.drift import foreign_managers, is_owned_by, matches, take_over
from controller.manifests.trace_link import link, linked
from controller.settings.controller_settings import Settings
from controller.settings.limits import NotAllowedError
from controller.status.events import PolicyEvent, Severity
from controller.status.policy_status import APPLIED, SUSPENDED, Readiness
from controller.tracing.interface import Tracing
from policy.manifest import InvalidPolicyError, SessionPolicy, parse_policy
from policy.names import cron_job_name
from policy.report import printable
from policy.status import ConditionStatus

_SCHEDULE_FIELDS: Final = frozenset({"spec.schedule", "spec.timeZone"})
_RUNS_STOPPED: Final = "no runs are started, because the CronJob exceeds what the operator's configuration now allows"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the CronJob.

    Attributes:
        readiness: for the Ready condition.
        policy: the policy, parsed; None if it is invalid or not allowed.
        cron_job: the policy's own CronJob as it is now; None if there is none.
        event: what was done, if anything.
        spec_refused: nothing but a new spec (or an end to the name clash) helps.
        recheck: no event will tell when it can go on.
    """

    readiness: Readiness
    policy: SessionPolicy | None = None
    cron_job: Resource | None = None
    event: PolicyEvent | None = None
    spec_refused: bool = False
    recheck: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether the CronJob matches the policy."""
        return self.readiness.status is ConditionStatus.TRUE


class CronJobWriter:
    """Writes the CronJobs of policies.

    Whatever it writes is bound to what it saw: by resourceVersion or UID, or because it creates what must not exist.
    """

    def __init__(self, kube: Kube, cache: ObjectCache, settings: Settings, tracing: Tracing) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._tracing = tracing

    async def apply(self, resource: Resource) -> Applied:
        """Make the CronJob what the policy says.

        Raises:
            ConflictError: the cluster is not what the cache says.
            KubeError: the API server could not do something just now.
        """
        metadata = resource["metadata"]
        found = self._cache.cron_job(metadata["namespace"], cron_job_name(metadata["name"]))
        own = found if found and is_owned_by(found, metadata["uid"]) else None
        try:
            policy = parse_policy(resource)
            desired = build_cron_job(policy, metadata["uid"], self._settings)
        except InvalidPolicyError as error:
            reason = "NotAllowed" if isinstance(error, NotAllowedError) else "InvalidSpec"
            applied = Applied(_not_ready(reason, "; ".join(error.problems)), cron_job=own, spec_refused=True)
        else:
            applied = await self._apply_traced(policy, metadata["uid"], desired, found)
        return await self._stop_excessive_runs(applied)

    async def _apply_traced(
        self, policy: SessionPolicy, policy_uid: str, desired: Resource, found: Resource | None
    ) -> Applied:
        own = found if found and is_owned_by(found, policy_uid) else None
        traceparent = self._tracing.traceparent(desired)
        desired = linked(desired, traceparent)
        began_ns = time.time_ns()
        refusal: InvalidError | ForbiddenError | None = None
        try:
            applied = await self._write(policy, policy_uid, desired, found)
        except InvalidError as error:
            applied, refusal = Applied(_refusal(error), policy, own, spec_refused=True), error
        except ForbiddenError as error:
            forbidden = _not_ready("Forbidden", f"the CronJob may not be written: {error}")
            applied, refusal = Applied(forbidden, policy, own, recheck=True), error
        if traceparent is not None and link(desired) and (applied.event or refusal):
            is_repair = own is not None and link(own) == traceparent
            self._tracing.record_reconciliation(policy, traceparent, began_ns, is_repair=is_repair, error=refusal)
        return applied

    async def _write(
        self, policy: SessionPolicy, policy_uid: str, desired: Resource, found: Resource | None
    ) -> Applied:
        """Create the CronJob if none was found, else update what was found if it is the policy's own."""
        namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
        if found is None:
            try:
                created = await self._kube.create_cron_job(desired)
            except AlreadyExistsError:
                # Just made, or without the label by which CronJobs are followed. The live one tells whose it is.
                found = await self._kube.get_cron_job(namespace, name)
                if found is None:
                    raise ConflictError(f"CronJob {name} was deleted meanwhile") from None
                self._cache.upsert(CRON_JOBS, found)
            else:
                self._cache.upsert(CRON_JOBS, created)
                event = PolicyEvent(Severity.NORMAL, "CronJobCreated", f"CronJob {name} created")
                return Applied(_ready(policy), policy, created, event)
        if not is_owned_by(found, policy_uid):
            return _not_owned(policy, found)
        return await self._update(policy, desired, found)

    async def _update(self, policy: SessionPolicy, desired: Resource, own: Resource) -> Applied:
        namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
        intruders = foreign_managers(own)
        if matches(desired, own) and not intruders:
            return Applied(_ready(policy), policy, own)
        patch = take_over(own)
        if patch is not None:
            await self._kube.patch_cron_job(namespace, name, patch)
        applied = await self._kube.apply_cron_job(desired, own["metadata"]["uid"])
        self._cache.upsert(CRON_JOBS, applied)
        event: PolicyEvent | None = None
        if intruders:
            who = printable(", ".join(intruders), 200)
            message = f"CronJob {name} had been changed by {who} and was reverted; change the policy instead"
            event = PolicyEvent(Severity.WARNING, "DriftCorrected", message)
        elif applied["metadata"]["resourceVersion"] != own["metadata"]["resourceVersion"]:
            event = PolicyEvent(Severity.NORMAL, "CronJobUpdated", f"CronJob {name} updated to match the policy")
        # Without either, an admission webhook keeps it different.
        return Applied(_ready(policy), policy, applied, event)

    async def _stop_excessive_runs(self, applied: Applied) -> Applied:
        """Suspend a CronJob that could not be made what its policy says and exceeds the operator's limits.

        One whose policy was refused goes on as it was. But it may ask for more than the operator's configuration, which
        has changed since it was made, allows.
        """
        cron_job = applied.cron_job
        if applied.is_ready or cron_job is None:
            return applied
        spec = cron_job["spec"]
        if not self._settings.limits.excesses(spec["jobTemplate"]["spec"]):
            return applied
        if not spec.get("suspend"):
            metadata = cron_job["metadata"]
            patch = [
                {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
                {"op": "add", "path": "/spec/suspend", "value": True},
            ]
            cron_job = await self._kube.patch_cron_job(metadata["namespace"], metadata["name"], patch)
            self._cache.upsert(CRON_JOBS, cron_job)
        message = printable(f"{_RUNS_STOPPED}: {applied.readiness.message}")
        readiness = dataclasses.replace(applied.readiness, message=message)
        return dataclasses.replace(applied, readiness=readiness, cron_job=cron_job)


def _ready(policy: SessionPolicy) -> Readiness:
    if policy.spec.suspend:
        return Readiness(ConditionStatus.TRUE, SUSPENDED, "no runs are scheduled until spec.suspend is false")
    return Readiness(ConditionStatus.TRUE, APPLIED, "the CronJob matches the policy")


def _not_ready(reason: str, message: str) -> Readiness:
    return Readiness(ConditionStatus.FALSE, reason, printable(message))


def _not_owned(policy: SessionPolicy, cron_job: Mapping[str, Any]) -> Applied:
    name = cron_job["metadata"]["name"]
    message = f"CronJob {name} exists and is not owned by this policy; delete it or rename the policy"
    return Applied(_not_ready("NotOwned", message), policy, spec_refused=True, recheck=True)


def _refusal(error: InvalidError) -> Readiness:
    """The server's own words on a spec that it refused."""
    reason = "InvalidSchedule" if any(c.field in _SCHEDULE_FIELDS for c in error.causes) else "InvalidSpec"
    return _not_ready(reason, "; ".join(f"{c.field}: {c.message}" for c in error.causes) or str(error))
