"""R3.2: a real Redis Cluster, whose slots move and whose masters die in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from policy.spec import Retry
from policy.stores import RedisStore
from stores.model.errors import ConfigurationError, RedisUnavailableError
from stores.model.sessions import Session
from stores.redis.connection.cluster import ClusterConnection
from stores.redis.connection.connect import connect
from stores.redis.store import RedisStore as Store
from stores.redis.store import RemovalCounts
from tests.support.interruptions import Interruptions
from tests.support.servers.redis_cluster import ClusterNode, EmbeddedRedisCluster
from tests.support.sync_world import KEYS, SECRET, InstantClock, Log, SyncWorld, changes

DELETE = {"onMissingRedisSession": "Delete"}
RETRY = {"redis": {"attempts": 3, "delaySeconds": 30}}
SETTINGS = RedisStore.model_validate({"urlFrom": SECRET, "keys": KEYS, "mode": "Cluster"})
LIVE = [f"live{number}" for number in range(6)]


def open_store(url: str, attempts: int = 0) -> Store:
    return Store(connect(url, SETTINGS), SETTINGS, Retry(attempts=attempts, delay_seconds=0), InstantClock(), Log())


@pytest.fixture
def world(sqlite_url: str, redis_cluster: EmbeddedRedisCluster) -> Iterator[SyncWorld]:
    client = redis_cluster.client()
    made = SyncWorld(sqlite_url, redis_cluster.url, client, {"mode": "Cluster"})
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
        world.index("u2", f"lost{number}")


def assert_settled(world: SyncWorld) -> None:
    assert world.key_names() == {"user_sess:u1", *(f"sess:{i}" for i in LIVE), *(f"access_log:{i}" for i in LIVE)}
    assert world.members("u1") == {i.encode() for i in LIVE}
    assert all(world.ttl(i) > 0 for i in LIVE)
    assert world.rows() == set(LIVE)


def test_r3_2_a_cluster_is_synchronised_as_one_server_is(world: SyncWorld) -> None:
    fill(world)
    tally = world.run(sync=DELETE)
    assert_settled(world)
    assert (tally.redis.sessions, tally.redis.orphaned, tally.redis.missing) == (12, 6, 6)
    assert (tally.redis.deleted, tally.deleted, tally.redis.ttl_added) == (6, 6, 6)
    # Twelve stale entries; and six, of rows that were lost.
    assert tally.redis.index_entries_removed == 18
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)


def test_r3_2_many_keys_over_all_slots_are_read_and_deleted_in_a_few_round_trips(
    redis_cluster: EmbeddedRedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{number:04}" for number in range(2_000)]
    with redis_cluster.client() as client, client.pipeline() as pipeline:
        for session_id in ids:
            pipeline.set(f"sess:{session_id}", '{"userId": "u"}')
            pipeline.sadd("user_sess:u", session_id)
        pipeline.execute()
        store = open_store(redis_cluster.url)
        assert sorted(i for page in store.session_pages() for i in page) == ids
        counted = Interruptions({})
        with monkeypatch.context() as patch:
            counted.install(patch)
            assert store.key_states(ids).without_ttl == set(ids)
            assert {content.user_id for content in store.contents(ids).values()} == {"u"}
            assert store.delete([Session(i) for i in ids]) == RemovalCounts(2_000, 2_000)
        # Four groups; of each: state, length, text, length and text again, entry, log, key; at each of three masters.
        assert counted.sent <= 4 * 8 * 3 + 10
        assert list(client.scan_iter()) == []
        store.close()


def test_r3_2_a_session_is_deleted_while_its_slot_is_on_the_way(redis_cluster: EmbeddedRedisCluster) -> None:
    ids = [f"{{same}}{number}" for number in range(6)]
    slot = key_slot(b"sess:{same}0")
    with redis_cluster.client() as client:
        for session_id in ids:
            client.set(f"sess:{session_id}", "{}")
        store = open_store(redis_cluster.url)
        assert store.key_states(ids).sessions == set(ids)
        target = _another(redis_cluster, slot)
        redis_cluster.begin_move(slot, target)
        assert redis_cluster.move_keys(slot, target, 3) == 3
        # Half of the keys are there, half are here, and nobody owns all of them.
        assert store.key_states(ids).sessions == set(ids)
        assert store.add_ttls(dict.fromkeys(ids, 500.0)) == 6
        assert store.delete([Session(ids[0]), Session(ids[5])]).session_keys == 2
        redis_cluster.finish_move(slot, target)
        assert store.key_states(ids).sessions == set(ids[1:5])
        assert store.delete([Session(i) for i in ids]).session_keys == 4
        assert list(client.scan_iter()) == []
        store.close()


@pytest.mark.representative(at=[13])
@pytest.mark.parametrize("at", [3, 8, 13, 18, 25, 35])
def test_r3_2_slots_move_in_the_middle_of_a_run(
    world: SyncWorld, redis_cluster: EmbeddedRedisCluster, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    fill(world)
    # All to one master: if two took slots at the same moment, the nodes might never agree on who came first.
    target = redis_cluster.owner(100)
    slots = sorted({key_slot(name.encode()) for name in world.key_names()})
    slots = [slot for slot in slots if redis_cluster.owner(slot) is not target]

    def begin() -> None:
        for number, slot in enumerate(slots):
            redis_cluster.begin_move(slot, target)
            if number % 2:
                redis_cluster.move_keys(slot, target)

    def finish() -> None:
        for slot in slots:
            redis_cluster.finish_move(slot, target)

    interruptions = Interruptions({at: begin, at + 8: finish})
    with monkeypatch.context() as patch:
        interruptions.install(patch)
        # Without any retry: a slot that moves is no failure.
        world.run(sync=DELETE)
    assert not interruptions.left
    assert {f"sess:{i}" for i in LIVE} <= world.key_names()
    world.run(sync=DELETE)  # keys that moved to a master that had been scanned already
    assert_settled(world)
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)


@pytest.mark.representative(at=[9])
@pytest.mark.parametrize("at", [2, 9, 16, 28])
def test_r3_2_a_master_dies_in_the_middle_of_a_run(
    world: SyncWorld, redis_cluster: EmbeddedRedisCluster, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    fill(world)
    _replicated(world)
    slot = key_slot(b"user_sess:u1")
    killed: list[ClusterNode] = []

    def kill() -> None:
        killed.append(redis_cluster.owner(slot))
        killed[0].kill()

    clock = InstantClock(lambda: redis_cluster.await_successor(slot) if killed else None)
    interruptions = Interruptions({at: kill})
    with monkeypatch.context() as patch:
        interruptions.install(patch)
        world.run(clock=clock, sync=DELETE, retries=RETRY)
    assert killed
    assert "retry" in world.log.events("warning")
    assert {f"sess:{i}" for i in LIVE} <= world.key_names()
    world.run(sync=DELETE)
    assert_settled(world)
    assert changes(world.run(sync=DELETE)) == (0, 0, 0, 0)


def test_r2_a_master_without_a_successor_fails_the_run_after_the_retries(redis_cluster: EmbeddedRedisCluster) -> None:
    store = open_store(redis_cluster.url, attempts=2)
    ids = [f"{number}" for number in range(100)]
    store.key_states(ids)
    for node in redis_cluster.nodes:
        node.kill()
    with pytest.raises(RedisUnavailableError, match="refuses connections") as caught:
        store.key_states(ids)
    assert caught.value.__cause__ is None
    store.close()


def test_any_one_node_of_the_url_is_enough(redis_cluster: EmbeddedRedisCluster) -> None:
    replica = redis_cluster.replicas[0]
    for url in (f"redis://127.0.0.1:{replica.port}", f"redis://127.0.0.1:1,127.0.0.1:{replica.port}/0"):
        store = open_store(url)
        assert len(store.server_times()) == 3
        assert store.server_time()
        store.close()


def test_a_cluster_that_is_none_and_a_single_server_that_is_one_are_told(
    redis_cluster: EmbeddedRedisCluster, redis_server: str
) -> None:
    store = open_store(redis_server)
    with pytest.raises(ConfigurationError, match="mode is Cluster, but the Redis in REDIS_URL is not a cluster node"):
        store.key_states(["1"])
    store.close()
    alone = RedisStore.model_validate({"urlFrom": SECRET, "keys": KEYS})
    url = f"redis://127.0.0.1:{redis_cluster.masters[0].port}"
    single = Store(connect(url, alone), alone, Retry(attempts=0, delay_seconds=0), InstantClock(), Log())
    with pytest.raises(ConfigurationError, match="mode is not Cluster"):
        single.key_states([f"{number}" for number in range(20)])
    single.close()


def test_scripts_come_back_after_a_node_has_forgotten_them(redis_cluster: EmbeddedRedisCluster) -> None:
    store = open_store(redis_cluster.url)
    ids = [f"{number}" for number in range(50)]
    assert store.key_states(ids).missing == set(ids)
    redis_cluster.owner(0).call("SCRIPT", "FLUSH")
    assert store.key_states(ids).missing == set(ids)
    store.close()


def test_the_link_is_that_of_a_cluster() -> None:
    assert isinstance(connect("redis://host", SETTINGS), ClusterConnection)


def _another(cluster: EmbeddedRedisCluster, slot: int) -> ClusterNode:
    """A master that does not have the slot."""
    owner = cluster.owner(slot)
    others = (cluster.owner(number) for number in (100, 8000, 16_000))
    return next(node for node in others if node is not owner)


def _replicated(world: SyncWorld) -> None:
    """Returns when the replicas have all that was written."""
    client: Any = world.client
    for node in client.get_primaries():
        assert client.execute_command("WAIT", 1, 5000, target_nodes=node) >= 1
