"""The stores as a run opens them, and its steps by themselves: without start-up, which has a goal of its own."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.logs.id_hasher import IdHasher
from job.logs.run_logs import HashedSessionLog, LogSink
from job.startup import SWITCH_SECONDS
from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.initialise import RunStores, Urls, initialise
from job.steps.progress import NoProgress
from job.steps.safety import DeletionLimit
from policy.manifest import SessionPolicy
from stores.model.sessions import Session
from stores.model.tally import Tally
from stores.sql.removal.deleted_rows import CompactRows
from stores.waiting.clock import RunClock
from tests.bench.cleanup.sessions_sql import IDLE_SECONDS
from tests.support.runs import Log, policy

_HOURS_SECONDS = 6 * 3600


def obeyed(**spec: Any) -> SessionPolicy:
    """The policy: an idle timeout of a day, and everything may go."""
    return policy(**{"sessionTimeoutSeconds": IDLE_SECONDS, "cleanup": {}, **spec})


@contextmanager
def opened(
    by: SessionPolicy, urls: Urls, audit: HashedSessionLog | None = None
) -> Iterator[tuple[RunContext, RunStores]]:
    """Opens the stores, in a process that searches for garbage and switches threads as a run's own does."""
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    clock, log = RunClock(_HOURS_SECONDS), Log()
    stores = initialise(by.spec, urls, clock, log, audit=audit)
    try:
        context = RunContext(by, False, stores.database, stores.redis, clock, Tally(), NoProgress(), log, audit=audit)
        yield replace(context, deletion_limit=DeletionLimit(by.spec.safety.max_deletions)), stores
    finally:
        stores.close()


class _Reading(HashedSessionLog):
    """In place of the log: each row is fetched and its id read, and nothing is written."""

    def deleted(self, sessions: Sequence[Session], cause: str) -> None:
        if isinstance(sessions, CompactRows) and len(sessions.ids) != len(sessions):
            raise RuntimeError("not every row came back")


@contextmanager
def cleanup_log(*, only_reads: bool = False) -> Iterator[HashedSessionLog]:
    """The log of each deleted session, written to nowhere.

    Args:
        only_reads: have the rows returned and read, but no lines made of them.
    """
    log = _Reading if only_reads else HashedSessionLog
    with Path(os.devnull).open("w") as nowhere:
        yield log(LogSink(nowhere, logging.INFO, for_people=False), IdHasher())


def delete_all_expired(
    by: SessionPolicy,
    urls: Urls,
    expired: int | None = None,
    *,
    beside: bool = False,
    audit: HashedSessionLog | None = None,
) -> float:
    """Seconds that the deleting step takes.

    Args:
        by: the policy.
        urls: of the stores.
        expired: how many have expired; None to count them first.
        beside: an application is at work, for whom some may become live again.
        audit: the log of each deleted session; None for none.

    Raises:
        RuntimeError: it did not delete what it should.
    """
    with opened(by, urls, audit) as (context, stores):
        if expired is None:
            expired = stores.database.totals().expired
        began = time.perf_counter()
        delete_expired(context, expired)
        seconds = time.perf_counter() - began
        if context.tally.failed or (context.tally.deleted != expired and not beside):
            raise RuntimeError(f"{context.tally.deleted} deleted and {context.tally.failed} failed of {expired}")
    return seconds
