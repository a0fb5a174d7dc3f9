"""``session-policy init``: creates the product's tables, or upgrades them to the version that this release needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from job.cli.options import database_url, policy_file, prints_errors, read_policy, require_database_url
from stores.model.errors import ConfigurationError

if TYPE_CHECKING:
    from policy.mapping import SessionTable
    from stores.sql.schema.upgrade import Upgrade


@click.command()
@policy_file
@database_url
@prints_errors
def init(path: str | None, database_url: str | None) -> None:
    """Creates or upgrades the product's tables: statistics, history, settings, alerts, shared runs.

    Also creates the default session table, unless the policy maps a table of your own. A session table that exists is
    left as it is. Run it again after every update of the job image.
    """
    import sqlalchemy as sa

    from stores.sql.connection.connect import create_engine, parse_url, translate
    from stores.sql.schema.upgrade import upgrade_tables

    table = _session_table(path)
    engine = create_engine(parse_url(require_database_url(database_url)), create_file=True)
    try:
        done = upgrade_tables(engine, table)
    except sa.exc.SQLAlchemyError as error:
        raise translate(error) from error
    finally:
        engine.dispose()
    for line in _lines(done):
        click.echo(line)


def _session_table(path: str | None) -> SessionTable:
    from policy.presets import DatabasePreset

    if path is None:
        return DatabasePreset.DEFAULT.table
    store = read_policy(path).spec.stores.database
    if store is None:
        raise ConfigurationError("the policy has no stores.database: there is nothing to create")
    return store.session_table


def _lines(done: Upgrade) -> list[str]:
    lines = []
    if done.created:
        lines.append(f"created {', '.join(done.created)}")
    if done.altered:
        lines.append(f"upgraded product tables from {_version(done.before)} to {done.after}")
    elif done.before is None and "session_policy_version" not in done.created:
        lines.append(f"recorded version {done.after} of the product tables, which had none")
    return lines or [f"up to date (version {done.after})"]


def _version(version: str | None) -> str:
    return f"version {version}" if version else "an unrecorded version"
