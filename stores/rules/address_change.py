"""AddressChange: a session that is used from another IP address than it began with.

Mobile networks and privacy extensions change addresses all the time, also within one network: any other address counts,
and that is why the rule by default does no more than report.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from policy.rules import SessionRule
from stores.rules.addresses import parse_address
from stores.rules.facts import Access, Facts, Survey


def changes_address(_rule: SessionRule, facts: Facts, _survey: Survey, _now: datetime) -> bool:
    """Whether its newest known address is not its first. Without a column for that, the access log tells the first."""
    newest = _first_known(facts.accesses)
    if newest is None:
        return False
    return newest != (parse_address(facts.address) or _first_known(reversed(facts.accesses)))


def _first_known(accesses: Iterable[Access]) -> IPv4Address | IPv6Address | None:
    return next((address for access in accesses if (address := parse_address(access.address))), None)
