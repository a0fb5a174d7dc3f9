"""Known applications' sessions in Redis alone: after a run the framework still finds every live one."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from policy.stores import RedisStore
from tests.frameworks.npm import NodeUnavailableError
from tests.frameworks.redis_apps import ConnectRedisApp, DjangoCacheApp
from tests.support.redis_only import RedisOnly
from tests.support.sync_world import SECRET, InstantClock


class PresetWorld(RedisOnly):
    """Runs of a policy with a preset and nothing else."""

    def policy(self, **spec: Any) -> Any:
        own: dict[str, Any] = {"keys": spec.pop("keys", None), "fields": spec.pop("fields", None)}
        policy = super().policy(**spec)
        store = RedisStore.model_validate(
            {"urlFrom": SECRET, **self.arrangement, **{name: value for name, value in own.items() if value}}
        )
        stores = policy.spec.stores.model_copy(update={"redis": store})
        return policy.model_copy(update={"spec": policy.spec.model_copy(update={"stores": stores})})


def connect_redis(request: pytest.FixtureRequest, url: str, *, disable_ttl: bool = False) -> ConnectRedisApp:
    kept = getattr(request.config, "cache", None)
    cache = Path(kept.mkdir("frameworks")) if kept else request.getfixturevalue("tmp_path")
    try:
        return ConnectRedisApp(cache, url, disable_ttl=disable_ttl)
    except NodeUnavailableError as missing:
        pytest.skip(str(missing))


def test_r3_4_connect_redis_without_ttls(redis_url: str, request: pytest.FixtureRequest) -> None:
    app = connect_redis(request, redis_url, disable_ttl=True)
    live, ended = {f"live{n}": 600 + n for n in range(5)}, {f"ended{n}": -60 - n for n in range(5)}
    app.write({**live, **ended})
    assert app.find({**live, **ended}) == {*live, *ended}  # the framework itself never lets go of them
    world = PresetWorld(redis_url, preset="ConnectRedis")
    tally = world.run(maxConcurrentSessions=0)
    assert app.find({**live, **ended}) == set(live)
    assert (tally.expired, tally.deleted, tally.active, world.active_users) == (5, 5, 5, 1)
    # It knows whose they are.
    assert world.run(maxConcurrentSessions=3).evicted == 2
    world.close()


def test_r3_4_connect_redis_prolongs_by_ttl_alone(redis_url: str, request: pytest.FixtureRequest) -> None:
    """The cookie in the content falls behind when a request changes nothing; the session is in use all the same."""
    sessions = {f"s{n}": -60 for n in range(3)}
    connect_redis(request, redis_url, disable_ttl=True).write(sessions)
    app = connect_redis(request, redis_url)
    app.prolong(dict.fromkeys(sessions, 600))
    world = PresetWorld(redis_url, preset="ConnectRedis")
    assert world.run(maxConcurrentSessions=0).deleted == 0
    assert app.find(sessions) == set(sessions)
    world.close()


@pytest.mark.parametrize(
    ("prefix", "version", "keys"), [("", 1, None), ("shop", 2, {"session": "shop:2:django.contrib.sessions.cache{id}"})]
)
def test_r3_4_django_cache(redis_url: str, prefix: str, version: int, keys: dict[str, str] | None) -> None:
    pytest.importorskip("django", reason="Django is not installed")
    app = DjangoCacheApp(redis_url, prefix=prefix, version=version)
    ids = app.write([600, 700, 86_400])
    world = PresetWorld(redis_url, preset="DjangoCache")
    # One whose TTL was lost would stay for ever.
    kept = f"{prefix}:{version}:django.contrib.sessions.cache{ids[0]}"
    assert world.client.persist(kept)
    own: dict[str, Any] = {"keys": keys} if keys else {}
    tally = world.run(sync={"graceSeconds": 0, "defaultTtlSeconds": 5000}, **own)
    assert app.find(ids) == set(ids)
    assert (tally.redis.sessions, tally.redis.ttl_added, tally.deleted) == (3, 1, 0)
    assert 0 < world.client.ttl(kept) <= 5000
    world.close()


def _java_text(text: str) -> bytes:
    return b"\xac\xed\x00\x05t" + struct.pack(">H", len(text)) + text.encode()


def _java_long(number: int) -> bytes:
    return (
        b"\xac\xed\x00\x05sr\x00\x0ejava.lang.Long;\x8b\xe4\x90\xcc\x8f#\xdf\x02\x00\x01J\x00\x05valuexr\x00\x10"
        b"java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\x00\x00xp" + struct.pack(">q", number)
    )


@pytest.mark.parametrize("jdk", [True, False], ids=["jdk", "text"])
def test_r3_4_spring_indexed(redis_url: str, jdk: bool) -> None:
    """The three families of keys of RedisIndexedSessionRepository, as its default serialiser writes them or as text."""
    world = PresetWorld(redis_url, preset="SpringIndexed")
    client: redis.Redis = world.client
    repository = "org.springframework.session.FindByIndexNameSessionRepository"
    index = f"spring:session:index:{repository}.PRINCIPAL_NAME_INDEX_NAME:anna"
    now = time.time()
    for name, used in (("live", 60), ("idle", 7200)):
        times = {"creationTime": now - 8000, "lastAccessedTime": now - used}
        encoded: dict[Any, Any] = {
            field: _java_long(int(t * 1000)) if jdk else str(int(t * 1000)) for field, t in times.items()
        }
        client.hset(f"spring:session:sessions:{name}", mapping=encoded)
        client.expire(f"spring:session:sessions:{name}", 2100)
        client.set(f"spring:session:sessions:expires:{name}", "", ex=1800)
    members = [_java_text(i) if jdk else i.encode() for i in ("live", "idle", "long-gone")]
    client.sadd(index, *members)
    bucket = f"spring:session:expirations:{int(now) * 1000}"
    client.sadd(bucket, "expires:live")
    tally = world.run()
    assert set(client.keys()) == {
        name.encode()
        for name in ("spring:session:sessions:live", "spring:session:sessions:expires:live", index, bucket)
    }
    assert client.smembers(index) == {members[0]}
    assert (tally.expired, tally.deleted, tally.redis.sessions) == (1, 1, 1)
    assert world.run(clock=InstantClock()).deleted == 0
    world.close()
