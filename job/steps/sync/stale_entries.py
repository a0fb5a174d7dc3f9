"""R3.5: index entries and access logs whose session has neither key nor row."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from job.steps.context import RunContext
from job.steps.sync.recheck import Recheck
from stores.model.batches import batches
from stores.redis.key_bloom_filter import KeyBloomFilter
from stores.redis.stale_entries import IndexEntry
from stores.redis.store import KeyPage, RedisStore
from stores.waiting.background import prefetched

_BATCH = 1000


class StaleEntries:
    """Index entries and access logs of sessions that are gone, because their keys expired or a run died half-way.

    None of it is a session, and nobody is logged out with it, so no safety limit applies.

    Args:
        context: of the run.
        redis: where it is.
    """

    def __init__(self, context: RunContext, redis: RedisStore) -> None:
        self._context = context
        self._redis = redis
        grace = context.spec.sync.grace_seconds
        self._entries = Recheck[IndexEntry](
            context.clock,
            grace,
            judge=lambda _: None,
            confirm=self._still_stale,
            settle=self._remove_entries,
        )
        self._logs = Recheck[str](
            context.clock,
            grace,
            judge=lambda _: None,
            confirm=lambda ids: sorted(self._unknown(ids)),
            settle=self._remove_logs,
        )
        self._wrong_type = 0
        self._logs_removed = 0

    def check_all(self) -> None:
        """Checks all indexes and access logs."""
        self._context.clock.checkpoint()
        for page in prefetched(self._redis.index_and_access_log_pages()):
            self.check(page)
            self._context.clock.checkpoint()

    def check(self, page: KeyPage) -> None:
        """Checks the indexes and access logs of a page."""
        reader, database = self._redis.stale_entries, self._context.sessions
        for entries in batches(reader.entries_without_key(page.members), _BATCH):
            with_row = database.existing({entry.session_id for entry in entries})
            self._entries.add(entry for entry in entries if entry.session_id not in with_row)
        for ids in batches(reader.access_logs_without_key(page.access_log_ids), _BATCH):
            self._logs.add(set(ids) - database.existing(ids))
        self._wrong_type += reader.count_wrong_type(page.members)

    def check_entries_of(self, gone: KeyBloomFilter) -> None:
        """Checks the index entries of sessions that were deleted after their entries had been checked."""
        self._context.clock.checkpoint()
        for page in prefetched(self._redis.index_pages()):
            self.check(KeyPage(members=self._redis.stale_entries.entries_of(page.members, gone)))
            self._context.clock.checkpoint()

    def finish(self) -> None:
        """Deletes what is still stale."""
        self._entries.flush()
        self._logs.flush()
        if self._wrong_type:
            self._context.log.warning(
                "keys skipped",
                keys=self._wrong_type,
                because="their names match stores.redis.keys.userIndex, but they are no sets",
            )
        if self._logs_removed:
            self._context.log.info("access logs removed", logs=self._logs_removed)

    def _still_stale(self, entries: Sequence[IndexEntry]) -> list[IndexEntry]:
        unknown = self._unknown({entry.session_id for entry in entries})
        return [entry for entry in entries if entry.session_id in unknown]

    def _unknown(self, ids: Collection[str]) -> set[str]:
        """Those of the sessions that have neither key nor row."""
        gone = self._redis.missing(ids)
        return gone - self._context.sessions.existing(gone) if gone else gone

    def _remove_entries(self, entries: Sequence[IndexEntry]) -> None:
        if not self._context.dry_run:
            self._context.tally.redis.index_entries_removed += self._redis.remove_index_entries(entries)

    def _remove_logs(self, ids: Sequence[str]) -> None:
        if not self._context.dry_run:
            self._logs_removed += self._redis.remove_access_logs(ids)
