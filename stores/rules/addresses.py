"""IP addresses as applications write them, in one form."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address


@lru_cache(maxsize=4096)
def parse_address(text: str | None) -> IPv4Address | IPv6Address | None:
    """The address in a text; None if there is none.

    Read are: ports (``192.0.2.1:80``, ``[2001:db8::1]:80``), a prefix length as PostgreSQL's inet may show it, zones of
    link-local addresses, a list of proxies (its first), and IPv4 written as IPv6.
    """
    if not text:
        return None
    first = text.split(",", 1)[0].strip().split("/", 1)[0]
    if first.startswith("["):
        first = first[1:].split("]", 1)[0]
    elif first.count(":") == 1:
        first = first.split(":", 1)[0]
    try:
        address = ip_address(first.split("%", 1)[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
