"""A Redis with no database behind it: sessions to fill in, runs of all steps, and what is left."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import redis

from job.steps.assess import check_deletion_share, forecast_by_store
from job.steps.concurrency import enforce_limit
from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.progress import NoProgress
from job.steps.safety import DeletionLimit
from job.steps.statistics import report_active
from job.steps.sync.sync import tidy
from policy.manifest import SessionPolicy, parse_policy
from stores.model.tally import Tally
from stores.redis.redis_only.opening import OpenedRedis, open_redis
from stores.waiting.clock import RunClock
from tests.support.sync_world import KEYS, SECRET, InstantClock, Log

HOUR = 3600


class RedisOnly:
    """Times are given in seconds before now."""

    def __init__(self, url: str, client: Any = None, **arrangement: Any) -> None:
        self.url = url
        self.client = client or redis.Redis.from_url(url)
        self.arrangement = arrangement
        self.log = Log()
        self.active_users = 0

    def close(self) -> None:
        self.client.close()

    def add(
        self,
        session_id: str,
        user: str | None = "u",
        *,
        began: float | None = 600,
        used: float | None = 60,
        ends: float | None = None,
        ttl: int | None = HOUR,
        kind: str = "json",
        residue: bool = True,
    ) -> None:
        """A session; `ends` is how many seconds ahead its own expiry lies. With residue: access log and index entry."""
        now = time.time()
        fields: dict[Any, Any] = {"cart": "x"}
        if user is not None:
            fields["userId"] = user
        if began is not None:
            fields["createdAt"] = now - began
        if used is not None:
            fields["lastAccessedAt"] = now - used
        if ends is not None:
            fields["expiresAt"] = now + ends
        name = f"sess:{session_id}"
        if kind == "json":
            self.client.set(name, json.dumps(fields), ex=ttl)
        else:
            self.client.hset(name, mapping=fields)
            if ttl is not None:
                self.client.expire(name, ttl)
        if residue:
            self.client.rpush(f"access_log:{session_id}", "entry")
            if user is not None:
                self.client.sadd(f"user_sess:{user}", session_id)

    def ids(self) -> set[str]:
        return {key.decode().removeprefix("sess:") for key in self.client.scan_iter("sess:*", count=1000)}

    def names(self) -> set[str]:
        return {key.decode() for key in self.client.scan_iter(count=1000)}

    def members(self, user: str) -> set[str]:
        members: Any = self.client.smembers(f"user_sess:{user}")
        return {member.decode() for member in members}

    def policy(self, *, keys: Mapping[str, str] = KEYS, **spec: Any) -> SessionPolicy:
        store = {
            "urlFrom": SECRET,
            "keys": dict(keys),
            "fields": {"expiresAt": {"name": "expiresAt"}},
            **self.arrangement,
        }
        return parse_policy(
            {
                "apiVersion": "sessionpolicy.dev/v1alpha1",
                "kind": "SessionPolicy",
                "metadata": {"name": "shop"},
                "spec": {
                    "stores": {"redis": store},
                    "sync": {"graceSeconds": 0},
                    "safety": {"maxDeletePercent": 100},
                    "retries": {"redis": {"attempts": 0, "delaySeconds": 0}, **spec.pop("retries", {})},
                    **spec,
                },
            }
        )

    def open(self, policy: SessionPolicy | None = None, clock: RunClock | None = None) -> OpenedRedis:
        return open_redis((policy or self.policy()).spec, self.url, clock or InstantClock(), self.log)

    def run(self, *, clock: RunClock | None = None, dry_run: bool = False, **spec: Any) -> Tally:
        """All steps, in the order of a run."""
        policy, clock = self.policy(**spec), clock or InstantClock()
        opened = self.open(policy, clock)
        try:
            return self.steps(policy, opened, clock, dry_run)
        finally:
            opened.close()

    def steps(self, policy: SessionPolicy, opened: OpenedRedis, clock: RunClock, dry_run: bool = False) -> Tally:
        tally = Tally()
        context = RunContext(
            policy=policy,
            dry_run=dry_run,
            sessions=opened.sessions,
            redis=None,
            clock=clock,
            tally=tally,
            progress=NoProgress(),
            log=self.log,
            deletion_limit=DeletionLimit(policy.spec.safety.max_deletions),
        )
        forecast = forecast_by_store(context, policy.spec.max_concurrent_sessions)
        check_deletion_share(context, forecast)
        delete_expired(context, forecast.totals.expired)
        tally.active = forecast.totals.active
        enforce_limit(context, policy.spec.max_concurrent_sessions)
        self.active_users = report_active(context, opened.sessions.totals(), 0)
        tidy(context, opened.store)
        return tally
