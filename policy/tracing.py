"""The ids of a run's trace, derived from UIDs, so that job and controller write into one trace independently.

Kubernetes' UIDs are hashed because samplers compare a trace id with a ratio: a UUID's fixed bits would make them sample
all runs or none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_TRACE_ID_BYTES = 16
_SPAN_ID_BYTES = 8


def trace_id(job_uid: str) -> str:
    """The id of the trace of all attempts of a Job, as 32 hexadecimal digits."""
    return hashlib.sha256(job_uid.encode()).digest()[:_TRACE_ID_BYTES].hex()


def root_span_id(job_uid: str, pod_uid: str) -> str:
    """The id of the span of one attempt, above those of its steps, as 16 hexadecimal digits.

    Each attempt has a Pod of its own, and with it a span of its own: no two spans of a trace may share an id.

    Args:
        job_uid: UID of the Job.
        pod_uid: UID of the Pod; empty where none is known.
    """
    return hashlib.sha256(f"{job_uid}/{pod_uid}".encode()).digest()[:_SPAN_ID_BYTES].hex()


def traceparent(cron_job: Mapping[str, Any]) -> str:
    """The W3C trace context of the reconciliation that applies this CronJob.

    It follows from the manifest: it changes only when the manifest does, and any other value in its place is drift.

    Args:
        cron_job: the manifest as it is applied, but for this very value.
    """
    text = json.dumps(cron_job, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    span = digest[_TRACE_ID_BYTES : _TRACE_ID_BYTES + _SPAN_ID_BYTES]
    return f"00-{digest[:_TRACE_ID_BYTES].hex()}-{span.hex()}-01"
