"""The base class of all rule types, and what they may ask of the session table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa

from policy.rules import SessionRule
from stores.rules.details import SessionDetails

MAX_LOG_ENTRIES = 10_000
"""The most entries of one access log that are read."""

_USUAL_LOG_ENTRIES = 100
_NO_SKEW = timedelta(0)


class RequiredField(StrEnum):
    """What a rule cannot do without, as the field of the policy that maps it."""

    USER_ID = "columns.userId"
    CREATED_AT = "columns.createdAt"
    LAST_ACCESSED_AT = "columns.lastAccessedAt"
    CREATED_OR_LAST_ACCESSED_AT = "columns.createdAt or columns.lastAccessedAt"
    EXPIRES_AT = "columns.expiresAt"
    CLIENT = "columns.client"
    ADDRESS = "columns.address"
    REVOKED = "columns.revoked"
    ACCESS_LOG = "stores.redis.keys.accessLog"


class TimeColumn(Protocol):
    """A column that holds a point in time."""

    def before(self, moment: datetime) -> sa.ColumnElement[bool]:
        """Whether the time lies before the moment; NULL where there is none."""


class SessionColumns(Protocol):
    """The session table, for the SQL conditions of rules; a column that is not mapped is None."""

    @property
    def id(self) -> sa.ColumnElement[Any]:
        """The session's id, of the type that the table has."""

    @property
    def id_length(self) -> sa.ColumnElement[int]:
        """How many characters an id has."""

    @property
    def has_owner(self) -> sa.ColumnElement[bool]:
        """Whether a session belongs to a user, as :func:`stores.rules.details.has_owner` says; never NULL."""

    @property
    def client(self) -> sa.ColumnElement[Any] | None:
        """The client that a session began on, as text."""

    @property
    def address(self) -> sa.ColumnElement[Any] | None:
        """The IP address that a session began from, as text."""

    @property
    def created_at(self) -> TimeColumn | None:
        """When a session began."""

    @property
    def last_accessed_at(self) -> TimeColumn | None:
        """When a session was last used."""

    @property
    def expires_at(self) -> TimeColumn | None:
        """When the application itself lets a session end."""

    @property
    def revoked(self) -> sa.ColumnElement[bool] | None:
        """Whether the application has flagged or revoked a session."""

    def user_in(self, users: Collection[Any]) -> sa.ColumnElement[bool]:
        """Whether a session belongs to one of these users; only where the owner is mapped."""


class TableQueries(Protocol):
    """Queries over all sessions, for what a rule has to know before it can check any of them."""

    def newest_ids(self, limit: int) -> list[Any]:
        """Ids of the sessions that began last, as far as that is known; the largest ids otherwise."""

    def creation_times(self, more_than: int) -> Iterator[Mapping[Any, list[datetime]]]:
        """When the live sessions of each user who has more than so many began, some users at a time."""


class Detector(ABC):
    """Finds the sessions that one rule of a policy applies to. Each rule type is a subclass of the same name.

    Used in this order: is :attr:`requires` mapped, and :attr:`unusable` empty; :meth:`prepare`, once; then
    :meth:`sql_condition` picks the rows that :meth:`matches` looks at.

    Args:
        rule: type, action and numbers, from the policy.
        skew: how far clocks may differ.

    Attributes:
        rule: as given.
        skew: as given.
        numbers: the rule's numbers, with defaults filled in; see :attr:`SessionRule.numbers`.
        incomplete: why not all sessions can be found, once that is known; empty if they can.
    """

    requires: ClassVar[tuple[RequiredField, ...]] = ()
    """What must be mapped; otherwise the rule is skipped."""

    compares_with_origin: ClassVar[bool] = False
    """Whether it compares an access log with the address or client that the table says the session began with."""

    def __init__(self, rule: SessionRule, skew: timedelta = _NO_SKEW) -> None:
        self.rule = rule
        self.skew = skew
        self.numbers = rule.numbers
        self.incomplete = ""

    @property
    def unusable(self) -> str:
        """Why these numbers can find nothing; empty if they can."""
        return ""

    def prepare(self, table: TableQueries, max_per_user: int) -> None:  # noqa: B027  # most rules need not
        """Learns what has to be known of all sessions.

        Args:
            table: where to ask.
            max_per_user: the most live sessions that one user has.
        """

    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:
        """Whether the rule may apply to a row, as far as SQL can tell. It holds for all rows that :meth:`matches`.

        The statement that deletes checks it again. By default every row may match.
        """
        return sa.true()

    @abstractmethod
    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether the rule applies to a session."""

    # --- access logs ---------------------------------------------------------------------------------------------

    @property
    def reads_access_log(self) -> bool:
        """Whether it reads the access log: then sessions are found by their logs, not by the SQL condition."""
        return RequiredField.ACCESS_LOG in self.requires

    @property
    def log_entries(self) -> int:
        """How many of the newest entries of an access log it looks at; 0 for none."""
        return _USUAL_LOG_ENTRIES if self.reads_access_log else 0

    @property
    def collapsible_entries(self) -> int:
        """How long a log may be of which one entry is enough, where entries differ in nothing but their times.

        Then this entry alone decides; and if it has the address and the client that the session began with, the rule
        does not apply. 0, the default, for a rule that wants to see every entry.
        """
        return 0
