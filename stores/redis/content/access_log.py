"""Access logs: lists with a session's accesses, the newest first. They are read to a bound, many in one round trip."""

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

from policy.stores import TimeEncoding
from stores.model.batches import batches
from stores.model.time_encoding import decode_time
from stores.redis.connection.server import RedisServer
from stores.redis.content.entry_comparison import differ_in_time_only
from stores.redis.keys import KeyNames
from stores.rules.facts import Access, GeoPoint

# What SCAN looks at in one call.
_SCAN_COUNT = 1000
_GROUP = 500
# Entries in one answer. The first look at a log takes few; only a log that has more is asked again.
_FIRST_ENTRIES = 100
_ENTRIES_AT_ONCE = 20_000
_LONGEST_ENTRY = 64 * 1024

# How applications name what an entry holds.
_TIMES = ("time", "timestamp", "at", "ts")
_ADDRESSES = ("ip", "ipAddress", "ip_address", "address", "remoteAddress")
_CLIENTS = ("client", "userAgent", "user_agent", "device")
_LOCATIONS = ("location", "place", "geo")
_LATITUDES = ("lat", "latitude")
_LONGITUDES = ("lon", "lng", "long", "longitude")
# A number of seconds as large as this would lie in the year 5138: it is one of milliseconds.
_MILLISECONDS_FROM = 1e11

_NOTHING = Access()


@dataclass(frozen=True, slots=True)
class LogEntries:
    """The newest entries of an access log, as they are written.

    Attributes:
        entries: the newest first.
    """

    entries: Sequence[bytes]

    @property
    def accesses(self) -> list[Access]:
        """What they say."""
        return list(map(read_entry, self.entries))

    @property
    def only(self) -> Access | None:
        """What all of them say, but for their times; None where they may say different things, or nothing."""
        if not self.entries or not differ_in_time_only(self.entries):
            return None
        access = read_entry(self.entries[0])
        return None if access == _NOTHING else access


class AccessLogs:
    """The access logs of a policy.

    Its methods raise RedisUnavailableError and ConfigurationError as those of the session store do.

    Args:
        server: where they are.
        names: how their keys are named; without a template there are none.
    """

    def __init__(self, server: RedisServer, names: KeyNames) -> None:
        self._server = server
        self._names = names

    @property
    def exist(self) -> bool:
        """Whether the policy names such logs."""
        return self._names.access_log is not None

    def owners(self) -> Iterator[str]:
        """The ids of all sessions that have a log, in no order.

        It begins at another one each time, so that whoever has time for some only leaves none out for ever. Where Redis
        resizes its table meanwhile, a log may be left out, or met twice.
        """
        if self._names.access_log is None:
            return
        pattern = self._names.access_log.pattern
        # Keys of other databases on the server count, too: then it more often begins at the beginning.
        keys = sum(each["keys"] for info in self._server.infos("keyspace") for each in info.values())
        first = secrets.randbelow(keys // _SCAN_COUNT + 1)
        yield from self._owners(islice(self._server.scan(pattern, _SCAN_COUNT), first, None))
        yield from self._owners(islice(self._server.scan(pattern, _SCAN_COUNT), first))

    def _owners(self, pages: Iterable[Sequence[bytes]]) -> Iterator[str]:
        for keys in pages:
            for written in dict.fromkeys(self._names.access_log_owners(keys)):
                with suppress(UnicodeDecodeError):
                    yield written.decode("utf-8", "surrogatepass")  # as KeyTemplate writes them

    def read(self, ids: Iterable[str], most: int) -> Iterator[tuple[str, LogEntries]]:
        """The newest entries of each session's log; sessions without a log have none.

        Args:
            ids: of the sessions.
            most: entries of one log.
        """
        first = min(most, _FIRST_ENTRIES)
        for group in batches(ids, _GROUP):
            keys = self._names.access_log_keys(group)
            beginnings = self._entries(keys, 0, first)
            longer = {i: keys[i] for i, found in beginnings.items() if len(found) == first < most}
            for session_id in group:
                if session_id not in longer:
                    yield session_id, LogEntries(beginnings.get(session_id, ()))
            # Read anew from its beginning: meanwhile entries may have been added, and places have shifted.
            for some in batches(longer.items(), max(1, _ENTRIES_AT_ONCE // most)):
                for session_id, entries in self._entries(dict(some), 0, most).items():
                    yield session_id, LogEntries(entries)

    def _entries(self, keys: Mapping[str, bytes], start: int, end: int) -> dict[str, Sequence[bytes]]:
        replies = self._server.pipeline([("LRANGE", key, start, end - 1) for key in keys.values()])
        # A key that is no list has no entries.
        return {session_id: reply or () for session_id, reply in zip(keys, replies, strict=True)}


def read_entry(entry: bytes | str) -> Access:
    """What an entry says. Nothing in it can make a run fail: what cannot be read is not known."""
    if len(entry) > _LONGEST_ENTRY:
        return _NOTHING
    try:
        fields = from_json(entry)  # several times as fast as the standard library's
    except ValueError:
        return _NOTHING
    if not isinstance(fields, dict):
        return _NOTHING
    # By place, not by name, and without a generator anywhere: this is asked of every entry there is.
    return Access(
        _time(_first(fields, _TIMES)),
        _text(_first(fields, _ADDRESSES)),
        _text(_first(fields, _CLIENTS)),
        _place(_first(fields, _LOCATIONS)) or _place(fields),
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


def _place(value: Any) -> GeoPoint | None:
    """A place written as an object, as ``[latitude, longitude]`` or as ``"latitude,longitude"``."""
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
