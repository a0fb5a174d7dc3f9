"""Finds the live sessions that rules apply to, without looking at every session.

The database lists the sessions that may break a rule by what it holds; only these are read. Redis lists the sessions
that have an access log; only these logs are read, and decoded only where their bytes, or what the session began with,
show a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.steps.context import RunContext
from policy.rules import SessionRule
from stores.model.batches import batches, batches_by_weight
from stores.model.sessions import Session
from stores.redis.content.access_log import AccessLogs, LogEntries
from stores.rules.details import Access, SessionDetails
from stores.rules.detector import Detector
from stores.rules.table import log_entries_to_read, matching, most_severe
from stores.sql.queries import RuleQueries, SessionOrigin

# Reading the access log of every session may take long. So much of the run's time it may have, each time.
_LOGS_SHARE = 0.25
# What is held in memory of logs, while the rows of their sessions are read together; a row counts as so many accesses.
_ACCESSES_AT_ONCE = 20_000
_ROW_WEIGHT = 50
_UNKNOWN_SESSION = Session(None)


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """A session that rules apply to.

    Attributes:
        session: its row.
        detectors: those of the rules.
    """

    session: Session
    detectors: Sequence[Detector]

    @property
    def rules(self) -> list[SessionRule]:
        """The rules."""
        return [detector.rule for detector in self.detectors]

    @property
    def deciding(self) -> Detector:
        """The one whose action is taken."""
        return most_severe(self.detectors)


class RuleScan:
    """Finds sessions that rules apply to.

    Its methods raise StopRequestedError when the run has to stop, and RedisUnavailableError and
    DatabaseUnavailableError when a store cannot be reached.

    Args:
        context: the run.
        queries: of the session table.
        logs: the access logs; None without Redis.
        offset: how far the database's clock is ahead of this process's.
        detectors: of the rules to check, prepared.
    """

    def __init__(
        self,
        context: RunContext,
        queries: RuleQueries,
        logs: AccessLogs | None,
        offset: timedelta,
        detectors: Sequence[Detector],
    ) -> None:
        self._context = context
        self._queries = queries
        self._offset = offset
        self._detectors = detectors
        self._by_table = [detector for detector in detectors if not detector.reads_access_log]
        self._by_log = [detector for detector in detectors if detector.reads_access_log]
        self._logs = logs if self._by_log else None
        self._entries = log_entries_to_read(detectors)
        self._collapsible = min((detector.collapsible_entries for detector in self._by_log), default=0)
        self._compares_with_origin = any(detector.compares_with_origin for detector in self._by_log)
        now = self._now()
        conditions = (detector.sql_condition(queries.columns, now) for detector in self._by_table)
        self._told_by_table = sa.or_(sa.false(), *conditions)

    def all_sessions(self) -> Iterator[list[RuleMatch]]:
        """The matches among all live sessions, some at a time.

        Once the access logs have taken their share of the run's time, the rest is checked by the other rules alone.
        """
        share = _LOGS_SHARE * self._context.spec.job.timeout_seconds
        until = self._context.clock.elapsed_seconds + share
        if self._logs is not None:
            yield from self._among_logs(self._logs, until)
        if not self._by_table:
            return
        self._context.clock.checkpoint()
        for page in self._queries.detail_pages(self._told_by_table):
            in_time = self._logs is not None and self._context.clock.elapsed_seconds < until
            yield self._checked(page if not in_time else self._with_accesses(page))

    def some_sessions(self, ids: Iterable[Any]) -> Iterator[list[RuleMatch]]:
        """The matches among some sessions, a batch at a time.

        Args:
            ids: of the sessions.
        """
        for some in batches(ids, self._context.spec.cleanup_batch_size):
            yield self._checked(self._with_accesses(self._queries.details_of(some)))

    # --- by access logs ------------------------------------------------------------------------------------------

    def _among_logs(self, logs: AccessLogs, until: float) -> Iterator[list[RuleMatch]]:
        """The matches of rules about access logs; without those that the other rules find by the table."""
        matching_logs = self._matching_logs(logs, until)
        for some in batches_by_weight(matching_logs, lambda found: _ROW_WEIGHT + len(found[1]), _ACCESSES_AT_ONCE):
            accesses = dict(some)
            found = self._queries.details_of(self._queries.ids(accesses), unless=self._told_by_table)
            known = (details for details in found if details.session.key in accesses)
            yield self._checked(replace(details, accesses=accesses[details.session.key]) for details in known)

    def _matching_logs(self, logs: AccessLogs, until: float) -> Iterator[tuple[str, Sequence[Access]]]:
        """The sessions that a rule about access logs applies to, if they are live, and what these logs say."""
        for keys in batches(logs.session_ids(), self._context.spec.cleanup_batch_size):
            self._context.clock.checkpoint()
            if self._context.clock.elapsed_seconds >= until:
                self._context.log.warning(
                    "rules incomplete",
                    because="reading access logs took a quarter of the run's time; the next run starts with other logs",
                    remedy="raise job.timeoutSeconds",
                )
                return
            origins = self._origins(keys)
            now = self._now()
            for key, log in logs.read(origins, self._entries):
                accesses = self._accesses(log, origins[key])
                details = SessionDetails(_UNKNOWN_SESSION, origins[key].address, origins[key].client, accesses=accesses)
                if accesses and matching(self._by_log, details, now):
                    yield key, accesses

    def _origins(self, keys: Sequence[str]) -> dict[str, SessionOrigin]:
        """What sessions began with, if a rule asks for it; then without those that are not live."""
        if not self._compares_with_origin:
            return {key: SessionOrigin(key) for key in keys}
        wanted = set(keys)  # the database may have another spelling of an id
        return {each.key: each for each in self._queries.origins(self._queries.ids(keys)) if each.key in wanted}

    def _accesses(self, log: LogEntries, origin: SessionOrigin) -> Sequence[Access]:
        """The accesses that rules have to check: one where all are alike, none where that one cannot match."""
        one = log.common_access if len(log.entries) <= self._collapsible else None
        if one is None:
            return log.accesses
        return () if _agrees(one, origin) else (one,)

    def _with_accesses(self, page: Sequence[SessionDetails]) -> Iterable[SessionDetails]:
        if self._logs is None:
            return page
        by_key = {details.session.key: details for details in page}
        read = self._logs.read(by_key, self._entries)
        return (replace(by_key[key], accesses=log.accesses) for key, log in read)

    # --- checking ------------------------------------------------------------------------------------------------

    def _checked(self, page: Iterable[SessionDetails]) -> list[RuleMatch]:
        self._context.clock.checkpoint()
        matches: list[RuleMatch] = []
        checked = 0
        for details in page:
            checked += 1
            # The time after the row was read: a session used since the run began is not one from the future.
            if found := matching(self._detectors, details, self._now()):
                matches.append(RuleMatch(details.session, found))
        self._context.progress.advance(checked)
        return matches

    def _now(self) -> datetime:
        """The time by the database's clock."""
        return datetime.now(UTC) + self._offset


def _agrees(access: Access, origin: SessionOrigin) -> bool:
    """Whether an access is from the very address and client that its session began with, as far as both are known.

    Written otherwise they may still be the same; that is for the rules to tell.
    """
    same_address = not (access.address and origin.address) or access.address == origin.address
    return same_address and (not (access.client and origin.client) or access.client == origin.client)
