"""Whether the entries of an access log say the same, told from their bytes: to decode each takes ten times as long."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A time as applications write it, by the names that entries give it. No character of it can end a value in JSON, or
# begin another: what differs in such characters alone, within one value, differs in that value alone.
_TIME = re.compile(rb'"(?:time|timestamp|at|ts)": ?"?([0-9.:+TZ -]+)')
_OF_TIMES = b"0123456789.:+-TZ "


def differ_in_time_only(entries: Sequence[bytes]) -> bool:
    """Whether all entries are the same but for their times. Where it cannot be told so, they count as different.

    An entry that is not JSON may be among them, if the first one is.

    Args:
        entries: of one log; one at least.
    """
    first = entries[0]
    found = _TIME.search(first)
    if found is None:
        return entries.count(first) == len(entries)
    begin, end = found.span(1)
    head, tail = first[:begin], first[end:]
    shortest, after = len(head) + len(tail), len(tail)
    for entry in entries:
        if not (entry.startswith(head) and entry.endswith(tail) and len(entry) >= shortest):
            return False
        if entry[begin : len(entry) - after].translate(None, _OF_TIMES):
            return False
    return True
