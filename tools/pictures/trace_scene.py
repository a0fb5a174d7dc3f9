"""What the picture of a trace shows: a run on real stores, and the controller's recording of its outcome.

Both send their spans to a collector that decodes the wire format.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.tracing.interface import open_tracing
from job.demo.servers import EmbeddedPostgres, EmbeddedRedis
from policy.names import JOB_UID_ENV, NAMESPACE_ENV, POD_NAME_ENV, POD_UID_ENV
from policy.opentelemetry_env import TRACEPARENT_ENV
from policy.report import RunReport
from policy.status import RunRecord, Trigger
from tests.support.otlp import Span, collector
from tests.support.runs import Log, command, manifest
from tests.support.session_stores import HOUR, SessionStores

JOB, POD = "0b9e1d9c-6c1c-4f0a-9b52-8a0d3c1f7e42", "5f0c8a34-90b1-4c0e-8f43-2d6c1f1f7b11"
SESSIONS = 6000
RULES = [{"type": "Revoked", "action": "Delete"}, {"type": "LongRunning"}, {"type": "AddressChange"}]


def trace_scene() -> list[Span]:
    """The spans of one run, from container and controller."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres, redis = stack.enter_context(EmbeddedPostgres()), stack.enter_context(EmbeddedRedis())
        stores = SessionStores(postgres.url, redis.url)
        stack.callback(stores.close)
        _fill(stores)
        one = stack.enter_context(collector())
        os.environ.update(one.environment)  # the SDK reads the process's own variables
        tracing = open_tracing({**one.environment, POD_NAME_ENV: "session-policy-0"}, Log())
        traceparent = tracing.traceparent({"metadata": {"name": "shop", "namespace": "web"}})
        environment = {
            **one.environment,
            JOB_UID_ENV: JOB,
            POD_UID_ENV: POD,
            POD_NAME_ENV: "shop-29000000-abcde",
            NAMESPACE_ENV: "web",
            TRACEPARENT_ENV: traceparent or "",
        }
        document = manifest(redis=True, rules=RULES, maxConcurrentSessions=3, duplicates={"action": "KeepNewest"})
        done = command(folder, document, stores.database_url, stores.redis_url, environment=environment)
        report = RunReport.model_validate_json(done.termination_message, strict=True, by_alias=True, by_name=False)
        known = {"completion_time": datetime.now(UTC), "job_name": "shop-29000000", "job_uid": JOB}
        record = RunRecord(**dict(report) | known, trigger=Trigger.SCHEDULE)
        tracing.record_outcome("web", "shop", record, pod_uid=POD, reported=True)
        tracing.close()
        assert report.trace_id
        return [span for span in one.spans if span.trace_id == report.trace_id]


def _fill(stores: SessionStores) -> None:
    now = datetime.now(UTC)
    names = [secrets.token_hex(32) for _ in range(SESSIONS)]
    stores.rows(
        {
            "session_id": name,
            "user_id": f"u{number % (SESSIONS // 5)}",
            "created_at": now - timedelta(hours=2, seconds=number),
            "last_accessed_at": now - timedelta(seconds=2 * HOUR if number % 3 == 0 else number % 900),
            "client": f"browser {number // (SESSIONS // 5)}",
            "revoked_at": now if number % 100 == 1 else None,
        }
        for number, name in enumerate(names)
    )
    for number, name in enumerate(names):
        stores.add_key(name, f"u{number % (SESSIONS // 5)}", used=None)
