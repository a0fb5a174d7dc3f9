"""The time zone of columns without one, and whether it is plausible."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from policy.mapping import TimeColumn, TimeEncoding
from stores.model.time_encoding import zone_of
from stores.sql.dialects import dialect_of
from stores.sql.dialects.base import CLOCK_TIMES
from stores.sql.mapping.findings import Finding, Severity
from stores.sql.mapping.table import MappedTable, TimeExpression

SERVER = "Server"
"""As a column's timeZone: the zone of a connection to the database that does not choose one."""

# Zones are up to 14 h ahead of UTC and 12 h behind it; what lies further ahead is no mistake about a zone.
_MOST_AHEAD = timedelta(hours=26)
# No zone is less than this away from another one that it could be taken for.
_LEAST_AHEAD = timedelta(minutes=10)
_SAMPLE = 20
# A few sessions say something about themselves, not about a zone.
_FEWEST = 5


def server_zone(connection: sa.Connection) -> tuple[str | None, str]:
    """The database's own zone, as a name that times can be converted by, and as the database names it.

    The first is None where that does not say which zone it is: an abbreviation such as CST is used in
    several, and knows no summer time.
    """
    named = dialect_of(connection).server_zone(connection) or ""
    if named.upper() in {"UTC", "GMT", "ETC/UTC", "UCT", "ZULU"}:
        return "UTC", named
    if "/" not in named and ":" not in named:
        return None, named
    try:
        zone_of(named)
    except ValueError:
        return None, named
    return named, named


def resolve(field: str, column: TimeColumn, connection: sa.Connection) -> TimeColumn | Finding:
    """The column with a zone that times can be converted by; a finding where there is none."""
    if column.encoding is not TimeEncoding.NAIVE_TIMESTAMP:
        return column
    if column.time_zone != SERVER:
        try:
            zone_of(column.time_zone)
        except ValueError as error:
            return Finding(
                Severity.ERROR, f"columns.{field}.timeZone", str(error), "name one, e.g. Europe/Berlin, or UTC"
            )
        return column
    name, named = server_zone(connection)
    if name is None:
        return Finding(
            Severity.ERROR,
            f"columns.{field}.timeZone",
            f"the database names its own zone only as {named!r}, which does not say when clocks change",
            "map the columns and name the zone, e.g. Europe/Berlin",
        )
    return column.model_copy(update={"time_zone": name})


def implausible(table: MappedTable, connection: sa.Connection) -> Iterator[Finding]:
    """Times without a zone that cannot be in the one the mapping says: sessions used in the future.

    A single session from the future is a finding about that session. But where the latest sessions all are, by no more
    than zones may differ, then nothing that the column says about expiry can be trusted.
    """
    now = dialect_of(connection).now(connection) or datetime.now(UTC)
    for field, time in (("createdAt", table.created_at), ("lastAccessedAt", table.last_accessed_at)):
        if time is None or not _lacks_zone(table, time):
            continue
        latest = _latest(table, time, now + _MOST_AHEAD, connection)
        if len(latest) >= _FEWEST and min(latest) > now + _LEAST_AHEAD:
            ahead = round((max(latest) - now) / timedelta(hours=1), 1)
            yield Finding(
                Severity.ERROR,
                f"columns.{field}.timeZone",
                f"taken as {time.zone}, the latest times in {time.mapping.name!r} lie up to {ahead} h in the future",
                "say which zone they are in (encoding NaiveTimestamp and timeZone)",
            )


def _lacks_zone(table: MappedTable, time: TimeExpression) -> bool:
    return time.mapping.encoding in CLOCK_TIMES and table.dialect.has_zone(table.types[time.mapping.name]) is not True


def _latest(table: MappedTable, time: TimeExpression, until: datetime, connection: sa.Connection) -> list[datetime]:
    query = (
        sa.select(time.value)
        .select_from(table.clause)
        .where(time.before(until))
        .order_by(time.ordered.desc())
        .limit(_SAMPLE)
    )
    decoded = (time.decode(value) for value in connection.scalars(query))
    return [moment for moment in decoded if moment is not None]
