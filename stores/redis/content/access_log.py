"""Reads access logs: Redis lists with a session's accesses, newest first. Bounded, and many per round trip."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pydantic_core import from_json

from policy.mapping import TimeEncoding
from stores.model.batches import batches
from stores.model.time_encoding import decode_time
from stores.redis.connection.server import RedisServer
from stores.redis.content.entry_comparison import differ_in_time_only
from stores.redis.keys import KeyNames
from stores.rules.details import Access, GeoPoint

# COUNT of SCAN.
_SCAN_COUNT = 1000
_GROUP = 500
# The first read of a log takes few entries; only logs with more are read again.
_FIRST_ENTRIES = 100
_MAX_ENTRIES_PER_REPLY = 20_000
_MAX_ENTRY_BYTES = 64 * 1024

# Usual names of the fields of an entry.
_TIMES = ("time", "timestamp", "at", "ts")
_ADDRESSES = ("ip", "ipAddress", "ip_address", "address", "remoteAddress")
_CLIENTS = ("client", "userAgent", "user_agent", "device")
_LOCATIONS = ("location", "place", "geo")
_LATITUDES = ("lat", "latitude")
_LONGITUDES = ("lon", "lng", "long", "longitude")
# As seconds, this would be in the year 5138: larger numbers are milliseconds.
_MILLISECONDS_FROM = 1e11

_NOTHING = Access()


@dataclass(frozen=True, slots=True)
class LogEntries:
    """The newest entries of an access log, not decoded yet.

    Attributes:
        entries: newest first.
    """

    entries: Sequence[bytes]

    @property
    def accesses(self) -> list[Access]:
        """The entries, decoded."""
        return list(map(read_entry, self.entries))

    @property
    def common_access(self) -> Access | None:
        """The first entry if all others differ from it only in their timestamps; None otherwise, or if it is empty."""
        if not self.entries or not differ_in_time_only(self.entries):
            return None
        access = read_entry(self.entries[0])
        return None if access == _NOTHING else access


class AccessLogs:
    """The access logs of a policy.

    Methods raise RedisUnavailableError and ConfigurationError.

    Args:
        server: the Redis.
        names: key templates of the policy.
    """

    def __init__(self, server: RedisServer, names: KeyNames) -> None:
        self._server = server
        self._names = names

    @property
    def exist(self) -> bool:
        """Whether the policy has access logs (stores.redis.keys.accessLog)."""
        return self._names.access_log is not None

    def session_ids(self) -> Iterator[str]:
        """The ids of all sessions with an access log, in no order.

        It starts at a random page of SCAN, so that a run without time for all logs reads others than the run before.
        If Redis resizes its hash table meanwhile, a log may be missed or returned twice.
        """
        if self._names.access_log is None:
            return
        pattern = self._names.access_log.pattern
        # Counts the keys of all databases on the server: too large a number only makes a start at page 0 likelier.
        keys = sum(each["keys"] for info in self._server.infos("keyspace") for each in info.values())
        first = secrets.randbelow(keys // _SCAN_COUNT + 1)
        yield from self._decoded_ids(islice(self._server.scan(pattern, _SCAN_COUNT), first, None))
        yield from self._decoded_ids(islice(self._server.scan(pattern, _SCAN_COUNT), first))

    def _decoded_ids(self, pages: Iterable[Sequence[bytes]]) -> Iterator[str]:
        for keys in pages:
            for raw_id in dict.fromkeys(self._names.access_log_session_ids(keys)):
                with suppress(UnicodeDecodeError):
                    yield raw_id.decode("utf-8", "surrogatepass")  # as KeyTemplate encodes them

    def read(self, ids: Iterable[str], most: int) -> Iterator[tuple[str, LogEntries]]:
        """The newest entries of each session's access log; none for sessions without one.

        Args:
            ids: session ids.
            most: most entries per log.
        """
        first = min(most, _FIRST_ENTRIES)
        for group in batches(ids, _GROUP):
            keys = self._names.access_log_keys(group)
            beginnings = self._entries(keys, 0, first)
            longer = {i: keys[i] for i, found in beginnings.items() if len(found) == first < most}
            for session_id in group:
                if session_id not in longer:
                    yield session_id, LogEntries(beginnings.get(session_id, ()))
            # Read again from the start: entries may have been added meanwhile, which shifts positions.
            for some in batches(longer.items(), max(1, _MAX_ENTRIES_PER_REPLY // most)):
                for session_id, entries in self._entries(dict(some), 0, most).items():
                    yield session_id, LogEntries(entries)

    def _entries(self, keys: Mapping[str, bytes], start: int, end: int) -> dict[str, Sequence[bytes]]:
        replies = self._server.pipeline([("LRANGE", key, start, end - 1) for key in keys.values()])
        # A key that is not a list has no entries.
        return {session_id: reply or () for session_id, reply in zip(keys, replies, strict=True)}


def read_entry(entry: bytes | str) -> Access:
    """Decodes an entry; unreadable values are None."""
    if len(entry) > _MAX_ENTRY_BYTES:
        return _NOTHING
    try:
        fields = from_json(entry)  # several times faster than the json module
    except ValueError:
        return _NOTHING
    if not isinstance(fields, dict):
        return _NOTHING
    # Positional arguments and no generators: this runs for every entry.
    return Access(
        _time(_first(fields, _TIMES)),
        _text(_first(fields, _ADDRESSES)),
        _text(_first(fields, _CLIENTS)),
        _location(_first(fields, _LOCATIONS)) or _location(fields),
    )


def _first(fields: Mapping[str, Any], names: Iterable[str]) -> Any:
    for name in names:
        if (value := fields.get(name)) is not None:
            return value
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _time(value: Any) -> datetime | None:
    number = value if type(value) is float else _number(value)
    if number is not None:
        seconds = number / 1000 if abs(number) >= _MILLISECONDS_FROM else number
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    return decode_time(value, TimeEncoding.TIMESTAMP, UTC) if isinstance(value, str) else None


def _location(value: Any) -> GeoPoint | None:
    """A location from an object, ``[latitude, longitude]`` or ``"latitude,longitude"``."""
    if value is None:
        return None
    if isinstance(value, dict):
        pair: Sequence[Any] = (_first(value, _LATITUDES), _first(value, _LONGITUDES))
    elif isinstance(value, str):
        pair = value.split(",")
    else:
        pair = value if isinstance(value, list) else ()
    if len(pair) != 2:  # noqa: PLR2004
        return None
    latitude, longitude = pair
    if type(latitude) is not float or type(longitude) is not float:
        latitude, longitude = _number(latitude), _number(longitude)
        if latitude is None or longitude is None:
            return None
    if -90 <= latitude <= 90 and -180 <= longitude <= 180:  # noqa: PLR2004
        return GeoPoint(latitude, longitude)
    return None
