"""What the other steps ask of Redis, on a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection, Connection

from policy.spec import Retry
from policy.stores import RedisStore
from stores.model.errors import ConfigurationError
from stores.model.sessions import Session
from stores.redis.connection.connect import connect
from stores.redis.keys import KeyTemplate, pattern_for
from stores.redis.store import RedisStore as Store
from stores.redis.store import RemovalCounts
from tests.support.sync_world import KEYS, SECRET, InstantClock, Log

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def settings(**keys: str) -> RedisStore:
    return RedisStore.model_validate({"urlFrom": SECRET, "keys": keys or KEYS})


def open_store(url: str, store: RedisStore) -> Store:
    return Store(connect(url, store), store, Retry(attempts=0, delay_seconds=0), InstantClock(), Log())


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    made = open_store(redis_url, settings())
    yield made
    made.close()


def test_it_is_what_the_steps_expect(store: Store) -> None:
    assert store.delete([]).session_keys == 0
    assert store.last_accesses([]) == {}


def test_the_time_is_that_of_redis(store: Store, client: redis.Redis) -> None:
    seconds, _ = client.time()
    assert abs(store.server_time() - datetime.fromtimestamp(seconds, UTC)) < timedelta(seconds=2)


def test_r2_2_last_accesses_are_read_from_json_and_hashes_and_nothing_else(store: Store, client: redis.Redis) -> None:
    stamp = NOON.timestamp()
    client.set("sess:json", json.dumps({"lastAccessedAt": stamp}))
    client.hset("sess:hash", mapping={"lastAccessedAt": str(stamp)})
    client.set("sess:silent", json.dumps({"userId": "u"}))
    client.hset("sess:bare-hash", mapping={"x": "y"})
    client.set("sess:broken", "{")
    client.set("sess:empty", "")
    client.rpush("sess:list", "x")
    ids = ["json", "hash", "silent", "bare-hash", "broken", "empty", "list", "absent", ""]
    assert store.last_accesses(ids) == {"json": NOON, "hash": NOON}


def test_large_sessions_are_read_too(store: Store, client: redis.Redis) -> None:
    for number in range(3):
        document = {"cart": "x" * 5_000_000, "lastAccessedAt": NOON.timestamp()}
        client.set(f"sess:{number}", json.dumps(document))
    assert store.last_accesses(["0", "1", "2"]) == {"0": NOON, "1": NOON, "2": NOON}


def test_r2_2_a_deleted_session_leaves_nothing_behind(store: Store, client: redis.Redis) -> None:
    for session_id in ("gone", "gone-hash", "stays"):
        client.rpush(f"access_log:{session_id}", "x")
        client.sadd("user_sess:7", session_id)
    client.set("sess:gone", "{}")
    client.hset("sess:gone-hash", mapping={"a": "b"})
    client.set("sess:stays", "{}")
    gone = [Session("gone", user_id=7), Session("gone-hash", user_id=7), Session("never-was", user_id=8)]
    assert store.delete(gone) == RemovalCounts(session_keys=2, index_entries=2)
    assert set(client.keys()) == {b"sess:stays", b"access_log:stays", b"user_sess:7"}
    assert client.smembers("user_sess:7") == {b"stays"}
    assert store.delete(gone).session_keys == 0


def test_without_a_user_column_the_session_tells_whose_it_is(store: Store, client: redis.Redis) -> None:
    client.set("sess:1", json.dumps({"userId": "u1"}))
    client.hset("sess:2", mapping={"userId": "u2"})
    client.sadd("user_sess:u1", "1", "other")
    client.sadd("user_sess:u2", "2", "other")
    assert store.delete([Session("1"), Session("2")]) == RemovalCounts(2, 2)
    assert client.smembers("user_sess:u1") == client.smembers("user_sess:u2") == {b"other"}


def test_an_index_of_the_wrong_type_does_not_stop_a_deletion(store: Store, client: redis.Redis) -> None:
    client.set("sess:1", "{}")
    client.set("user_sess:u1", "a string")
    assert store.delete([Session("1", user_id="u1")]) == RemovalCounts(1, 0)
    assert client.get("user_sess:u1") == b"a string"


def test_a_key_that_is_another_sessions_access_log_is_not_deleted(redis_url: str, client: redis.Redis) -> None:
    client.rpush("sess:a:log", "x")
    store = open_store(redis_url, settings(session="sess:{id}", accessLog="sess:{id}:log"))
    assert store.delete([Session("a:log")]).session_keys == 0
    assert client.exists("sess:a:log")
    store.close()


def test_many_sessions_take_few_commands(store: Store, client: redis.Redis) -> None:
    sessions = [Session(f"{n:04}", user_id=f"u{n % 20}") for n in range(2_000)]
    pipeline = client.pipeline(transaction=False)
    for session in sessions:
        pipeline.set(f"sess:{session.key}", json.dumps({"lastAccessedAt": 1}))
        pipeline.sadd(f"user_sess:{session.user_id}", session.key)
        pipeline.rpush(f"access_log:{session.key}", "x")
    pipeline.execute()
    client.config_resetstat()
    assert store.delete(sessions) == RemovalCounts(2_000, 2_000)
    calls: Any = client.info("commandstats")
    assert client.dbsize() == 0
    assert calls["cmdstat_unlink"]["calls"] <= 8
    assert calls["cmdstat_srem"]["calls"] <= 4 * 20
    assert not {"cmdstat_del", "cmdstat_keys", "cmdstat_smembers"} & calls.keys()


def test_a_ttl_is_only_given_to_a_key_that_still_has_none(store: Store, client: redis.Redis) -> None:
    client.set("sess:bare", "{}")
    client.set("sess:fine", "{}", ex=100)
    assert store.add_ttls({"bare": 500.5, "fine": 500.5, "absent": 500.5}) == 1
    assert 499_000 < int(client.pttl("sess:bare")) <= 500_500
    assert int(client.ttl("sess:fine")) <= 100
    assert not client.exists("sess:absent")


def test_looking_at_a_key_is_no_use_of_it(store: Store, client: redis.Redis) -> None:
    client.set("sess:1", "{}")
    client.restore("sess:1", 0, client.dump("sess:1"), replace=True, idletime=1000)  # type: ignore[arg-type]
    assert store.key_states(["1"]).sessions == {"1"}
    assert store.missing(["1", "absent"]) == {"absent"}
    assert store.key_presence(["1"]).keys == [b"sess:1"]
    assert store.idle_at_least(["1", "absent"], 900) == {"1"}
    assert store.idle_at_least(["1"], 1100) == set()
    assert int(client.object("IDLETIME", "sess:1")) >= 1000


def test_scripts_come_back_after_redis_has_forgotten_them(store: Store, client: redis.Redis) -> None:
    client.set("sess:1", "{}")
    assert store.key_states(["1"]).without_ttl == {"1"}
    client.script_flush()
    assert store.key_states(["1"]).without_ttl == {"1"}


def test_r3_5_what_is_gone_is_found_among_thousands_whatever_the_others_are(store: Store, client: redis.Redis) -> None:
    ids = [f"{number:04}" for number in range(3_000)]
    pipeline = client.pipeline(transaction=False)
    for number, session_id in enumerate(ids):
        if number % 100 == 7 or 500 <= number < 600:
            continue
        if number % 3:
            pipeline.set(f"sess:{session_id}", "{}")
        else:
            pipeline.rpush(f"sess:{session_id}", "of another type")
    pipeline.execute()
    absent = {i for number, i in enumerate(ids) if number % 100 == 7 or 500 <= number < 600}
    assert store.missing([*ids, *ids, ""]) == store.key_states(ids).missing == store.key_presence(ids).missing == absent
    assert set(store.key_presence([*ids, ""]).keys) == {f"sess:{i}".encode() for i in set(ids) - absent}
    assert store.key_presence(ids).without_ttl == store.key_states(ids).without_ttl


def test_r3_5_many_states_are_told_apart(store: Store, client: redis.Redis) -> None:
    for number in range(0, 1_200, 2):
        client.set(f"sess:{number}", "{}", ex=100)
        client.rpush(f"sess:{number + 1}", "of another type")
    client.hset("sess:hash", "a", "b")
    states = store.key_states([*map(str, range(1_200)), "hash", "absent"])
    even = {str(number) for number in range(0, 1_200, 2)}
    assert states.sessions == states.ttls.keys() == even | {"hash"}
    assert (states.without_ttl, states.missing) == ({"hash"}, {"absent"})
    assert states.ttls["hash"] == -1
    assert all(0 < states.ttls[i] <= 100_000 for i in even)
    pages = list(store.key_state_pages())
    assert {i for page in pages for i in page.sessions} == even | {"hash"}


@pytest.mark.parametrize(
    "templates",
    [
        ("sess:", "user_sess:", "access_log:"),
        ("a-z", "^b]", "\\[*?"),
        ("one:", "", "two:"),
        ("same:", "same:", "same:"),
    ],
)
def test_r3_3_redis_finds_the_keys_of_all_templates_by_one_pattern(
    client: redis.Redis, templates: tuple[str, ...]
) -> None:
    made = [KeyTemplate(name.encode(), name[:2].encode()) for name in templates]
    keys = {template.key(part) for template in made for part in ("1", "]", "*", "-\n")}
    client.mset(dict.fromkeys(keys, "x"))
    assert keys <= set(client.scan_iter(match=pattern_for(made), count=100))


def test_r3_5_one_walk_meets_keys_logs_and_indexes_and_nothing_else(store: Store, client: redis.Redis) -> None:
    for number in range(1_500):
        client.set(f"sess:{number}", "{}")
        client.set(f"foreign:{number}", "{}")
        client.rpush(f"access_log:{number}", "entry")
    for number in range(700):
        client.sadd(f"user_sess:{number}", *(f"{number}-{other}" for other in range(number % 5)), "x")
    client.sadd("user_sess:many", *(f"many-{number}" for number in range(3_000)))
    client.set("sess:\udcff".encode("utf-8", "surrogateescape"), "not text")
    pages = list(store.key_pages())
    keys = [key for page in pages for key in page.session_keys]
    assert sorted(keys) == sorted([*(f"sess:{n}".encode() for n in range(1_500)), b"sess:\xff"])
    for walk in (pages, list(store.index_and_access_log_pages())):
        assert {int(owner) for page in walk for owner in page.access_log_ids} == set(range(1_500))
        members = [(k, m) for page in walk for k, found in page.members.items() for m in found or ()]
        assert set(members) == {(k, m) for k in client.scan_iter("user_sess:*") for m in client.sscan_iter(k)}
    assert not [key for page in store.index_and_access_log_pages() for key in page.session_keys]


def test_r2_8_the_session_key_stays_until_all_that_belongs_to_it_is_gone(redis_url: str, client: redis.Redis) -> None:
    """Or a run that fails in between would leave nothing by which the next one finds the rest."""
    client.set("sess:1", "{}")
    client.sadd("user_sess:u", "1")
    client.acl_setuser("no-srem", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-srem"])
    try:
        limited = open_store(redis_url.replace("redis://", "redis://no-srem:pw@"), settings())
        with pytest.raises(ConfigurationError):
            limited.delete([Session("1", "u")])
        limited.close()
    finally:
        client.acl_deluser("no-srem")
    assert client.exists("sess:1", "user_sess:u") == 2
    assert open_store(redis_url, settings()).delete([Session("1", "u")]) == RemovalCounts(1, 1)


def test_replies_that_nobody_read_are_not_taken_for_the_next_command_s(
    store: Store, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.set("sess:1", "{}")
    client.rpush("access_log:1", "entry")
    read: Any = AbstractConnection.read_response
    left = [read]

    def interrupted(connection: AbstractConnection, *arguments: Any, **options: Any) -> Any:
        if not left:
            raise KeyboardInterrupt
        return left.pop()(connection, *arguments, **options)

    assert store.missing(["1"]) == set()  # connected
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "read_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.server.pipeline([("LLEN", b"access_log:1"), ("BLPOP", b"nothing", 1)])  # the second comes late
    assert store.server.pipeline([("LLEN", b"access_log:1")]) == [1]
