"""``session-policy sessions``: look sessions up, count and revoke them (R3.6).

Ids are shown, because somebody at a terminal asks for them; shortened, because a session id is as good as a password
and terminals are looked at, scrolled back and copied.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from job.cli.options import database_url, log_directory, output, policy_file, prints_errors, read_policy, redis_url
from stores.model.errors import ConfigurationError

if TYPE_CHECKING:
    from job.revocation.directory import Entry, Revoked
    from job.revocation.stores import OpenStores
    from policy.manifest import SessionPolicy

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 8
_NOT_FOUND = 1
_MOST_ACCESSES = 10

_full = click.option("--full", is_flag=True, help="Show ids at their full length.")


def _stores(command: F) -> F:
    return policy_file(database_url(redis_url(command)))


@click.group()
def sessions() -> None:
    """Lists, shows, counts and revokes sessions in all stores of a policy."""


@sessions.command("list")
@_stores
@click.option("--user", help="Only this user's.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@_full
@output
@prints_errors
def list_sessions(
    path: str | None,
    database_url: str | None,
    redis_url: str | None,
    user: str | None,
    limit: int,
    full: bool,
    output: str,
) -> None:
    """Lists the sessions of a user, or the first of all."""
    with _open(path, database_url, redis_url) as place:
        _require_users(place, user)
        found = place.directory.all(limit + 1) if user is None else place.directory.of_user(user)
    shown = found[:limit]
    if output == "json":
        more = len(found) > limit
        _print_json({"sessions": [_document(entry, full) for entry in shown], "more": more})
        return
    _print_entries(shown, full)
    if len(found) > limit:
        click.echo(f"There are more than these {limit}; see --limit and --user.", err=True)


@sessions.command()
@click.argument("session_id", metavar="ID")
@_stores
@_full
@output
@prints_errors
def show(
    session_id: str, path: str | None, database_url: str | None, redis_url: str | None, full: bool, output: str
) -> None:
    """Shows one session, and its last accesses where there is an access log."""
    with _open(path, database_url, redis_url) as place:
        entry = place.directory.one(session_id)
        accesses = _accesses(place, session_id) if entry else []
    if entry is None:
        click.echo("error: there is no session with this id in any store", err=True)
        sys.exit(_NOT_FOUND)
    if output == "json":
        _print_json({**_document(entry, full), "accesses": accesses})
        return
    for name, value in _document(entry, full).items():
        click.echo(f"{name:<16} {_plain(value)}")
    for access in accesses:
        click.echo("access           " + "  ".join(str(value) for value in access.values() if value))


@sessions.command()
@_stores
@click.option("--user", help="Only this user's.")
@output
@prints_errors
def count(path: str | None, database_url: str | None, redis_url: str | None, user: str | None, output: str) -> None:
    """Counts active sessions and users."""
    with _open(path, database_url, redis_url) as place:
        _require_users(place, user)
        if user is None:
            totals = place.directory.count()
            counts: dict[str, int | None] = {
                "active": totals.active,
                "expired": totals.expired,
                "users": totals.users,
            }
        else:
            found = place.directory.of_user(user)
            live = sum(entry.live for entry in found)
            counts = {"active": live, "expired": len(found) - live}
    if output == "json":
        _print_json(counts)
        return
    for name, number in counts.items():
        click.echo(f"{name:<8} {'not known' if number is None else f'{number:,}'}")


@sessions.command()
@_stores
@click.option("--session", "session_id", metavar="ID", help="This session.")
@click.option("--user", help="All sessions of this user.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@log_directory
@_full
@output
@prints_errors
def revoke(
    path: str | None,
    database_url: str | None,
    redis_url: str | None,
    session_id: str | None,
    user: str | None,
    yes: bool,
    log_directory: str | None,
    full: bool,
    output: str,
) -> None:
    """Deletes a session, or all sessions of a user, from all stores. Takes the lock that runs take."""
    if (session_id is None) == (user is None):
        raise ConfigurationError("name either --session or --user")
    policy = read_policy(path)
    with _open(policy, database_url, redis_url) as place:
        _require_users(place, user)
        found = _wanted(place, session_id, user)
    if not found:
        _print_revoked([], [], full, output)
        return
    if not yes:
        _confirm(found, full, output)
    # The lock is not held while somebody thinks: runs would be skipped meanwhile. So they are looked up again.
    with _open(policy, database_url, redis_url, exclusive=True) as place:
        if user is not None:
            result = place.directory.revoke_user(user)
        else:
            result = place.directory.revoke([entry.session for entry in _wanted(place, session_id, None)])
    _record(policy, result, log_directory)
    _print_revoked([s.key for s in result.sessions], [s.key for s in result.left], full, output)
    if result.left:
        click.echo("error: an application holds on to these rows; try again in a moment", err=True)
        sys.exit(1)


def _open(
    policy: SessionPolicy | str | None, database_url: str | None, redis_url: str | None, *, exclusive: bool = False
) -> Any:
    from job.logs.run_logs import configure
    from job.revocation.stores import open_stores

    read = read_policy(policy) if policy is None or isinstance(policy, str) else policy
    log = configure(sys.stderr, logging.ERROR, for_people=True)
    return open_stores(read, database_url, redis_url, log, exclusive=exclusive)


def _require_users(place: OpenStores, user: str | None) -> None:
    if user is not None and not place.directory.knows_users:
        raise ConfigurationError("--user needs stores.database.table.columns.userId: no column is mapped to it")


def _wanted(place: OpenStores, session_id: str | None, user: str | None) -> list[Entry]:
    if user is not None:
        return place.directory.of_user(user)
    assert session_id is not None
    entry = place.directory.one(session_id)
    return [entry] if entry else []


def _confirm(found: Sequence[Entry], full: bool, output: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is there to confirm: give --yes")
    if output == "table":
        _print_entries(found, full)
    if not click.confirm(f"Revoke {_sessions(len(found))}?", err=True):
        click.echo("Nothing was revoked.", err=True)
        sys.exit(1)


def _record(policy: SessionPolicy, result: Revoked, log_directory: str | None) -> None:
    """R2: accesses are recorded. By hashes, like every deletion."""
    if not log_directory or not result.sessions:
        return
    from job.logs.id_hasher import IdHasher
    from job.logs.log_files import LogFiles
    from job.logs.run_logs import open_logs

    logs = open_logs(sys.stderr, logging.WARNING, for_people=True)
    metadata = policy.metadata
    files = LogFiles(
        Path(log_directory),
        f"{metadata.namespace}/{metadata.name}",
        lambda why: click.echo(f"warning: {why}", err=True),
    )
    logs.sink.files = files
    logs.sessions(IdHasher.from_environment(os.environ, logs.log)).deleted(result.sessions, "Revoked")
    files.close()


def _accesses(place: OpenStores, session_id: str) -> list[dict[str, Any]]:
    from stores.redis.content.access_log import AccessLogs

    if place.redis is None:
        return []
    logs = AccessLogs(place.redis.server, place.redis.names)
    if not logs.exist:
        return []
    found = [access for _, log in logs.read([session_id], _MOST_ACCESSES) for access in log.accesses]
    return [
        {
            "at": _time(access.at),
            "address": access.address,
            "client": access.client,
            "place": f"{access.place.latitude:.2f}, {access.place.longitude:.2f}" if access.place else None,
        }
        for access in found[:_MOST_ACCESSES]
    ]


def shortened(session_id: str, full: bool) -> str:
    """The beginning of an id, unless all of it is wanted. Nobody can use half of an id, or less."""
    if full:
        return session_id
    shown = min(_SHOWN, len(session_id) // 2)
    return session_id[:shown] + "…"


def _document(entry: Entry, full: bool) -> dict[str, Any]:
    session = entry.session
    stores = [name for name, there in (("database", entry.in_database), ("redis", entry.in_redis)) if there]
    return {
        "id": shortened(session.key, full),
        "user": None if session.user_id is None else str(session.user_id),
        "createdAt": _time(session.created_at),
        "lastAccessedAt": _time(session.last_accessed_at),
        "state": "live" if entry.live else "expired",
        "stores": stores,
    }


def _print_entries(entries: Sequence[Entry], full: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not entries:
        click.echo("no sessions")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("id", "user", "began", "last used", "state", "stores"):
        table.add_column(name, overflow="fold" if name in {"id", "user"} else "ellipsis")
    for entry in entries:
        table.add_row(*(escape(_plain(value)) for value in _document(entry, full).values()))
    Console().print(table)


def _print_revoked(gone: Sequence[str], left: Sequence[str], full: bool, output: str) -> None:
    if output == "json":
        _print_json({"revoked": [shortened(i, full) for i in gone], "left": [shortened(i, full) for i in left]})
        return
    click.echo(f"revoked {_sessions(len(gone))}" if gone else "no sessions to revoke")
    if left:
        click.echo(f"not revoked: {', '.join(shortened(i, full) for i in left)}")


def _sessions(number: int) -> str:
    return "1 session" if number == 1 else f"{number} sessions"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    # An id may hold anything an application, or its attacker, has put there: nothing that moves the cursor.
    return "-" if value is None else "".join(c if c.isprintable() else "?" for c in str(value))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))
