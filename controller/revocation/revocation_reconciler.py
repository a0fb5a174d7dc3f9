"""One reconciliation of a SessionRevocation: a Job that runs once, its outcome, and the end of the resource.

Once, although the controller may be killed between any two requests, and somebody may delete the Job: a user who
has logged in again must not be logged out again. So the Job is created suspended, its UID is written into the status,
and only then may it start. A Job whose UID is not in the status has never run and may be created again; when the one
whose UID is in the status is gone, it may have run, and no other is ever created.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from controller.api.kube import (
    JOBS,
    PODS,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    Kind,
    Kube,
    NotFoundError,
    Resource,
)
from controller.revocation.revocation_job import build_revocation_job, revocation_job_name
from controller.revocation.revocation_status import (
    NextStep,
    Observation,
    events_between,
    expires_at,
    is_finished,
    next_step,
    refused_step,
    without_user,
)
from controller.runs.pods import Problem
from controller.settings.controller_settings import Settings
from controller.status.event_posting import post_events
from controller.status.policy_status import read_status
from policy.manifest import (
    InvalidPolicyError,
    InvalidRevocationError,
    SessionRevocation,
    parse_policy,
    parse_revocation,
)
from policy.names import REVOCATION_KIND, REVOCATION_LABEL
from policy.revocation import SessionRevocationStatus

log = structlog.get_logger("controller.revocation.revocation_reconciler")

# The clock may be changed while a long time to live passes.
_LONGEST_WAIT_SECONDS: Final = 3600.0


class RevocationReconciler:
    """Reconciles revocations, one call at a time for each."""

    def __init__(self, kube: Kube, settings: Settings, clock: Callable[[], datetime] | None = None) -> None:
        self._kube = kube
        self._settings = settings
        self._clock = clock or kube.now

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one revocation up to date.

        Returns:
            After how many seconds to look again although nothing happened; None if events will tell.

        Raises:
            KubeError: the API server could not do something just now; try again.
        """
        resource = await self._kube.get_revocation(namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None  # owner references clean up
        before = read_status(SessionRevocationStatus, resource)
        if is_finished(before):
            return await self._expire(resource, before)
        job: Resource | None = None
        try:
            revocation = parse_revocation(resource)
        except InvalidRevocationError as error:
            problem = Problem("InvalidSpec", "; ".join(error.problems))
            step = refused_step(before, resource["metadata"]["generation"], problem, self._clock())
        else:
            job, step = await self._work(resource, revocation, before)
        if step.status != before:
            resource = await self._kube.replace_revocation_status(resource, step.status.to_json_object())
            await post_events(self._kube, resource, events_between(before, step.status), self._clock(), REVOCATION_KIND)
        if step.resume and job is not None:
            await self._kube.resume_job(namespace, job["metadata"]["name"], job["metadata"]["uid"])
        if is_finished(step.status):
            return await self._expire(resource, step.status)
        return step.recheck_seconds

    async def _work(
        self, resource: Resource, revocation: SessionRevocation, before: SessionRevocationStatus
    ) -> tuple[Resource | None, NextStep]:
        """The Job, which is created if there was never one, and what to do next."""
        metadata = resource["metadata"]
        namespace, uid = metadata["namespace"], metadata["uid"]
        blocked: Problem | None = None
        # From the server, not from the cache, which may be behind: a Job that is not found must not exist.
        job = await self._find_job(namespace, uid)
        if job is None and before.job_uid is None:
            try:
                job = await self._make_job(revocation, uid)
            except _BlockedError as error:
                blocked = error.problem
        pods = await self._list(PODS, namespace, uid) if job else []
        seen = Observation(
            now=self._clock(),
            revocation=revocation,
            uid=uid,
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            job=job,
            pods=pods,
            blocked=blocked,
        )
        return job, next_step(before, seen)

    async def _find_job(self, namespace: str, uid: str) -> Resource | None:
        found = await self._list(JOBS, namespace, uid)
        return next((job for job in found if job["metadata"]["name"] == revocation_job_name(uid)), None)

    async def _list(self, kind: Kind, namespace: str, uid: str) -> list[Resource]:
        pages = self._kube.list_pages(kind, namespace, f"{REVOCATION_LABEL}={uid}")
        return [item async for page in pages for item in page.items]

    async def _make_job(self, revocation: SessionRevocation, uid: str) -> Resource:
        namespace, spec = revocation.metadata.namespace, revocation.spec
        resource = await self._kube.get_policy(namespace, spec.policy_name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            raise _BlockedError(
                "PolicyNotFound",
                f"SessionPolicy {spec.policy_name} does not exist in this namespace; create it, or apply another "
                "SessionRevocation",
            )
        try:
            policy = parse_policy(resource)
            manifest = build_revocation_job(revocation, uid, policy, resource["metadata"]["uid"], self._settings)
            return await self._kube.create_job(manifest)
        except InvalidPolicyError as error:
            raise _BlockedError("InvalidPolicy", f"SessionPolicy {spec.policy_name}: {error}") from error
        except AlreadyExistsError as error:
            if found := await self._find_job(namespace, uid):
                return found
            message = f"Job {revocation_job_name(uid)} exists and is not owned by this SessionRevocation; delete it"
            raise _BlockedError("NotOwned", message) from error
        except (ForbiddenError, InvalidError) as error:
            words = without_user(str(error), spec.user)
            raise _BlockedError("JobRefused", f"the Job could not be created: {words}") from error

    async def _expire(self, resource: Resource, status: SessionRevocationStatus) -> float:
        """Delete the resource once its time to live is over; returns after how many seconds to look again."""
        metadata = resource["metadata"]
        left = (expires_at(resource, status) - self._clock()).total_seconds()
        if left <= 0:
            try:
                await self._kube.delete_revocation(metadata["namespace"], metadata["name"], metadata["uid"])
            except (NotFoundError, ConflictError):
                pass  # gone, or another one of that name
            else:
                log.info("revocation expired", revocation=metadata["name"], namespace=metadata["namespace"])
        return min(max(left, 0.0), _LONGEST_WAIT_SECONDS)


class _BlockedError(Exception):
    """The Job cannot be created now."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(reason, message)
