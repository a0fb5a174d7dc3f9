"""``session-policy sessions``: lists, shows, counts and revokes sessions (R3.6).

Ids are shortened unless asked for: a session id is a credential, and terminals are seen, scrolled back and copied.
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
from policy.exit_codes import EXIT_FAILED
from stores.model.errors import ConfigurationError

if TYPE_CHECKING:
    from job.revocation.lookup import FoundSession
    from job.revocation.open_stores import OpenStores
    from job.revocation.revoker import RevocationResult
    from policy.manifest import SessionPolicy

F = TypeVar("F", bound=Callable[..., Any])

_ID_CHARACTERS = 8
_MAX_ACCESSES = 10

_full = click.option("--full", is_flag=True, help="Show ids unshortened.")


def _stores(command: F) -> F:
    return policy_file(database_url(redis_url(command)))


@click.group()
def sessions() -> None:
    """Lists, shows, counts and revokes sessions in all stores of a policy."""


@sessions.command("list")
@_stores
@click.option("--user", help="Only sessions of this user.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most sessions to list.")
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
    """Lists sessions, all or those of a user."""
    with _open(path, database_url, redis_url) as stores:
        _require_users(stores, user)
        found = stores.lookup.first(limit + 1) if user is None else stores.lookup.of_user(user)
    shown = found[:limit]
    if output == "json":
        more = len(found) > limit
        _print_json({"sessions": [_document(entry, full) for entry in shown], "more": more})
        return
    _print_entries(shown, full)
    if len(found) > limit:
        click.echo(f"There are more than {limit} sessions; use --limit or --user to see others.", err=True)


@sessions.command()
@click.argument("session_id", metavar="ID")
@_stores
@_full
@output
@prints_errors
def show(
    session_id: str, path: str | None, database_url: str | None, redis_url: str | None, full: bool, output: str
) -> None:
    """Shows a session and, if there is an access log, its last accesses."""
    with _open(path, database_url, redis_url) as stores:
        entry = stores.lookup.by_id(session_id)
        accesses = _accesses(stores, session_id) if entry else []
    if entry is None:
        click.echo("error: no store has a session with this id", err=True)
        sys.exit(EXIT_FAILED)
    if output == "json":
        _print_json({**_document(entry, full), "accesses": accesses})
        return
    for name, value in _document(entry, full).items():
        click.echo(f"{name:<16} {_plain(value)}")
    for access in accesses:
        click.echo("access           " + "  ".join(str(value) for value in access.values() if value))


@sessions.command()
@_stores
@click.option("--user", help="Only sessions of this user.")
@output
@prints_errors
def count(path: str | None, database_url: str | None, redis_url: str | None, user: str | None, output: str) -> None:
    """Counts live and expired sessions, and users with a live one."""
    with _open(path, database_url, redis_url) as stores:
        _require_users(stores, user)
        if user is None:
            totals = stores.lookup.count_active()
            counts: dict[str, int | None] = {
                "active": totals.active,
                "expired": totals.expired,
                "users": totals.users,
            }
        else:
            found = stores.lookup.of_user(user)
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
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
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
    """Deletes a session, or all sessions of a user, from all stores. Takes the same lock as runs."""
    if (session_id is None) == (user is None):
        raise ConfigurationError("pass either --session or --user")
    policy = read_policy(path)
    with _open(policy, database_url, redis_url) as stores:
        _require_users(stores, user)
        found = _wanted(stores, session_id, user)
    if not found:
        _print_revoked([], [], full, output)
        return
    if not yes:
        _confirm(found, full, output)
    # Not locked during the confirmation, because runs would be skipped: so the sessions are looked up again.
    with _open(policy, database_url, redis_url, exclusive=True) as stores:
        if user is not None:
            result = stores.revoker.revoke_user(user)
        else:
            result = stores.revoker.revoke([entry.session for entry in _wanted(stores, session_id, None)])
    _record(policy, result, log_directory)
    _print_revoked([s.key for s in result.sessions], [s.key for s in result.left], full, output)
    if result.left:
        click.echo(
            "error: the rows of these sessions are locked by another transaction; try again in a moment", err=True
        )
        sys.exit(EXIT_FAILED)


def _open(
    policy: SessionPolicy | str | None, database_url: str | None, redis_url: str | None, *, exclusive: bool = False
) -> Any:
    from job.logs.run_logs import open_logs
    from job.revocation.open_stores import open_stores

    read = read_policy(policy) if policy is None or isinstance(policy, str) else policy
    log = open_logs(sys.stderr, logging.ERROR, for_people=True).log
    return open_stores(read, database_url, redis_url, log, exclusive=exclusive)


def _require_users(stores: OpenStores, user: str | None) -> None:
    if user is not None and not stores.lookup.knows_users:
        raise ConfigurationError("--user needs stores.database.table.columns.userId, which is not mapped")


def _wanted(stores: OpenStores, session_id: str | None, user: str | None) -> list[FoundSession]:
    if user is not None:
        return stores.lookup.of_user(user)
    assert session_id is not None
    entry = stores.lookup.by_id(session_id)
    return [entry] if entry else []


def _confirm(found: Sequence[FoundSession], full: bool, output: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("standard input is not a terminal; pass --yes to skip the confirmation")
    if output == "table":
        _print_entries(found, full)
    if not click.confirm(f"Revoke {_sessions(len(found))}?", err=True):
        click.echo("Nothing was revoked.", err=True)
        sys.exit(EXIT_FAILED)


def _record(policy: SessionPolicy, result: RevocationResult, log_directory: str | None) -> None:
    """Writes the deleted sessions to the cleanup log, with hashed ids like every deletion (R2)."""
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


def _accesses(stores: OpenStores, session_id: str) -> list[dict[str, Any]]:
    from stores.redis.content.access_log import AccessLogs

    if stores.redis is None:
        return []
    logs = AccessLogs(stores.redis.server, stores.redis.names)
    if not logs.exist:
        return []
    found = [access for _, log in logs.read([session_id], _MAX_ACCESSES) for access in log.accesses]
    return [
        {
            "at": _time(access.at),
            "address": access.address,
            "client": access.client,
            "place": f"{access.place.latitude:.2f}, {access.place.longitude:.2f}" if access.place else None,
        }
        for access in found[:_MAX_ACCESSES]
    ]


def shortened(session_id: str, full: bool) -> str:
    """The first characters of an id, at most half of it, unless ``full``. They cannot be used to log in."""
    if full:
        return session_id
    shown = min(_ID_CHARACTERS, len(session_id) // 2)
    return session_id[:shown] + "…"


def _document(entry: FoundSession, full: bool) -> dict[str, Any]:
    session = entry.session
    found_in = [name for name, there in (("database", entry.in_database), ("redis", entry.in_redis)) if there]
    return {
        "id": shortened(session.key, full),
        "user": None if session.user_id is None else str(session.user_id),
        "createdAt": _time(session.created_at),
        "lastAccessedAt": _time(session.last_accessed_at),
        "state": "live" if entry.live else "expired",
        "stores": found_in,
    }


def _print_entries(entries: Sequence[FoundSession], full: bool) -> None:
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
    # An id may hold anything an application or an attacker put there: no control characters reach the terminal.
    return "-" if value is None else "".join(c if c.isprintable() else "?" for c in str(value))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))
