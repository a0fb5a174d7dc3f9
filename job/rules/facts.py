"""What the rules are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from job.rules.login_burst import Bursts
from job.rules.weak_id import IdStrength
from job.sessions import Session
from policy.rules import SessionRule


class Place(NamedTuple):
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
    place: Place | None = None


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
