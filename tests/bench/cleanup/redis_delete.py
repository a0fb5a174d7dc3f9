"""Deleting sessions from Redis with their index entries, beside a bare pipeline of UNLINK and SREM."""

from __future__ import annotations

import hashlib
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import redis as redis_client

from policy.spec import Retry
from policy.stores import RedisStore as Layout
from stores.model.sessions import Session
from stores.redis.connection.connect import connect
from stores.redis.store import RedisStore
from stores.waiting.clock import RunClock
from tests.bench.cleanup.goals import OURS, Bound, Check, Goal, Row
from tests.bench.cleanup.part import Part, Setting
from tests.bench.cleanup.servers import redis
from tests.bench.cleanup.sessions_redis import index_entry, send, session_key
from tests.bench.figures import Figure
from tests.support.runs import KEYS, SECRET, Log

_BATCH = 1000
_BARE_BATCHES = (500, 1000)

GOAL = Goal("Redis, deleting session keys and index entries", "≥ 0.8 × a bare pipeline of UNLINK and grouped SREM")


def _measure(setting: Setting) -> list[Row]:
    number = setting.size(300_000, 2_000_000)
    with redis() as server:
        sessions = _sessions(number)
        send(server.url, _written(sessions))
        keys = {"session": KEYS["session"], "userIndex": KEYS["userIndex"]}
        layout = Layout.model_validate({"urlFrom": SECRET, "keys": keys})
        store = RedisStore(
            connect(server.url, layout), layout, Retry(attempts=0, delay_seconds=0), RunClock(3600), Log()
        )
        bare = redis_client.Redis.from_url(server.url)
        ways = [OURS, *(_name(size) for size in _BARE_BATCHES)]
        seconds, deleted = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
        # Batch by batch in turn, so that all of them meet the same Redis at the same time.
        for place, first in enumerate(range(0, number, _BATCH)):
            way, batch = ways[place % len(ways)], sessions[first : first + _BATCH]
            began = time.perf_counter()
            if way == OURS:
                deleted[way] += store.delete(batch).session_keys
            else:
                size = _BARE_BATCHES[ways.index(way) - 1]
                deleted[way] += sum(_bare(bare, batch[n : n + size]) for n in range(0, len(batch), size))
            seconds[way] += time.perf_counter() - began
        if sum(deleted.values()) != number or bare.dbsize():
            raise RuntimeError(f"{deleted} deleted of {number}, {bare.dbsize()} keys left")
        store.close()
        bare.close()
    rates = {way: deleted[way] / seconds[way] for way in ways}
    best = max(rates[_name(size)] for size in _BARE_BATCHES)
    return [
        Row(
            GOAL,
            (Check("bare pipeline", rates[OURS] / best, Bound.AT_LEAST, 0.8),),
            f"{number:,} sessions",
            figures=tuple(Figure(way, rates[way], "sessions/s", note=f"{deleted[way]:,} of them") for way in ways),
            notes=(
                f"Batches of {_BATCH}, in turn on one Redis; about 2.5 sessions a user, so that most entries of a "
                "batch are in indexes of their own. The bare pipeline reads no replies but their numbers.",
            ),
        )
    ]


def _sessions(number: int) -> Sequence[Session]:
    draw = random.Random(1)
    users = int(number * 0.4)
    return [Session(hashlib.sha256(b"%d" % n).hexdigest(), f"user-{draw.randrange(users)}") for n in range(number)]


def _written(sessions: Sequence[Session]) -> Iterator[bytes]:
    for session in sessions:
        session_id, user = session.key.encode(), str(session.user_id).encode()
        yield session_key(session_id, user, 1_700_000_000, 1_700_000_000)
        yield index_entry(session_id, user)


def _bare(client: redis_client.Redis, batch: Sequence[Session]) -> int:
    members: defaultdict[str, list[str]] = defaultdict(list)
    for session in batch:
        members[f"user_sess:{session.user_id}"].append(session.id)
    pipeline = client.pipeline(transaction=False)
    for index, ids in members.items():
        pipeline.srem(index, *ids)
    pipeline.unlink(*(f"sess:{session.id}" for session in batch))
    return int(pipeline.execute()[-1])


def _name(size: int) -> str:
    return f"bare pipeline of {size:,}"


PART = Part("redis", (GOAL,), _measure)
