"""ImpossibleTravel: one session used from places that nobody gets to in so little time."""

from __future__ import annotations

import sys
from collections import deque
from datetime import datetime, timedelta
from math import asin, cos, radians, sin, sqrt

from stores.rules.details import GeoPoint, SessionDetails
from stores.rules.detector import Detector, RequiredField

_EARTH_RADIUS_KILOMETERS = 6371.0088


class ImpossibleTravel(Detector):
    """Finds sessions that were used from places over ``kilometers`` apart within ``withinSeconds``."""

    requires = (RequiredField.ACCESS_LOG,)
    collapsible_entries = sys.maxsize

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether any two accesses were too far apart in too short a time."""
        seen = [(access.at, access.place) for access in details.accesses if access.at and access.place]
        if len({place for _, place in seen}) <= 1:
            return False
        seen.sort(key=lambda visit: visit[0])
        window: deque[tuple[datetime, GeoPoint]] = deque()
        limit, within = self.numbers["kilometers"], timedelta(seconds=self.numbers["within_seconds"])
        for at, place in seen:
            while window and at - window[0][0] > within:
                window.popleft()
            if any(place != other and distance_kilometers(place, other) > limit for _, other in window):
                return True
            window.append((at, place))
        return False


def distance_kilometers(one: GeoPoint, other: GeoPoint) -> float:
    """The way along the earth's surface (haversine)."""
    latitude_1, latitude_2 = radians(one.latitude), radians(other.latitude)
    half_latitude = (latitude_2 - latitude_1) / 2
    half_longitude = radians(other.longitude - one.longitude) / 2
    square = sin(half_latitude) ** 2 + cos(latitude_1) * cos(latitude_2) * sin(half_longitude) ** 2
    # Rounding may put the square a little above 1 for places on opposite sides of the earth.
    return 2 * _EARTH_RADIUS_KILOMETERS * asin(sqrt(min(1.0, square)))
