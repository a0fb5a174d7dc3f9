"""What makes a run start and end with less CPU, and how its process is scheduled.

Most runs are nearly all start-up. Each saving below is CPU of a whole run at the expected load, which takes 1.1 s: the
median difference of 15 pairs of runs, with and without it in turn. What saves less than 50 ms is not worth its code. To
measure again: ``python -m tests.bench.startup``.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SWITCH_SECONDS = 0.0005
"""How long a thread that a store has answered waits for the other one; by default it would be ten times as long.

Saves nothing at the start. Deletions are 10 % faster where each is logged: one thread waits for the database server
while another writes the log.
"""


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Within the block nothing is searched for garbage; what the block imports is not searched later either.

    Modules are most of a small run's objects, and stay. Python would search them again and again while they are made,
    and once or twice while the run works.

    Saves 300 to 400 ms.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def without(package: str) -> Iterator[None]:
    """Within the block the package counts as not installed, unless it is imported already.

    For libraries that import another one for a feature which nobody has switched on.

    Saves 60 ms and 4 MB for Rich, which structlog imports to draw stack traces; about 40 ms and 2.6 MB for
    OpenTelemetry's SDK, which the Redis client imports for metrics of its own. That is less than 50 ms, but it is to be
    imported only where an endpoint is set.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # documented: then its import fails
    try:
        yield
    finally:
        del sys.modules[package]


def schedule_as_batch() -> None:
    """Has Linux take the process for batch work: a store's answer to it pushes no application from its core.

    It has its share of the CPU as before; see sched(7). Saves nothing at the start; docs/explanation/performance.md has
    the figures.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
