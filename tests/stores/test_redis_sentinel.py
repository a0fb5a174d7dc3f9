"""R3.2: a real master with a replica and three sentinels, and failovers in the middle of a run."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from policy.spec import Retry
from policy.stores import RedisStore
from stores.model.errors import ConfigurationError, RedisUnavailableError, RunError
from stores.redis.connection.connect import connect
from stores.redis.store import RedisStore as Store
from tests.support.interruptions import Interruptions
from tests.support.servers.redis_sentinel import MASTER_NAME, EmbeddedRedisSentinels
from tests.support.servers.restartable import RestartableRedis
from tests.support.sync_world import KEYS, SECRET, InstantClock, Log, SyncWorld, changes

DELETE = {"onMissingRedisSession": "Delete"}
RETRY = {"redis": {"attempts": 3, "delaySeconds": 30}}
ARRANGEMENT = {"mode": "Sentinel", "sentinelMaster": MASTER_NAME}
LIVE = [f"live{number}" for number in range(4)]


def open_store(url: str, master: str = MASTER_NAME, attempts: int = 0) -> Store:
    settings = RedisStore.model_validate(
        {"urlFrom": SECRET, "keys": KEYS, "mode": "Sentinel", "sentinelMaster": master}
    )
    return Store(connect(url, settings), settings, Retry(attempts=attempts, delay_seconds=0), InstantClock(), Log())


def failure(url: str, master: str = MASTER_NAME) -> RunError:
    store = open_store(url, master)
    with pytest.raises(RunError) as caught:
        store.server_time()
    store.close()
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return caught.value


class SentinelWorld(SyncWorld):
    """Looks into whichever server is the master."""

    def __init__(self, database_url: str, trio: EmbeddedRedisSentinels) -> None:
        super().__init__(database_url, trio.url, trio.client(), ARRANGEMENT)
        self._trio = trio

    def follow(self) -> None:
        self.client.close()
        self.client = self._trio.client()


@pytest.fixture
def world(sqlite_url: str, redis_sentinels: EmbeddedRedisSentinels) -> Iterator[SentinelWorld]:
    made = SentinelWorld(sqlite_url, redis_sentinels)
    yield made
    made.close()


def fill(world: SyncWorld) -> None:
    for number, session_id in enumerate(LIVE):
        world.both(session_id, ttl=None)
        world.access_log(session_id)
        world.index("u1", session_id)
        world.key(f"orphan{number}", kind="hash" if number % 2 else "json")
        world.access_log(f"orphan{number}")
        world.index("u1", f"orphan{number}", f"stale{number}")
        world.row(f"lost{number}", "u2")
    assert world.client.wait(1, 60_000) == 1


def assert_settled(world: SyncWorld) -> None:
    assert world.key_names() == {"user_sess:u1", *(f"sess:{i}" for i in LIVE), *(f"access_log:{i}" for i in LIVE)}
    assert world.members("u1") == {i.encode() for i in LIVE}
    assert world.rows() == set(LIVE)
    assert all(world.ttl(i) > 0 for i in LIVE)


def test_r3_2_the_master_is_found_by_the_sentinels(world: SentinelWorld) -> None:
    fill(world)
    tally = world.run(sync=DELETE)
    assert_settled(world)
    assert (tally.redis.orphaned, tally.redis.missing, tally.redis.ttl_added) == (4, 4, 4)
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)


@pytest.mark.representative(at=[8])
@pytest.mark.parametrize("at", [2, 8, 16])
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "asked"])
def test_r3_2_a_failover_in_the_middle_of_a_run(
    world: SentinelWorld,
    redis_sentinels: EmbeddedRedisSentinels,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    killed: bool,
) -> None:
    fill(world)
    old = redis_sentinels.master

    def strike() -> None:
        if killed:
            old.kill()
        else:
            redis_sentinels.fail_over()
            redis_sentinels.await_new_master(old)

    interruptions = Interruptions({at: strike})
    clock = InstantClock(lambda: redis_sentinels.await_new_master(old) if not interruptions.left else None)
    with monkeypatch.context() as patch:
        interruptions.install(patch)
        world.run(clock=clock, sync=DELETE, retries=RETRY)
    assert not interruptions.left
    assert redis_sentinels.master is not old
    world.follow()
    assert {f"sess:{i}" for i in LIVE} <= world.key_names()
    world.run(sync=DELETE)  # the new master scans in another order, and may not have shown every key
    assert_settled(world)
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)


def test_r3_2_a_master_that_turned_read_only_is_left(redis_sentinels: EmbeddedRedisSentinels) -> None:
    """An old connection to a master that was demoted meanwhile: its answer READONLY is a reason to ask again."""
    old = redis_sentinels.master
    store = open_store(redis_sentinels.url, attempts=1)
    with redis_sentinels.client() as client:
        client.set("sess:1", "{}")
        assert client.wait(1, 60_000) == 1
    assert store.key_states(["1"]).sessions == {"1"}
    with redis_sentinels.client(old) as client:
        client.config_set("min-replicas-to-write", 0)
        # Demoted without any word to its clients.
        client.execute_command("REPLICAOF", "127.0.0.1", _other(redis_sentinels, old).port)
    redis_sentinels.fail_over()
    redis_sentinels.await_new_master(old)
    assert store.add_ttls({"1": 500.0}) == 1
    with redis_sentinels.client() as client:
        assert int(client.ttl("sess:1")) > 0
    store.close()


def test_sentinels_that_are_gone_are_passed_over(redis_sentinels: EmbeddedRedisSentinels) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    alive = redis_sentinels.sentinels[2].port
    url = f"redis://:server-secret@127.0.0.1:{dead},127.0.0.1:{alive}/0?sentinel_password=sentinel-secret"
    store = open_store(url)
    assert store.server_time()
    store.close()
    error = failure(f"redis://:server-secret@127.0.0.1:{dead}/0?sentinel_password=sentinel-secret")
    assert isinstance(error, RedisUnavailableError)
    assert "refuses connections" in str(error) or "no sentinel" in str(error)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("server-secret", "wrong-secret", "check user and password in REDIS_URL"),
        (":server-secret@", "", "check user and password in REDIS_URL"),
        ("sentinel-secret", "wrong-secret", "check sentinel_username and sentinel_password"),
        ("?sentinel_password=sentinel-secret", "", "check sentinel_username and sentinel_password"),
    ],
)
def test_a_wrong_password_is_a_configuration_error_that_tells_which(
    redis_sentinels: EmbeddedRedisSentinels, old: str, new: str, says: str
) -> None:
    error = failure(redis_sentinels.url.replace(old, new))
    assert isinstance(error, ConfigurationError)
    assert says in str(error)


def test_a_master_nobody_knows_and_servers_that_are_no_sentinels_are_told(
    redis_sentinels: EmbeddedRedisSentinels, redis_server: str
) -> None:
    error = failure(redis_sentinels.url, master="other")
    assert isinstance(error, ConfigurationError)
    assert "stores.redis.sentinelMaster" in str(error)
    error = failure(redis_server)
    assert isinstance(error, ConfigurationError)
    assert "names no sentinels" in str(error)


def _other(trio: EmbeddedRedisSentinels, server: RestartableRedis) -> RestartableRedis:
    return next(s for s in trio.servers if s is not server)
