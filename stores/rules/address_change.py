"""AddressChange: a session that is used from another IP address than it began with.

Mobile networks and privacy extensions change addresses all the time, also within one network. Any other address counts,
and that is why the rule only reports by default.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from stores.rules.addresses import parse_address
from stores.rules.details import Access, SessionDetails
from stores.rules.detector import Detector, RequiredField


class AddressChange(Detector):
    """Finds sessions whose newest known address is not the one they began with.

    Where no column holds that one, it is the oldest in the access log.
    """

    requires = (RequiredField.ACCESS_LOG,)
    compares_with_origin = True
    collapsible_entries = sys.maxsize

    def matches(self, details: SessionDetails, now: datetime) -> bool:
        """Whether the newest known address is another one."""
        newest = _first_known(details.accesses)
        if newest is None:
            return False
        return newest != (parse_address(details.address) or _first_known(reversed(details.accesses)))


def _first_known(accesses: Iterable[Access]) -> IPv4Address | IPv6Address | None:
    return next((address for access in accesses if (address := parse_address(access.address))), None)
