"""Who takes part in a run, and whether there is anything to share: decisions without I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from policy.names import JOB_INDEX_ENV, JOB_UID_ENV
from policy.spec import SessionPolicySpec
from stores.model.stored_settings import Setting

POLL_SECONDS = 0.2
"""How often a worker looks again whether there is something for it to do."""

PARTS_PER_WORKER = 8
"""Parts are claimed one at a time: the more there are, the less the last one keeps the others waiting."""


def worker_index(environment: Mapping[str, str]) -> int | None:
    """Which of the workers this process is: 0 leads, the others help; None where nobody numbered it."""
    text = environment.get(JOB_INDEX_ENV, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def why_alone(spec: SessionPolicySpec, environment: Mapping[str, str], *, dry_run: bool) -> str | None:
    """Why nothing is shared, as far as policy and environment tell; None where workers may share.

    Leader and helpers come to the same answer: nobody waits for the others in vain.
    """
    if spec.job.parallelism == 1:
        return "job.parallelism is 1"
    if spec.stores.database is None:
        return "a policy without a database has nothing to share"
    if dry_run or spec.dry_run:
        return "a dry run deletes nothing"
    if spec.safety.max_deletions:
        return "safety.maxDeletions is kept to the session by one worker alone"
    if worker_index(environment) is None or not environment.get(JOB_UID_ENV):
        return f"this is not a Pod of an Indexed Job: {JOB_INDEX_ENV} or {JOB_UID_ENV} is not set"
    return None


def fingerprint(spec: SessionPolicySpec, settings: Sequence[Setting]) -> str:
    """Tells whether two workers obey the same: policy and stored settings."""
    said = [json.dumps(spec.to_json_object(), sort_keys=True), *sorted(map(repr, settings))]
    return hashlib.sha256("\n".join(said).encode(errors="surrogatepass")).hexdigest()
