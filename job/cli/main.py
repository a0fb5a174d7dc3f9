"""The command ``session-policy``: its group and the command ``init``; each other command is a module of its own."""

from __future__ import annotations

import click

from job.cli import crd, demo, doctor, plan, report, revoke, run, sessions
from job.cli.options import database_url, policy_file, read_policy
from policy.exit_codes import EXIT_BAD_CONFIGURATION
from policy.manifest import InvalidPolicyError
from policy.names import DATABASE_URL_ENV
from stores.model.errors import ConfigurationError, RunError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="session-policy-operator")
def main() -> None:
    """Deletes expired and abnormal web sessions, as a SessionPolicy says."""


@main.command()
@policy_file
@database_url
@click.pass_context
def init(context: click.Context, path: str | None, database_url: str | None) -> None:
    """Creates the tables for statistics, history and settings, and the default session table.

    Tables that exist already are left as they are.
    """
    import sqlalchemy as sa

    from policy.presets import PRESETS, resolve_table
    from policy.stores import Preset
    from stores.sql.connection.connect import create_engine, parse_url, translate
    from stores.sql.schema.tables import create_tables

    try:
        if not database_url:
            raise ConfigurationError(f"no database URL: set {DATABASE_URL_ENV} or give --database-url")
        store = read_policy(path).spec.stores.database if path else None
        if path and store is None:
            raise ConfigurationError("the policy has no stores.database: there is nothing to create")
        table = resolve_table(store) if store else PRESETS[Preset.DEFAULT]
        engine = create_engine(parse_url(database_url), create_file=True)
        try:
            with engine.begin() as connection:
                created = create_tables(connection, table)
        except sa.exc.SQLAlchemyError as error:
            raise translate(error) from error
        finally:
            engine.dispose()
    except (InvalidPolicyError, RunError) as error:
        click.echo(f"error: {error}", err=True)
        context.exit(error.exit_code if isinstance(error, RunError) else EXIT_BAD_CONFIGURATION)
    click.echo(f"created {', '.join(created)}" if created else "nothing to create: all tables exist")


main.add_command(run.run)
main.add_command(crd.crd)
main.add_command(demo.demo)
main.add_command(sessions.sessions)
main.add_command(revoke.revoke)
main.add_command(report.report)
main.add_command(plan.plan)
main.add_command(doctor.doctor)


if __name__ == "__main__":
    main()
