"""All parts, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.cleanup import (
    beside,
    everything,
    mariadb_half,
    peers,
    postgres_half,
    postgres_sparse,
    redis_delete,
    redis_sync,
    startup,
    workers,
)
from tests.bench.cleanup.part import Part

PARTS: Sequence[Part] = (
    postgres_half.PART,
    postgres_sparse.PART,
    mariadb_half.PART,
    redis_delete.PART,
    redis_sync.PART,
    everything.PART,
    startup.PART,
    beside.PART,
    workers.PART,
    *peers.PARTS,
)
