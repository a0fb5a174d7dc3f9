"""Finds the live sessions that rules apply to. Whatever can tell that most are all right is asked first.

The database tells of which sessions what it holds may break a rule; only these are read. Redis tells which sessions
have an access log; only these logs are read, and decoded only where their bytes, or what the session began with, say
that something has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from job.steps.context import RunContext
from policy.rules import RuleType, SessionRule
from stores.model.batches import batches, batches_by_weight
from stores.model.sessions import Session
from stores.redis.content.access_log import AccessLogs, LogEntries
from stores.rules.defaults import count
from stores.rules.facts import Access, Facts, Survey
from stores.rules.table import KINDS, entries_wanted, gravest, matching
from stores.sql.queries import Beginning, RuleQueries

# Reading the access log of every session may take long. So much of the run's time it may have, each time.
_LOGS_SHARE = 0.25
# What is held in memory of logs, while the rows of their sessions are read together; a row counts as so many accesses.
_ACCESSES_AT_ONCE = 20_000
_ROW_WEIGHT = 50
_BY_BEGINNING = (RuleType.ADDRESS_CHANGE, RuleType.CLIENT_CHANGE)
_NOBODY = Session(None)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A session that some rules apply to.

    Attributes:
        session: its row.
        rules: the rules.
    """

    session: Session
    rules: Sequence[SessionRule]

    @property
    def deciding(self) -> SessionRule:
        """The rule whose action is taken."""
        return gravest(self.rules)


class Search:
    """Looks for sessions that rules apply to.

    Its methods raise StopRequestedError when the run has to stop, and RedisUnavailableError and
    DatabaseUnavailableError when a store cannot be reached.

    Args:
        context: the run.
        queries: of the session table.
        logs: the access logs; None without Redis.
        survey: what was learnt of all sessions.
        offset: how far the database's clock is ahead of this process's.
        rules: what to judge by.
    """

    def __init__(
        self,
        context: RunContext,
        queries: RuleQueries,
        logs: AccessLogs | None,
        survey: Survey,
        offset: timedelta,
        rules: Sequence[SessionRule],
    ) -> None:
        self._context = context
        self._queries = queries
        self._survey = survey
        self._offset = offset
        self._rules = rules
        self._by_table = [rule for rule in rules if not KINDS[rule.type].reads_log]
        self._by_log = [rule for rule in rules if KINDS[rule.type].reads_log]
        self._logs = logs if self._by_log else None
        self._entries = entries_wanted(rules)
        # So many accesses are no burst, whenever they were.
        bursts = (count(rule) for rule in self._by_log if rule.type is RuleType.REQUEST_BURST)
        self._no_burst = min(bursts, default=self._entries)
        self._asks_beginning = any(rule.type in _BY_BEGINNING for rule in self._by_log)
        now = self._now()
        self._told_by_table = sa.or_(sa.false(), *(queries.may_match(rule, survey, now) for rule in self._by_table))

    def everywhere(self) -> Iterator[list[Suspect]]:
        """All of them, some at a time.

        When the access logs have taken their share of the run's time, the rest is judged by the other rules alone.
        """
        share = _LOGS_SHARE * self._context.spec.job.timeout_seconds
        until = self._context.clock.elapsed_seconds + share
        if self._logs is not None:
            yield from self._among_logs(self._logs, until)
        if not self._by_table:
            return
        self._context.clock.checkpoint()
        for page in self._queries.fact_pages(self._told_by_table):
            in_time = self._logs is not None and self._context.clock.elapsed_seconds < until
            yield self._judged(page if not in_time else self._with_accesses(page))

    def among(self, ids: Iterable[Any]) -> Iterator[list[Suspect]]:
        """Those of some sessions, a batch at a time.

        Args:
            ids: of the sessions.
        """
        for some in batches(ids, self._context.spec.cleanup_batch_size):
            yield self._judged(self._with_accesses(self._queries.facts_of(some)))

    # --- by access logs ------------------------------------------------------------------------------------------

    def _among_logs(self, logs: AccessLogs, until: float) -> Iterator[list[Suspect]]:
        """Those that a rule about access logs applies to; without those that the table tells of."""
        remarkable = self._remarkable(logs, until)
        for some in batches_by_weight(remarkable, lambda found: _ROW_WEIGHT + len(found[1]), _ACCESSES_AT_ONCE):
            accesses = dict(some)
            found = self._queries.facts_of(self._queries.ids(accesses), unless=self._told_by_table)
            known = (facts for facts in found if facts.session.key in accesses)
            yield self._judged(replace(facts, accesses=accesses[facts.session.key]) for facts in known)

    def _remarkable(self, logs: AccessLogs, until: float) -> Iterator[tuple[str, Sequence[Access]]]:
        """The sessions that a rule about access logs applies to, if they are live, and what these logs say."""
        for keys in batches(logs.session_ids(), self._context.spec.cleanup_batch_size):
            self._context.clock.checkpoint()
            if self._context.clock.elapsed_seconds >= until:
                self._context.log.warning(
                    "rules incomplete",
                    because="there are more access logs than the run has time to read; the next run begins elsewhere",
                    remedy="raise job.timeoutSeconds",
                )
                return
            began = self._began(keys)
            now = self._now()
            for key, log in logs.read(began, self._entries):
                accesses = self._accesses(log, began[key])
                facts = Facts(_NOBODY, began[key].address, began[key].client, accesses=accesses)
                if accesses and matching(self._by_log, facts, self._survey, now):
                    yield key, accesses

    def _began(self, keys: Sequence[str]) -> dict[str, Beginning]:
        """What sessions began with, if a rule asks for it; then without those that are not live."""
        if not self._asks_beginning:
            return {key: Beginning(key) for key in keys}
        spelt = set(keys)  # the database may have another spelling of an id
        return {b.key: b for b in self._queries.beginnings(self._queries.ids(keys)) if b.key in spelt}

    def _accesses(self, log: LogEntries, beginning: Beginning) -> Sequence[Access]:
        """What is to be judged of a log: nothing, where nothing in it can break a rule."""
        one = log.common_access if len(log.entries) <= self._no_burst else None
        if one is None:
            return log.accesses
        return () if _is_as_it_began(one, beginning.address, beginning.client) else (one,)

    def _with_accesses(self, page: Sequence[Facts]) -> Iterable[Facts]:
        if self._logs is None:
            return page
        by_key = {facts.session.key: facts for facts in page}
        read = self._logs.read(by_key, self._entries)
        return (replace(by_key[key], accesses=log.accesses) for key, log in read)

    # --- judging -------------------------------------------------------------------------------------------------

    def _judged(self, page: Iterable[Facts]) -> list[Suspect]:
        self._context.clock.checkpoint()
        suspects: list[Suspect] = []
        judged = 0
        for facts in page:
            judged += 1
            # The time after the row was read: a session used since the run began is not one from the future.
            if broken := matching(self._rules, facts, self._survey, self._now()):
                suspects.append(Suspect(facts.session, broken))
        self._context.progress.advance(judged)
        return suspects

    def _now(self) -> datetime:
        """The time by the database's clock."""
        return datetime.now(UTC) + self._offset


def _is_as_it_began(access: Access, address: str | None, client: str | None) -> bool:
    """Whether an access is from the very address and client that its session began with, as far as both are known.

    Written otherwise they may still be the same; that is for the rules to tell.
    """
    same_address = not (access.address and address) or access.address == address
    return same_address and (not (access.client and client) or access.client == client)
