"""Which of many keys are not there. Nearly all are, so that is what has to be fast."""

from __future__ import annotations

from collections.abc import Sequence

from stores.model.batches import batches
from stores.redis.connection import scripts
from stores.redis.connection.server import RedisServer

# Keys counted together: only where one is missing they are looked at one by one.
_COUNTED_TOGETHER = 50


def nonexistent_keys(server: RedisServer, keys: Sequence[bytes]) -> set[bytes]:
    """Those of the keys, few enough for one round trip, that are not there, of whatever type."""
    groups = list(batches(keys, _COUNTED_TOGETHER))
    counts = server.existing(groups)
    doubtful = [key for group, count in zip(groups, counts, strict=True) if count < len(group) for key in group]
    states = server.evaluate(scripts.INSPECT, doubtful) if doubtful else []
    return {key for key, state in zip(doubtful, states, strict=True) if state == scripts.GONE}
