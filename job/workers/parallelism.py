"""Whether several workers share a run, and which of them this process is. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from policy.names import JOB_INDEX_ENV, JOB_UID_ENV
from policy.spec import SessionPolicySpec
from stores.model.stored_settings import Setting

POLL_SECONDS = 0.2
"""Seconds between two looks of a worker for something to do."""

RANGES_PER_WORKER = 8
"""Ranges of the table are claimed one at a time: the more there are, the less the others wait for the last one."""


def worker_index(environment: Mapping[str, str]) -> int | None:
    """The index of this worker, 0 for the leader; None outside of an Indexed Job."""
    text = environment.get(JOB_INDEX_ENV, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def why_not_parallel(spec: SessionPolicySpec, environment: Mapping[str, str], *, dry_run: bool) -> str | None:
    """Why only one worker may delete, as far as policy and environment tell; None where several may.

    All workers come to the same answer, so that none waits for another in vain.
    """
    if spec.job.parallelism == 1:
        return "job.parallelism is 1"
    if spec.stores.database is None:
        return "the policy has no stores.database"
    if dry_run or spec.dry_run:
        return "a dry run deletes nothing"
    if spec.safety.max_deletions:
        return "safety.maxDeletions is set, which only a single worker can keep exactly"
    if worker_index(environment) is None or not environment.get(JOB_UID_ENV):
        return f"this is not a Pod of an Indexed Job: {JOB_INDEX_ENV} or {JOB_UID_ENV} is not set"
    return None


def fingerprint(spec: SessionPolicySpec, settings: Sequence[Setting]) -> str:
    """A hash of policy and stored settings, by which workers see whether they obey the same."""
    said = [json.dumps(spec.to_json_object(), sort_keys=True), *sorted(map(repr, settings))]
    return hashlib.sha256("\n".join(said).encode(errors="surrogatepass")).hexdigest()
