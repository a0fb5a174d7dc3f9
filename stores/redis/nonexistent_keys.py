"""Finds keys that do not exist among many that mostly do, with few round trips."""

from __future__ import annotations

from collections.abc import Sequence

from stores.model.batches import batches
from stores.redis.connection import scripts
from stores.redis.connection.server import RedisServer

# Keys per EXISTS: only groups with a missing key are checked key by key.
_KEYS_PER_EXISTS = 50


def nonexistent_keys(server: RedisServer, keys: Sequence[bytes]) -> set[bytes]:
    """Those of the keys that do not exist, whatever their type; takes one or two round trips."""
    groups = list(batches(keys, _KEYS_PER_EXISTS))
    counts = server.count_existing(groups)
    unclear = [key for group, count in zip(groups, counts, strict=True) if count < len(group) for key in group]
    states = server.evaluate(scripts.KEY_STATES, unclear) if unclear else []
    return {key for key, state in zip(unclear, states, strict=True) if state == scripts.NO_KEY}
