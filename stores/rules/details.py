"""What is known of a session when rules are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

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
class SessionDetails:
    """A live session, with the columns and the access log that only rules need.

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


def has_owner(session: Session) -> bool:
    """Whether a session belongs to a user; an empty text is none. Sessions without an owner are not one user's."""
    return session.user_id is not None and str(session.user_id) != ""
