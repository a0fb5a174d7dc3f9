"""What the rules are told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from policy.rules import SessionRule
from stores.model.sessions import Session


class GeoPoint(NamedTuple):
    """A place on earth, in degrees.

    Attributes:
        latitude: north is positive.
        longitude: east is positive.
    """

    latitude: float
    longitude: float


class Access(NamedTuple):
    """An entry of a session's access log; what is None is not known.

    Attributes:
        at: when.
        address: from which IP address.
        client: by which client.
        place: from where.
    """

    at: datetime | None = None
    address: str | None = None
    client: str | None = None
    place: GeoPoint | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one live session.

    Attributes:
        session: its row.
        address: IP address it began from; None if not known.
        client: client it began on; None if not known.
        revoked: whether the application has flagged it.
        accesses: its newest accesses, the newest first; empty where there is no access log.
    """

    session: Session
    address: str | None = None
    client: str | None = None
    revoked: bool = False
    accesses: Sequence[Access] = ()


@dataclass(slots=True)
class Bursts:
    """Who began too many sessions, and when.

    Attributes:
        by_user: the stretches of time, by user; both ends belong to them.
    """

    by_user: dict[Any, list[tuple[datetime, datetime]]] = field(default_factory=dict)

    @property
    def users(self) -> Collection[Any]:
        """The users."""
        return self.by_user.keys()

    def cover(self, user: Any, moment: datetime | None) -> bool:
        """Whether a session that the user began at the moment belongs to a burst."""
        return moment is not None and any(first <= moment <= last for first, last in self.by_user.get(user, ()))


@dataclass(frozen=True, slots=True)
class IdStrength:
    """How strong the ids of a table are.

    Attributes:
        all_weak: they follow from one another, or their kind holds too few bits: every one can be guessed.
        shortest: the fewest characters an id needs to have enough bits; 0 where its length says nothing.
    """

    all_weak: bool = False
    shortest: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What was learnt of all sessions before any was judged.

    Attributes:
        skew: how far clocks may differ.
        ids: how strong ids are, by the fewest bits a rule wants.
        bursts: bursts of new sessions, by the rule that looked for them.
    """

    skew: timedelta = timedelta(0)
    ids: Mapping[int, IdStrength] = field(default_factory=dict)
    bursts: Mapping[SessionRule, Bursts] = field(default_factory=dict)
