"""R3.2: the permissions that the documentation asks for are enough, and none of them is too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from policy.mapping import RedisKeys
from policy.spec import Retry
from policy.stores import RedisStore
from stores.model.errors import ConfigurationError
from stores.redis.connection.connect import connect
from stores.redis.connection.permissions import FOR_IDLE_TIMES, IN_CLUSTER, PERMISSIONS, WITHOUT_DATABASE, key_patterns
from stores.redis.store import RedisStore as Store
from tests.support.redis_only import HOUR, RedisOnly
from tests.support.servers.redis_cluster import EmbeddedRedisCluster
from tests.support.sync_world import KEYS, SECRET, InstantClock, Log, SyncWorld

PATTERNS = key_patterns(RedisKeys.model_validate(KEYS))


@contextmanager
def user(url: str, *rules: str) -> Iterator[str]:
    """The URL for a user with these rules."""
    with redis.Redis.from_url(url) as admin:
        admin.execute_command("ACL", "SETUSER", "cleaner", "reset", "on", ">pw", *rules)
        try:
            yield url.replace("redis://", "redis://cleaner:pw@")
        finally:
            admin.execute_command("ACL", "DELUSER", "cleaner")


def synchronise(sqlite_url: str, redis_url: str, cleaner_url: str) -> None:
    """A run with a database that uses every command."""
    world = SyncWorld(sqlite_url, redis_url)
    try:
        world.clear()
        world.both("live", ttl=None)
        world.both("hash", kind="hash")
        world.client.script_flush()
        world.key("orphan")
        world.key("orphan-hash", kind="hash")
        world.access_log("orphan")
        world.index("u1", "orphan", "stale")
        world.urls = type(world.urls)(world.urls.database, cleaner_url)
        # By its absolute timeout, so that contents are read.
        world.run(absoluteTimeoutSeconds=86_400, sessionTimeoutSeconds=1800)
        assert world.key_names() == {"sess:live", "sess:hash"}
        assert world.ttl("live") > 0
    finally:
        world.close()


def clean(redis_url: str, cleaner_url: str) -> None:
    """A run without a database that uses every command."""
    world = RedisOnly(redis_url)
    try:
        world.client.flushdb()
        world.add("live", ttl=None)
        world.add("idle", used=HOUR, kind="hash")
        world.add("over", used=100)
        world.client.sadd("user_sess:u", "stale")
        world.url = cleaner_url
        world.run(maxConcurrentSessions=1)
        assert world.ids() == world.members("u") == {"live"}
    finally:
        world.close()


def test_r3_2_the_documented_permissions_suffice(sqlite_url: str, redis_url: str) -> None:
    for more in ((), FOR_IDLE_TIMES):
        with user(redis_url, *PATTERNS, *PERMISSIONS, *more) as url:
            synchronise(sqlite_url, redis_url, url)
    with user(redis_url, *PATTERNS, *PERMISSIONS, *WITHOUT_DATABASE) as url:
        clean(redis_url, url)


@pytest.mark.parametrize("missing", PERMISSIONS)
def test_r3_2_each_permission_is_needed(sqlite_url: str, redis_url: str, missing: str) -> None:
    rules = [rule for rule in PERMISSIONS if rule != missing]
    with user(redis_url, *PATTERNS, *rules) as url, pytest.raises(ConfigurationError, match="permission") as caught:
        synchronise(sqlite_url, redis_url, url)
    assert all(rule in str(caught.value) for rule in PERMISSIONS)


@pytest.mark.parametrize("missing", WITHOUT_DATABASE)
def test_r3_2_each_permission_is_needed_without_a_database(redis_url: str, missing: str) -> None:
    rules = [*PERMISSIONS, *(rule for rule in WITHOUT_DATABASE if rule != missing)]
    with user(redis_url, *PATTERNS, *rules) as url, pytest.raises(ConfigurationError, match="permission"):
        clean(redis_url, url)


@pytest.mark.parametrize("missing", PATTERNS)
def test_r3_2_each_kind_of_key_is_needed(redis_url: str, missing: str) -> None:
    patterns = [pattern for pattern in PATTERNS if pattern != missing]
    with (
        user(redis_url, *patterns, *PERMISSIONS, *WITHOUT_DATABASE) as url,
        pytest.raises(ConfigurationError, match="permission"),
    ):
        clean(redis_url, url)


@pytest.mark.parametrize("missing", [None, "+cluster|slots", "+asking"])
def test_r3_2_in_a_cluster_two_more(redis_cluster: EmbeddedRedisCluster, missing: str | None) -> None:
    from redis.crc import key_slot

    settings = RedisStore.model_validate({"urlFrom": SECRET, "keys": KEYS, "mode": "Cluster"})
    rules = [rule for rule in (*PERMISSIONS, *IN_CLUSTER) if rule != missing]
    for node in redis_cluster.nodes:
        node.call("ACL", "SETUSER", "cleaner", "reset", "on", ">pw", *PATTERNS, *rules)
    slot = key_slot(b"sess:1")
    target = next(
        redis_cluster.owner(n) for n in (100, 8000) if redis_cluster.owner(n) is not redis_cluster.owner(slot)
    )
    redis_cluster.begin_move(slot, target)
    store = Store(
        connect(redis_cluster.url.replace("redis://", "redis://cleaner:pw@"), settings),
        settings,
        Retry(attempts=0, delay_seconds=0),
        InstantClock(),
        Log(),
    )
    try:
        if missing is None:
            assert store.key_states(["1"]).missing == {"1"}
        else:
            with pytest.raises(ConfigurationError, match="permission"):
                store.key_states(["1"])
    finally:
        store.close()
        redis_cluster.finish_move(slot, target)
        for node in redis_cluster.nodes:
            node.call("ACL", "DELUSER", "cleaner")


def test_the_documentation_names_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/redis.md").read_text()
    for rules in (PERMISSIONS, FOR_IDLE_TIMES, WITHOUT_DATABASE, IN_CLUSTER):
        assert " ".join(rules) in " ".join(text.split())
