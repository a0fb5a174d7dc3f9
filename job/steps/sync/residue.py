"""R3.5: index entries and access logs whose session has neither key nor row."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from job.steps.context import RunContext
from job.steps.sync.second_look import SecondLook
from stores.model.batches import batches
from stores.redis.key_marks import KeyMarks
from stores.redis.residue import IndexEntry
from stores.redis.store import KeyPage, RedisStore
from stores.waiting.background import prefetched

_BATCH = 1000


class Residue:
    """What is left of sessions that are gone: their keys ended by their TTLs, or a run died half-way.

    None of it is a session, and nobody is logged out with it, so no safety limit asks how much there is.

    Args:
        context: of the run.
        redis: where it is.
    """

    def __init__(self, context: RunContext, redis: RedisStore) -> None:
        self._context = context
        self._redis = redis
        grace = context.spec.sync.grace_seconds
        self._entries = SecondLook[IndexEntry](
            context.clock,
            grace,
            judge=lambda _: None,
            confirm=self._entries_of_nobody,
            settle=self._remove_entries,
        )
        self._logs = SecondLook[str](
            context.clock,
            grace,
            judge=lambda _: None,
            confirm=lambda ids: sorted(self._unknown(ids)),
            settle=self._remove_logs,
        )
        self._wrong_type = 0
        self._logs_removed = 0

    def walk(self) -> None:
        """Looks at everything there is."""
        self._context.clock.checkpoint()
        for page in prefetched(self._redis.residue_pages()):
            self.look(page)
            self._context.clock.checkpoint()

    def look(self, page: KeyPage) -> None:
        """Looks at the indexes and access logs of a page."""
        reader, database = self._redis.residue, self._context.database
        for entries in batches(reader.lone_entries(page.members), _BATCH):
            with_row = database.existing({entry.session_id for entry in entries})
            self._entries.hold(entry for entry in entries if entry.session_id not in with_row)
        for ids in batches(reader.lone_logs(page.log_owners), _BATCH):
            self._logs.hold(set(ids) - database.existing(ids))
        self._wrong_type += reader.wrong_type(page.members)

    def look_for(self, gone: KeyMarks) -> None:
        """Looks at the index entries of sessions that went after their entries were looked at."""
        self._context.clock.checkpoint()
        for page in prefetched(self._redis.index_pages()):
            self.look(KeyPage(members=self._redis.residue.of_sessions(page.members, gone)))
            self._context.clock.checkpoint()

    def settle(self) -> None:
        """Removes what is of nobody still."""
        self._entries.flush()
        self._logs.flush()
        if self._wrong_type:
            self._context.log.warning(
                "sync skipped keys",
                keys=self._wrong_type,
                because="they are named as stores.redis.keys.userIndex says, but are no sets",
            )
        if self._logs_removed:
            self._context.log.info("access logs removed", logs=self._logs_removed)

    def _entries_of_nobody(self, entries: Sequence[IndexEntry]) -> list[IndexEntry]:
        unknown = self._unknown({entry.session_id for entry in entries})
        return [entry for entry in entries if entry.session_id in unknown]

    def _unknown(self, ids: Collection[str]) -> set[str]:
        """Those of the sessions that have neither key nor row."""
        gone = self._redis.gone(ids)
        return gone - self._context.database.existing(gone) if gone else gone

    def _remove_entries(self, entries: Sequence[IndexEntry]) -> None:
        if not self._context.dry_run:
            self._context.tally.redis.index_entries_removed += self._redis.remove_index_entries(entries)

    def _remove_logs(self, ids: Sequence[str]) -> None:
        if not self._context.dry_run:
            self._logs_removed += self._redis.remove_access_logs(ids)
